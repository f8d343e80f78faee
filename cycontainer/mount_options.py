"""What the options of a mount come to, as tables. Compile; pure.

Sources: runtime-spec config.md "Mounts"; mount_setattr(2); mount(8).
"""

from __future__ import annotations

from cycontainer.errors import ConfigError
from cycontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.config import Mount

AT_RECURSIVE: Final = 0x8000
OPEN_TREE_CLONE: Final = 1
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 0x1, 0x2, 0x4, 0x8
ATTR_ATIME, ATTR_NOATIME, ATTR_STRICTATIME = 0x70, 0x10, 0x20
ATTR_NODIRATIME, ATTR_NOSYMFOLLOW = 0x80, 0x200000
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20

ONE_MOUNT: Final = {  # name: attributes set, attributes cleared
    "ro": (ATTR_RDONLY, 0),
    "rw": (0, ATTR_RDONLY),
    "nosuid": (ATTR_NOSUID, 0),
    "suid": (0, ATTR_NOSUID),
    "nodev": (ATTR_NODEV, 0),
    "dev": (0, ATTR_NODEV),
    "noexec": (ATTR_NOEXEC, 0),
    "exec": (0, ATTR_NOEXEC),
    "nosymfollow": (ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, ATTR_NOSYMFOLLOW),
    "nodiratime": (ATTR_NODIRATIME, 0),
    "diratime": (0, ATTR_NODIRATIME),
    "relatime": (0, ATTR_ATIME),  # the atime modes are one field, cleared whole
    "norelatime": (ATTR_STRICTATIME, ATTR_ATIME),
    "noatime": (ATTR_NOATIME, ATTR_ATIME),
    "atime": (0, ATTR_ATIME),
    "strictatime": (ATTR_STRICTATIME, ATTR_ATIME),
    "nostrictatime": (0, ATTR_ATIME),
}
OPTIONS: Final = {  # name: attributes set, attributes cleared, flags of mount_setattr(2)
    **{name: (*change, 0) for name, change in ONE_MOUNT.items()},
    **{f"r{name}": (*change, AT_RECURSIVE) for name, change in ONE_MOUNT.items() if name != "relatime"},
    "rrelatime": (0, ATTR_ATIME, AT_RECURSIVE),
}
PROPAGATION: Final = {  # name: propagation, flags of mount_setattr(2)
    "private": (MS_PRIVATE, 0),
    "slave": (MS_SLAVE, 0),
    "shared": (MS_SHARED, 0),
    "unbindable": (MS_UNBINDABLE, 0),
    "rprivate": (MS_PRIVATE, AT_RECURSIVE),
    "rslave": (MS_SLAVE, AT_RECURSIVE),
    "rshared": (MS_SHARED, AT_RECURSIVE),
    "runbindable": (MS_UNBINDABLE, AT_RECURSIVE),
}
# Flags of a file system as a whole: a bind leaves it as it is, as mount(2) does with MS_BIND.
_OF_FILE_SYSTEM: Final = {"sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"}
# MS_I_VERSION has no name in fsconfig(2); file systems that count versions do so always.
_FOR_MOUNT_8: Final = {
    "iversion",
    "noiversion",
    "defaults",
    "silent",
    "loud",
    "auto",
    "noauto",
    "nofail",
    "user",
    "nouser",
    "_netdev",
}
# What engines have done, or not, when they pass it on with a bind: podman-run(1), docker-run(1), "--volume", "--mount".
# Not "O": a bind in place of the overlay would write to what was to be kept.
_OF_ENGINES: Final = {"copy", "nocopy", "z", "Z", "U", "cached", "delegated", "consistent"}
_OF_VOLUMES: Final = "volume-opt="  # podman before 5.7 passes these on, too
_OURS: Final = {"bind", "rbind", "tmpcopyup", "idmap", "ridmap"}
KNOWN_OPTIONS: Final = frozenset((*OPTIONS, *PROPAGATION, *_OF_FILE_SYSTEM, *_FOR_MOUNT_8, *_OURS))


