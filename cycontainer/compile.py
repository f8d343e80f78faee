"""Config + Host -> Plan: every step of the init, in its order. Compile; pure, no side effect, no look at the machine.

The order is the design: cgroups before anything is used; user namespace before what it is to own; the file tree while
the host's paths still lead somewhere; ids and capabilities when nothing needs them any more; seccomp last, or, without
no_new_privs, while loading it is still allowed.
"""

from __future__ import annotations

from cycontainer import confinement, identity, rootfs, sources
from cycontainer._plan import PlanWriter
from cycontainer.config import Capabilities, Resources
from cycontainer.errors import ConfigError
from cycontainer.namespaces import Scope, add_namespaces, add_views, become_root, keeps_groups, scope_of
from cycontainer.plan import Plan
from cycontainer.record import Record
from cycontainer.resources import CgroupPlan, compile_resources
from cycontainer.tables import CAPABILITIES, NAMESPACES
from cycontainer.trees import launcher_trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.config import Config, Namespace, Process
    from cycontainer.host import Host
    from cycontainer.plan import Errand, Tree
    from cycontainer.resources import HierarchyPlan

START_SLOTS: Final = 2  # _steps.pxd
SIGKILL: Final = 9
CAP_SYS_ADMIN: Final = 1 << CAPABILITIES.index("CAP_SYS_ADMIN")
NO_PROGRAM: Final = ("/",)  # the arguments of who waits for a start that never comes


class Style(Record):
    """What a launch wants beside the configuration.

    Attributes:
        keep_init: pid 1 stays beside the program: it reaps, passes signals on, reports, and ends with the launcher.
        every_cgroup: a cgroup in every hierarchy, as engines expect it, not only where there is a limit.
        pivot: leave the host's root by pivot_root; ramdisks cannot.
        new_keyring: start a session keyring.
        root_attributes: MOUNT_ATTR_* that the whole root gets before anything is made in it.
        wait_for_start: stop before the program's execve until `start`, which has two FIFOs for it (_steps.pxd).
        map_root: the user namespace maps the ids of the root's files, too.
        console: bind the terminal to /dev/console as well.
        every_cpu: use all CPUs of the cpuset, whatever the caller keeps to, as engines expect it.
        supervised: system calls that the launcher answers (`supervisor.py`).
        unit: systemd moves the process to this unit in the first step, when the launcher asks for it.
        cgroup: it gets one.
        rootless: no cgroup, if it gets none, is for want of permission; False: the caller has it; None: see who it is.
        pad: start from the launch pad, where that is possible.
        template: it starts from a copy of a template's file tree (`template_tree.py`), with its own half to make.
        ready_network: it joins a network namespace that the launcher has ready.
        warm: it waits for a program (`compile_program`) when all else is done.
        tied: the kernel ends it with the thread that launched it, where no pid 1 stays that does.
        make_cwd: make the working directory, if it is missing, as runc and crun do, and Kubernetes relies on.
        work: bytes that a file system of its own at the working directory can hold; 0 is none.
    """

    keep_init: bool = False
    every_cgroup: bool = True
    pivot: bool = True
    new_keyring: bool = True
    root_attributes: int = 0
    wait_for_start: bool = False
    console: bool = True
    pad: bool = False
    make_cwd: bool = False
    work: int = 0
    template: bool = False
    ready_network: bool = False
    warm: bool = False
    tied: bool = False
    map_root: bool = False
    every_cpu: bool = False
    supervised: tuple[str, ...] = ()
    unit: str = ""
    cgroup: bool = True
    rootless: bool | None = None


