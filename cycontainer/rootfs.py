"""The container's file tree as steps: root, mounts, devices, links, masked and read-only paths. Compile; pure.

Sources: runtime-spec config.md "Mounts" and config-linux.md; mount_setattr(2); mount(8).
"""

from __future__ import annotations

from cycontainer._plan import PlanWriter
from cycontainer.config import Mount
from cycontainer.errors import ConfigError
from cycontainer.identity import PR_SET_DUMPABLE
from cycontainer.mount_options import (
    AT_RECURSIVE,
    ATTR_NODEV,
    ATTR_NOEXEC,
    ATTR_NOSUID,
    ATTR_RDONLY,
    MS_SLAVE,
    ONE_MOUNT,
    OPEN_TREE_CLONE,
    PROPAGATION,
    Options,
    check_mount,
    fold_options,
)
from cycontainer.plan import MOST_FILES, Errand, Workplace
from cycontainer.sources import (
    MOST_KEPT,
    ROOT,
    hierarchies_of,
    hierarchy_attributes,
    keep,
    take_bind,
    take_hierarchy,
    take_root,
)
from cycontainer.tables import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.config import Config, Device, IdMap, User
    from cycontainer.host import Host
    from cycontainer.namespaces import Scope
    from cycontainer.plan import Tree

# Files of procfs that others emulate and mount over one by one (lxcfs); everything else there is refused as a target.
PROC_FILES: Final = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev",
        "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled",
    )
)  # fmt: skip

# Whose files SELinux labels by its policy alone; a message queue's file system is there before its mount.
LABELLED_OTHERWISE: Final = frozenset(("proc", "sysfs", "cgroup2", "mqueue"))