class Options(Record):
    """A mount's options, folded.

    Attributes:
        changes: {flags of mount_setattr: (attributes set, attributes cleared)}.
        propagation: (propagation, flags), each to be applied, in order.
        data: the file system's own, (key, value); a flag's value is None.
    """

    changes: dict[int, tuple[int, int]]
    propagation: tuple[tuple[int, int], ...]
    data: tuple[tuple[str, str | None], ...]
    bind: bool
    recursive: bool
    copy_up: bool
    idmap: str  # "", "idmap" or "ridmap"


_folded: dict[tuple[str, tuple[str, ...]], Options] = {}  # each mount is asked for three times in a compilation
MOST_FOLDED: Final = 256


def fold_options(mount: Mount) -> Options:
    """What a mount's options come to."""
    key = mount.type, mount.options
    found = _folded.get(key)
    if found is None:
        if len(_folded) >= MOST_FOLDED:
            _folded.clear()
        found = _folded[key] = _fold(mount)
    return found


def _fold(mount: Mount) -> Options:
    """The same, anew.

    The later of two options wins, as with mount(8). An option that the table lacks belongs to
    the file system (runtime-spec config.md, "Mounts") and goes to fsconfig(2) as it is.
    """
    changes: dict[int, tuple[int, int]] = {}
    propagation: list[tuple[int, int]] = []
    data: list[tuple[str, str | None]] = []
    bind = mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options
    for option in mount.options:
        if option in OPTIONS:
            add, drop, flags = OPTIONS[option]
            old_set, old_cleared = changes.get(flags, (0, 0))
            changes[flags] = (old_set & ~drop | add, old_cleared & ~add | drop)
        elif option in PROPAGATION:
            propagation.append(PROPAGATION[option])
        elif option in _FOR_MOUNT_8 or option in _OURS or option.startswith("x-"):
            continue
        elif not (bind and _says_nothing(option)):
            key, equals, value = option.partition("=")
            data.append((key, value if equals else None))
    return Options(
        changes=changes,
        propagation=tuple(propagation),
        data=tuple(data),
        bind=bind,
        recursive="rbind" in mount.options,
        copy_up="tmpcopyup" in mount.options,
        idmap=next((option for option in reversed(mount.options) if option in ("idmap", "ridmap")), ""),
    )


def _says_nothing(option: str) -> bool:
    """Whether a bind is the same without it."""
    return option in _OF_FILE_SYSTEM or option in _OF_ENGINES or option.startswith(_OF_VOLUMES)


def _is_root(path: str) -> bool:
    """Whether a path is another way to write "/"."""
    depth = 0
    for part in path.split("/"):
        if part == "..":
            depth = max(depth - 1, 0)
        elif part not in ("", "."):
            depth += 1
    return depth == 0


def check_mount(mount: Mount, options: Options) -> None:
    """Refuse what could only fail, or be ignored, once the container is half made."""
    if "remount" in mount.options:
        raise ConfigError(
            f"{mount.where}.options", "remount: a container's mounts are made anew, there is nothing to remount"
        )
    if _is_root(mount.destination):
        raise ConfigError(
            f"{mount.where}.destination", "is the root, which root.path gives; a mount there is never seen"
        )
    if options.bind and options.data:
        raise ConfigError(f"{mount.where}.options", f"{options.data[0][0]} is not an option of a bind mount")
    if options.bind and not mount.source:
        raise ConfigError(f"{mount.where}.source", "a bind mount needs a source")
    if not options.bind and not mount.type:
        raise ConfigError(f"{mount.where}.type", "a mount needs a type, or bind among its options")
    if options.copy_up and mount.type != "tmpfs":
        raise ConfigError(
            f"{mount.where}.options", f"tmpcopyup goes with tmpfs, not with {mount.type or 'a bind mount'}"
        )
