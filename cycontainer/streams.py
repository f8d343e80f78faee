"""A program's standard descriptors, and our ends of its pipes. Lifecycle: it opens and closes descriptors."""

from __future__ import annotations

import os

from cycontainer._fd import above_streams, close_all
from cycontainer.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import IO, Any, Final, Self

    Stream = int | IO[Any] | None

PIPE: Final = -1  # as in subprocess
STDOUT: Final = -2
DEVNULL: Final = -3


class Streams:
    """The program's three descriptors, and our ends of its pipes. What is still ours is closed in the end."""

    def __init__(self) -> None:
        self.program: list[int] = []
        self.ends: dict[str, int] = {"stdin": -1, "stdout": -1, "stderr": -1}
        self._theirs: list[int] = []
        self._null = -1  # what stands for all that is nothing

    @classmethod
    def of(cls, streams: Iterable[Stream], *, terminal: bool) -> Self:
        """stdin, stdout and stderr of a program, which a `terminal` takes the place of. To be used in a `with`."""
        made = cls()
        try:
            for name, stream in zip(made.ends, streams):
                made.add(name, DEVNULL if terminal else stream)
        except BaseException:
            made.close()
            raise
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def taken(self) -> None:
        """Our ends are another's now."""
        self.ends = dict.fromkeys(self.ends, -1)

    def add(self, name: str, stream: Stream) -> None:
        if stream == STDOUT and name == "stderr":
            self.program.append(self.program[1])
        elif stream == DEVNULL:
            self._add_nothing()
        elif stream == PIPE:
            reader, writer = (above_streams(fd) for fd in os.pipe2(os.O_CLOEXEC))
            ours, theirs = (writer, reader) if name == "stdin" else (reader, writer)
            self.ends[name] = ours
            self._keep(theirs)
            os.set_blocking(ours, False)
        elif stream is None:
            self._inherit()
        else:
            self.program.append(_descriptor(name, stream))

    def _inherit(self) -> None:
        """What subprocess would pass on: where ours is closed, another descriptor may have taken its number."""
        fd = len(self.program)
        try:
            passed_on = os.get_inheritable(fd)
        except OSError:
            passed_on = False
        if passed_on:
            self.program.append(fd)
        else:
            self._add_nothing()

    def _add_nothing(self) -> None:
        if self._null < 0:
            self._null = above_streams(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
            self._theirs.append(self._null)
        self.program.append(self._null)

    def _keep(self, fd: int) -> None:
        self._theirs.append(fd)
        self.program.append(fd)

    def launched(self) -> None:
        """The program has its own now."""
        theirs, self._theirs = self._theirs, []
        close_all(theirs)

    def close(self) -> None:
        """After a failure: what nobody has taken over."""
        self.launched()
        ends, self.ends = self.ends, dict.fromkeys(self.ends, -1)
        close_all(fd for fd in ends.values() if fd >= 0)


def _descriptor(name: str, stream: int | IO[Any]) -> int:
    """Raises ConfigError: there is none."""
    try:
        fd = stream if isinstance(stream, int) else stream.fileno()
        os.fstat(fd)
    except (AttributeError, OSError, OverflowError, TypeError, ValueError):
        what = "PIPE, DEVNULL, an open descriptor or a file with one"
        raise ConfigError(name, f"must be {what}, not {stream!r}; STDOUT is for stderr") from None
    return fd
