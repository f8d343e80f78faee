"""run(): one call, one container, one result. Face."""

from __future__ import annotations

import os
import time

from cycontainer import _wait
from cycontainer._arguments import (
    check_count,
    check_given,
    check_number,
    directory,
    environment_entries,
    input_bytes,
    mount_entries,
    path_list,
    private_directories,
    program_arguments,
    user_ids,
)
from cycontainer._clone import CLONED, ENDED, FAILED, HeldSignals
from cycontainer._result import Result, Usage
from cycontainer.compile import Style, compile_plan
from cycontainer.errors import ConfigError, LaunchError
from cycontainer.host import current
from cycontainer.launch import attend, end_of, kill, launch
from cycontainer.mount_options import ATTR_NODEV, ATTR_NOSUID, ATTR_RDONLY
from cycontainer.record import Record
from cycontainer.sandbox import ENVIRONMENT, Options, document, overlay
from cycontainer.streams import DEVNULL as DEVNULL
from cycontainer.streams import PIPE as PIPE
from cycontainer.streams import STDOUT as STDOUT
from cycontainer.streams import Streams
from cycontainer.tables import MOST_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike
    from typing import Any, Final

    from cycontainer._clone import Child
    from cycontainer.cgroups import Cgroup
    from cycontainer.config import Config
    from cycontainer.host import Host
    from cycontainer.plan import Plan
    from cycontainer.streams import Stream
    from cycontainer.supervisor import Answer, Call, Supervisor

SIGKILL: Final = 9
FOREVER: Final = float("inf")


class _Prepared(Record):
    """A compiled container, and what it depends on."""

    plan: Plan
    host: Host
    config: Any  # the caller's dict as it was, to see that it has not changed


_prepared: dict[tuple[object, ...], _Prepared] = {}
MOST_PREPARED: Final = 256
_swept = 0  # the process that has swept


# --- from keywords to a plan


def _compile(
    options: Options,
    args: tuple[str, ...],
    mounts: list[dict[str, Any]],
    config: dict[str, Any] | None,
    host: Host,
) -> Plan:
    from cycontainer.read_config import read_config

    privileged = host.privileged and host.uid == 0
    attributes = ATTR_NOSUID | ATTR_NODEV
    if config is not None:
        document_ = overlay(config, options, list(args), mounts)
        checked: Config = read_config(document_, bundle=_working_directory())
        _check_served(checked, options)
        attributes = 0
    else:
        found = document(options, list(args), mounts, privileged=privileged, host=host)
        checked = _with_seccomp(read_config(found, bundle="/"))
        attributes |= ATTR_RDONLY if options.rootfs is None else 0
    # of the host's root nothing is to become ours; the root of a user namespace has but itself
    map_root = options.user_namespace and options.rootfs is not None and host.initial_user_namespace
    style = Style(
        keep_init=options.keep_init, every_cgroup=False, root_attributes=attributes, map_root=map_root,
        supervised=options.supervised, pad=True,
    )  # fmt: skip
    return compile_plan(checked, host, style)


def _check_served(config: Config, options: Options) -> None:
    """Refuse what only a `Container` does, and what the configuration would have to say itself."""
    from cycontainer.config import Hooks
    from cycontainer.confinement import notifies

    if notifies(config.linux.seccomp):
        raise ConfigError("linux.seccomp", "run() passes no listener on; `supervisor` answers system calls")
    if config.hooks != Hooks():
        raise ConfigError("hooks", "run() calls none; a Container does")
    if config.process is not None and config.process.terminal:
        raise ConfigError("process.terminal", "run() gives none; a Container does")
    if options.user_namespace and "user" not in [namespace.type for namespace in config.linux.namespaces]:
        raise ConfigError("user_namespace", "with `config`, its linux.namespaces and mappings say so")


def _with_seccomp(config: Config) -> Config:
    from cycontainer.seccomp_profile import DEFAULT

    return config.replace(linux=config.linux.replace(seccomp=DEFAULT))


def _working_directory() -> str:
    """What a configuration's relative paths start from; when it is gone, a path that leads to what is gone."""
    try:
        return os.getcwd()
    except OSError:
        return "/proc/self/cwd"


