"""Making a container. Lifecycle: it keeps state, makes cgroups, launches, and undoes what failed.

create: reserve the id, write down what will be made, make the cgroups, launch; the init stops twice: for what the
        launcher does to the new namespaces (hooks among it), and when all is done, for the state to be written
start:  a byte to the FIFO that the init reads, and what comes back: the end (it has executed), or a message
"""

from __future__ import annotations

import errno
import time

from cycontainer._fd import close_all
from cycontainer.cgroup_driver import driver_of
from cycontainer.compile import NO_PROGRAM, Style, compile_plan
from cycontainer.config import Process as ProcessConfig
from cycontainer.config import Resources
from cycontainer.confinement import notifies
from cycontainer.duties import Duties
from cycontainer.errors import ConfigError, ContainerPaused, LaunchError
from cycontainer.launch import launch
from cycontainer.process import Process, settle
from cycontainer.record import Record
from cycontainer.state import NOTIFY, is_frozen
from cycontainer.state_text import CgroupPlace, State
from cycontainer.undo import Undo
from cycontainer.users import with_home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cycontainer._clone import Child
    from cycontainer.cgroup_driver import Driver
    from cycontainer.cgroups import Cgroup
    from cycontainer.config import Config
    from cycontainer.netdevices import NetworkDevices
    from cycontainer.plan import Plan
    from cycontainer.state import Directory
    from cycontainer.supervisor import Answer, Call, Supervisor


class Wishes(Record):
    """What a creation wants beside the configuration.

    Attributes:
        bundle: the bundle's directory, absolute.
        descriptors: the program's 0, 1, 2 and so on; they stay the caller's. A terminal takes the place of these three.
        env: entries for its environment that replace the configuration's.
        supervisor: system calls by their names, and what answers each.
        pivot, new_keyring: as `compile.Style` has them.
        pid_file: where its pid is written; "" is nowhere.
        ends: our ends of its pipes, by name (`streams.Streams`).
        console_socket: the unix socket that the master of its terminal is sent to; "" keeps it, as `Process.terminal`.
        pidfd_socket: the unix socket that a pidfd of its first process is sent to; "" is none.
        detached: the caller does not stay: a terminal needs a `console_socket`.
        notify: the program gets a socket for sd_notify(3), which `start` listens at.
        cgroup_manager: who makes its cgroup: "cgroupfs" is cycontainer, "systemd", "disabled" is nobody.
        rootless: a cgroup that nobody asked for may be missing, where the caller may not make it; False: it may not;
            None: it is seen who the caller is.
        warn: called with each of the configuration's warnings.
    """

    bundle: str
    descriptors: tuple[int, ...] = (0, 1, 2)
    env: tuple[str, ...] = ()
    supervisor: Mapping[str, Callable[[Call], Answer]] | None = None
    pivot: bool = True
    new_keyring: bool = True
    pid_file: str = ""
    ends: dict[str, int] | None = None
    console_socket: str = ""
    pidfd_socket: str = ""
    detached: bool = False
    notify: bool = False
    cgroup_manager: str = "cgroupfs"
    rootless: bool | None = None
    warn: Callable[[str], None] | None = None


def now() -> str:
    """The time as RFC 3339 has it."""
    seconds, nanos = divmod(time.time_ns(), 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanos:09}Z"


def intend(config: Config, driver: Driver, plan: Plan, container_id: str, bundle: str) -> State:
    """What is to be made, before any of it is: so that it is found after a crash."""
    assert plan.cgroup is not None
    host, paths, hooks = driver.host, driver.places(), config.hooks
    hierarchies = host.cgroups.all if driver.name else plan.cgroup.hierarchies  # systemd uses them all
    needs = (
        ("start", not config.process or hooks.start_container or hooks.poststart or notifies(config.linux.seccomp)),
        ("delete", hooks.poststop or config.linux.intel_rdt or driver.name),
    )
    return State(
        id=container_id,
        bundle=bundle,
        version=config.version,
        created=now(),
        owner=host.uid,
        rootless=not (host.privileged and host.initial_user_namespace and host.uid == 0),
        rootfs=config.root.path,
        program=config.process.args[0] if config.process else "",
        cgroups=tuple(
            CgroupPlace(mount=each.mount, controllers=each.controllers, path=paths[each.mount]) for each in hierarchies
        ),
        annotations=config.annotations,
        python=tuple(verb for verb, reason in needs if reason),
        unit=driver.name,
    )