def compile_plan(config: Config, host: Host, style: Style = Style()) -> Plan:  # noqa: B008  # a record is immutable
    """All that will be done to the kernel for `config`, as one plan.

    Raises:
        ConfigError: this host or this user cannot do what `config` asks, with the JSON path.
    """
    config = with_ready_network(config) if style.ready_network else config
    cgroup = _compile_cgroup(config, host, style)
    hierarchies = () if style.unit else cgroup.v1
    ours = START_SLOTS if style.wait_for_start else 0
    scope = scope_of(config, host, first_slot=ours + len(hierarchies))
    _check(config, host, scope, style)
    config = rootfs.with_bound_sysfs(config, scope)
    if style.template or (style.pad and style.pivot and sources.can_use_pad(config, host, scope)):
        scope = scope.replace(pad_slot=scope.first_slot + len(scope.order))
    plan = PlanWriter()
    _enter_cgroups(plan, scope, style.unit, ours, hierarchies)
    if style.every_cpu:
        identity.reset_affinity(plan)
    _add_host_proc(plan, config, host, scope)
    maps = add_namespaces(plan, config, host, scope)
    own = _cgroup_prefixes(config, host, cgroup.v1)
    trees = launcher_trees(config, host, scope, map_root=style.map_root) if "mount" in scope.new else {}
    _keep_sources(plan, config, host, scope, style, own=own, trees=trees)
    add_views(plan, scope)
    if "pid" in scope.new and confinement.needs_proc(config, host):
        plan.open_new_proc()
        _adjust_oom_score(plan, config)
    if config.linux.net_devices or config.linux.intel_rdt:  # before the sysctls: net.ipv4.conf.eth0.* comes with eth0
        scope.synchronise(plan, "runtime", "let the launcher work on the new namespaces")
    _add_system(plan, config, scope)
    if "mount" in scope.new:
        _add_file_tree(plan, config, host, scope, style, own=own, trees=trees)
    if rootfs.has_early_hooks(config):
        scope.synchronise(plan, "hooks", "let the launcher run the hooks")
    if "mount" in scope.new and not style.template:
        rootfs.add_pivot(plan, config, pivot=style.pivot and scope.pad_slot is None)
    elif not {"mount"} & (scope.joined.keys() | scope.new.keys()):
        plan.take_tree(config.root.path, 0)
        plan.use_root()
        plan.change_root()
    program_step = _add_program(plan, config, host, scope, style)
    process = config.process
    return Plan(
        data=plan.finish(),
        attempts=tuple(plan.attempts),
        clone_flags=scope.clone_flags,
        processes=2 if scope.two_processes else 1,
        keeps_init=style.keep_init,
        ends_all="pid" in scope.new,
        namespaces=scope.order,
        cgroup=cgroup,
        syncs=scope.syncs,
        trees=scope.trees,
        errands=tuple(scope.errands),
        maps=maps,
        padded=scope.pad_slot is not None,
        work=rootfs.workplace(config, scope, style.work),
        program_step=program_step,
        args=process.args if process else (),
        env=process.env if process else (),
    )


def compile_exec(
    config: Config,
    host: Host,
    hierarchies: tuple[HierarchyPlan, ...],
    style: Style = Style(),  # noqa: B008
) -> Plan:
    """A process beside a running container's: in its namespaces and cgroups, confined as it is.

    Args:
        config: the container's, with the process to start as its `process`.
        hierarchies: those in which it enters the container's cgroup. The plan's first slot is a pidfd of the
            container's first process, the next ones are the hierarchies' `tasks`.

    Raises:
        ConfigError: this host or this user cannot do it.
    """
    kinds = {namespace.type: namespace for namespace in config.linux.namespaces}
    linux = config.linux.replace(sysctl=(), net_devices=())
    config = config.replace(linux=linux)
    privileged = host.privileged and host.uid == 0
    scope = Scope(new={}, joined=kinds, order=(), first_slot=0, privileged=privileged, syncs={}, trees={}, errands=[])
    confinement.check_labels(config, host)
    if "mount" in kinds and kinds["mount"].path is None:
        _check_root_is_left(config, scope, style)
    assert config.process is not None
    plan = PlanWriter()
    identity.add_affinity(plan, config.process.cpu_affinity_initial)
    _enter_cgroups(plan, scope, style.unit, 1, hierarchies)
    identity.add_affinity(plan, config.process.cpu_affinity_final)
    if config.process.cpu_affinity_initial is None and config.process.cpu_affinity_final is None:
        identity.reset_affinity(plan)
    plan.prctl("let no one look into the init", identity.PR_SET_DUMPABLE, 0)
    if confinement.needs_proc(config, host):
        plan.open_host_proc()
        _adjust_oom_score(plan, config)
    if config.linux.intel_rdt:
        scope.synchronise(plan, "runtime", "let the launcher work on the new process")
    if "user" in kinds and privileged and host.may_set_groups:
        plan.set_groups(b"")  # in there it may be denied
    plan.join(0, "container's", sum(NAMESPACES[kind][0] for kind in kinds))
    if "user" in kinds:
        become_root(plan, linux.uid_map, linux.gid_map)
    if "pid" not in kinds:  # else the second process makes one: a session is an autogroup of the scheduler's, sched(7)
        plan.set_session()
    program_step = _add_program(plan, config, host, scope, style.replace(console=False))
    return Plan(
        data=plan.finish(),
        attempts=tuple(plan.attempts),
        processes=2 if "pid" in kinds else 1,
        keeps_init=style.keep_init,
        syncs=scope.syncs,
        program_step=program_step,
        args=config.process.args,
        env=config.process.env,
    )


