"""Config + Host -> Plan: every step of the init, in its order. Compile; pure, no side effect, no look at the machine.

The order is the design: cgroups before anything is used; user namespace before what it is to own; the file tree while
the host's paths still lead somewhere; ids and capabilities when nothing needs them any more; seccomp last, or, without
no_new_privs, while loading it is still allowed.
"""

from __future__ import annotations

from cycontainer import confinement, identity, rootfs
from cycontainer._plan import PlanWriter
from cycontainer.errors import ConfigError
from cycontainer.plan import IdMaps, Plan, Tree
from cycontainer.record import Record
from cycontainer.resources import compile_resources
from cycontainer.tables import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.config import Config, IdMap, Namespace, Process
    from cycontainer.host import Host

CAP_SETGID, CAP_SETUID = 6, 7
START_SLOTS: Final = 2  # _steps.pxd
CLONED_WITH: Final = ("user", "pid", "network", "ipc", "uts")  # by clone3; the others the init makes itself


class Style(Record):
    """What a launch wants beside the configuration.

    Attributes:
        keep_init: pid 1 stays beside the program: it reaps, passes signals on, reports, and ends with the launcher.
        every_cgroup: a cgroup in every hierarchy, as engines expect it, not only where there is a limit.
        pivot: leave the host's root by pivot_root; ramdisks cannot.
        new_keyring: start a session keyring.
        root_attributes: MOUNT_ATTR_* that the whole root gets before anything is made in it.
        wait_for_start: stop before the program's execve until `start`, which has two FIFOs for it (_steps.pxd).
        console: bind the terminal to /dev/console as well.
    """

    keep_init: bool = False
    every_cgroup: bool = True
    pivot: bool = True
    new_keyring: bool = True
    root_attributes: int = 0
    wait_for_start: bool = False
    console: bool = True


class _Scope(Record):
    """What several parts of the order have to know of the namespaces."""

    new: dict[str, int]  # type: CLONE_NEW*
    joined: dict[str, Namespace]
    order: tuple[Namespace, ...]  # the joined ones, in the order of their slots
    first_slot: int  # of these
    privileged: bool
    trees: tuple[Tree, ...]
    syncs: dict[int, str]  # filled as steps are added: Plan.syncs

    @property
    def user(self) -> bool:
        return "user" in self.new or "user" in self.joined

    def slot(self, kind: str) -> int:
        return self.first_slot + [namespace.type for namespace in self.order].index(kind)

    def synchronise(self, plan: PlanWriter, duty: str, attempt: str, first_slot: int = 0, count: int = 0) -> None:
        """A step that waits for the launcher to do its `duty`."""
        self.syncs[len(plan.attempts)] = duty
        plan.synchronise(attempt, first_slot, count)

    @property
    def tree_slot(self) -> int:
        return self.first_slot + len(self.order)


def compile_plan(config: Config, host: Host, style: Style = Style()) -> Plan:  # noqa: B008  # a record is immutable
    """All that will be done to the kernel for `config`, as one plan.

    Raises:
        ConfigError: this host or this user cannot do what `config` asks, with the JSON path.
    """
    cgroup = compile_resources(
        config.linux.resources, host.cgroups, all_controllers=style.every_cgroup and _may_limit(host)
    )
    hierarchies = cgroup.hierarchies
    ours = START_SLOTS if style.wait_for_start else 0
    scope = _scope(config, host, first_slot=ours + len(hierarchies))
    _check(config, host, scope, style)
    plan = PlanWriter()
    for place, hierarchy in enumerate(hierarchies):
        plan.enter_cgroup(ours + place, hierarchy.mount)
    maps = _add_user_namespace(plan, config, host, scope)
    _add_namespaces(plan, config, scope)
    own = frozenset(hierarchy.mount for hierarchy in hierarchies)
    if _needs_launcher(config):  # before the sysctls: net.ipv4.conf.eth0.* is there when eth0 is
        scope.synchronise(plan, "runtime", "let the launcher work on the new namespaces")
    _add_system(plan, config, scope)
    if "mount" in scope.new:
        _add_file_tree(plan, config, host, scope, style, own)
    elif "mount" not in scope.joined:
        plan.take_tree(config.root.path, 0)
        plan.use_root()
        plan.change_root()
    program_step = _add_program(plan, config, host, scope, style)
    process = config.process
    flags = 0 if _two_processes(scope) else sum(scope.new.get(kind, 0) for kind in CLONED_WITH)
    if _two_processes(scope) and "user" in scope.new:
        flags = scope.new["user"]
    return Plan(
        data=plan.finish(),
        attempts=tuple(plan.attempts),
        clone_flags=flags,
        processes=2 if _two_processes(scope) else 1,
        keeps_init=style.keep_init,
        namespaces=scope.order,
        cgroup=cgroup,
        syncs=scope.syncs,
        maps=maps,
        program_step=program_step,
        args=process.args if process else (),
        env=process.env if process else (),
    )