DEFAULT_DEVICES: Final = (  # config-linux.md, "Default Devices": name, major, minor
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
DEVICE_LINKS: Final = (  # config-linux.md, "/dev symbolic links", and ptmx
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
PTMX: Final = ("/dev/ptmx", "c", 5, 2)  # every engine's privileged mode lists it among the host's devices

UNCHANGEABLE: Final = frozenset(("proc", "sysfs", "devpts"))  # no mount's target can be made there
READONLY: Final = "read-only"  # why a file system is kept: it is to become that

TARGET_LIKE_SOURCE, TARGET_DIRECTORY, TARGET_NO_LINKS, TARGET_IN_PROC = 0, 1, 2, 4  # _steps.pxd
TARGET_TAKE_MODE: Final = 8  # the same
S_IFCHR, S_IFBLK, S_IFIFO = 0o020000, 0o060000, 0o010000
FILE_TYPES: Final = {"c": S_IFCHR, "u": S_IFCHR, "b": S_IFBLK, "p": S_IFIFO}


# --- the root, and one mount


def add_root(plan: PlanWriter, config: Config, scope: Scope, trees: dict[int, Tree], *, attributes: int) -> None:
    """Take the root file system and attach it, cut off from the host's propagation."""
    if scope.pad_slot is None:  # nothing of the host is on the launch pad
        plan.set_propagation("keep mounts from going back to the host", MS_SLAVE, AT_RECURSIVE)
    if ROOT in scope.kept:
        plan.take_kept("the root", scope.kept[ROOT])
    else:
        take_root(plan, config, scope, trees.get(ROOT))
    if attributes:
        plan.set_attributes("restrict all of the root", attributes, 0, 0, AT_RECURSIVE)
    if has_early_hooks(config):
        plan.enter_root_at(config.root.path)
    else:
        plan.enter_root(config.root.path)


def has_early_hooks(config: Config) -> bool:
    """Whether there are hooks that look at the file tree before the host's is left."""
    hooks = config.hooks
    return bool(hooks.prestart or hooks.create_runtime or hooks.create_container)


def _add_attributes(plan: PlanWriter, mount: Mount, options: Options) -> None:
    """The attributes and propagation of the source, before it is attached."""
    for flags, (add, drop) in sorted(options.changes.items(), reverse=True):
        if options.bind or flags:
            plan.set_attributes(f"set the mount options of {mount.destination}", add, drop, 0, flags)
    for propagation, flags in options.propagation:
        plan.set_attributes(f"set the propagation of {mount.destination}", 0, 0, propagation, flags)


def _add_target(plan: PlanWriter, mount: Mount, rule: int) -> None:
    if mount.destination in PROC_FILES or mount.type == "proc":
        rule |= TARGET_IN_PROC
    plan.find_target(mount.destination, rule)


def _add_bind(plan: PlanWriter, mount: Mount, options: Options, scope: Scope, *, index: int, tree: Tree | None) -> None:
    if index in scope.kept:
        plan.take_kept(mount.source, scope.kept[index])
    else:
        take_bind(plan, mount, options, scope, tree)
    _add_attributes(plan, mount, options)
    _add_target(plan, mount, TARGET_LIKE_SOURCE)
    plan.attach(mount.source, mount.destination)


def _add_new_file_system(
    plan: PlanWriter, mount: Mount, options: Options, attributes: int, *, pid_slot: int | None = None, label: str = ""
) -> None:
    """Make a file system, detached. `pid_slot`: of the pid namespace that a procfs is to show."""
    target = mount.destination
    plan.open_file_system(mount.type, target)
    if pid_slot is not None:
        plan.set_file_system_namespace("pidns", pid_slot, target)
    if mount.source:
        plan.set_file_system("source", mount.source, target)
    for key, value in options.data:
        plan.set_file_system(key, value, target)
    if label and mount.type not in LABELLED_OTHERWISE:
        plan.set_file_system("context", label, target)
    plan.mount_file_system(mount.type, attributes, target)
    if label and mount.type == "mqueue":
        plan.set_label(mount.destination, label)


def _add_file_system(
    plan: PlanWriter, mount: Mount, options: Options, *, writable_first: bool = False, label: str = ""
) -> None:
    attributes = options.changes.get(0, (0, 0))[0]
    takes_mode = mount.type == "tmpfs" and not options.copy_up and "mode" not in dict(options.data)
    changed = writable_first or options.copy_up or takes_mode
    _add_new_file_system(plan, mount, options, attributes & ~ATTR_RDONLY if changed else attributes, label=label)
    _add_attributes(plan, mount, options)
    if options.copy_up:
        plan.copy_up(mount.destination)
    rule = TARGET_DIRECTORY | (TARGET_TAKE_MODE if takes_mode else 0)
    # proc and sysfs behind a link of the image would stand where their masks do not: CVE-2023-25809's neighbours
    _add_target(plan, mount, rule | (TARGET_NO_LINKS if mount.type in ("proc", "sysfs") else 0))
    if changed and attributes & ATTR_RDONLY and not writable_first:
        _make_readonly(plan, mount.destination)
    plan.attach(mount.type, mount.destination)


def _make_readonly(plan: PlanWriter, path: str) -> None:
    plan.set_attributes(f"make {path} read-only", ATTR_RDONLY, 0, 0, 0)


def _add_joined_procfs(plan: PlanWriter, mount: Mount, options: Options, host: Host, scope: Scope) -> None:
    """A procfs of the joined pid namespace, which the init itself enters last."""
    attributes = options.changes.get(0, (0, 0))[0]
    if host.procfs_of_others and not (scope.privileged and scope.user):
        _add_new_file_system(plan, mount, options, attributes, pid_slot=scope.slot("pid"))
    else:
        scope.take_made(plan, _procfs_errand(mount, options, host, scope), "a procfs of the joined pid namespace")
    _add_attributes(plan, mount, options)
    _add_target(plan, mount, TARGET_DIRECTORY | TARGET_NO_LINKS)
    plan.attach(mount.type, mount.destination)


def _procfs_errand(mount: Mount, options: Options, host: Host, scope: Scope) -> Errand:
    """Make a procfs with the capabilities, or in the place, that the init has not.

    Where the kernel asks one to be inside, others may look at the errand's process there. As the host's root it has
    left all of the host behind by then; as an ordinary user it is not theirs to look into: it cannot be dumped.
    """
    errand = PlanWriter()
    kinds = [kind for kind in ("user", "pid") if kind in scope.joined and (kind == "pid" or not scope.privileged)]
    errand.prctl("let no one look into the errand", PR_SET_DUMPABLE, 0)
    if host.procfs_of_others and scope.privileged:
        _add_new_file_system(errand, mount, options, options.changes.get(0, (0, 0))[0], pid_slot=0)
    else:
        if scope.privileged:
            _add_empty_root(errand)
        for slot, kind in enumerate(kinds):
            errand.join(slot, kind, NAMESPACES[kind][0])
            if kind == "user":
                errand.unshare("mount", NAMESPACES["mount"][0])  # one of the user's, in which it may make mounts
        errand.clone("the joined", 0)
        _add_new_file_system(errand, mount, options, options.changes.get(0, (0, 0))[0])
    errand.hand_over()
    return Errand(data=errand.finish(), attempts=tuple(errand.attempts), namespaces=tuple(kinds))


def _add_empty_root(plan: PlanWriter) -> None:
    """An empty file system is all that is left of the host, and so with every namespace but the user's."""
    kinds = ("mount", "network", "ipc", "uts", "cgroup")
    plan.unshare(", ".join(kinds), sum(NAMESPACES[kind][0] for kind in kinds))
    plan.set_session()
    plan.set_propagation("keep mounts from going back to the host", MS_SLAVE, AT_RECURSIVE)
    plan.open_file_system("tmpfs", "an empty root")
    plan.mount_file_system("tmpfs", ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC, "an empty root")
    plan.enter_root()
    plan.pivot()


# --- cgroup mounts


def _add_cgroup_v1(
    plan: PlanWriter, mount: Mount, host: Host, scope: Scope, *, index: int, own: dict[str, str], label: str,
    without: frozenset[str],
) -> None:  # fmt: skip
    """A tmpfs with a directory for each hierarchy: bound, as each new mount would walk all cgroups of the machine.

    Those `without` stay empty directories, and all of it is shared, so that nobody may write to it.
    """
    base, options = mount.destination, fold_options(mount)
    attributes = hierarchy_attributes(options)
    tmpfs = Mount(destination=base, type="tmpfs", source="tmpfs", options=("nosuid", "nodev", "noexec", "mode=755"))
    _add_file_system(plan, tmpfs, fold_options(tmpfs), writable_first=True, label=label)
    plan.hold(base)
    for hierarchy in hierarchies_of(host):
        name = hierarchy.mount.rpartition("/")[2]
        if (index, hierarchy.mount) in scope.kept:
            plan.take_kept(f"the cgroup below {hierarchy.mount}", scope.kept[index, hierarchy.mount])
        elif hierarchy.mount not in without:
            take_hierarchy(plan, hierarchy, base, attributes, own=own)
        plan.find_target(f"{base}/{name}", TARGET_DIRECTORY)
        if hierarchy.mount not in without:
            plan.attach(f"the {name} cgroup", f"{base}/{name}")
        for controller in hierarchy.controllers if hierarchy is not host.cgroups.v2 else ():
            if controller != name and "=" not in controller:
                plan.make_link(base, controller, name)
    if attributes & ATTR_RDONLY or without:
        plan.take_inside(base)
        _make_readonly(plan, base)


# --- devices


def _add_device(plan: PlanWriter, device: Device, *, bound: bool) -> None:
    parent, _, name = device.path.rpartition("/")
    if bound:
        plan.take_tree(device.path, OPEN_TREE_CLONE)
        plan.set_attributes(f"keep mode and times of the host's {device.path}", ATTR_RDONLY, 0, 0, 0)
        plan.find_target(device.path, TARGET_LIKE_SOURCE)
        plan.attach(f"the host's {device.path}", device.path)
        return
    mode, number = FILE_TYPES[device.type] | device.mode, _device_number(device)
    plan.make_node(parent or "/", name, mode, 0 if device.type == "p" else number, device.uid, device.gid)


def _device_number(device: Device) -> int:
    return device.minor & 0xFF | (device.major & 0xFFF) << 8 | (device.minor & ~0xFF) << 12


def has_own_devices(config: Config) -> bool:
    """Whether its /dev is not bound from elsewhere."""
    return not any(mount.destination.rstrip("/") == "/dev" and fold_options(mount).bind for mount in config.mounts)


def add_devices(plan: PlanWriter, config: Config, *, bound: bool) -> None:
    """Default devices, those of the config, and the links beside them. `bound`: no node can be made here.

    A /dev that the config binds from elsewhere is left as it is. A terminal multiplexer that is asked for is the
    container's, never the host's: config-linux.md, "Default Devices".
    """
    from cycontainer.config import Device

    asked = {device.path: device for device in config.linux.devices}
    if has_own_devices(config):
        for name, major, minor in DEFAULT_DEVICES:
            default = Device(type="c", path=f"/dev/{name}", major=major, minor=minor)
            _add_device(plan, asked.pop(default.path, default), bound=bound)
        for name, text in DEVICE_LINKS:
            plan.make_link("/dev", name, text)
    for device in asked.values():
        if (device.path, device.type, device.major, device.minor) == PTMX:
            plan.make_link("/dev", "ptmx", "pts/ptmx", _device_number(device))
        else:
            _add_device(plan, device, bound=bound)


# --- all of it


def with_bound_sysfs(config: Config, scope: Scope) -> Config:
    """The host's /sys for a new sysfs that no user namespace may make: the network namespace is not its own.

    The launcher binds /sys alone; an init in a user namespace cannot take it from what is mounted below.
    """
    owned = "network" in scope.new or {"user", "network"} <= scope.joined.keys()
    if not scope.user or owned:
        return config
    mounts = [_bound_sysfs(mount, scope) if mount.type == "sysfs" else mount for mount in config.mounts]
    return config.replace(mounts=tuple(mounts))


def _bound_sysfs(mount: Mount, scope: Scope) -> Mount:
    kind = "bind" if scope.privileged else "rbind"
    below = [f"r{option}" for option in mount.options if option in ONE_MOUNT]
    return mount.replace(type="bind", source="/sys", options=(kind, *mount.options, *below))


def add_mounts(
    plan: PlanWriter,
    config: Config,
    host: Host,
    scope: Scope,
    *,
    own: dict[str, str],
    trees: dict[int, Tree],
    without: frozenset[str] = frozenset(),
) -> None:
    """The mounts in their order.

    Args:
        own: the v1 hierarchies in which the container has a cgroup of its own, and what its path there is below.
        trees: what the launcher makes, by the mount's index.
        without: hierarchies that a cgroup mount has an empty directory for.
    """
    for index in range(len(config.mounts)):
        add_mount(plan, config, host, scope, index=index, own=own, trees=trees, without=without)


def add_mount(
    plan: PlanWriter,
    config: Config,
    host: Host,
    scope: Scope,
    *,
    index: int,
    own: dict[str, str],
    trees: dict[int, Tree],
    without: frozenset[str] = frozenset(),
) -> None:
    """One of the mounts; see `add_mounts`."""
    mount, label = config.mounts[index], config.linux.mount_label
    options = fold_options(mount)
    check_mount(mount, options)
    if options.bind:
        _add_bind(plan, mount, options, scope, index=index, tree=trees.get(index))
    elif mount.type == "proc" and "pid" in scope.joined:
        _add_joined_procfs(plan, mount, options, host, scope)
    elif mount.type == "cgroup" and host.cgroups.v1:
        _add_cgroup_v1(plan, mount, host, scope, index=index, own=own, label=label, without=without)
    elif mount.type in ("cgroup", "cgroup2"):
        _add_file_system(plan, mount.replace(type="cgroup2", source="cgroup"), options)
    else:
        late = _is_readonly_late(mount, options, config.mounts[index + 1 :]) and len(scope.kept) < MOST_KEPT
        _add_file_system(plan, mount, options, writable_first=late, label=label)
        if late:
            keep(plan, scope, (READONLY, index), mount.destination)
        if any(other.destination.rpartition("/")[0] == mount.destination for other in config.mounts[index + 1 :]):
            plan.hold(mount.destination)


def _is_readonly_late(mount: Mount, options: Options, later: tuple[Mount, ...]) -> bool:
    """Whether it becomes read-only when all are mounted: others go below it, and need targets there.

    In the container's own, with room, they may do so by a link; but no link of an image writes to a file system that is
    kept, as an overlay's is.
    """
    if not options.changes.get(0, (0, 0))[0] & ATTR_RDONLY or mount.type in UNCHANGEABLE:
        return False
    nested = any(other.destination.startswith(f"{mount.destination}/") for other in later)
    return (nested or mount.type == "tmpfs") and ("nr_inodes", "1") not in options.data


def workplace(config: Config, scope: Scope, size: int) -> Workplace | None:
    """The working directory as a file system of its own, when it is to be one. Raises ConfigError."""
    process = config.process
    if not size or process is None:
        return None
    if "mount" not in scope.new:
        raise ConfigError("linux.namespaces", "files need a new mount namespace")
    if not process.cwd.strip("/"):
        raise ConfigError("cwd", "is the root: files need a directory of their own")
    uid = host_id(process.user.uid, config.linux.uid_map if scope.user else ())
    gid = host_id(process.user.gid, config.linux.gid_map if scope.user else ())
    return Workplace(path=process.cwd, size=size, uid=uid, gid=gid)


def host_id(number: int, maps: tuple[IdMap, ...]) -> int:
    """An id of a user namespace as its parent sees it; without maps it is the same."""
    for line in maps:
        if line.container <= number < line.container + line.size:
            return line.host + number - line.container
    return number


def add_workplace(plan: PlanWriter, work: Workplace | None, user: User, scope: Scope) -> None:
    """Mount it. Who may not make it outside of the user namespace gets it from the init, to fill it."""
    if work is None:
        return
    if scope.privileged:
        scope.syncs[len(plan.attempts)] = "work"
        plan.take_answer("take the working directory from the launcher")
    else:
        plan.open_file_system("tmpfs", work.path)
        own = f"size={work.size} nr_inodes={MOST_FILES} mode=700 uid={user.uid} gid={user.gid}"
        for key, _, value in [option.partition("=") for option in own.split()]:
            plan.set_file_system(key, value, work.path)
        plan.mount_file_system("tmpfs", ATTR_NOSUID | ATTR_NODEV, work.path)
        plan.hand_over()
        scope.synchronise(plan, "work", "let the launcher fill the working directory")
    plan.find_target(work.path, TARGET_DIRECTORY)
    plan.attach("the working directory", work.path)


def add_late_readonly(plan: PlanWriter, config: Config, scope: Scope) -> None:
    """The file systems that had to be writable for what goes below them, read-only at last.

    By their descriptors: at their paths may lie others by now.
    """
    for index, mount in enumerate(config.mounts):
        if (READONLY, index) in scope.kept:
            plan.take_kept(mount.destination, scope.kept[READONLY, index])
            _make_readonly(plan, mount.destination)


def add_masks(plan: PlanWriter, config: Config) -> None:
    """Masked and read-only paths. Source: config-linux.md, "Masked Paths", "Readonly Paths"."""
    for path in config.linux.readonly_paths:
        plan.make_readonly(path)
    for path in config.linux.masked_paths:
        plan.mask(path)


def add_pivot(plan: PlanWriter, config: Config, *, pivot: bool) -> None:
    """Leave the host's tree behind."""
    if pivot:
        plan.pivot()
    else:
        plan.change_root()
    if config.linux.rootfs_propagation:
        propagation, flags = PROPAGATION[config.linux.rootfs_propagation]
        plan.set_root_attributes("set the root's propagation", 0, 0, propagation, flags)
    if config.root.readonly:
        plan.set_root_attributes("make the root read-only", ATTR_RDONLY, 0, 0, 0)