def compile_program(config: Config, host: Host, style: Style = Style()) -> Plan:  # noqa: B008
    """What a container that was compiled to wait goes on with.

    Raises:
        ConfigError: its filter would have to be loaded before it waits, and could refuse what the init does then.
    """
    process = config.process
    if process is None or not process.no_new_privileges:
        raise ConfigError("process.noNewPrivileges", "must be set in a container that waits for its program")
    plan = PlanWriter()
    plan.own_null()
    plan.fresh_signals()
    plan.look_up()
    confinement.add_seccomp(plan, config.linux.seccomp, host)
    plan.execute()
    return Plan(
        data=plan.finish(),
        attempts=tuple(plan.attempts),
        keeps_init=style.keep_init,
        ends_all=config.linux.makes("pid"),
        program_step=2,
        args=process.args,
        env=process.env,
    )


def _enter_cgroups(
    plan: PlanWriter, scope: Scope, unit: str, first: int, hierarchies: tuple[HierarchyPlan, ...]
) -> None:
    """By itself, on v1; or systemd does it. `first`: the slot of the first `tasks`."""
    if unit:
        scope.synchronise(plan, "unit", f"let systemd move it to {unit}")
    for place, hierarchy in enumerate(hierarchies):
        plan.enter_cgroup(first + place, hierarchy.mount)


def _cgroup_prefixes(config: Config, host: Host, hierarchies: tuple[HierarchyPlan, ...]) -> dict[str, str]:
    """What the container's cgroup path is below in each hierarchy: the mount, or the caller's own place."""
    asked = config.linux.cgroups_path
    relative = bool(asked) and not asked.startswith("/")
    own = {each.mount: each.own.rstrip("/") if relative else "" for each in host.cgroups.v1}
    return {each.mount: each.mount + own.get(each.mount, "") for each in hierarchies}


def _compile_cgroup(config: Config, host: Host, style: Style) -> CgroupPlan:
    """The cgroups that this caller can make: root, everywhere; others, where some are delegated to them."""
    first = host.uid == 0 and host.initial_user_namespace
    layout = host.cgroups
    if not style.cgroup:
        ruled = first and not style.rootless
        asked = config.linux.resources if ruled else config.linux.resources.replace(devices=())
        _refuse_limits(asked, "the container is to have no cgroup: the manager is disabled")
        return CgroupPlan()
    first = first or style.rootless is False
    delegated = layout.v2 is not None and layout.v2.delegated
    if not first and layout.mode == "v2" and not delegated:
        _refuse_limits(
            config.linux.resources.replace(devices=()),
            "no cgroup is delegated to this user; --systemd-cgroup gets one from systemd, or systemd-run --user --scope"
            " -p Delegate=yes",
        )
        return CgroupPlan()
    every = style.every_cgroup and (first or (layout.mode == "v2" and delegated))
    owner = _owner(config) if first else None
    return compile_resources(
        config.linux.resources, layout, all_controllers=every, rootless=not first, owner=owner or None
    )


