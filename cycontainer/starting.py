"""Letting a container go that waits. Lifecycle: it speaks to the init by its FIFOs, and runs hooks.

A byte to the FIFO that the init reads, and what comes back: the end (it has executed), or a message.
"""

from __future__ import annotations

import errno
import fcntl
import os

from cycontainer.errors import (
    ContainerBusy,
    ContainerError,
    ContainerNotFound,
    ContainerNotRunning,
    HookError,
    LaunchError,
    ProgramError,
)
from cycontainer.handles import died_as_init, open_cgroup, open_first
from cycontainer.state import GO, NOTIFY, OUTCOME, is_later

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from cycontainer.notify import Listener
    from cycontainer.process import Process
    from cycontainer.state import Directory
    from cycontainer.state_text import State

FIONREAD: Final = 0x541B  # ioctl_tty(2)
PATIENCE_MS: Final = 60_000  # for an execve, also from a slow disk
MESSAGE_INTS: Final = ("kind", "step", "error", "tasks")  # _steps.pxd's, and three longs that only a run's end fills
MESSAGE: Final = "4i3l"
OOM_KILLED: Final = "container init was OOM-killed (memory limit too low?)"
SIGKILL: Final = 9
MESSAGE_BYTES: Final = 40  # of it, by struct.calcsize; its import would cost kill and delete a millisecond


def start(directory: Directory, state: State, service_manager: str, process: Process | None = None) -> Listener | None:
    """Let the program of a created container go; see `Container.start`. Returns who waits for its readiness."""
    if process is not None and is_later(state, process.made):
        raise ContainerNotFound(state.id)
    if not os.path.isdir(f"{directory.path}/{NOTIFY}"):
        service_manager = ""  # its creator had none
    if "start" not in state.python and not service_manager:
        first = open_first(state)
        try:
            release(directory, state, first)
        finally:
            os.close(first)
        return None
    from cycontainer.execution import run_start_hooks
    from cycontainer.hooks import run_hooks
    from cycontainer.notify import Listener
    from cycontainer.process import supervisor_of
    from cycontainer.read_config import parse, read_config

    supervisor = supervisor_of(state, process)

    def tell(listener: int) -> None:
        from cycontainer.seccomp_agent import hand_over

        hand_over(config, state, "created", pid=state.pid, listener=listener, supervisor=supervisor)

    config = read_config(parse(directory.read("config.json")), bundle=state.bundle)
    if config.process is None:
        raise ContainerError(state.id, "cannot start a container without a process")
    listener = None
    first = open_first(state)
    try:
        if service_manager:
            listener = Listener(f"{directory.path}/{NOTIFY}", service_manager, state.pid, first)
        run_start_hooks(config, state, first, supervisor)
        release(directory, state, first, tell)
        directory.unlock()  # it has been started: nobody needs to wait for what follows, which may hang
        run_hooks("poststart", config, state, "running", directory=state.bundle)
    except BaseException as error:
        if listener is not None:
            listener.close()
        if isinstance(error, HookError):
            _end(directory, error)
        if supervisor is not None and isinstance(error, LaunchError):
            supervisor.raise_error()
        raise
    finally:
        os.close(first)
    return listener


def _end(directory: Directory, error: HookError) -> None:
    """A hook has failed: kill the container, unless it is deleted by now."""
    from cycontainer.deletion import kill_all, kill_meanwhile

    try:
        directory.lock(kill_meanwhile)
        state = directory.load()
        if state is not None:
            kill_all(state)
    except (ContainerNotFound, ContainerBusy) as failure:  # the other has it, dead
        error.add_note(str(failure))


def release(directory: Directory, state: State, first: int, tell: Callable[[int], None] | None = None) -> None:
    """Let a waiting init execute its program.

    Before Linux 6.15 one that is killed between its byte and its execve, and has been waited for when this looks,
    passes for a program that has ended.

    Args:
        first: a pidfd of it.
        tell: called with its seccomp listener, if its filter notifies; which is closed then.

    Raises:
        ContainerNotRunning: it does not wait, or died before it executed anything.
        ProgramError, LaunchError: the program could not be executed.
    """
    try:
        outcome = directory.open_file(OUTCOME, os.O_RDONLY | os.O_NONBLOCK)
        try:
            go = directory.open_file(GO, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(go, b"\0")
                message = _read_to_end(outcome, state, tell)
                waited = fcntl.ioctl(go, FIONREAD, b"\0" * 4) != b"\0" * 4  # to its end: the byte is still there
            finally:
                os.close(go)
        finally:
            os.close(outcome)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ENOENT):
            raise
        raise ContainerNotRunning(directory.container_id) from None
    if message:
        from struct import unpack

        _, step, code, *_ = unpack(MESSAGE, message)
        raise program_error(step, code, state.program)
    if waited or died_as_init(state.pid) or _was_killed(first):
        raise init_has_died(out_of_memory=_exceeded_memory(state))


def program_error(step: int, code: int, program: str) -> ProgramError:
    """What an init says that could not execute the program."""
    return ProgramError("execute the program", code, step + 1, step + 1, program, found=True)


def init_has_died(*, out_of_memory: bool = False) -> LaunchError:
    error = LaunchError("start the container: its init has died", 0, 0, 0)
    if out_of_memory:
        error.add_note(OOM_KILLED)
    return error


def _exceeded_memory(state: State) -> bool:
    """Whether something in the container was killed for that."""
    return bool(state.cgroups and open_cgroup(state).memory_report()[1])


def init_is_stuck() -> LaunchError:
    return LaunchError("wait for the init, which may be stopped", errno.ETIMEDOUT, 0, 0)


def _read_to_end(fd: int, state: State, tell: Callable[[int], None] | None) -> bytes:
    """The message that says what failed, if one does, when the other end is closed."""
    import select

    watch = select.poll()
    watch.register(fd, select.POLLIN)
    failed = b""
    while True:
        if not watch.poll(PATIENCE_MS):
            raise init_is_stuck()
        message = os.read(fd, MESSAGE_BYTES)  # written whole: less than PIPE_BUF
        if not message:
            return failed
        from struct import unpack

        from cycontainer._clone import LISTENER

        kind, _, listener, pipe, *_ = unpack(MESSAGE, message)
        if kind == LISTENER and tell is not None:
            _tell(state, (listener, pipe), tell)
        else:
            failed = message


def _tell(state: State, numbers: tuple[int, int], tell: Callable[[int], None]) -> None:
    from cycontainer.seccomp_agent import fetch_listener

    first = open_first(state)
    try:
        fetch_listener(first, numbers, tell)
    finally:
        os.close(first)


def _was_killed(first: int) -> bool:
    """Whether a process was killed and has been waited for: only its pidfd knows its status then, since Linux 6.15.

    It was an init then, or a program for less than a moment: pid 1 of a namespace dies of no other signal that is sent
    to it, and of others a program dies by itself at once, by a fault or an assertion.
    """
    from cycontainer._wait import exit_status

    status = exit_status(first)
    return status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == SIGKILL
