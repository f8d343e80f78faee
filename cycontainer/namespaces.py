"""Which namespaces a container has, and the order in which the init joins and makes them, as steps. Compile; pure.

The order: what is joined comes before what is new, so that a joined user namespace owns that, and so that a new one has
not yet taken the capabilities with which to join. Sources: namespaces(7), user_namespaces(7), time_namespaces(7).
"""

from __future__ import annotations

from cycontainer import identity
from cycontainer.errors import ConfigError
from cycontainer.plan import IdMaps
from cycontainer.record import Record
from cycontainer.tables import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer._plan import PlanWriter
    from cycontainer.config import Config, IdMap, Namespace
    from cycontainer.host import Host
    from cycontainer.plan import Errand, Tree

CAP_SETGID, CAP_SETUID = 6, 7
CLONED_WITH: Final = ("user", "pid", "network", "ipc", "uts")  # by clone3; the others the init makes itself


class Scope(Record):
    """What several parts of the order have to know of the namespaces."""

    new: dict[str, int]  # type: CLONE_NEW*
    joined: dict[str, Namespace]
    order: tuple[Namespace, ...]  # the joined ones, in the order of their slots
    first_slot: int  # of these
    privileged: bool
    syncs: dict[int, str]  # filled as steps are added: Plan.syncs
    trees: dict[int, Tree]  # the same: Plan.trees
    errands: list[Errand]  # the same: Plan.errands
    pad_slot: int | None = None  # where the launch pad is, when it is used
    kept: dict[object, int] = {}  # noqa: RUF012  # what was kept for later, by what it is: its place

    @property
    def user(self) -> bool:
        return "user" in self.new or "user" in self.joined

    @property
    def user_later(self) -> bool:
        """Whether the new user namespace is made after joining others, which it has no capability to join."""
        return self.privileged and "user" in self.new and bool(self.joined)

    @property
    def two_processes(self) -> bool:
        """A joined pid, user or time namespace, a new time one, or a later user one takes a second clone."""
        return bool({"pid", "user", "time"} & self.joined.keys()) or "time" in self.new or self.user_later

    @property
    def clone_flags(self) -> int:
        """CLONE_NEW* of the first process."""
        if not self.two_processes:
            return sum(self.new.get(kind, 0) for kind in CLONED_WITH)
        return 0 if self.user_later else self.new.get("user", 0)

    def slot(self, kind: str) -> int:
        return self.first_slot + [namespace.type for namespace in self.order].index(kind)

    def synchronise(self, plan: PlanWriter, duty: str, attempt: str) -> None:
        """A step that waits for the launcher to do its `duty`."""
        self.syncs[len(plan.attempts)] = duty
        plan.synchronise(attempt)

    def take(self, plan: PlanWriter, tree: Tree) -> None:
        """A step whose source is a mount that the launcher makes."""
        self.syncs[len(plan.attempts)] = "mount"
        self.trees[len(plan.attempts)] = tree
        mapped = ", its ids mapped" if tree.idmap else ""
        plan.take_answer(f"take the file tree {tree.path}{mapped} from the launcher")

    def take_made(self, plan: PlanWriter, errand: Errand, what: str) -> None:
        """A step whose source is a mount that comes of an errand."""
        self.errands.append(errand)
        plan.take_slot(what, self.first_slot + len(self.order) + len(self.errands) - 1)


def scope_of(config: Config, host: Host, *, first_slot: int) -> Scope:
    new, joined = {}, {}
    for namespace in config.linux.namespaces:
        if namespace.path is None:
            new[namespace.type] = NAMESPACES[namespace.type][0]
        else:
            joined[namespace.type] = namespace
    privileged = host.privileged and (host.initial_user_namespace or host.uid == 0)
    # a user namespace is joined first by who needs its capabilities, last by who has better ones
    order = sorted(joined.values(), key=lambda namespace: (namespace.type == "user") == privileged)
    return Scope(
        new=new,
        joined=joined,
        order=tuple(order),
        first_slot=first_slot,
        privileged=privileged,
        syncs={},
        trees={},
        errands=[],
        kept={},
    )


# --- steps


def add_namespaces(plan: PlanWriter, config: Config, host: Host, scope: Scope) -> IdMaps | None:
    """Join what has a path, make what is new, and be root in it. No one may look into us once we are there.

    /proc/PID/uid_map of a process that is not dumpable belongs to the machine's root: for others that comes after.
    """
    maps = None
    at_once = scope.privileged and host.initial_user_namespace
    if at_once:
        _hide(plan)
    if scope.user_later:
        _add_joined(plan, config, host, scope)
        plan.unshare("user", scope.new["user"])
    if "user" in scope.new:
        maps = id_maps(config, host, scope)
        scope.synchronise(plan, "maps", "write the id maps of the user namespace")
    if not at_once:
        _hide(plan)
    if maps:
        become_root(plan, maps.uid_map, maps.gid_map)
    if not scope.user_later:
        _add_joined(plan, config, host, scope)
    _add_new(plan, config, scope)
    return maps


