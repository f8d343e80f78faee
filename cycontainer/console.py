"""Terminals: a master that is handed over to another program, or relayed to the caller's own. Lifecycle.

Sources: pts(4), termios(3), ioctl_tty(2).
"""

from __future__ import annotations

import errno
import os

from cycontainer import _unix
from cycontainer.errors import LaunchError, errno_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from cycontainer.process import Process

MOST_BYTES: Final = 65536  # that are on their way in one direction


def hand_over(path: str, descriptor: int, name: str) -> None:
    """Send a descriptor to the program that listens at a socket, and close it here.

    Args:
        path: of the unix stream socket.
        name: what the descriptor is, in words: the message's text.

    Raises:
        LaunchError: it cannot be reached.
    """
    try:
        _unix.send(os.fsencode(path), name.encode(), (descriptor,))
    except OSError as error:
        raise LaunchError(f"send the {name} to the socket {path}", errno_of(error), 0, 0) from None
    finally:
        os.close(descriptor)


def size_of(terminal: int) -> tuple[int, int] | None:
    """Rows and columns of a terminal; None when it is none."""
    try:
        columns, rows = os.get_terminal_size(terminal)
    except OSError:
        return None
    return rows, columns


class Relay:
    """Copies between the caller's standard descriptors and a process's terminal, until the process has ended.

    The caller's terminal is raw meanwhile: what is typed is the program's to interpret, Ctrl-C included.
    """

    def __init__(self, process: Process) -> None:
        self._process, self._terminal = process, process.terminal
        self._input = b""  # what the terminal has not yet taken
        self._reads, self._writes = True, True  # whether our input, and our output, are still there
        self._before: Any = None

    def __enter__(self) -> Relay:
        import termios

        os.set_blocking(self._terminal, False)
        self.resize()
        if os.isatty(0):
            self._before = termios.tcgetattr(0)
            termios.tcsetattr(0, termios.TCSANOW, _raw(termios, self._before))
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            import termios

            termios.tcsetattr(0, termios.TCSADRAIN, self._before)

    def resize(self) -> None:
        """Give the process's terminal the size of the caller's."""
        size = size_of(0) or size_of(1)
        if size is not None:
            self._process.resize(*size)

    def run(self) -> int:
        """Copy until the process has ended and all that it printed is out; its returncode."""
        import select

        while not self._ended(select):
            self._turn(select, None)
        while self._turn(select, 0):
            continue
        return self._process.wait()

    def _ended(self, select: Any) -> bool:
        watch = select.poll()
        watch.register(self._process.pidfd, select.POLLIN)
        return bool(watch.poll(0))

    def _turn(self, select: Any, timeout: int | None) -> bool:
        """Wait for something to copy, and copy it; whether there was anything."""
        watch = select.poll()
        if timeout is None:
            watch.register(self._process.pidfd, select.POLLIN)
        if self._reads and not self._input and timeout is None:
            watch.register(0, select.POLLIN)
        if self._terminal >= 0:
            watch.register(self._terminal, select.POLLIN | (select.POLLOUT if self._input else 0))
        ready = dict(watch.poll(timeout))
        if 0 in ready:
            self._read()
        return self._terminal in ready and self._copy()

    def _read(self) -> None:
        try:
            self._input = os.read(0, MOST_BYTES)
        except BlockingIOError:  # another program that reads it was faster
            return
        self._reads = bool(self._input)

    def _copy(self) -> bool:
        """Move what the terminal has and takes; whether it had anything. At its end, look at it no more."""
        if self._input:
            self._input = self._input[self._feed() :]
        try:
            output = os.read(self._terminal, MOST_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # the last descriptor of the other side was closed
                raise
            output = b""
        if not output:
            self._terminal = -1
        while output and self._writes:
            output = output[self._print(output) :]
        return self._terminal >= 0

    def _feed(self) -> int:
        """How much of the input the terminal takes: none while the program waits until its output is read."""
        try:
            return os.write(self._terminal, self._input)
        except BlockingIOError:
            return 0

    def _print(self, output: bytes) -> int:
        """How much of the output ours has taken; one that does not block is waited for until it has room."""
        import select

        room = select.poll()
        room.register(1, select.POLLOUT)
        room.poll()
        try:
            return os.write(1, output)
        except BlockingIOError:  # another program that writes to it was faster
            return 0
        except BrokenPipeError:
            self._writes = False  # nobody reads on: the program goes on all the same
            return len(output)


def _raw(termios: Any, before: list[Any]) -> list[Any]:
    """termios(3), "Raw mode": all is done by the container's terminal, and nothing twice."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, characters = before
    iflag &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP)
    iflag &= ~(termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON)
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    characters = list(characters)
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, characters]
