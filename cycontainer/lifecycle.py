"""Container: a handle on one container, whoever made it. Lifecycle.

What a verb does stands in its subject's file; here is what a verb needs, in which order, and under which lock.
"""

from __future__ import annotations

from cycontainer.criu.verbs import Saved
from cycontainer.errors import ConfigError, ContainerError, ContainerNotFound, ContainerNotRunning, ContainerPaused
from cycontainer.state import (
    Directory,
    absolute,
    check_id,
    container_ids,
    described,
    directory_of,
    is_alive,
    is_frozen,
    load,
    load_config,
    status_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, Final, Self

    from cycontainer.cgroup_events import Event
    from cycontainer.cgroups import Cgroup
    from cycontainer.config import Config, IntelRdt
    from cycontainer.execution import LastPlan, Program
    from cycontainer.process import Process
    from cycontainer.state_text import State
    from cycontainer.stats import Stats
    from cycontainer.streams import Stream
    from cycontainer.supervisor import Answer, Call

SIGKILL: Final = 9
NOT_CREATED: Final = "cannot start a container in the {} state"
PAUSED_START: Final = "cannot start a paused container"
NOT_PAUSED: Final = "container not paused"


class Container(Saved):
    """One container: its id, its state on disk, and what can be done with it.

    What changes it (`start`, `pause`, `resume`, `update`, `checkpoint`, `delete`) has it for itself, and raises
    `ContainerBusy` when another program is not done with it for ten seconds.

    Attributes:
        id: its name below `root`.
        root: the directory that states are kept in, absolute.
        process: its first process, when this object made it; else None.
    """

    _read: tuple[State, Config] | None = None  # the configuration, and the state it was read beside
    _last: LastPlan | None = None

    # --- making and finding

    @classmethod
    def create(
        cls,
        container_id: str,
        config: Mapping[str, Any],
        *,
        root: str | None = None,
        bundle: str = ".",
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        pass_fds: Sequence[int] = (),
        pivot: bool = True,
        new_keyring: bool = True,
        supervisor: Mapping[str, Callable[[Call], Answer]] | None = None,
        cgroup_manager: str = "cgroupfs",
    ) -> Self:
        """Set a container up and leave it one `execve` short of its program; `start` lets it go.

        Args:
            container_id: letters, digits and "_+-.", at most 255.
            config: a configuration of the runtime-spec, as `config.json` has it. A missing `process.cwd` is made.
            root: the directory that states are kept in; None is /run/cycontainer, as an ordinary user
                $XDG_RUNTIME_DIR/cycontainer.
            bundle: what relative paths of the configuration are relative to.
            stdin, stdout, stderr: a descriptor, a file, PIPE, DEVNULL, or None for the caller's. With
                `process.terminal` they are unused: the terminal's master is `process.terminal` of the result.
            pass_fds: more descriptors, which the program has as 3 and following.
            pivot: leave the host's root by pivot_root(2), which ramdisks cannot.
            new_keyring: start a session keyring.
            supervisor: system calls by their names, and what answers each, as in `run`; it answers for those that this
                object executes beside the program as well. No other program can start it, or execute anything in it.
            cgroup_manager: who makes its cgroup: "cgroupfs", cycontainer itself; "systemd", which is asked for a unit
                over D-Bus, and then `linux.cgroupsPath` has the form slice:prefix:name; "disabled", nobody.

        Raises:
            ConfigError: this host cannot do what `config` asks; nothing was touched.
            ContainerExists: the id is taken under `root`.
            HostError: there is no systemd, or it refuses.
            LaunchError, CgroupError, HookError: what had been made until then is gone again.
        """
        from cycontainer._arguments import check_dict, check_flag, json_of, open_descriptors
        from cycontainer.streams import Streams

        check_dict("supervisor", supervisor)
        check_flag("pivot", pivot)
        check_flag("new_keyring", new_keyring)
        passed, document = open_descriptors(pass_fds, "pass_fds"), json_of(config, "config")
        process = config.get("process") if isinstance(config, dict) else None
        terminal = isinstance(process, dict) and bool(process.get("terminal"))
        with Streams.of((stdin, stdout, stderr), terminal=terminal) as streams:
            container = cls.create_from(
                container_id,
                document,
                root=root,
                bundle=bundle,
                descriptors=(*streams.program, *passed),
                ends=streams.ends,
                pivot=pivot,
                new_keyring=new_keyring,
                supervisor=supervisor,
                cgroup_manager=cgroup_manager,
            )
            streams.taken()
        return container

    @classmethod
    def create_from(
        cls, container_id: str, document: bytes, *, root: str | None = None, bundle: str = ".", **wishes: Any
    ) -> Self:
        """`create` from the bytes of a config.json; `wishes`: `creation.Wishes`."""
        from cycontainer.creation import Wishes, create
        from cycontainer.read_config import parse, read_config

        bundle = absolute(bundle, "bundle")
        config = read_config(parse(document), bundle=bundle)
        root = directory_of(root)
        with Directory.reserve(root, container_id) as directory:
            _, process = create(directory, config, document, Wishes(bundle=bundle, **wishes))
        return cls(container_id, root, process)

    @classmethod
    def handle(cls, container_id: str, *, root: str | None = None) -> Self:
        """A handle on a container, whether or not there is one: `delete(force=True)` takes what it finds."""
        return cls(check_id(container_id), directory_of(root))

    @classmethod
    def load(cls, container_id: str, *, root: str | None = None) -> Self:
        """A container that exists.

        Raises:
            ContainerNotFound: there is none of this id.
            StateError: its state cannot be read.
        """
        container = cls.handle(container_id, root=root)
        container._state()
        return container

    @classmethod
    def list(cls, *, root: str | None = None) -> Sequence[Self]:
        """All containers, by id; those that are just being deleted may still be among them.

        Raises:
            FileNotFoundError: `root` was given, and there is no such directory. Without the default one there are none.
        """
        try:
            directory = directory_of(root)
            return [cls(name, directory) for name in container_ids(directory)]
        except (ConfigError, FileNotFoundError):  # an ordinary user may have no default one either
            if root:
                raise
            return []

    # --- what it is

    def _state(self) -> State:
        return load(self.root, self.id)

    @property
    def config(self) -> Config:
        """Its configuration, as it was when it was created. Raises ContainerNotFound."""
        return self._configuration(self._state())

    def _configuration(self, state: State) -> Config:
        """`config`; what has been read is kept: that of one container does not change."""
        from cycontainer.read_config import parse, read_config

        read = self._read
        if read is None or read[0] != state:
            config = read_config(parse(load_config(self.root, self.id)), bundle=state.bundle)
            read = self._read = state, config
        return read[1]

    @property
    def status(self) -> str:
        """ "creating", "created", "running", "paused" or "stopped". Raises ContainerNotFound."""
        return status_of(self.root, self._state())

    @property
    def pid(self) -> int:
        """Its first process's, in the creator's pid namespace; 0 when it has ended. Raises ContainerNotFound."""
        state = self._state()
        return state.pid if is_alive(state) else 0

    def state(self) -> dict[str, Any]:
        """The state as the specification has it, and ours beside it.

        Returns:
            "ociVersion", "id", "status", "pid" (unless it is stopped), "bundle", "annotations" (if there are any);
            and "created" (RFC 3339), "owner" (uid), "rootless", "startTime" (clock ticks since boot), "cgroupPaths",
            "namespacePaths".

        Raises:
            ContainerNotFound: there is none.

        Source: runtime-spec runtime.md, "State".
        """
        return described(self.root, self._state())

    # --- its life

    def start(
        self, *, service_manager: str = "", in_background: bool = False, warn: Callable[[str], None] | None = None
    ) -> None:
        """Let the program go.

        Args:
            service_manager: whom to tell that it is ready, the value of NOTIFY_SOCKET; that is waited for.
            in_background: a thread waits for that.
            warn: called in that thread when the service manager does not listen; None is `warnings.warn`.

        Raises:
            ContainerPaused: it has to go on first.
            ContainerError: it does not wait for a start.
            ProgramError: the program could not be executed.
            HookError: a startContainer hook failed: it was not started; or a poststart hook: it was killed.
        """
        from cycontainer.starting import start

        with Directory.open(self.root, self.id) as directory:
            state = self._state()
            status = status_of(self.root, state)
            if status == "paused":
                raise ContainerPaused(self.id, NOT_CREATED.format(status))
            if status != "created":
                raise ContainerError(self.id, NOT_CREATED.format(status))
            if is_frozen(state):
                raise ContainerPaused(self.id, PAUSED_START)
            listener = start(directory, state, service_manager, self.process)
        if self.process is not None:
            self.process.started()
        if listener is not None and in_background:
            listener.relay_in_background(warn or _warn)
        elif listener is not None:
            listener.relay()

    def run(self, timeout: float | None = None, **keywords: Any) -> int:
        """`start` it, and `wait` for its program's end; the returncode, as `Process.returncode` has it.

        Args:
            timeout: seconds that the program may take; None is as long as it takes.
            keywords: as `start` has them.

        Raises: as `start` and `wait`.
            ContainerError: it does not wait for a start; or only another program, its creator, hears how it ends.
            WaitTimeout, or what a signal's handler raises: it goes on, and `wait` can wait for it again.
        """
        from cycontainer._arguments import seconds

        process, limit = self._own_process(), seconds("timeout", timeout)
        self.start(**keywords)
        return process.wait(limit)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of a container that this object made; see `Process.wait`."""
        return self._own_process().wait(timeout)

    def _own_process(self) -> Process:
        if self.process is None:
            raise ContainerError(self.id, "only who created a container can hear how it ends")
        if self.process.returncode is None:
            self.process.check_open()
        return self.process

    def signal(self, number: int, *, all: bool = False) -> None:
        """Send a signal to its first process, or to all that it has. SIGKILL ends it also when it is paused.

        Of one that has no cgroup only the first process is known, and `all` is this one: with it the kernel ends the
        others where it is pid 1 of a namespace of its own, and else they live on.

        Raises:
            ContainerNotRunning: it has ended, and `all` was not asked for.
            CgroupError, OSError: of `all`, as `Cgroup.signal`: who cannot be reached, or refuses.
            ConfigError: there is no signal of that number.
        """
        from cycontainer._arguments import check_flag, check_signal
        from cycontainer.deletion import signal_all, signal_first

        check_signal(number)
        check_flag("all", all)
        (signal_all if all else signal_first)(self._state(), number)

    def kill(self) -> None:
        """SIGKILL to its first process; see `signal`."""
        self.signal(SIGKILL)

    def delete(self, *, force: bool = False, warn: Callable[[str], None] | None = None) -> None:
        """Remove it with all that belongs to it. One that waits for a start is ended.

        Args:
            force: kill what runs, also while another program changes it, and accept none, or half of one.
            warn: called for each poststop hook that failed; None is `warnings.warn`.

        Raises:
            ContainerNotFound: there is none, or only a later one than this object has made (without `force`).
            ContainerRunning: it runs (without `force`).
            ContainerBusy: another program is not done with it within ten seconds. With `force` it is dead all the same.
            CgroupError: a cgroup could not be removed; what is left is found by the next try.
        """
        from cycontainer.deletion import check_force, delete, kill_meanwhile

        check_force(force)
        made = self.process.made if self.process else ""

        def idle(directory: Directory) -> None:
            self.hear_ends()
            if force:
                kill_meanwhile(directory, made)

        try:
            with Directory.open(self.root, self.id, idle=idle) as directory:
                problems = delete(directory, self.root, force=force, idle=self.hear_ends, made=made)
        except ContainerNotFound:
            if not force:
                raise
            problems = ()
        if self.process is not None:
            self.process.abandon()
        for problem in problems:
            (warn or _warn)(problem)

    # --- beside its program

    def exec(
        self,
        args: Sequence[str],
        *,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        pass_fds: Sequence[int] = (),
        **keywords: Any,
    ) -> Process:
        """Start a process beside the container's, in its namespaces and cgroups, confined as it is.

        Args:
            args: the program, looked up in the container's PATH, and its arguments; empty when `process` has them.
            stdin, stdout, stderr, pass_fds: as in `create`.
            keywords: `execution.Program`: env, cwd, user, terminal, capabilities, process, ...

        Raises:
            ConfigError: a keyword has a value that cannot be; it names which.
            ContainerNotRunning, ContainerPaused: it is not in a state for that.
            ProgramError: there is no such program, or it cannot be executed.
            LaunchError: a step failed; nothing is left.
        """
        from cycontainer._arguments import open_descriptors
        from cycontainer.execution import program_of
        from cycontainer.streams import Streams

        program = program_of(args, keywords, lambda: self.config.process, _warn)
        passed = open_descriptors(pass_fds, "pass_fds")
        with Streams.of((stdin, stdout, stderr), terminal=program.terminal) as streams:
            process = self.execute(program, descriptors=(*streams.program, *passed)).with_ends(streams.ends)
            streams.taken()
        self._others().add(process)
        return process

    def execute(self, program: Program, *, descriptors: tuple[int, ...], config: Config | None = None) -> Process:
        """`exec` with descriptors that stay the caller's; `config`: the container's, when it has been read."""
        from cycontainer.execution import LastPlan, execute

        state = self._state()
        self._last = self._last or LastPlan()
        config = config or self._configuration(state)
        return execute(config, state, program, descriptors, self.process, self._last)

    def processes(self) -> Sequence[Any]:
        """All its processes, as `psutil.Process` objects."""
        import psutil

        found = []
        for pid in self.pids():
            try:
                found.append(psutil.Process(pid))
            except psutil.NoSuchProcess:
                continue
        return found

    def pids(self) -> Sequence[int]:
        """All its processes, in the caller's pid namespace."""
        state = self._state()
        if not state.cgroups:
            return [state.pid] if is_alive(state) else []
        return self._cgroup(state).processes()

    def pause(self) -> None:
        """Stop every process where it is, until `resume`.

        Raises:
            ContainerNotRunning: it has ended.
            CgroupError: EBUSY when one cannot be stopped; then all go on. ENOENT where it has no freezer.
        """
        with Directory.open(self.root, self.id):
            state = self._state()
            if status_of(self.root, state) not in ("running", "created"):
                raise ContainerNotRunning(self.id, "container not running")
            self._cgroup(state).freeze()

    def resume(self) -> None:
        """Let a paused container go on. Raises ContainerError when it is not paused."""
        with Directory.open(self.root, self.id):
            state = self._state()
            if status_of(self.root, state) not in ("paused", "created") or not is_frozen(state):
                raise ContainerError(self.id, NOT_PAUSED)
            self._cgroup(state).thaw()

    # --- its limits, and what it uses

    def update(self, resources: Mapping[str, Any], *, intel_rdt: IntelRdt | None = None) -> tuple[str, ...]:
        """Change limits: all of them, or none. What is not given stays as it is.

        Args:
            resources: as `linux.resources` of a configuration has them.
            intel_rdt: other schemata for its resctrl group, after the limits.

        Returns:
            What is obsolete and was ignored, a sentence each.

        Raises:
            ConfigError: a value is wrong, or cannot be had here.
            CgroupError: the kernel refused a value; what was there before is put back.
            ContainerNotRunning: it has ended.
        """
        from cycontainer.updating import update

        with Directory.open(self.root, self.id):
            return update(self._living(), resources, intel_rdt)

    def stats(self) -> Stats:
        """What its cgroups count now. Raises ContainerNotRunning, ContainerError (it has no cgroup), CgroupError."""
        from cycontainer.stats import read_stats

        return read_stats(self._cgroup(self._living()))

    def events(self, interval: float | None = None) -> Iterator[Event]:
        """What happens from now on, as it happens; it ends with the container.

        Args:
            interval: seconds after which what it uses is an event, too; None is never.

        Raises:
            ContainerNotRunning: it has ended.
        """
        from cycontainer._arguments import check_number
        from cycontainer.cgroup_events import events

        check_number("interval", interval, 0, float("inf"))
        return events(self._living(), interval)

    # --- with

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.delete(force=True)

    # --- details

    def _living(self) -> State:
        """The state of one that has not ended and has a cgroup."""
        state = self._state()
        if status_of(self.root, state) in ("stopped", "creating"):
            raise ContainerNotRunning(self.id)
        if not state.cgroups:
            raise ContainerError(self.id, "the container has no cgroup")
        return state

    def _cgroup(self, state: State) -> Cgroup:
        from cycontainer.handles import open_cgroup

        return open_cgroup(state)


def _warn(text: str) -> None:
    import warnings

    warnings.warn(text, RuntimeWarning, stacklevel=3)