def _plan_for(
    options: Options, args: tuple[str, ...], mounts: list[dict[str, Any]], config: dict[str, Any] | None
) -> Plan:
    """The compiled plan, kept by all that it depends on; args and env are filled in at each launch."""
    host = current()
    if options.rootfs is None and config is None:
        options = options.replace(private=private_directories())
    key = _depends_on(options, mounts, config, host)
    kept = _prepared.get(key)
    if kept is not None and kept.config == config:
        return kept.plan
    plan = _compile(options, args, mounts, config, host)
    if len(_prepared) >= MOST_PREPARED:
        _prepared.pop(next(iter(_prepared)))
    if config is not None:
        import copy

        config = copy.deepcopy(config)
    _prepared[key] = _Prepared(plan=plan, host=host, config=config)
    return plan


def _depends_on(
    options: Options, mounts: Sequence[Mapping[str, Any]], config: dict[str, Any] | None, host: Host
) -> tuple[object, ...]:
    """All that a plan comes of, but what is in the caller's own configuration: that is compared."""
    linux = config.get("linux") if isinstance(config, dict) else None
    maker = None
    if config is None or (isinstance(linux, dict) and "seccomp" in linux):
        from cycontainer._seccomp import version

        maker = version()
    place = _working_directory() if config is not None else ""  # of relative paths
    return options, repr(mounts) if mounts else "", None if config is None else id(config), place, host, maker


# --- the run


class _Run:
    """One container from its launch to its end."""

    def __init__(
        self, plan: Plan, child: Child, args: tuple[str, ...], waiter: _wait.Waiter, supervisor: Supervisor | None
    ) -> None:
        self.plan, self.child, self.args, self.supervisor = plan, child, args, supervisor
        self.waiter = waiter
        self.ended: tuple[int, ...] | None = None
        self.timed_out = False
        self.processes = 1  # that the init has gone through
        self.never_ran = False  # the init was ended before it executed the program

    def finish(self) -> None:
        """Wait for the end, whatever it is. An exception is a signal's, or a failed step's: the caller abandons it."""
        while self._wait() != _wait.ENDED:
            continue
        with HeldSignals():
            self._last_words()

    def _wait(self) -> int:
        event = self.waiter.wait()
        if event == _wait.DEADLINE:
            self.timed_out = True
            kill(self.child)
            self.waiter.without_deadline()
        elif event == _wait.MESSAGE:
            with HeldSignals():
                self._hear()
        return event

    def _hear(self) -> None:
        message = self.child.receive()
        if not message:
            return
        if message[0] == ENDED:
            self.ended = message
            return
        attend(self._plan_of(message), self.child, message, {"listener": self._supervise})
        if message[0] == CLONED:
            self.processes += 1
            self.waiter.watch()

    def _plan_of(self, message: tuple[int, ...]) -> Plan:
        """A failure is told of the program of this run, not of the one that the plan was made for."""
        return self.plan.replace(args=self.args) if message[0] == FAILED else self.plan

    def _supervise(self, child: Child) -> None:
        assert self.supervisor is not None  # a plan of ours notifies no one else
        self.supervisor.begin(child.listener, lambda: kill(child))

    def _last_words(self) -> None:
        """A report that came together with the end."""
        message = self.child.receive() if self.child.socket >= 0 else None
        while message:
            if message[0] == ENDED:
                self.ended = message
            elif message[0] == FAILED:
                attend(self._plan_of(message), self.child, message)
            message = self.child.receive()


def _execute(
    plan: Plan,
    args: tuple[str, ...],
    env: tuple[str, ...] | None,
    streams: Streams,
    data: bytes,
    timeout: float,
    *,
    supervisor: Supervisor | None,
) -> tuple[_Run, tuple[int, float, float, int], int | None, bool]:
    """Launch and wait, in a cgroup of its own where there are limits."""
    cgroup: Cgroup | None = None
    child: Child | None = None
    run: _Run | None = None
    path = _cgroup_path(plan)
    try:
        with HeldSignals():
            cgroup = _make_cgroup(plan, path)
            child = launch(
                plan, descriptors=tuple(streams.program), args=args, env=env, cgroup=cgroup, cgroup_path=path
            )
            streams.launched()
            if cgroup is not None:
                cgroup.release_tasks()
            run = _Run(plan, child, args, _waiter(child, streams, data, timeout), supervisor)
        run.finish()
        child.settled()
        run.never_ran = not plan.keeps_init and _died_as_init(child)
        end = end_of(child, run.ended)
        peak = cgroup.memory_peak() if cgroup is not None else None
        kills = cgroup.oom_kills() if cgroup is not None else None
    except BaseException:
        if child is not None:
            child.abandon()
        raise
    finally:
        with HeldSignals():
            if run is not None:
                run.waiter.close()  # not when it goes: an exception's traceback would keep it
            if supervisor is not None:
                supervisor.close()
            if child is not None:
                child.close()
            if cgroup is not None:
                cgroup.destroy()
    return run, end, peak, bool(kills)


