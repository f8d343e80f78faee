"""A process that was launched: a container's first, or one beside it. Lifecycle: it waits, signals, and reads pipes."""

from __future__ import annotations

import _thread
import errno
import os

from cycontainer import _clone, _wait
from cycontainer.errors import (
    ConfigError,
    ContainerError,
    Error,
    LaunchError,
    WaitTimeout,
    name_of,
    reason_of,
    shown,
)
from cycontainer.handles import died_as_init
from cycontainer.launch import abandon, attend, end_of, kill
from cycontainer.state import write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import IO, Final, Self

    from cycontainer._clone import Child
    from cycontainer._wait import Waiter
    from cycontainer.beside import Beside
    from cycontainer.plan import Plan
    from cycontainer.state_text import State
    from cycontainer.supervisor import Supervisor

    Duties = Mapping[str, Callable[[Child], None]]

FOREVER: Final = float("inf")
SIGKILL: Final = 9
TIOCSWINSZ: Final = 0x5414


def settle(
    plan: Plan, child: Child, duties: Duties | None = None, *, until: str = "", timeout: float = FOREVER
) -> None:
    """Attend an init until it has executed the program, or until the duty `until` is done.

    Raises:
        LaunchError: a step failed, it took longer than `timeout` seconds, or it died. It may still be there.
    """
    while child.hear(timeout):
        message = child.receive()
        if message == ():
            child.settled()
            _check_executed(child, waits=bool(until))
            child.close_socket()
            return
        if message:
            attend(plan, child, message, duties)
            if message[0] == _clone.SYNC and plan.syncs[message[1]] == until:
                return
    raise LaunchError("wait for the init", errno.ETIMEDOUT, 0, len(plan.attempts))


def _check_executed(child: Child, *, waits: bool) -> None:
    """Its socket has been closed, by the program's execve or by its death: who `waits` for a duty executes nothing, and
    may have died before it had its name."""
    if waits or died_as_init(child.pid):
        code = end_of(child, None)[0]
        raise LaunchError(f"execute the program: the init died of {code}", 0, 0, 0)


def supervisor_of(state: State, process: Process | None) -> Supervisor | None:
    """What answers the system calls of a container whose first process this program has, if it started it.

    Raises:
        ContainerError: another program does.
    """
    supervisor = process.supervisor if process is not None else None
    if state.supervised and supervisor is None:
        raise ContainerError(state.id, "only the program that created the container answers its system calls")
    return supervisor


