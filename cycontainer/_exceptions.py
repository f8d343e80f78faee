"""What a task raised, made an exception again: which one, and of what, was told by code that may be hostile. Face.

Of Python's own exceptions those are made again that plain data cannot make dangerous: whatever the arguments, to make
one, its `str`, its `repr` and its traceback run no code, read no file and take no longer than the arguments are large.

- UnicodeDecodeError and its like index their object by numbers that nothing checks: they are checked here.
- A SyntaxError has its text only: a column is as many spaces in a traceback, and tools open its file.
- Of attributes there are none that a traceback looks something up by: `ImportError.name_from`, `AttributeError.obj`,
  and `NameError.name`, which newer ones look for in the caller's own `self`.
- StopIteration and StopAsyncIteration, raised from a result, would end whatever loop is around it.
"""

from __future__ import annotations

import builtins

from cycontainer._task import ATTRIBUTES, DEEPEST_GROUP, LONGEST_TOLD, MOST_NOTES
from cycontainer.errors import Error, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final

MOST_MEMBERS: Final = 1000  # of a group, with those of the groups in it
ENDS: Final = (StopIteration, StopAsyncIteration)
OBJECTS: Final = {UnicodeDecodeError: bytes, UnicodeEncodeError: str, UnicodeTranslateError: str}


class TaskError(Error):
    """A task failed: it raised what is none of Python's own exceptions, or its container did not answer.

    Attributes:
        kind: the exception's class: "module.Name"; "" when none was told.
        text: what it says, or why there is no answer.
        traceback: where it was raised, as text; "" when that is not known.
    """

    def __init__(self, kind: str, text: str, traceback: str = "") -> None:
        super().__init__(kind, text, traceback)
        self.kind, self.text, self.traceback = kind, text, traceback

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.kind else self.text


class RemoteTraceback(Error):
    """The cause of an exception that was raised in a container: its traceback there.

    Attributes:
        text: the traceback.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


class Remaker:
    """Of one answer's exception and, if that is a group, of those in it."""

    def __init__(self, decoded: Callable[[Any], Any]) -> None:
        """`decoded` makes plain data of what was told."""
        self._decoded, self._members = decoded, 0

    def remade(self, told: Mapping[str, Any], depth: int = 0) -> Exception:
        """It, or a `TaskError` in its place. Raises ValueError, TypeError, LookupError: it is not told as we do."""
        kind, text, trace = (printable_lines(told[key]) for key in ("type", "text", "traceback"))
        made = self._own(kind, text, told, depth)
        if made is None:
            made = TaskError(kind, text, trace)
        elif trace:
            made.__cause__ = RemoteTraceback(trace)
        for note in told["notes"][:MOST_NOTES]:
            made.add_note(printable_lines(note))
        return made

    def _own(self, kind: str, text: str, told: Mapping[str, Any], depth: int) -> Exception | None:
        """One of Python's own, that can be shown; None when it is none, or not made of this."""
        found = _class_of(kind)
        if found is None:
            return None
        try:
            if issubclass(found, ExceptionGroup):
                (message,) = self._decoded(told["args"])
                made: Exception = found(message, self._grouped(told["members"], depth))
            elif issubclass(found, SyntaxError):
                made = found(text)
            else:
                args = self._decoded(told["args"])
                _check_object(found, args)
                made = found(*args)
                _give(made, dict(self._decoded(told["attributes"])))
            str(made), repr(made)  # an integer of too many digits is found nowhere else
        except (TypeError, ValueError, OverflowError, RecursionError):
            return None  # one that takes other arguments than it has, or whose set costs too much
        return made

    def _grouped(self, members: list[Any], depth: int) -> list[Exception]:
        self._members += len(members)
        if depth > DEEPEST_GROUP or self._members > MOST_MEMBERS:
            raise ValueError("a group of too many exceptions")
        return [self.remade(member, depth + 1) for member in members]


def _class_of(kind: str) -> type[Exception] | None:
    """Of Python's own exceptions one that is made again; not what a program has put beside them."""
    module, _, name = kind.rpartition(".")
    found = vars(builtins).get(name) if module == "builtins" else None
    if not isinstance(found, type) or not issubclass(found, Exception) or issubclass(found, ENDS):
        return None
    return found if found.__module__ == "builtins" else None


def _check_object(kind: type[Exception], args: list[Any]) -> None:
    """Refuse what its `str` would read outside of the object. Raises TypeError, ValueError."""
    for known, content in OBJECTS.items():
        if issubclass(kind, known):
            *encoding, what, start, end, reason = args
            if [type(each) for each in (*encoding, reason)] != [str] * (1 if known is UnicodeTranslateError else 2):
                raise TypeError("its encoding or reason is no text")
            if (type(what), type(start), type(end)) != (content, int, int) or not 0 <= start < end <= len(what):
                raise ValueError("its place is not in its object")


def _give(made: Exception, attributes: Mapping[str, Any]) -> None:
    """What its arguments do not say. Raises TypeError."""
    for kind, names in ATTRIBUTES.items():
        for name in names if isinstance(made, kind) else ():
            value = attributes.get(name)
            if type(value) not in (str, bytes, int, type(None)):
                raise TypeError("no name")
            if value is not None:
                setattr(made, name, value)


def printable_lines(text: Any) -> str:
    """A hostile text, with control characters escaped but line ends. Raises TypeError."""
    if not isinstance(text, str):
        raise TypeError("no text")
    return "\n".join(printable(line) for line in text[:LONGEST_TOLD].split("\n"))
