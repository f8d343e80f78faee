"""The file tree of a template, in two halves: what its containers share, made once, and what each has of its own.

A new mount namespace that is a copy of a prepared one has all its mounts for a microsecond each. But copies have the
same file systems: what one container wrote, another would read. So only what none can write is in the template: the
root, which is the same for all of them in any case, bind mounts, which are, too, empty read-only file systems, and
/dev, made read-only. Each container gets its own proc, sysfs, terminals, shared memory, message queues, cgroups, and
every tmpfs that can be written. Compile; pure.
"""

from __future__ import annotations

from cycontainer import rootfs, sources
from cycontainer._plan import PlanWriter
from cycontainer.config import Mount
from cycontainer.mount_options import ATTR_RDONLY, fold_options
from cycontainer.namespaces import scope_of
from cycontainer.plan import Errand
from cycontainer.record import Record
from cycontainer.sources import hierarchies_of, hierarchy_attributes, take_hierarchy
from cycontainer.tables import NAMESPACES
from cycontainer.trees import launcher_trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cycontainer.config import Config
    from cycontainer.host import Host
    from cycontainer.namespaces import Scope

STAGE = ("nosuid", "nodev", "noexec", "mode=755", "nr_inodes=16", "ro")


class Halves(Record):
    """Which of a configuration's mounts are whose, by their places.

    Attributes:
        shared: in the template.
        own: of each container.
        staged: a v1 cgroup mount in the template that each container moves into a file system of its own.
    """

    shared: tuple[int, ...]
    own: tuple[int, ...]
    staged: int | None


def can_share(config: Config, host: Host) -> bool:
    """Whether a template can have a file tree that its containers copy. Else each makes its own, as `run()` does."""
    scope = scope_of(config, host, first_slot=0)
    process = config.process
    special = config.linux.rootfs_propagation or (process and process.terminal) or config.linux.net_devices
    if special or not sources.can_use_pad(config, host, scope):
        return False
    found = halves(config, host)
    nodes = [device.path for device in config.linux.devices]
    below_own = any(_below(config.mounts[index].destination, path) for index in found.own for path in nodes)
    return not below_own and not launcher_trees(config, host, scope, map_root=False)


def halves(config: Config, host: Host) -> Halves:
    shared: list[int] = []
    own: list[int] = []
    staged = None
    for index, mount in enumerate(config.mounts):
        # what lies below one of each container's own, or over it, comes after it
        touches = any(_touches(config.mounts[other].destination, mount.destination) for other in own)
        if mount.type == "cgroup" and host.cgroups.v1:
            shared.append(index)
            staged = index if touches else staged
        elif touches or not _is_shared(mount):
            own.append(index)
        else:
            shared.append(index)
    return Halves(shared=tuple(shared), own=tuple(own), staged=staged)


def _is_shared(mount: Mount) -> bool:
    options = fold_options(mount)
    read_only = options.changes.get(0, (0, 0))[0] & ATTR_RDONLY
    return options.bind or (
        mount.type == "tmpfs" and not options.copy_up and (mount.destination == "/dev" or bool(read_only))
    )


def _below(above: str, path: str) -> bool:
    return path.startswith(f"{above.rstrip('/')}/")


def _touches(one: str, other: str) -> bool:
    return one == other or _below(one, other) or _below(other, one)


# --- once


def template_errand(config: Config, host: Host, own: dict[str, str], *, attributes: int, work: bool) -> Errand:
    """What an init of its own makes of the launch pad: a mount namespace to copy, which the launcher opens in the end.

    Args:
        own: the v1 hierarchies in which each container has a cgroup of its own.
        attributes: MOUNT_ATTR_* that the whole root gets.
        work: whether each container has a file system at its working directory.
    """
    found = halves(config, host)
    mounts = [_unwritable(config.mounts[index]) for index in found.shared]
    if found.staged is not None:
        mounts.insert(found.shared.index(found.staged), _stage(config, found))
    shared = config.replace(mounts=tuple(mounts))
    scope = scope_of(config, host, first_slot=0).replace(pad_slot=0)
    plan = PlanWriter()
    sources.keep_sources(plan, shared, host, scope, own={}, trees={}, without=frozenset(own))
    plan.join(0, "launch pad's mount", NAMESPACES["mount"][0])
    plan.unshare("mount", NAMESPACES["mount"][0])
    rootfs.add_root(plan, config, scope, {}, attributes=attributes)
    rootfs.add_mounts(plan, shared, host, scope, own={}, trees={}, without=frozenset(own))
    rootfs.add_devices(plan, config, bound=False)
    _make_places(plan, config, found, work=work)
    rootfs.add_late_readonly(plan, shared, scope)
    rootfs.add_masks(plan, _masks_of(config, found, own=False))
    rootfs.add_pivot(plan, config, pivot=False)
    plan.synchronise("let the launcher open the template")
    return Errand(data=plan.finish(), attempts=tuple(plan.attempts), namespaces=())