def _needs_launcher(config: Config) -> bool:
    """Whether something is done to the new namespaces from outside, before the root is left."""
    hooks = config.hooks
    early = hooks.prestart or hooks.create_runtime or hooks.create_container
    return bool(early or config.linux.net_devices or config.linux.intel_rdt)


def _may_limit(host: Host) -> bool:
    """Whether this user may make cgroups in v1 hierarchies at all."""
    return host.uid == 0 and host.initial_user_namespace


def _scope(config: Config, host: Host, *, first_slot: int) -> _Scope:
    new, joined = {}, {}
    for namespace in config.linux.namespaces:
        if namespace.path is None:
            new[namespace.type] = NAMESPACES[namespace.type][0]
        else:
            joined[namespace.type] = namespace
    privileged = (host.privileged and host.initial_user_namespace) or (host.privileged and host.uid == 0)
    # a user namespace is joined first by who needs its capabilities, last by who has better ones
    order = sorted(joined.values(), key=lambda namespace: (namespace.type == "user") == privileged)
    trees = _trees(config) if privileged and "user" in new and "mount" in new else ()
    return _Scope(
        new=new, joined=joined, order=tuple(order), first_slot=first_slot, privileged=privileged, trees=trees, syncs={}
    )


def _two_processes(scope: _Scope) -> bool:
    """A joined pid, user or time namespace, and a new time namespace, take a second clone."""
    return bool({"pid", "user", "time"} & scope.joined.keys()) or "time" in scope.new


def _trees(config: Config) -> tuple[Tree, ...]:
    """The mounts that a privileged launcher makes for an init in a user namespace: first the root, then each bind."""
    found = [Tree(path=config.root.path, recursive=True, attempt=f"take the file tree {config.root.path}")]
    for mount in config.mounts:
        options = rootfs.fold_options(mount)
        if options.bind:
            mapped = bool(mount.uid_map or mount.gid_map or options.idmap)
            found.append(
                Tree(
                    path=mount.source,
                    recursive=options.recursive,
                    uid_map=mount.uid_map or (config.linux.uid_map if mapped else ()),
                    gid_map=mount.gid_map or (config.linux.gid_map if mapped else ()),
                    attempt=f"take the file tree {mount.source} for {mount.destination}",
                )
            )
    return tuple(found)


def _check(config: Config, host: Host, scope: _Scope, style: Style) -> None:
    """What no single property shows."""
    confinement.check_labels(config, host)
    if not scope.privileged and not scope.user:
        raise ConfigError("linux.namespaces", "without CAP_SYS_ADMIN a container needs a user namespace")
    if "user" in scope.new and not host.user_namespaces:
        raise ConfigError("linux.namespaces", "no user namespace may be made here: user.max_user_namespaces is 0")
    if style.keep_init and "pid" not in scope.new:
        raise ConfigError("linux.namespaces", "a pid 1 beside the program needs a new pid namespace")
    if "mount" in scope.new:
        if not scope.privileged:
            _refuse_idmaps(config)
        return
    linux = config.linux
    for path, value in (
        ("mounts", config.mounts),
        ("linux.devices", linux.devices),
        ("linux.maskedPaths", linux.masked_paths),
        ("linux.readonlyPaths", linux.readonly_paths),
        ("linux.rootfsPropagation", linux.rootfs_propagation),
        ("root.readonly", config.root.readonly),
    ):
        if value:
            raise ConfigError(path, "needs a new mount namespace: it would change someone else's")


