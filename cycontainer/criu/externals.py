"""What of a container comes from outside, and so is not criu's to save: mounts, namespaces, descriptors.

A checkpoint names each thing, a restore says what has that name now. Names of mounts are their destinations in the
configuration; those of descriptors are criu's keys: file[MOUNT:INODE], tty[RDEV:DEV], pipe:[INODE]. It reads /proc.
Source: criu.org, "External files", "Inheriting FDs on restore", "External bind mounts".
"""

from __future__ import annotations

import os
import stat

from cycontainer._fd import open_inside
from cycontainer.errors import ConfigError
from cycontainer.mount_options import fold_options
from cycontainer.record import Record
from cycontainer.rootfs import DEFAULT_DEVICES
from cycontainer.tables import CAPABILITIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.config import Config, Mount, Namespace, Process, Seccomp

NULL: Final = "/dev/null"
CGROUP_KINDS: Final = ("cgroup", "cgroup2")
EXTERNAL_NAMESPACES: Final = {"network": ("net", "extRootNetNS"), "pid": ("pid", "extRootPidNS")}
JOINED: Final = ("time", "ipc", "uts")  # what criu can join when it restores


class Mounted(Record):
    """A line of mountinfo.

    Attributes:
        number: the mount's.
        point: where it is, from the root of whose mountinfo it is.
        kind: the file system's type.
    """

    number: int
    point: str
    kind: str


def _unescape(text: str) -> str:
    first, *rest = text.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


def mounts_of(pid: int) -> dict[int, Mounted]:
    """A process's mounts by their numbers. Raises OSError."""
    found = {}
    with open(f"/proc/{pid}/mountinfo", errors="surrogateescape") as file:
        for line in file:
            words = line.split(" ")
            kind = words[words.index("-") + 1]
            found[int(words[0])] = Mounted(number=int(words[0]), point=_unescape(words[4]), kind=kind)
    return found


def _mount_number(fd: int | str) -> int:
    """The number of the mount that an open descriptor is in. Raises OSError."""
    with open(f"/proc/self/fdinfo/{fd}" if isinstance(fd, int) else fd) as file:
        for line in file:
            if line.startswith("mnt_id:"):
                return int(line[7:])
    raise OSError("fdinfo has no mnt_id")


class View:
    """A running container's mounts, as its first process sees them. Closes its descriptor."""

    def __init__(self, pid: int) -> None:
        self.mounts = mounts_of(pid)
        self._root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)

    def at(self, path: str) -> tuple[Mounted | None, os.stat_result | None]:
        """The mount that `path` leads into, links followed inside the container, and what is there."""
        try:
            fd = open_inside(self._root, os.fsencode(path), True)
        except OSError:
            return None, None  # gone, or hidden by the container's own doing: criu will say what it cannot save
        try:
            return self.mounts.get(_mount_number(fd)), os.fstat(fd)
        finally:
            os.close(fd)


# --- mounts


def bound_devices(config: Config) -> dict[str, str]:
    """The devices that are bound because no node can be made: where they are, inside and outside."""
    if not any(namespace.type == "user" for namespace in config.linux.namespaces):
        return {}
    paths = [*(f"/dev/{name}" for name, _, _ in DEFAULT_DEVICES), *(device.path for device in config.linux.devices)]
    return {path: path for path in paths}


def _is_null(status: os.stat_result | None) -> bool:
    return status is not None and stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)


def external_mounts(config: Config, view: View, *, managed: bool) -> tuple[dict[str, str], tuple[str, ...]]:
    """The mounts of a running container that come from outside: criu's words, {where: name}, and the names.

    Args:
        managed: criu saves the cgroups.
    """
    found: dict[str, str] = {}
    for mount in config.mounts:
        if fold_options(mount).bind:
            there, _ = view.at(mount.destination)
            if there is not None and there.point != "/":
                name = mount.destination.rstrip("/")
                found[there.point] = name
                found.update({point: name + point[len(there.point) :] for point in _below(there.point, config, view)})
    for path in bound_devices(config):
        there, _ = view.at(path)
        if there is not None and there.point not in ("/", "/dev"):
            found.setdefault(there.point, path)
    found.update({point: point for point in _hierarchies(config, view, managed=managed)})
    for path in config.linux.masked_paths:
        there, status = view.at(path)
        if there is not None and _is_null(status) and there.point not in ("/", "/dev"):
            found.setdefault(there.point, NULL)
    return found, tuple(sorted(set(found.values())))


