"""What a container takes of the host's file trees: its root, binds, cgroups. And the launch pad. Compile; pure.

A new mount namespace is a copy of its maker's: of all the host's mounts, which then have to be detached, and the kernel
waits until nobody can be using them (137 us with 20 mounts, 501 with 320). The launch pad is a mount namespace of ours
with nothing in it but an empty, read-only file system. An init that goes there first copies that, and has nothing to
detach: 65 us, whatever the host has. It keeps descriptors of what it needs of the host before it goes.

The pad is for root alone: in a user namespace a kernel shows proc and sysfs only to who sees one already.
"""

from __future__ import annotations

from cycontainer._plan import PlanWriter
from cycontainer.mount_options import (
    AT_RECURSIVE,
    ATTR_NODEV,
    ATTR_NOEXEC,
    ATTR_NOSUID,
    ATTR_RDONLY,
    MS_PRIVATE,
    MS_SLAVE,
    OPEN_TREE_CLONE,
    check_mount,
    fold_options,
)
from cycontainer.plan import Errand
from cycontainer.tables import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.cgroup_layout import Hierarchy
    from cycontainer.config import Config, Mount
    from cycontainer.host import Host
    from cycontainer.mount_options import Options
    from cycontainer.namespaces import Scope
    from cycontainer.plan import Tree

ROOT: Final = -1  # the root's place among the mounts
MOST_KEPT: Final = 64  # _steps.pxd
CAP_SYS_CHROOT: Final = 18  # setns(2) asks for it
PATHLESS: Final = frozenset(("tmpfs", "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"))  # they name no path


# --- taking


def take_root(plan: PlanWriter, config: Config, scope: Scope, tree: Tree | None) -> None:
    """The source is the root file system, cut off from the host's propagation. `tree`: where the launcher makes it."""
    if tree is not None:
        scope.take(plan, tree)
    else:
        plan.take_tree(config.root.path, OPEN_TREE_CLONE | AT_RECURSIVE)
    _cut_off(plan, "the root's mounts", slave=bool(config.linux.rootfs_propagation))


def take_bind(plan: PlanWriter, mount: Mount, options: Options, scope: Scope, tree: Tree | None) -> None:
    """The source is that of a bind mount, cut off from the host's propagation."""
    if tree is not None:
        scope.take(plan, tree)
    else:
        plan.take_tree(mount.source, OPEN_TREE_CLONE | (AT_RECURSIVE if options.recursive else 0), mount.destination)
    _cut_off(plan, mount.destination, slave=bool(options.propagation))


def _cut_off(plan: PlanWriter, what: str, *, slave: bool) -> None:
    """No mount may come back to the host. Where the configuration asks for propagation, the host's come to us."""
    how = "slaves of the host's" if slave else "private"
    plan.set_attributes(f"make {what} {how}", 0, 0, MS_SLAVE if slave else MS_PRIVATE, AT_RECURSIVE)


def take_hierarchy(plan: PlanWriter, hierarchy: Hierarchy, base: str, attributes: int, *, own: dict[str, str]) -> None:
    """The source is the container's cgroup in a hierarchy; where it has none, the caller's, never to be written."""
    name = hierarchy.mount.rpartition("/")[2]
    if hierarchy.mount in own:
        plan.take_cgroup(own[hierarchy.mount])
    else:
        attributes |= ATTR_RDONLY
        plan.take_tree(hierarchy.mount + hierarchy.own.rstrip("/"), OPEN_TREE_CLONE)
    plan.set_attributes(f"set the mount options of {base}/{name}", attributes, 0, MS_PRIVATE, 0)


def hierarchies_of(host: Host) -> tuple[Hierarchy, ...]:
    """All that a container sees below a cgroup mount, on a machine with v1 hierarchies."""
    return (*host.cgroups.v1, host.cgroups.v2) if host.cgroups.v2 else host.cgroups.v1


def hierarchy_attributes(options: Options) -> int:
    """MOUNT_ATTR_* of each hierarchy's mount."""
    return options.changes.get(0, (0, 0))[0] | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC


# --- the launch pad


def can_use_pad(config: Config, host: Host, scope: Scope) -> bool:
    """Whether an init for this configuration can go to the launch pad, and come to something there."""
    hooks = config.hooks
    seen = hooks.prestart or hooks.create_runtime or hooks.create_container  # they look at the host's mounts with us
    able = scope.privileged and host.initial_user_namespace and host.capabilities >> CAP_SYS_CHROOT & 1
    own = all(fold_options(mount).bind or mount.type in PATHLESS for mount in config.mounts)
    kept = 1 + sum(1 + _is_v1(mount, host) * len(hierarchies_of(host)) for mount in config.mounts)
    alone = "mount" in scope.new and not scope.user and not scope.joined
    return bool(able and own and alone and not seen) and kept < MOST_KEPT


def _is_v1(mount: Mount, host: Host) -> bool:
    return mount.type == "cgroup" and bool(host.cgroups.v1)


def keep_sources(
    plan: PlanWriter,
    config: Config,
    host: Host,
    scope: Scope,
    *,
    own: dict[str, str],
    trees: dict[int, Tree],
    without: frozenset[str] = frozenset(),
) -> None:
    """Take all that is the host's, and keep it for the file tree that is made on the launch pad.

    Args:
        own, trees: as in `rootfs.add_mounts`.
        without: hierarchies that are not taken.
    """
    take_root(plan, config, scope, trees.get(ROOT))
    keep(plan, scope, ROOT, "the root")
    for index, mount in enumerate(config.mounts):
        if index not in trees:
            keep_bind(plan, mount, index, scope)
        if not _is_v1(mount, host):
            continue
        for hierarchy in hierarchies_of(host):
            if hierarchy.mount not in without:
                attributes = hierarchy_attributes(fold_options(mount))
                take_hierarchy(plan, hierarchy, mount.destination, attributes, own=own)
                keep(plan, scope, (index, hierarchy.mount), f"the cgroup below {hierarchy.mount}")
    if config.linux.masked_paths:
        plan.keep_null()


def keep(plan: PlanWriter, scope: Scope, key: object, what: str) -> None:
    """Keep the source under `key`."""
    scope.kept[key] = len(scope.kept)
    plan.keep(what, scope.kept[key])


def keep_bind(plan: PlanWriter, mount: Mount, index: int, scope: Scope) -> None:
    """Keep what a bind mount takes of the host; nothing of another mount."""
    options = fold_options(mount)
    if options.bind:
        check_mount(mount, options)
        take_bind(plan, mount, options, scope, None)
        keep(plan, scope, index, mount.source)


def pad_errand() -> Errand:
    """What makes the launch pad; the launcher opens it when the last step asks."""
    plan = PlanWriter()
    plan.unshare("mount", NAMESPACES["mount"][0])
    plan.set_propagation("keep mounts from going back to the host", MS_SLAVE, AT_RECURSIVE)
    plan.open_file_system("tmpfs", "an empty root")
    plan.set_file_system("nr_inodes", "1", "an empty root")
    plan.mount_file_system("tmpfs", ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC, "an empty root")
    plan.enter_root()
    plan.pivot()
    plan.synchronise("let the launcher open the launch pad")
    return Errand(data=plan.finish(), attempts=tuple(plan.attempts), namespaces=())