def _refuse_limits(resources: Resources, reason: str) -> None:
    """Device rules are no limits of an ordinary user: its container has no devices of its own."""
    if resources != Resources():
        raise ConfigError("linux.resources", reason)


def _owner(config: Config) -> int | None:
    """Who gets the cgroup as its own: the program's user, where it may write there.

    Source: config-linux.md, "Cgroup ownership"; cgroup-v2.rst, "Delegation".
    """
    mounts = [mount for mount in config.mounts if mount.type in ("cgroup", "cgroup2")]
    new = config.linux.makes("cgroup")
    if not new or not mounts or any("ro" in mount.options for mount in mounts) or config.process is None:
        return None
    uid, maps = config.process.user.uid, config.linux.uid_map
    for line in maps:
        if line.container <= uid < line.container + line.size:
            return line.host + uid - line.container
    return None if maps else uid


def _check(config: Config, host: Host, scope: Scope, style: Style) -> None:
    """What no single property shows."""
    confinement.check_labels(config, host)
    if not scope.privileged and not scope.user:
        raise ConfigError("linux.namespaces", "without CAP_SYS_ADMIN a container needs a user namespace")
    if "user" in scope.new and not host.user_namespaces:
        raise ConfigError("linux.namespaces", "no user namespace may be made here: user.max_user_namespaces is 0")
    if style.keep_init and "pid" not in scope.new:
        raise ConfigError("linux.namespaces", "a pid 1 beside the program needs a new pid namespace")
    if "mount" in scope.new:
        _check_root_is_left(config, scope, style)
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


def _check_root_is_left(config: Config, scope: Scope, style: Style) -> None:
    """Without pivot_root(2) the host's root lies below the container's, which CAP_SYS_ADMIN can detach."""
    sets = config.process.capabilities if config.process else Capabilities()
    if scope.user and not style.pivot and any(mask & CAP_SYS_ADMIN for mask in sets):
        problem = "CAP_SYS_ADMIN could uncover the host's root, which stays there without pivot_root"
        raise ConfigError("process.capabilities", problem)


# --- what the container sees


def _add_host_proc(plan: PlanWriter, config: Config, host: Host, scope: Scope) -> None:
    """Open the host's procfs before it is left: that of someone else's tree may be anything, and of other pids."""
    needed = "pid" not in scope.new and confinement.needs_proc(config, host)
    if needed or config.linux.time_offsets:
        plan.open_host_proc()
    if needed:
        _adjust_oom_score(plan, config)


def _adjust_oom_score(plan: PlanWriter, config: Config) -> None:
    if config.process and config.process.oom_score_adj is not None:
        adjusted = str(config.process.oom_score_adj)
        plan.write_proc(f"set oom_score_adj to {adjusted}", "self/oom_score_adj", adjusted)


def _add_system(plan: PlanWriter, config: Config, scope: Scope) -> None:
    if config.hostname:
        plan.set_host_name(config.hostname)
    if config.domainname:
        plan.set_domain_name(config.domainname)
    if "network" in scope.new:
        plan.bring_loopback_up()
    for key, value in config.linux.sysctl:
        plan.write_proc(f"set sysctl {key} to {value}", f"sys/{key}", value)


def _keep_sources(
    plan: PlanWriter,
    config: Config,
    host: Host,
    scope: Scope,
    style: Style,
    *,
    own: dict[str, str],
    trees: dict[int, Tree],
) -> None:
    """What is of the host is kept, when the host's mounts are left before the file tree is made."""
    if style.template:
        from cycontainer import template_tree

        template_tree.keep_own(plan, config, host, scope, own=own)
    elif scope.pad_slot is not None:
        sources.keep_sources(plan, config, host, scope, own=own, trees=trees)


