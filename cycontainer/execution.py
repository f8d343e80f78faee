"""A process beside a container's: exec, and the hooks inside. Lifecycle: it opens cgroups, launches, attends."""

from __future__ import annotations

from cycontainer._fd import close_all
from cycontainer.cgroup_entry import Entry, entered, open_entry
from cycontainer.compile import Style, compile_exec
from cycontainer.config import Capabilities, Hooks, User
from cycontainer.config import Process as ProcessConfig
from cycontainer.errors import ConfigError, ContainerNotRunning, ContainerPaused, HookError
from cycontainer.handles import open_first
from cycontainer.hooks import run_program
from cycontainer.host import current
from cycontainer.json_text import to_json
from cycontainer.launch import abandon, launch
from cycontainer.node import Node
from cycontainer.process import Process, settle, supervisor_of
from cycontainer.read_config import parse
from cycontainer.read_process import read_process
from cycontainer.record import Record
from cycontainer.state import is_frozen, oci_state
from cycontainer.users import with_home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Final

    from cycontainer._clone import Child
    from cycontainer.config import Config
    from cycontainer.host import Host
    from cycontainer.plan import Plan
    from cycontainer.state_text import State
    from cycontainer.supervisor import Supervisor


_INHERITED: Final = {  # property of a process: its name in config.Process
    "capabilities": "capabilities",
    "rlimits": "rlimits",
    "apparmorProfile": "apparmor_profile",
    "selinuxLabel": "selinux_label",
    "oomScoreAdj": "oom_score_adj",
    "scheduler": "scheduler",
    "ioPriority": "io_priority",
}


class Program(Record):
    """What to start in a running container; what is None is as the container's own process has it.

    Attributes:
        args: the program and its arguments.
        env: what replaces or extends the container's environment: a dict, or "NAME=value" entries.
        cwd: absolute, in the container.
        user: uid, gid.
        additional_gids: groups beside.
        terminal: open a terminal for it; its master is `Process.terminal`.
        size: rows and columns of the terminal.
        capabilities: names of capabilities beside the container's, bounding, permitted and effective.
        no_new_privileges: True sets it where the container has not.
        apparmor_profile, selinux_label: "" is the container's.
        cgroup: a path below the container's cgroup, for all controllers ("") or those named.
        ignore_paused: wait in a paused container until it goes on.
        process: a dict as the specification's `process` instead of the container's, whose properties hold where it has
            none, but for args and terminal; or a whole `config.Process`. What else is given here goes before it.
    """

    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str | None = None
    user: tuple[int, int] | None = None
    additional_gids: tuple[int, ...] = ()
    terminal: bool = False
    size: tuple[int, int] | None = None
    capabilities: tuple[str, ...] = ()
    no_new_privileges: bool | None = None
    apparmor_profile: str = ""
    selinux_label: str = ""
    cgroup: dict[str, str] | None = None
    ignore_paused: bool = False
    process: ProcessConfig | None = None


class LastPlan:
    """What the last program in a container came to: who starts it again need not compile it again. For any thread."""

    def __init__(self) -> None:
        self._last: tuple[tuple[object, ...], ProcessConfig, Plan] | None = None  # replaced as one

    def of(
        self, config: Config, state: State, program: Program, entry: Entry, host: Host
    ) -> tuple[ProcessConfig, Plan]:
        """The process that a program is, and its plan."""
        key = config, host, program, state, entry.below is None
        last = self._last
        if last is None or last[0] != key:  # what is the same object is not compared further
            process = process_of(config, program)
            last = self._last = key, process, _compile(config.replace(process=process), state, entry, host)
        return last[1:]


def execute(
    config: Config,
    state: State,
    program: Program,
    descriptors: tuple[int, ...],
    first: Process | None = None,
    last: LastPlan | None = None,
) -> Process:
    """Start `program` in a container, and return when it has been executed; see `Container.exec`."""
    supervisor, host = supervisor_of(state, first), current()
    pidfd = _open_living(state, paused=program.ignore_paused)
    try:
        entry = _entry(state, program.cgroup or {}, host)
        try:
            process, plan = (last or LastPlan()).of(config, state, program, entry, host)
            duties = _duties(config, state, "running", supervisor, entry)
            env = with_home(plan.env, process.user.uid, config.root.path)
            return _start(plan, pidfd, descriptors, duties, env=env, entry=entry)
        finally:
            entry.close()
    finally:
        close_all((pidfd,))