def _refuse_idmaps(config: Config) -> None:
    for index, mount in enumerate(config.mounts):
        if mount.uid_map or mount.gid_map or rootfs.fold_options(mount).idmap:
            raise ConfigError(f"mounts[{index}].uidMappings", "an idmapped mount needs CAP_SYS_ADMIN")


# --- namespaces


def _add_user_namespace(plan: PlanWriter, config: Config, host: Host, scope: _Scope) -> IdMaps | None:
    """Wait for the maps of a new user namespace, and become its root. No one may look into us from here on.

    As an ordinary user, /proc/PID/uid_map of a process that is not dumpable belongs to root: so that comes after.
    """
    maps = None
    if scope.privileged:
        plan.prctl("let no one look into the init", identity.PR_SET_DUMPABLE, 0)
    if "user" in scope.new:
        maps = _id_maps(config, host, scope)
        attempt = "write the id maps of the user namespace"
        scope.synchronise(plan, "maps", attempt, scope.tree_slot, len(scope.trees))
    if not scope.privileged:
        plan.prctl("let no one look into the init", identity.PR_SET_DUMPABLE, 0)
    if maps:
        _become_root(plan, maps.uid_map, maps.gid_map)
    return maps


def _become_root(plan: PlanWriter, uids: tuple[IdMap, ...], gids: tuple[IdMap, ...]) -> None:
    """Take an id that the namespace knows: files made by an unknown one are EOVERFLOW."""
    plan.prctl("keep capabilities over the change of ids", identity.PR_SET_KEEPCAPS, 1)
    plan.set_gid(min(line.container for line in gids))
    plan.set_uid(min(line.container for line in uids))


def _id_maps(config: Config, host: Host, scope: _Scope) -> IdMaps:
    """How the maps get written; user_namespaces(7), "Defining user and group ID mappings"."""
    linux = config.linux
    alone = all(
        len(lines) == 1 and lines[0].size == 1 and lines[0].host == own
        for lines, own in ((linux.uid_map, host.uid), (linux.gid_map, host.gid))
    )
    able = scope.privileged and host.capabilities >> CAP_SETUID & 1 and host.capabilities >> CAP_SETGID & 1
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
        trees=scope.trees,
    )


def _add_namespaces(plan: PlanWriter, config: Config, scope: _Scope) -> None:
    """Join what has a path, then make what is new, so that a joined user namespace owns it."""
    for namespace in scope.order:
        plan.join(scope.slot(namespace.type), namespace.type, NAMESPACES[namespace.type][0])
        if namespace.type == "user":
            plan.prctl("keep capabilities over the change of ids", identity.PR_SET_KEEPCAPS, 1)
            plan.set_gid(0)
            plan.set_uid(0)
    if "time" in scope.new:
        plan.unshare("time", scope.new["time"])
        if config.linux.time_offsets:
            plan.open_host_proc()
            lines = "".join(f"{clock} {seconds} {nanos}\n" for clock, seconds, nanos in config.linux.time_offsets)
            plan.write_proc("set the clocks' offsets", "self/timens_offsets", lines)
    inside = [kind for kind in CLONED_WITH if kind in scope.new and kind != "user"]
    if _two_processes(scope) and "pid" not in scope.joined:
        plan.clone(", ".join(inside) or "the joined", sum(scope.new[kind] for kind in inside))
    elif _two_processes(scope) and inside:
        plan.unshare(", ".join(inside), sum(scope.new[kind] for kind in inside))
    own = [kind for kind in ("mount", "cgroup") if kind in scope.new]
    plan.set_session()
    if own:
        plan.unshare(" and ".join(own), sum(scope.new[kind] for kind in own))


# --- what the container sees