def _hierarchies(config: Config, view: View, *, managed: bool) -> list[str]:
    """Where cgroup hierarchies are bound that criu cannot mount: on its own it mounts them from their top.

    That is the container's cgroup where it has a cgroup namespace that is its user namespace's: one that criu makes.
    """
    kinds = {namespace.type for namespace in config.linux.namespaces}
    if "cgroup" in kinds and (managed or "user" not in kinds):
        return []
    own = {mount.destination.rstrip("/") for mount in config.mounts}  # v2 without v1 is no bind
    return [each.point for each in view.mounts.values() if each.kind in CGROUP_KINDS and each.point not in own]


def _below(point: str, config: Config, view: View) -> list[str]:
    """Where a recursive bind brought something along."""
    own = {mount.destination.rstrip("/") for mount in config.mounts}
    covered = {*own, *config.linux.masked_paths, *config.linux.readonly_paths}
    points = [each.point for each in view.mounts.values()]
    return [each for each in points if each.startswith(f"{point}/") and each not in covered]


def traits_of(config: Config) -> dict[str, tuple[str, ...]]:
    """What two configurations of one container have alike, by where it stands in one.

    Not the namespace of time, which criu adds by itself; nor whether one is joined that criu can make, or join, anew.
    """
    linux = config.linux
    maps = {"linux.uidMappings": linux.uid_map, "linux.gidMappings": linux.gid_map}
    return {
        "mounts": tuple(_mount_trait(mount) for mount in config.mounts),
        "linux.namespaces": tuple(_trait(each) for each in linux.namespaces if each.type != "time"),
        **{
            path: tuple(f"map of {line.size} ids from {line.container} to {line.host}" for line in lines)
            for path, lines in maps.items()
        },
        "root.readonly": ("read-only root",) if config.root.readonly else (),
        "linux.maskedPaths": tuple(f"masked {path}" for path in linux.masked_paths),
        "linux.readonlyPaths": tuple(f"read-only {path}" for path in linux.readonly_paths),
        "linux.seccomp": _filters(linux.seccomp),
        **(_process_traits(config.process) if config.process is not None else {}),
    }


def _mount_trait(mount: Mount) -> str:
    kind = "bind mount" if fold_options(mount).bind else f"mount of the type {mount.type}"
    return f"{kind} at {mount.destination.rstrip('/')}"


def _filters(seccomp: Seccomp | None) -> tuple[str, ...]:
    if seccomp is None:
        return ()
    return (f"seccomp filter of {len(seccomp.syscalls)} rules and the default {seccomp.default_action}",)


def _process_traits(process: Process) -> dict[str, tuple[str, ...]]:
    """Its confinement is the image's: what is asked for else would not be had."""
    sets = {kind: getattr(process.capabilities, kind) for kind in type(process.capabilities).fields}
    return {
        "process.terminal": ("terminal",) if process.terminal else (),
        "process.user": (f"program of the user {process.user.uid} and the group {process.user.gid}",),
        "process.noNewPrivileges": ("ban on new privileges",) if process.no_new_privileges else (),
        "process.capabilities": tuple(
            f"{kind} {name}"
            for kind, mask in sets.items()
            for number, name in enumerate(CAPABILITIES)
            if mask >> number & 1
        ),
    }


def _trait(namespace: Namespace) -> str:
    how = "" if namespace.type not in EXTERNAL_NAMESPACES else "new " if namespace.path is None else "joined "
    return f"{how}namespace of the kind {namespace.type}"


def check_same(config: Config, saved: dict[str, tuple[str, ...]]) -> None:
    """Refuse a configuration that is another container's than that with the traits `saved`. Raises ConfigError."""
    for path, here in traits_of(config).items():
        for trait in sorted({*saved.get(path, here)} ^ {*here}):  # of what it does not say nothing is known
            one, other = ("configuration", "checkpoint") if trait in here else ("checkpoint", "configuration")
            raise ConfigError(path, f"the {one} has a {trait}, and the {other} has none")