class Process:
    """A process of a container. It is our child, and its end is ours to hear; any threads may wait for it.

    Attributes:
        args: the program and its arguments.
        pid: in our pid namespace.
        pidfd: readable when it has ended; this object's, -1 once it is closed.
        stdin, stdout, stderr: files of bytes at our ends of its pipes; None where there is no pipe.
        terminal: the master of its terminal, this object's; -1 when it has none.
        returncode: the exit status, or minus the number of the signal that ended it; None until it is known.
        supervisor: what answers its container's system calls, when it is a container's first; this object's.
        beside: what was started beside it, when it is a container's first; None when it is not.
        made: when its container was, `State.created`, when it is a container's first: it is this one's, and no later
            one's of the same id; "" when it is not.
    """

    def __init__(self, plan: Plan, child: Child, args: tuple[str, ...]) -> None:
        self._plan, self._child = plan, child
        self.args, self.pid, self.returncode = args, child.pid, None
        self.terminal = -1
        self._watched = self._closed = False
        self.kept = False  # by its container, which hears of its end when it was closed: beside.py
        self.stdin, self.stdout, self.stderr = None, None, None
        self.supervisor, self.beside, self.made = None, None, ""
        self._ending = _thread.allocate_lock()  # the kernel tells its status once

    supervisor: Supervisor | None
    beside: Beside | None
    returncode: int | None
    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    stderr: IO[bytes] | None

    def with_ends(self, ends: dict[str, int] | None) -> Self:
        """Take over our ends of its pipes and, when it has come, its terminal; once it is launched."""
        self.pid = self._child.pid
        if self._child.terminal >= 0:
            self.terminal, self._child.terminal = self._child.terminal, -1
        for name, fd in (ends or {}).items():
            if fd >= 0:
                os.set_blocking(fd, True)
                setattr(self, name, open(fd, "wb" if name == "stdin" else "rb"))
        return self

    @property
    def pidfd(self) -> int:
        return -1 if self._closed else self._child.pidfd

    def check_open(self) -> None:
        """Raises Error: whoever closed it did not want to know how it ends."""
        if self.pidfd < 0:
            raise Error(f"{self.args[0]} (pid {self.pid}) was closed before its end was heard of")

    def poll(self) -> int | None:
        """The returncode, if it has ended. Raises Error: it was closed before."""
        if self.returncode is None:
            self.check_open()
            self._look()
        return self.returncode

    def _look(self) -> None:
        """Take its status, if it has ended. Raises StatusUnknown."""
        import select

        watch = select.poll()
        watch.register(self._child.pidfd, select.POLLIN)
        if watch.poll(0):
            self._take_status()

    def hear_end(self) -> bool:
        """Whether nothing of it is left to hear; of one that was closed nobody else takes the status."""
        from cycontainer.errors import StatusUnknown

        heard = True
        try:
            if self.returncode is None and self._child.pidfd >= 0:
                self._look()
                heard = self.returncode is not None
        except StatusUnknown:  # as who asks it will be told
            heard = True
        if heard and self._closed:
            self._child.close()
        return heard

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return the returncode.

        Args:
            timeout: seconds; None is as long as it takes.

        Raises:
            WaitTimeout: it is still there.
            StatusUnknown: it has ended, and someone else took its status.
            Error: it was closed before its end was heard of.
            What a callable of its supervisor has raised, which ended it.
        """
        code = self._wait(timeout)
        self.raise_error()
        return code

    def raise_error(self) -> None:
        """Raise what a callable of its supervisor has raised, if one has."""
        if self.supervisor is not None:
            self.supervisor.raise_error()

    def _wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            from cycontainer._arguments import seconds

            waiter = self.watch(seconds("timeout", timeout))
            while not self.hear(event := self._event(waiter)):
                if event == _wait.DEADLINE:
                    raise WaitTimeout(f"{self.args[0]} (pid {self.pid}) has not ended within {timeout} seconds")
        assert self.returncode is not None
        return self.returncode

    def _event(self, waiter: Waiter) -> int:
        """The next one. Meanwhile the ends of others are heard, for which a container's first process waits in its."""
        if self.beside is None:
            return waiter.wait()
        while (event := waiter.wait_for(self.beside.pause())) == _wait.NOTHING:
            continue
        return event

    def watch(self, timeout: float) -> Waiter:
        """What its end is waited for with; each event goes to `hear`. Raises Error: it was closed."""
        self.check_open()
        self._watched = True
        return _wait.Waiter(self._child, -1, -1, -1, b"", timeout)

    def hear(self, event: int) -> bool:
        """Deal with an event; whether it was the end. Raises StatusUnknown."""
        if event == _wait.MESSAGE:
            self._child.receive()
        elif event == _wait.ENDED:
            self._take_status()
        return event == _wait.ENDED

    def communicate(self, input: bytes = b"", timeout: float | None = None) -> tuple[bytes, bytes]:
        """Write `input`, read both pipes to their ends, wait for the end; what came from each.

        Raises:
            WaitTimeout: it is still there; what was read until then is lost.
            Error: it was closed.
            ConfigError: `input` is not bytes, or `timeout` no number.
        """
        from cycontainer._arguments import seconds

        limit = seconds("timeout", timeout)
        if not isinstance(input, bytes | bytearray | memoryview):
            raise ConfigError("input", f"must be bytes, not {shown(input)}")
        self.check_open()
        output, errors, entry = [self._take(name) for name in ("stdout", "stderr", "stdin")]
        if not input and entry >= 0:
            os.close(entry)
            entry = -1
        self._watched = True
        waiter = _wait.Waiter(self._child, output, errors, entry, bytes(input), limit)
        while (event := self._event(waiter)) == _wait.MESSAGE:
            self._child.receive()
        if event == _wait.DEADLINE:
            raise WaitTimeout(f"{self.args[0]} (pid {self.pid}) has not ended within {timeout} seconds")
        self._take_status()
        self.raise_error()
        return waiter.output()

    def _take_status(self) -> None:
        """It has ended, and another thread may have heard of it first. Raises StatusUnknown."""
        with self._ending:
            if self.returncode is None:
                self.returncode = end_of(self._child, None)[0]

    def _take(self, name: str) -> int:
        """The descriptor of one of our files, to be another's; -1 when there is none."""
        file = getattr(self, name)
        if file is None:
            return -1
        fd = os.dup(file.fileno())
        file.close()
        setattr(self, name, None)
        os.set_blocking(fd, False)
        return fd

    def started(self) -> None:
        """`start` has let it go: a descriptor less, unless somebody watches it already."""
        if not self._watched:
            self._child.close_socket()

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens when it is known to have ended. Raises Error: it was closed."""
        from cycontainer._arguments import check_signal

        check_signal(number)
        if self.returncode is None:
            self.check_open()
            try:
                self._child.send_signal(number)
            except ProcessLookupError:
                return

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(SIGKILL)

    def resize(self, rows: int, columns: int) -> None:
        """Set its terminal's size, in characters. Raises OSError; EBADF when it has no terminal."""
        import fcntl
        import struct

        from cycontainer.node import Node
        from cycontainer.read_process import WINSIZE_MAX

        for name, value in (("rows", rows), ("columns", columns)):
            Node(value, name).integer(0, WINSIZE_MAX)
        if self.terminal < 0:
            raise OSError(errno.EBADF, f"{name_of(errno.EBADF)}: the process has no terminal")
        fcntl.ioctl(self.terminal, TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def close(self) -> None:
        """Close our descriptors. The process goes on. For one of `exec`'s, its container keeps one until its end."""
        for file in (self.stdin, self.stdout, self.stderr):
            if file is not None:
                file.close()
        if self.terminal >= 0:
            os.close(self.terminal)
        self.terminal = -1
        if self.supervisor is not None:
            self.supervisor.close()
        self._closed = True
        if not self.kept or self.returncode is not None:
            self._child.close()

    def abandon(self) -> None:
        """Kill it, wait for it, and close what is ours: nobody wants its status."""
        if self.returncode is None and self.pidfd >= 0:
            abandon(self._child)
            self.kept = False
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.returncode is None and self.pidfd >= 0:
            kill(self._child)
            self._wait()
        self.close()


def write_pid_file(path: str, pid: int) -> None:
    """Write a pid, whole. Raises ConfigError."""
    try:
        write_whole(path, b"%d" % pid, 0o644)
    except OSError as error:
        raise ConfigError("pid-file", f"{path}: {reason_of(error)}") from None