def _add_file_tree(
    plan: PlanWriter,
    config: Config,
    host: Host,
    scope: Scope,
    style: Style,
    *,
    own: dict[str, str],
    trees: dict[int, Tree],
) -> None:
    if style.template:
        from cycontainer import template_tree

        template_tree.add_own(plan, config, host, scope, own=own)
    else:
        rootfs.add_root(plan, config, scope, trees, attributes=style.root_attributes)
        rootfs.add_mounts(plan, config, host, scope, own=own, trees=trees)
        rootfs.add_devices(plan, config, bound=scope.user or not host.initial_user_namespace)
    process = config.process
    if process:
        rootfs.add_workplace(plan, rootfs.workplace(config, scope, style.work), process.user, scope)
    if process and process.terminal and style.console:
        _open_terminal(plan, process)
        plan.find_target("/dev/console", rootfs.TARGET_LIKE_SOURCE)
        plan.attach("the terminal", "/dev/console")
    if process and style.make_cwd and process.cwd.strip("/"):
        plan.make_working_directory(process.cwd)
    if not style.template:
        rootfs.add_late_readonly(plan, config, scope)
        rootfs.add_masks(plan, config)


def with_ready_network(config: Config) -> Config:
    """The network namespace is one that the launcher has opened, instead of a new one."""

    def ready(namespace: Namespace) -> Namespace:
        return namespace.replace(path="(ready)") if namespace.type == "network" else namespace

    linux = config.linux
    return config.replace(linux=linux.replace(namespaces=tuple(map(ready, linux.namespaces))))


def compile_template(config: Config, host: Host, style: Style) -> Errand:
    """What makes the template that containers of `config` are copies of, each with the plan of a style `template`."""
    from cycontainer.template_tree import template_errand

    own = _cgroup_prefixes(config, host, _compile_cgroup(config, host, style).v1)
    return template_errand(config, host, own, attributes=style.root_attributes, work=bool(style.work))


def _open_terminal(plan: PlanWriter, process: Process) -> None:
    rows, columns = process.console_size or (0, 0)
    plan.open_terminal(rows, columns, process.user.uid)


# --- the program


def _add_program(plan: PlanWriter, config: Config, host: Host, scope: Scope, style: Style) -> int:
    """From here on nothing of the host is needed. Returns the number of the step that looks the program up."""
    process, linux = config.process, config.linux
    if process is None:
        raise ConfigError("process", "is missing: there is no program to execute")
    if style.new_keyring:
        confinement.add_keyring(plan, process)
    identity.add_limits(plan, config)
    confinement.add_labels(plan, process, host)
    if process.terminal and not ("mount" in scope.new and style.console):
        _open_terminal(plan, process)  # looked for from where we are, which is the root
    if not style.warm and rootfs.has_own_devices(config) and ("mount" in scope.new or "mount" in scope.joined):
        plan.own_null()
    plan.change_directory(process.cwd)
    plan.close_slots(style.wait_for_start)
    if not process.no_new_privileges:
        confinement.add_seccomp(plan, linux.seccomp, host, style.supervised)
    identity.add_ids(plan, process, host, keep_groups=keeps_groups(config, host, scope))
    identity.add_no_new_privileges(plan, process)
    plan.set_umask(0o022 if process.user.umask is None else process.user.umask)
    if "pid" in scope.joined:
        plan.clone("the joined", 0)  # last: whoever lives there finds nothing in us but the program
        plan.set_session()
    if process.terminal:
        plan.take_terminal()
    alone = not style.keep_init
    if (style.warm and ("pid" in scope.new or alone)) or (style.tied and alone):  # all is over with its end
        plan.prctl("end with the launcher", identity.PR_SET_PDEATHSIG, SIGKILL)  # a change of ids would clear it
    if style.keep_init:
        plan.fork(bool(style.unit))  # whose cgroup goes with its last process
    if style.warm:
        scope.syncs[len(plan.attempts)] = "program"
        plan.go_on()
        return len(plan.attempts)
    plan.fresh_signals()
    program_step = len(plan.attempts)
    if process.args != NO_PROGRAM:
        plan.look_up()
    if style.wait_for_start:
        scope.synchronise(plan, "created", "let the launcher keep the state")
        plan.await_start()
    if process.no_new_privileges:
        confinement.add_seccomp(plan, linux.seccomp, host, style.supervised)
    plan.execute()
    return program_step