def _unwritable(mount: Mount) -> Mount:
    """What is shared none can write; bound it is the host's, and as it was asked for."""
    return mount if fold_options(mount).bind else mount.replace(options=(*mount.options, "ro"))


def _stage(config: Config, found: Halves) -> Mount:
    """Stands where a file system of each container's own will, for the cgroups below it."""
    assert found.staged is not None
    path = config.mounts[found.staged].destination
    above = [config.mounts[index].destination for index in found.own]
    top = next(place for place in above if _below(place, path) or place == path)
    return Mount(destination=top, type="tmpfs", source="tmpfs", options=STAGE)


def _make_places(plan: PlanWriter, config: Config, found: Halves, *, work: bool) -> None:
    """The directories that the containers' own go to: their root cannot be written any more."""
    rules = {"proc": rootfs.TARGET_NO_LINKS | rootfs.TARGET_IN_PROC, "sysfs": rootfs.TARGET_NO_LINKS}
    wanted = [(mount.destination, rules.get(mount.type, 0)) for mount in (config.mounts[index] for index in found.own)]
    if work and config.process:
        wanted.append((config.process.cwd, 0))
    for place, (path, rule) in enumerate(wanted):
        if not any(_below(other, path) for other, _ in wanted[:place]):
            plan.find_target(path, rootfs.TARGET_DIRECTORY | rule)


def _masks_of(config: Config, found: Halves, *, own: bool) -> Config:
    """The paths to hide that are in one half."""
    places = [config.mounts[index].destination for index in found.own]

    def half(paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(path for path in paths if own == any(_below(place, path) for place in places))

    linux = config.linux
    linux = linux.replace(masked_paths=half(linux.masked_paths), readonly_paths=half(linux.readonly_paths))
    return config.replace(linux=linux)


# --- each time


def keep_own(plan: PlanWriter, config: Config, host: Host, scope: Scope, *, own: dict[str, str]) -> None:
    """What a container takes of the host for its own half."""
    found = halves(config, host)
    for index in found.own:
        sources.keep_bind(plan, config.mounts[index], index, scope)
    hierarchies = [each for each in hierarchies_of(host) if each.mount in own]
    for index, mount in enumerate(config.mounts):
        if mount.type == "cgroup" and host.cgroups.v1:
            attributes = hierarchy_attributes(fold_options(mount))
            for hierarchy in hierarchies:
                take_hierarchy(plan, hierarchy, mount.destination, attributes, own=own)
                sources.keep(plan, scope, (index, hierarchy.mount), f"the cgroup below {hierarchy.mount}")
    if _masks_of(config, found, own=True).linux.masked_paths:
        plan.keep_null()


def add_own(plan: PlanWriter, config: Config, host: Host, scope: Scope, *, own: dict[str, str]) -> None:
    """A container's own half, in its copy of the template."""
    found = halves(config, host)
    plan.take_tree("/", 0)
    plan.use_root()
    if found.staged is not None:
        plan.take_inside(config.mounts[found.staged].destination)
        sources.keep(plan, scope, "staged", "the cgroups")
    for index, mount in enumerate(config.mounts):
        if index in found.own:
            rootfs.add_mount(plan, config, host, scope, index=index, own=own, trees={})
        elif mount.type == "cgroup" and host.cgroups.v1:
            _add_cgroups(plan, mount, index, host, scope, staged=index == found.staged)
    own_half = _masks_of(config, found, own=True)
    rootfs.add_late_readonly(plan, config, scope)
    rootfs.add_masks(plan, own_half)


def _add_cgroups(plan: PlanWriter, mount: Mount, index: int, host: Host, scope: Scope, *, staged: bool) -> None:
    base = mount.destination
    if staged:
        plan.take_kept("the cgroups", scope.kept["staged"])
        plan.find_target(base, rootfs.TARGET_DIRECTORY)
        plan.attach("the cgroups", base)
    for hierarchy in hierarchies_of(host):
        if (index, hierarchy.mount) in scope.kept:
            name = hierarchy.mount.rpartition("/")[2]
            plan.take_kept(f"the cgroup below {hierarchy.mount}", scope.kept[index, hierarchy.mount])
            plan.find_target(f"{base}/{name}", rootfs.TARGET_DIRECTORY)
            plan.attach(f"the {name} cgroup", f"{base}/{name}")