def mount_sources(config: Config, names: tuple[str, ...] | None, cgroups: dict[str, str]) -> dict[str, str]:
    """Where each external mount comes from now: {name: path on the host}.

    Args:
        names: those of the image; None when it does not say, and the configuration has to be believed.
        cgroups: cgroup directories by where a mount of the configuration shows them.

    Raises:
        ConfigError: the configuration has nothing for a name of the image.
    """
    binds = {mount.destination.rstrip("/"): mount.source for mount in config.mounts if fold_options(mount).bind}
    known = {**cgroups, **bound_devices(config), **binds, NULL: NULL}
    if names is None:
        return {name: os.path.realpath(source) for name, source in known.items()}
    return {name: _source(name, known) for name in names}


def _source(name: str, known: dict[str, str]) -> str:
    """What a name stands for: a mount of the configuration, or a mount of the host's below one. Raises ConfigError.

    Of a link, criu would bind the link. One below a volume may be a container's doing: it leads nowhere else.
    """
    above, below = name, ""
    while above and above not in known:
        above, slash, last = above.rpartition("/")
        below = f"{slash}{last}{below}"
    if not above:
        raise ConfigError("mounts", f"the checkpoint has something of the host at {name}: what is it here?")
    top = os.path.realpath(known[above])
    path = os.path.realpath(top + below)
    if below and not (path == top + below and os.path.ismount(path)):
        raise ConfigError("mounts", f"the checkpoint has a mount of the host at {name}, and {top + below} is none here")
    return path


def refuse_mapped_mounts(config: Config) -> None:
    """criu binds what is outside as it is: the ids of an idmapped mount would be others. Raises ConfigError."""
    for mount in config.mounts:
        if mount.uid_map or mount.gid_map or fold_options(mount).idmap:
            raise ConfigError(mount.where, "a container with an idmapped mount can be neither saved nor restored")


# --- namespaces


def has_new(kind: str, config: Config) -> bool:
    """Whether its namespace of that kind, "network" or "cgroup", was made for it."""
    return any(each.type == kind and each.path is None for each in config.linux.namespaces)


def has_new_network(config: Config) -> bool:
    return has_new("network", config)


def external_namespaces(config: Config) -> dict[str, str]:
    """The joined namespaces that criu has to be told of: {key: path}.

    Raises:
        ConfigError: one that no restore could join again, or a path that is none.
    """
    found = {}
    for place, namespace in enumerate(config.linux.namespaces):
        if namespace.path is None or namespace.type in JOINED:
            continue
        where = f"linux.namespaces[{place}].path"
        if namespace.type not in EXTERNAL_NAMESPACES:
            raise ConfigError(where, f"criu cannot restore into a {namespace.type} namespace that exists")
        found[EXTERNAL_NAMESPACES[namespace.type][1]] = namespace.path
    return found


def namespace_words(pid: int, config: Config) -> list[str]:
    """What a checkpoint says of them. Raises OSError, ConfigError."""
    words = []
    kinds = {key: kind for kind, key in EXTERNAL_NAMESPACES.values()}
    for key in external_namespaces(config):
        number = os.stat(f"/proc/{pid}/ns/{kinds[key]}").st_ino
        words.append(f"{kinds[key]}[{number}]:{key}")
    return words


def joined_namespaces(config: Config) -> list[dict[str, str]]:
    """What a restore says of those that it is to join."""
    return [
        {"ns": namespace.type, "ns_file": namespace.path}
        for namespace in config.linux.namespaces
        if namespace.path is not None and namespace.type in JOINED
    ]


# --- descriptors


def standard_files(pid: int, mounts: dict[int, Mounted]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """criu's keys of a first process's 0, 1 and 2 that are of the host ("" for its own), and where all three lead.

    Raises OSError.
    """
    keys, links = [], []
    for number in range(3):
        path = f"/proc/{pid}/fd/{number}"
        try:
            link = os.readlink(path)
        except FileNotFoundError:  # the program has closed it
            keys.append("")
            links.append("")
            continue
        keys.append(_key(path, f"/proc/{pid}/fdinfo/{number}", link, mounts))
        links.append(link)
    return tuple(keys), tuple(links)


def _key(path: str, info: str, link: str, mounts: dict[int, Mounted]) -> str:
    if link.startswith("pipe:"):
        return link
    mount = _mount_number(info)
    if mount in mounts or not link.startswith("/"):
        return ""
    status = os.stat(path)
    if stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) in (4, 5, *range(136, 144)):
        return f"tty[{status.st_rdev:x}:{status.st_dev:x}]"
    return f"file[{mount:x}:{status.st_ino:x}]"