def _add_system(plan: PlanWriter, config: Config, scope: _Scope) -> None:
    linux, process = config.linux, config.process
    if config.hostname:
        plan.set_host_name(config.hostname)
    if config.domainname:
        plan.set_domain_name(config.domainname)
    if "network" in scope.new:
        plan.bring_loopback_up()
    if not confinement.needs_proc(config):
        return
    if "pid" in scope.new:
        plan.open_new_proc()
    else:
        plan.open_host_proc()
    if process and process.oom_score_adj is not None:
        adjusted = str(process.oom_score_adj)
        plan.write_proc(f"set oom_score_adj to {adjusted}", "self/oom_score_adj", adjusted)
    for key, value in linux.sysctl:
        plan.write_proc(f"set sysctl {key} to {value}", f"sys/{_sysctl_path(key)}", value)


def _sysctl_path(key: str) -> str:
    """A sysctl's file below /proc/sys: in sysctl(8)'s spelling the first separator tells which one it is."""
    slash, dot = key.find("/"), key.find(".")
    if slash < 0 or 0 <= dot < slash:
        return key.translate({ord("."): "/", ord("/"): "."})
    return key


def _add_file_tree(
    plan: PlanWriter, config: Config, host: Host, scope: _Scope, style: Style, own: frozenset[str]
) -> None:
    slots: dict[int, int] = {}
    if scope.trees:
        binds = [index for index, mount in enumerate(config.mounts) if rootfs.fold_options(mount).bind]
        slots = {index: scope.tree_slot + 1 + place for place, index in enumerate(binds)}
    rootfs.add_root(plan, config, slot=scope.tree_slot if scope.trees else None, attributes=style.root_attributes)
    rootfs.add_mounts(plan, config, host, own=own, slots=slots)
    rootfs.add_devices(plan, config, bound=scope.user or not host.initial_user_namespace)
    process = config.process
    if process and process.terminal and style.console:
        _open_terminal(plan, process)
        plan.find_target("/dev/console", rootfs.TARGET_LIKE_SOURCE)
        plan.attach("the terminal", "/dev/console")
    rootfs.add_late_readonly(plan, config)
    rootfs.add_masks(plan, config)
    rootfs.add_pivot(plan, config, pivot=style.pivot)


def _open_terminal(plan: PlanWriter, process: Process) -> None:
    rows, columns = process.console_size or (0, 0)
    plan.open_terminal(rows, columns, process.user.uid)


# --- the program


def _add_program(plan: PlanWriter, config: Config, host: Host, scope: _Scope, style: Style) -> int:
    """From here on nothing of the host is needed. Returns the number of the step that looks the program up."""
    process, linux = config.process, config.linux
    if process is None:
        raise ConfigError("process", "is missing: there is no program to execute")
    if style.new_keyring:
        plan.join_keyring()
    identity.add_limits(plan, config)
    if "mount" not in scope.joined:
        plan.change_directory(process.cwd)
    confinement.add_labels(plan, config)
    if process.terminal and not ("mount" in scope.new and style.console):
        _open_terminal(plan, process)
    plan.close_slots(style.wait_for_start)
    if linux.seccomp and not process.no_new_privileges:
        confinement.add_seccomp(plan, linux.seccomp, host.machine)
    identity.add_ids(plan, process, host, keep_groups="user" in scope.new and not _may_set_groups(config, host, scope))
    identity.add_no_new_privileges(plan, process)
    plan.set_umask(0o022 if process.user.umask is None else process.user.umask)
    if "pid" in scope.joined:
        plan.clone("the joined", 0)  # last: whoever lives there finds nothing in us but the program
        plan.set_session()
    if process.terminal:
        plan.take_terminal()
    if style.keep_init:
        plan.fork()
    plan.fresh_signals()
    program_step = len(plan.attempts)
    plan.look_up()
    if style.wait_for_start:
        scope.synchronise(plan, "created", "let the launcher keep the state")
        plan.await_start()
    if process.no_new_privileges:
        confinement.add_seccomp(plan, linux.seccomp, host.machine)
    plan.execute()
    return program_step


def _may_set_groups(config: Config, host: Host, scope: _Scope) -> bool:
    maps = _id_maps(config, host, scope)
    if maps.deny_setgroups and config.process and config.process.user.additional_gids:
        raise ConfigError("process.user.additionalGids", "an ordinary user's namespace cannot have additional groups")
    return not maps.deny_setgroups
