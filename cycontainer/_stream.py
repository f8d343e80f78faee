"""stream(): the lines of a run as they come. Face."""

from __future__ import annotations

from cycontainer._request import asked
from cycontainer._running import Running
from cycontainer.errors import ConfigError, Error
from cycontainer.launch import not_launched
from cycontainer.record import Record
from cycontainer.streams import PIPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from os import PathLike
    from typing import Any, Final, Self, Unpack

    from cycontainer._request import Keywords, Request
    from cycontainer._result import Result
    from cycontainer._wait import Waiter

LONGEST_LINE: Final = 1 << 20  # bytes, or letters of a text; a longer one comes in pieces


class Line(Record):
    """A line of a program's output.

    Attributes:
        source: "stdout" or "stderr".
        data: with its line end, but where the output ends without one, or a line is longer than a MiB and comes in
            pieces; a str with `text`.
    """

    source: str
    data: Any


def stream(args: Sequence[str | PathLike[str]], **keywords: Unpack[Keywords]) -> Lines:
    """Run a program in a container of its own, and iterate over the lines that it prints, as they come.

        with stream(["make"], rootfs="/srv/image", output_limit=1 << 20) as lines:
            for line in lines:
                print(line.source, line.data)
        print(lines.result.returncode)

    While nobody asks for the next line the program is held up by its full pipe, and nothing piles up here. The timeout
    is looked at when one asks. Leaving the block early kills the program.

    Args:
        args: the program and its arguments.
        keywords: those of `run()`; `output_limit` stops a flood.

    Returns:
        Lines, to be used in a `with`; their `result` is there when they have come to their end.

    Raises:
        ConfigError: an argument is wrong; it names which. Nothing was started.
        LaunchError: the container could not be made; nothing is left. ProgramError comes with the first line.

    Source: runtime-spec config.md.
    """
    return Lines(asked("stream", args, keywords))


class Lines:
    """The lines of one run; an iterator, and a context manager that cleans up. In a fork they are refused.

    Attributes:
        result: what became of it, once the lines have come to their end; its stdout and stderr are empty.
    """

    def __init__(self, request: Request) -> None:
        if request.stdout != PIPE and request.stderr != PIPE:
            raise ConfigError("stdout", "goes elsewhere, and stderr too: no line comes from here")
        self._text = request.decoding is not None
        self._running = Running(request, streaming=True)
        self._decode = {source: _decoder(request.decoding) for source in ("stdout", "stderr")}
        self._rest: dict[str, Any] = dict.fromkeys(self._decode, "" if self._text else b"")
        self._ready: list[Line] = []
        self._over = False
        self._result: Result | None = None

    @property
    def result(self) -> Result:
        if self._result is None:
            raise Error("the program has not ended, or was left before")
        return self._result

    def __enter__(self) -> Self:
        try:
            self._running.begin()
        except BaseException as error:
            self._give_up(error)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self._over:
            self._over = True
            self._running.close()

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        self._running.check_owner()
        while not self._ready and not self._over:
            try:
                self._listen()
            except BaseException as error:
                self._give_up(error)
                raise
        if not self._ready:
            raise StopIteration
        return self._ready.pop()

    def _listen(self) -> None:
        """Until there is something to tell."""
        self._deal_with(self.waiter.wait())

    @property
    def waiter(self) -> Waiter:
        """Of the program that runs. Raises Error: none does yet."""
        if self._running.waiter is None:
            raise Error("lines are used in a `with`")
        return self._running.waiter

    def _deal_with(self, event: int) -> None:
        running = self._running
        assert running.waiter is not None
        ended = running.hear(event)
        whole = ended and not running.stopped  # else it may end within a letter, which is left out
        found: list[Line] = []
        for source, data in zip(self._rest, running.waiter.take()):
            found += self._lines(source, self._decode[source](data, whole), ended)
        if ended:
            running.settle()
            self._over = True
            running.close()
            self._result = running.result()
        self._ready = found[::-1]

    def _lines(self, source: str, data: Any, ended: bool) -> list[Line]:
        end: Any = "\n" if self._text else b"\n"
        *lines, rest = (self._rest[source] + data).split(end)
        found = [Line(source=source, data=line + end) for line in lines]
        if rest and (ended or len(rest) > LONGEST_LINE):
            found.append(Line(source=source, data=rest))
            rest = rest[:0]
        self._rest[source] = rest
        return found

    def _give_up(self, error: BaseException) -> None:
        self._over = True
        self._running.close()
        if isinstance(error, OSError):
            raise not_launched(error) from error


def _decoder(decoding: tuple[str, str] | None) -> Callable[[bytes, bool], Any]:
    """Makes of bytes what lines are cut from; its second argument says that no more will come."""
    if decoding is None:
        return lambda data, _: data
    import codecs

    return codecs.getincrementaldecoder(decoding[0])(decoding[1]).decode