def _waiter(child: Child, streams: Streams, data: bytes, timeout: float) -> _wait.Waiter:
    ends, streams.ends = streams.ends, dict.fromkeys(streams.ends, -1)  # the waiter's now
    return _wait.Waiter(child, ends["stdout"], ends["stderr"], ends["stdin"], data, timeout)


def _supervisor(callables: Mapping[str, Callable[[Call], Answer]] | None) -> Supervisor | None:
    if not callables:
        return None
    from cycontainer.supervisor import Supervisor

    return Supervisor(callables)


def _make_cgroup(plan: Plan, path: str | None) -> Cgroup | None:
    if path is None or plan.cgroup is None:
        return None
    from cycontainer.cgroup_runs import run_paths
    from cycontainer.cgroups import Cgroup

    return Cgroup.create(plan.cgroup, run_paths(plan.cgroup, path, current().cgroups))


def _cgroup_path(plan: Plan) -> str | None:
    """Where the container's cgroup is to be, if it needs one."""
    if plan.cgroup is None or not plan.cgroup.hierarchies:
        return None
    from cycontainer.cgroup_runs import run_path, sweep

    global _swept
    if _swept != os.getpid():
        _swept = os.getpid()
        sweep(current().cgroups)  # what a run that was killed with its caller has left
    return run_path()


def _died_as_init(child: Child) -> bool:
    from cycontainer.starting import died_as_init

    return died_as_init(child.pid)


def _died_early(run: _Run, code: int) -> bool:
    """Whether the init was killed before it could report, or go on: not by us, and not with the program's status."""
    if run.processes < run.plan.processes or run.never_ran:
        return not run.timed_out
    return run.plan.keeps_init and run.ended is None and not run.timed_out and code != 126


