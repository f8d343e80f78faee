"""spawn(): a program in a container of its own that runs beside us. Face."""

from __future__ import annotations

import os

from cycontainer import _wait
from cycontainer._arguments import seconds
from cycontainer._request import asked
from cycontainer._running import Running
from cycontainer.errors import ConfigError, Error, WaitTimeout
from cycontainer.launch import not_launched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike
    from typing import IO, Self, Unpack

    from cycontainer._request import Keywords, Request
    from cycontainer._result import Result

FOREVER = float("inf")
SIGKILL = 9


def spawn(args: Sequence[str | PathLike[str]], **keywords: Unpack[Keywords]) -> Spawned:
    """Start a program in a container of its own, and go on.

    Args:
        args: the program and its arguments.
        keywords: those of `run()`. With `capture_output` there are pipes to its stdout and stderr; one to its stdin
            comes of `stdin=PIPE`. `input` and `output_limit` are `run()`'s alone.

    Returns:
        The program, to be used in a `with`, or closed.

    Raises:
        ConfigError: an argument is wrong; it names which. Nothing was started.
        LaunchError: the container could not be made; nothing is left.
        CgroupError: a limit could not be set; nothing is left.

    Source: runtime-spec config.md.
    """
    return spawned(asked("spawn", args, keywords))


def spawned(request: Request) -> Spawned:
    """`spawn` of what has been checked."""
    running = Running(check_piped(request), piped=True)
    try:
        running.begin()
        running.set_up()
        return Spawned(running)
    except BaseException as error:
        running.close()
        if isinstance(error, OSError):
            raise not_launched(error) from error
        raise


def check_piped(request: Request) -> Request:
    """Refuse what goes through pipes that are `run()`'s own."""
    if request.data or request.output_limit >= 0:
        raise ConfigError("input" if request.data else "output_limit", "is run()'s: here the pipes are the caller's")
    return request


class Spawned:
    """A program that runs in a container of its own. Closing it ends it, and removes all that belongs to it.

    In a fork it is its parent's: `close` does nothing there, all else is refused.

    Attributes:
        args: the program and its arguments.
        pid: the container's first process, in our pid namespace.
        stdin, stdout, stderr: files of bytes at our ends of its pipes; None where there is no pipe.
    """

    def __init__(self, running: Running) -> None:
        assert running.child is not None
        self._running, self._result, self._over = running, None, False
        self.args, self.pid = running.request.args, running.child.pid
        ends = running.streams.ends
        running.streams.taken()
        self.stdin, self.stdout, self.stderr = (_file(ends[name], name) for name in ("stdin", "stdout", "stderr"))

    _result: Result | None

    @property
    def pidfd(self) -> int:
        """Readable when the container has ended; -1 once it is closed. This object's.

        In a cgroup of systemd's that is a second after the program, unless one is in `wait`.
        """
        return self._running.child.pidfd if self._running.child is not None else -1

    def wait(self, timeout: float | None = None) -> Result:
        """Wait for the end, and clean up: what became of it. What it prints is the caller's to read meanwhile.

        Args:
            timeout: seconds; None is as long as it takes. That of `spawn` ends the program, this does not.

        Raises:
            WaitTimeout: it is still there.
            LaunchError, ProgramError: the program could not be executed.
            StatusUnknown: it has ended, and someone else took its status.
            Error: it was closed before its end, or is another process's.
        """
        limit = seconds("timeout", timeout)
        if self._result is None:
            self.check_open()
            try:
                self._await_end(limit)
            except WaitTimeout:
                raise
            except BaseException:
                self.close()
                raise
        assert self._result is not None
        return self._result

    def _await_end(self, timeout: float) -> None:
        running = self._running
        assert running.waiter is not None
        event = running.waiter.wait_for(timeout)
        while event == _wait.NOTHING or not running.hear(event):
            if event == _wait.NOTHING:
                raise WaitTimeout(f"{self.args[0]} (pid {self.pid}) has not ended within {timeout} seconds")
            event = running.waiter.wait_for(timeout)
        self.conclude()

    def check_open(self) -> None:
        """Raises Error: whoever closed it did not want to know how it ends; or it is another process's."""
        self._running.check_owner()
        if self._over:
            raise Error(f"{self.args[0]} (pid {self.pid}) was closed before its end")

    def conclude(self) -> None:
        """It has ended, and was heard to: clean up, and keep the result."""
        self._running.settle()
        self._over = True
        self._running.close()
        self._result = self._running.result()

    def send_signal(self, number: int) -> None:
        """Send a signal: a pid 1 of ours passes it on. Nothing happens when it has ended. Raises OSError, Error."""
        self._running.check_owner()
        child = self._running.child
        if self._over or child is None:
            return
        self._running.killed = self._running.killed or number == SIGKILL
        try:
            child.send_signal(number)
        except ProcessLookupError:
            return

    def kill(self) -> None:
        """End all its processes."""
        self.send_signal(SIGKILL)
        if not self._over:
            self._running.end_rest()

    def close(self) -> None:
        """End it, if it has not ended, and close our ends of its pipes."""
        if self._running.left:
            return
        for file in (self.stdin, self.stdout, self.stderr):
            if file is not None:
                _close(file)
        if not self._over:
            self._over = True
            self._running.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _file(fd: int, name: str) -> IO[bytes] | None:
    if fd < 0:
        return None
    os.set_blocking(fd, True)
    return open(fd, "wb" if name == "stdin" else "rb")


def _close(file: IO[bytes]) -> None:
    """What was not written yet has no reader any more."""
    try:
        file.close()
    except BrokenPipeError:
        return
