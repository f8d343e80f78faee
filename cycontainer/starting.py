"""Letting a container go that waits. Lifecycle: it speaks to the init by its FIFOs, and runs hooks.

A byte to the FIFO that the init reads, and what comes back: the end (it has executed), or a message.
"""

from __future__ import annotations

import errno
import os

from cycontainer.errors import ContainerNotRunning, HookError, LaunchError, ProgramError
from cycontainer.state import died_as_init, start_time_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.notify import Listener
    from cycontainer.state import Directory, State

MESSAGE: Final = "4i3l"  # _steps.pxd: kind, step, error, tasks, and three that only a run's end fills


def start(directory: Directory, state: State, service_manager: str) -> Listener | None:
    """Let the program of a created container go; see `Container.start`. Returns who waits for its readiness."""
    if "start" not in state.python and not service_manager:
        release(directory, state)
        return None
    from cycontainer.deletion import kill_all
    from cycontainer.execution import run_start_hooks
    from cycontainer.hooks import run_hooks
    from cycontainer.notify import Listener
    from cycontainer.read_config import parse, read_config

    with open(directory.open_file("config.json", os.O_RDONLY), "rb") as file:
        config = read_config(parse(file.read()), bundle=state.bundle)
    listener = None
    first = open_first(state)
    try:
        if service_manager:
            listener = Listener(f"{directory.path}/notify", service_manager, state.pid, first)
        run_start_hooks(config, state, first)
        release(directory, state)
        run_hooks("poststart", config, state, "running", directory=state.bundle)
    except BaseException as error:
        if listener is not None:
            listener.close()
        if isinstance(error, HookError):
            kill_all(state)
        raise
    finally:
        os.close(first)
    return listener


def open_first(state: State) -> int:
    """A pidfd of a container's first process, verified to be it; the caller's.

    Raises:
        ContainerNotRunning: it has ended.
    """
    try:
        pidfd = os.pidfd_open(state.pid) if state.pid > 0 else -1
    except ProcessLookupError:
        pidfd = -1
    if pidfd >= 0 and start_time_of(state.pid) != state.start_time:
        os.close(pidfd)
        pidfd = -1
    if pidfd < 0:
        raise ContainerNotRunning(state.id)
    return pidfd


def release(directory: Directory, state: State) -> None:
    """Let a waiting init execute its program.

    Raises:
        ContainerNotRunning: it does not wait, or died before it executed anything.
        ProgramError, LaunchError: the program could not be executed.
    """
    try:
        outcome = directory.open_file("outcome", os.O_RDONLY | os.O_NONBLOCK)
        try:
            go = directory.open_file("go", os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(go, b"\0")
            finally:
                os.close(go)
            message = _read_to_end(outcome)
        finally:
            os.close(outcome)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ENOENT):
            raise
        raise ContainerNotRunning(directory.container_id) from None
    if message:
        import struct

        _, step, code, *_ = struct.unpack(MESSAGE, message)
        raise ProgramError("execute the program", code, step + 1, step + 1)
    if died_as_init(state.pid):
        raise LaunchError("start the container: its init has died", 0, 0, 0)


def _read_to_end(fd: int) -> bytes:
    import select

    watch = select.poll()
    watch.register(fd, select.POLLIN)
    parts = b""
    while True:
        watch.poll()
        part = os.read(fd, 4096)
        parts += part
        if not part:
            return parts