def run(
    args: Sequence[str | PathLike[str]],
    *,
    rootfs: str | PathLike[str] | None = None,
    input: bytes | str | None = None,
    stdin: Stream = DEVNULL,
    stdout: Stream = None,
    stderr: Stream = None,
    capture_output: bool = True,
    text: bool = False,
    encoding: str | None = None,
    errors: str | None = None,
    timeout: float | None = None,
    check: bool = False,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: int | str | None = None,
    hostname: str | None = None,
    memory: int | None = None,
    cpus: float | None = None,
    pids: int | None = None,
    network: str = "none",
    mounts: Sequence[Mapping[str, Any]] = (),
    read_only: bool = True,
    masked_paths: Sequence[str] = (),
    user_namespace: bool = False,
    init: bool = True,
    supervisor: Mapping[str, Callable[[Call], Answer]] | None = None,
    config: dict[str, Any] | None = None,
) -> Result:
    """Run a program in a container of its own, and wait for it.

    The container is isolated: namespaces of its own, no network, no capability, no new privileges, a seccomp filter,
    nothing of the caller's environment.

    Args:
        args: the program, looked up in the container's PATH, and its arguments.
        rootfs: the container's root directory; None is the host's own, read-only, with private and empty /tmp, /run,
            home directories and /sys.
        input: all that the program reads from its standard input; a str is encoded.
        stdin, stdout, stderr: a descriptor, a file, PIPE, DEVNULL, or None for the caller's; stderr also STDOUT.
        capture_output: collect what is printed, where stdout and stderr do not say otherwise.
        text, encoding, errors: decode what was captured, and encode `input`. Line ends stay as they are.
        timeout: wall-clock seconds from the launch on; then all its processes are killed.
        check: raise RunError when it fails.
        env: the whole environment; None is a PATH and a LANG.
        cwd: absolute, in the container.
        user: a uid, "uid:gid", or a name in the container's passwd. None: root of a rootfs of one's own, nobody on
            the host's, oneself as an ordinary user.
        hostname: at most 64 bytes; None is "cycontainer".
        memory: bytes that all its processes may hold together, swap included.
        cpus: processors' worth of time, 0.5 is half of one.
        pids: processes and threads that may exist at once.
        network: "none", a network of its own with only a loopback; or "host".
        mounts: as in the runtime-spec, each a dict with destination, type, source, options.
        read_only: the root cannot be written (the host's never can).
        masked_paths: absolute paths in the container that are to read as empty.
        user_namespace: map the container's ids to others of the host. An ordinary user always has one.
        init: a pid 1 stays beside the program: it reaps, passes signals on, and ends with the caller.
        supervisor: system calls by their names, and what answers each: called with a `Call` in a thread of this
            process, it returns `Continue`, `Errno`, `Value` or `Descriptor`. What it raises ends the container, and
            is raised from here.
        config: a runtime-spec configuration to start from, instead of the isolated default: what it says of network,
            user namespace and a read-only root is what is done. It has no hooks and no terminal, and its cgroup is a
            new one, whatever `cgroupsPath` says.

    Returns:
        What became of it: `returncode` is the exit status, or minus the number of the signal that ended it. A timeout
        is a result too: `timed_out` is set, and what was printed until then is there.

    Raises:
        ConfigError: an argument is wrong; it names which. Nothing was started.
        LaunchError: the container could not be made; it names the step. Nothing is left.
        ProgramError: it was made, and the program could not be executed. Nothing is left.
        CgroupError: a limit could not be set. Nothing is left.
        HostError: this kernel lacks what a container needs.
        StatusUnknown: it ended, and someone else in this process took its exit status.
        RunError: with `check`, the program failed; `result` is all of it.

    Source: runtime-spec config.md, config-linux.md.
    """
    started = time.monotonic()
    arguments, environment = program_arguments(args), environment_entries(env)
    check_number("timeout", timeout, 0, FOREVER)
    check_number("cpus", cpus, 0.01, MOST_NUMBER)
    check_count("memory", memory, 4096)
    check_count("pids", pids, 1)
    check_given("cwd", cwd)
    check_given("hostname", hostname)
    if network not in ("none", "host"):
        raise ConfigError("network", f"must be none or host, not {network!r}")
    root = None if rootfs is None else directory(rootfs, "rootfs")
    uid, gid = user_ids(user, root)
    options = Options(
        rootfs=root, cwd=cwd, uid=uid, gid=gid, hostname=hostname, memory=memory, cpus=cpus, pids=pids, network=network,
        read_only=bool(read_only), user_namespace=bool(user_namespace), keep_init=bool(init),
        masked_paths=path_list(masked_paths, "masked_paths"), supervised=tuple(supervisor or ()), private=(),
    )  # fmt: skip
    plan = _plan_for(options, arguments, mount_entries(mounts), config)
    answering = _supervisor(supervisor)
    if environment is None and config is None:
        environment = ENVIRONMENT
    decode = text or encoding is not None or errors is not None
    data = input_bytes(input, encoding, errors)
    streams = Streams()
    try:
        with HeldSignals():
            streams.add("stdin", PIPE if input is not None else stdin)
            streams.add("stdout", PIPE if stdout is None and capture_output else stdout)
            streams.add("stderr", PIPE if stderr is None and capture_output else stderr)
        captured = (streams.ends["stdout"] >= 0, streams.ends["stderr"] >= 0)
        done, end, peak, killed = _execute(
            plan, arguments, environment, streams, data, FOREVER if timeout is None else timeout, supervisor=answering
        )
    except OSError as error:
        if error.errno is None:
            raise  # no kernel's answer, but what a signal handler raised: TimeoutError, as many do
        raise LaunchError(f"prepare the container ({error})", error.errno or 0, 0, 0) from error
    finally:
        streams.close()
        if answering is not None:
            answering.raise_error()
    result = _result(
        arguments, done, end, peak=peak, killed=killed, captured=captured, wall=time.monotonic() - started,
        decoding=(encoding or "utf-8", errors or "strict") if decode else None,
    )  # fmt: skip
    if check:
        result.check_returncode()
    return result


def _result(
    args: tuple[str, ...], done: _Run, end: tuple[int, float, float, int], *, peak: int | None, killed: bool,
    captured: tuple[bool, bool], wall: float, decoding: tuple[str, str] | None,
) -> Result:  # fmt: skip
    code, user, system, resident = end
    if _died_early(done, code):
        raise LaunchError(f"run {args[0]}: the container's init ended with {code}, and no word", 0, 0, 0)
    texts = [
        (part.decode(*decoding) if decoding else part) if wanted else None
        for part, wanted in zip(done.waiter.output(), captured, strict=True)
    ]
    return Result(
        args=args,
        returncode=-SIGKILL if done.timed_out else code,
        stdout=texts[0],
        stderr=texts[1],
        timed_out=done.timed_out,
        oom_killed=killed,
        usage=Usage(
            wall=wall, user=user, system=system, peak_memory=peak or resident,
            processes=done.ended[3] or None if done.ended else None,
        ),
    )  # fmt: skip