def _hide(plan: PlanWriter) -> None:
    plan.prctl("let no one look into the init", identity.PR_SET_DUMPABLE, 0)


def become_root(plan: PlanWriter, uids: tuple[IdMap, ...], gids: tuple[IdMap, ...]) -> None:
    """Take an id that the namespace knows: files made by an unknown one are EOVERFLOW. Without maps it is 0."""
    plan.prctl("keep capabilities over the change of ids", identity.PR_SET_KEEPCAPS, 1)
    which = " (linux.{}Mappings may say what the joined user namespace has)"
    plan.set_gid(min((line.container for line in gids), default=0), "" if gids else which.format("gid"))
    plan.set_uid(min((line.container for line in uids), default=0), "" if uids else which.format("uid"))


def _add_joined(plan: PlanWriter, config: Config, host: Host, scope: Scope) -> None:
    for namespace in scope.order:
        if namespace.type == "user" and scope.privileged and host.may_set_groups:
            plan.set_groups(b"")  # in there it may be denied
        plan.join(scope.slot(namespace.type), namespace.type, NAMESPACES[namespace.type][0])
        if namespace.type == "user":
            become_root(plan, config.linux.uid_map, config.linux.gid_map)


def _add_new(plan: PlanWriter, config: Config, scope: Scope) -> None:
    if "time" in scope.new:
        plan.unshare("time", scope.new["time"])
        if config.linux.time_offsets:
            lines = "".join(f"{clock} {seconds} {nanos}\n" for clock, seconds, nanos in config.linux.time_offsets)
            plan.write_proc("set the clocks' offsets", "self/timens_offsets", lines)
    inside = [kind for kind in CLONED_WITH if kind in scope.new and kind != "user"]
    if scope.two_processes and "pid" not in scope.joined:
        plan.clone(", ".join(inside) or "the joined", sum(scope.new[kind] for kind in inside))
    elif scope.two_processes and inside:
        plan.unshare(", ".join(inside), sum(scope.new[kind] for kind in inside))
    plan.set_session()


def add_views(plan: PlanWriter, scope: Scope) -> None:
    """The new namespaces that show the machine otherwise: of mounts, copied from the launch pad or not, and cgroups."""
    if scope.pad_slot is not None:
        plan.join(scope.pad_slot, "launch pad's mount", scope.new["mount"])
    own = [kind for kind in ("mount", "cgroup") if kind in scope.new]
    if own:
        plan.unshare(" and ".join(own), sum(scope.new[kind] for kind in own))


# --- ids


def id_maps(config: Config, host: Host, scope: Scope) -> IdMaps:
    """How the maps get written; user_namespaces(7), "Defining user and group ID mappings"."""
    linux = config.linux
    alone = all(
        len(lines) == 1 and lines[0].size == 1 and lines[0].host == own
        for lines, own in ((linux.uid_map, host.uid), (linux.gid_map, host.gid))
    )
    able = scope.privileged and can_map(host)
    by_helper = not able and not alone
    if by_helper and host.id_mappers is None:
        raise ConfigError(
            "linux.uidMappings", "more than the caller's own id needs newuidmap and newgidmap (package uidmap)"
        )
    return IdMaps(
        uid_map=linux.uid_map,
        gid_map=linux.gid_map,
        by_helper=by_helper,
        deny_setgroups=not able and not by_helper,
    )


def can_map(host: Host) -> bool:
    """Whether the caller may map any ids."""
    return bool(host.capabilities >> CAP_SETUID & 1 and host.capabilities >> CAP_SETGID & 1)


def keeps_groups(config: Config, host: Host, scope: Scope) -> bool:
    """Whether the groups stay as they are, in a user namespace that denies setgroups(2), or may."""
    asked = bool(config.process and config.process.user.additional_gids)
    if host.may_set_groups and (scope.privileged or not scope.user):
        return "user" in scope.joined and not asked  # there are none: see _add_joined
    if not host.may_set_groups:
        denied = True
    elif "user" in scope.new or config.linux.gid_map:  # also of one that has been made by them, for exec
        denied = id_maps(config, host, scope).deny_setgroups
    else:  # made by this user: with what it has
        denied = not (host.id_mappers and host.subgids)
    if denied and asked:
        raise ConfigError(
            "process.user.additionalGids", "cannot be had: setgroups is denied in an ordinary user's namespace"
        )
    return denied