def make_cgroup(plan: Plan, driver: Driver, undo: Undo, pid: int = 0) -> Cgroup | None:
    """The container's cgroup with its limits; None when it has none. `pid`: who waits to be moved there by systemd."""
    assert plan.cgroup is not None
    if not plan.cgroup.hierarchies and not driver.name:
        return None
    undo.later("stop its unit", driver.stop)
    cgroup = driver.make(plan.cgroup, pid)
    undo.later("remove the cgroup", lambda: end_cgroup(cgroup))
    return cgroup


def _has_cgroup(config: Config, wishes: Wishes, driver: Driver) -> bool:
    """Whether the container is to have one: as runc's --rootless has it, what could not be made is left out silently
    only when neither a limit nor a path was asked for."""
    if wishes.cgroup_manager == "disabled":
        return False
    if not wishes.rootless or config.linux.cgroups_path or driver.permitted():
        return True
    if config.linux.resources.replace(devices=()) != Resources():
        raise ConfigError(
            "linux.resources", "rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
        )
    return False


def _supervisor(wishes: Wishes) -> Supervisor | None:
    if not wishes.supervisor:
        return None
    from cycontainer.supervisor import Supervisor

    return Supervisor(wishes.supervisor)


def _with_process(config: Config) -> Config:
    """A container may be created without a process, and cannot be started then: config.md, "Process"."""
    return config if config.process else config.replace(process=ProcessConfig(args=NO_PROGRAM, no_new_privileges=True))


def _launch(
    directory: Directory, config: Config, plan: Plan, wishes: Wishes, cgroup: Cgroup | None, path: str
) -> Child:
    uid = config.process.user.uid if config.process else 0
    names = {entry.partition("=")[0] for entry in wishes.env}
    env = (*[entry for entry in plan.env if entry.partition("=")[0] not in names], *wishes.env)
    env = with_home(env, uid, config.root.path)
    fifos = directory.make_fifos()
    try:
        return launch(plan, descriptors=wishes.descriptors, env=env, cgroup=cgroup, cgroup_path=path, first=fifos)
    finally:
        close_all(fifos)


def end_cgroup(cgroup: Cgroup) -> None:
    """Kill what is in it, and remove it. Raises CgroupError."""
    cgroup.kill()
    cgroup.destroy()


def create(directory: Directory, config: Config, document: bytes, wishes: Wishes) -> tuple[State, Process]:
    """Make a container and leave it one `execve` short of its program.

    Args:
        directory: reserved for it, and the caller's; on a failure it is removed.
        document: the configuration as it was given, which is kept.

    Raises:
        ConfigError, HostError, LaunchError, ProgramError, CgroupError, HookError: what had been made is gone again.
    """
    with Undo() as undo:
        undo.later("remove the state directory", directory.remove)
        check_terminal(config, wishes)
        if wishes.notify:
            from cycontainer.notify import with_socket

            config = with_socket(config, directory.make_subdirectory(NOTIFY))
        with driver_of(wishes.cgroup_manager, config, directory.container_id) as driver:
            if not config.linux.net_devices:
                return _set_up(directory, config, document, wishes, undo, driver=driver)
            from cycontainer.netdevices import NetworkDevices

            with NetworkDevices(config.linux.net_devices) as devices:
                return _set_up(directory, config, document, wishes, undo, driver=driver, devices=devices)


def _set_up(
    directory: Directory,
    config: Config,
    document: bytes,
    wishes: Wishes,
    undo: Undo,
    *,
    driver: Driver,
    devices: NetworkDevices | None = None,
) -> tuple[State, Process]:
    supervisor = _supervisor(wishes)
    calls = supervisor.calls if supervisor else ()
    style = Style(
        pivot=wishes.pivot, new_keyring=wishes.new_keyring, every_cpu=True, wait_for_start=True, supervised=calls,
        unit=driver.scope, cgroup=_has_cgroup(config, wishes, driver), rootless=wishes.rootless, make_cwd=True,
    )  # fmt: skip
    plan = compile_plan(_with_process(config), driver.host, style)
    state = intend(config, driver, plan, directory.container_id, wishes.bundle).replace(pivoted=wishes.pivot)
    if calls:
        state = state.replace(supervised=calls, python=(*state.python, "start"))
    tell_warnings(config, plan, wishes)
    directory.save(state)  # first: what has a configuration alone was never begun
    directory.write("config.json", document)
    cgroup = make_cgroup(plan, driver, undo) if not driver.scope else None
    _check_thawed(state)
    child = _launch(directory, config, plan, wishes, cgroup, driver.path)
    process = Process(plan, child, plan.args)
    process.supervisor, process.made = supervisor, state.created
    undo.later("kill the first process", process.abandon)
    if cgroup is not None:
        cgroup.release_tasks()
    duties = _Duties(directory, config, state, wishes, undo, devices)
    duties.supervisor, duties.cgroup = supervisor, cgroup
    duties.make_cgroup = lambda pid: make_cgroup(plan, driver, undo, pid)
    try:
        settle(plan, child, duties.by_name(), until="created")
    except LaunchError as error:
        process.raise_error()
        _explain(error, config, duties.cgroup)
        raise
    return duties.state, process.with_ends(wishes.ends)