def _open_living(state: State, *, paused: bool) -> int:
    """A pidfd of the first process, which lives: created, running, or, if it may be, paused."""
    try:
        pidfd = open_first(state)
    except ContainerNotRunning:
        why = "cannot exec in a stopped container: container not running"
        raise ContainerNotRunning(state.id, why) from None
    try:
        if not paused and is_frozen(state):
            raise ContainerPaused(state.id, "cannot exec in a paused container")
    except BaseException:
        close_all((pidfd,))
        raise
    return pidfd


def _entry(state: State, below: Mapping[str, str], host: Host) -> Entry:
    """The way into the container's cgroup, now. `below`: a part of it, see `cgroup_entry.open_entry`."""
    return open_entry(state.cgroups, below, state.pid, host.cgroups, unit=state.unit)


def _compile(config: Config, state: State, entry: Entry, host: Host) -> Plan:
    unit = state.unit if entry.below is not None else ""
    style = Style(supervised=state.supervised, unit=unit, pivot=state.pivoted)
    return compile_exec(config, host, entered(state.cgroups, host.cgroups), style)


def _duties(
    config: Config, state: State, status: str, supervisor: Supervisor | None, entry: Entry
) -> dict[str, Callable[[Child], None]]:
    """What an init beside the container's waits for."""

    def move(child: Child) -> None:
        from cycontainer.systemd import move_to_unit

        assert entry.below is not None  # else the plan has no such step
        move_to_unit(state.unit, child.pid, entry.below)

    def share(child: Child) -> None:
        if state.resctrl is not None:
            from cycontainer.intelrdt import join

            join(state.resctrl, child.pid)

    def listener(child: Child) -> None:
        from cycontainer.seccomp_agent import hand_over

        hand_over(config, state, status, pid=child.pid, listener=child.listener, supervisor=supervisor)

    return {"unit": move, "runtime": share, "listener": listener}


def process_of(config: Config, program: Program) -> ProcessConfig:
    """The container's own process, or `program.process`, with what `program` says instead. Raises ConfigError."""
    own = program.process or config.process or ProcessConfig(args=())
    _check(program.replace(args=program.args or own.args))
    changes: dict[str, Any] = {"args": program.args or own.args, "terminal": program.terminal}
    changes["console_size"] = program.size or (own.console_size if program.process else None)
    changes["env"] = _merged(own.env, program.env)
    if program.cwd is not None:
        changes["cwd"] = program.cwd
    if program.user is not None:
        changes["user"] = own.user.replace(uid=program.user[0], gid=program.user[1], additional_gids=())
    if program.additional_gids:
        user: User = changes.get("user", own.user)
        changes["user"] = user.replace(additional_gids=program.additional_gids)
    if program.capabilities:
        changes["capabilities"] = _with_capabilities(own.capabilities, program.capabilities)
    for name in ("no_new_privileges", "apparmor_profile", "selinux_label"):
        if getattr(program, name):
            changes[name] = getattr(program, name)
    return own.replace(**changes)


def program_of(
    args: Sequence[str],
    keywords: Mapping[str, Any],
    own: Callable[[], ProcessConfig | None],
    warn: Callable[[str], None],
) -> Program:
    """What `Container.exec` was given, as a program. Raises ConfigError: one of it cannot be; it names which.

    Args:
        own: the container's own process; it is asked for where `process` has to be completed.
    """
    from cycontainer import _arguments as given

    process, env = keywords.get("process"), keywords.get("env")
    words = () if process is not None and args in ((), []) else given.program_arguments(args)
    for name in ("terminal", "no_new_privileges", "ignore_paused"):
        given.check_flag(name, keywords.get(name) is not None and keywords[name])
    given.check_pair("user", keywords.get("user"), "uid and gid")
    given.check_pair("size", keywords.get("size"), "rows and columns")
    given.check_dict("cgroup", cgroup := keywords.get("cgroup"))
    for name in (text for pair in (cgroup or {}).items() for text in pair):
        Node(name, "cgroup").text()
    capabilities = given.entries(keywords.get("capabilities") or (), "capabilities")
    Node(capabilities, "capabilities").texts()
    if process is not None and not isinstance(process, ProcessConfig):
        given.check_dict("process", process)
        process = _completed(process, words, own(), warn)
    changes: dict[str, Any] = {
        "args": words,
        "env": given.environment_entries(env) if hasattr(env, "items") else given.entries(env or (), "env"),
        "terminal": bool(keywords.get("terminal") or (process and process.terminal)),
        "capabilities": capabilities,
        "additional_gids": given.entries(keywords.get("additional_gids") or (), "additional_gids"),
        "process": process,
    }
    return Program(**{**keywords, **changes})