def _check_thawed(state: State) -> None:
    """In a cgroup that someone has frozen, the init would stop for good as soon as it enters.

    Raises:
        ContainerPaused: it is frozen.
    """
    if is_frozen(state):
        raise ContainerPaused(state.id, "container's cgroup unexpectedly frozen")


def _explain(error: LaunchError, config: Config, cgroup: Cgroup | None) -> None:
    """Add what else is known of why a step failed."""
    cpu = config.linux.resources.cpu
    if error.attempt == "set the scheduler" and error.errno == errno.EPERM and cpu is not None and cpu.cpus:
        error.add_note("process scheduler can't be used together with AllowedCPUs (linux.resources.cpu.cpus)")
    if cgroup is not None and cgroup.memory_report()[1]:
        from cycontainer.starting import OOM_KILLED

        error.add_note(OOM_KILLED)


def check_terminal(config: Config, wishes: Wishes) -> None:
    terminal = config.process is not None and config.process.terminal
    if terminal and wishes.detached and not wishes.console_socket:
        raise ConfigError("process.terminal", "cannot allocate tty if we detach without setting console socket")
    if wishes.console_socket and not terminal:
        raise ConfigError("console-socket", "cannot use console socket if we will not detach or allocate tty")


def tell_warnings(config: Config, plan: Plan, wishes: Wishes) -> None:
    for text in (*config.warnings, *(plan.cgroup.warnings if plan.cgroup else ())):
        if wishes.warn is not None:
            wishes.warn(text)


class _Duties(Duties):
    """What the launcher does while the init waits for it."""

    supervisor: Supervisor | None = None
    cgroup: Cgroup | None = None
    make_cgroup: Callable[[int], Cgroup | None]

    def by_name(self) -> dict[str, Callable[[Child], None]]:
        return {
            "unit": self.unit,
            "runtime": self.runtime,
            "hooks": self.hooks,
            "created": self.created,
            "listener": self.listener,
        }

    def unit(self, child: Child) -> None:
        """Let systemd make the cgroup, with the init in it."""
        self.cgroup = self.make_cgroup(child.pid)
        if self.cgroup is not None:
            self.cgroup.release_tasks()

    def runtime(self, child: Child) -> None:
        """Before its sysctls are set: net.ipv4.conf.eth0.* is there when eth0 is."""
        self.equip(child.pid)

    def hooks(self, child: Child) -> None:
        """The hooks before the host's root is left: config.md, "CreateContainer Hooks", and those before."""
        from cycontainer.hooks import run_hooks  # most containers have none

        self.call_hooks(child.pid, child.pidfd)
        run_hooks(
            "createContainer", self._config, self.state, "creating",
            inside=child.pidfd, needed_by=child.pidfd, directory=self._config.root.path,
        )  # fmt: skip

    def listener(self, child: Child) -> None:
        """Without no_new_privs the filter is loaded now, else at `start`."""
        from cycontainer.seccomp_agent import hand_over

        self.know(child.pid)
        hand_over(
            self._config, self.state, "creating",
            pid=child.pid, listener=child.listener, supervisor=self.supervisor,
        )  # fmt: skip

    def created(self, child: Child) -> None:
        """Only when its state is kept the init goes on to wait."""
        if child.terminal >= 0:
            if self._wishes.console_socket:
                self.know(child.pid)
            master, child.terminal = child.terminal, -1
            child.terminal = self.take_terminal(master)
        self.keep(child.pid, child.pidfd)