def _completed(
    given: Mapping[str, Any], args: tuple[str, ...], own: ProcessConfig | None, warn: Callable[[str], None]
) -> ProcessConfig:
    """A process as the specification has it; what it has not is the container's own, but for the program."""
    document = {name: value for name, value in given.items() if value is not None}
    if args:
        document["args"] = args
    process = _inheriting({"cwd": "/", **document}, own, warn)
    own = own or process
    changes = {name: getattr(own, name) for name in ("cwd", "env", "user") if name not in document}
    return process.replace(**changes)


def _check(program: Program) -> None:
    """Refuse what a configuration cannot say either."""
    uid, gid = program.user or (0, 0)
    rows, columns = program.size or (0, 0)
    document = {
        "args": program.args,
        "env": program.env,
        "cwd": "/" if program.cwd is None else program.cwd,
        "user": {"uid": uid, "gid": gid, "additionalGids": program.additional_gids},
        "terminal": program.terminal,
        "consoleSize": {"height": rows, "width": columns},
        "apparmorProfile": program.apparmor_profile,
        "selinuxLabel": program.selinux_label,
    }
    read_process(Node(document, "process"), [])


def _merged(env: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    found = {entry.partition("=")[0]: entry for entry in (*env, *more)}
    return tuple(found.values())


def _with_capabilities(own: Capabilities, names: tuple[str, ...]) -> Capabilities:
    from cycontainer.tables import capability_mask

    more, unknown = capability_mask(names)
    if unknown:
        raise ConfigError("capabilities", f"unknown capability {unknown[0]}")
    return own.replace(
        bounding=own.bounding | more,
        effective=own.effective | more,
        permitted=own.permitted | more,  # and not inheritable: CVE-2022-29162
    )


def read_program(data: bytes, own: ProcessConfig | None, warn: Callable[[str], None]) -> ProcessConfig:
    """A process as JSON; what confines it is the container's own where it is absent.

    Args:
        data: the text of a `process` as config.json has it.
        own: the container's.

    Raises:
        ConfigError: it is wrong; the error names the property.
    """
    return _inheriting(parse(data), own, warn)


def _inheriting(document: object, own: ProcessConfig | None, warn: Callable[[str], None]) -> ProcessConfig:
    warnings: list[str] = []
    process = read_process(Node(document, "process").required(), warnings)
    assert process is not None
    for warning in warnings:
        warn(warning)
    if own is None:
        return process
    changes: dict[str, Any] = {"no_new_privileges": process.no_new_privileges or own.no_new_privileges}
    given = Node(document, "process").object()
    for name, field in _INHERITED.items():
        if given.get(name) is None or not given[name]:
            changes[field] = getattr(own, field)
    if given.get("execCPUAffinity") is None:
        changes["cpu_affinity_initial"] = own.cpu_affinity_initial
        changes["cpu_affinity_final"] = own.cpu_affinity_final
    return process.replace(**changes)


def _start(
    plan: Plan,
    first: int,
    descriptors: tuple[int, ...],
    duties: Mapping[str, Callable[[Child], None]],
    *,
    env: tuple[str, ...],
    entry: Entry,
) -> Process:
    child = launch(plan, descriptors=descriptors, env=env, first=(first,), cgroup=entry)
    try:
        settle(plan, child, duties)
    except BaseException:
        abandon(child)
        child.close()
        raise
    return Process(plan, child, plan.args).with_ends(None)


# --- hooks inside


def run_start_hooks(config: Config, state: State, first: int, supervisor: Supervisor | None = None) -> None:
    """The startContainer hooks: programs of the container, which is not to be trusted, so confined as its own is.

    They are its root. Source: config.md, "StartContainer Hooks".

    Raises:
        HookError: the first that failed.
    """
    own, host = config.process, current()
    for number, hook in enumerate(config.hooks.start_container):
        process = ProcessConfig(args=hook.args or (hook.path,), env=hook.env)
        if own is not None:
            process = own.replace(args=process.args, env=hook.env, terminal=False, cwd="/", user=User())
        inner = config.replace(process=process, hooks=Hooks())
        text = to_json(oci_state(state, "created")).encode()
        entry = _entry(state, {}, host)
        try:
            plan = _compile(inner, state, entry, host).replace(program=hook.path)
            duties = _duties(config, state, "created", supervisor, entry)
            problem, output = run_program(plan, text, hook.timeout, (first,), duties, entry, needed_by=first)
        finally:
            entry.close()
        if problem:
            raise HookError("startContainer", number, problem, output)
