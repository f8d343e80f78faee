"""One value of a configuration and its path: how it is checked, and named when it is wrong. Model; pure."""

from __future__ import annotations

from cycontainer.errors import LONGEST_SHOWN, ConfigError, shown
from cycontainer.tables import MOST_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Final

INT64: Final = 2**63 - 1
UINT32: Final = 2**32 - 1
UINT64: Final = 2**64 - 1
PATH_MAX: Final = 4095  # linux/limits.h, less the NUL


def member(path: str, key: str) -> str:
    """The path of the property `key`, a free name, of the object at `path`."""
    plain = key.isascii() and key.isidentifier() and len(key) <= LONGEST_SHOWN
    return path + ((f".{key}" if path else key) if plain else f"[{shown(key)}]")


class Node:
    """A value of the config and its path, "process.rlimits[2].soft". A missing one is None, and false.

    JSON's null is missing, too: Go programs write it for an empty list.
    """

    __slots__ = ("path", "value")

    def __init__(self, value: object, path: str) -> None:
        self.value, self.path = value, path

    def __bool__(self) -> bool:
        return self.value is not None

    def error(self, problem: str) -> ConfigError:
        """What is wrong here."""
        return ConfigError(self.path, problem)

    def required(self) -> Node:
        """This, or the error that it is missing."""
        if self.value is None:
            raise self.error("is missing")
        return self

    def object(self) -> dict[str, object]:
        """The properties of an object; none when it is missing."""
        if self.value is None:
            return {}
        if type(self.value) is not dict:
            raise self.error(f"must be an object, not {shown(self.value)}")
        return self.value

    def __getitem__(self, key: str) -> Node:
        """The property `key`, which may be missing; this has to be an object, or missing."""
        return Node(self.object().get(key), f"{self.path}.{key}" if self.path else key)

    def items(self) -> Iterator[tuple[str, Node]]:
        """The properties of an object with free names, which are strings as `text` has them, and not empty."""
        for key, value in self.object().items():
            if type(key) is not str or not key:
                raise self.error(f"{shown(key)} is not a name")
            inner = Node(value, member(self.path, key))
            Node(key, inner.path).text()
            yield key, inner

    def array(self) -> list[Node]:
        """The entries of an array; none when it is missing."""
        if self.value is None:
            return []
        if not isinstance(self.value, list | tuple):
            raise self.error(f"must be an array, not {shown(self.value)}")
        return [Node(value, f"{self.path}[{place}]") for place, value in enumerate(self.value)]

    def _string(self, default: str | None) -> str:
        if self.value is None and default is not None:
            return default
        if type(self.value) is not str:
            raise self.required().error(f"must be a string, not {shown(self.value)}")
        if "\0" in self.value:
            raise self.error("holds a NUL")
        return self.value

    def text(self, default: str | None = None) -> str:
        """A string without NUL and lone surrogates; `default` when it is missing."""
        text = self._string(default)
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise self.error("holds half of a surrogate pair") from None
        return text

    def os_text(self, default: str | None = None) -> str:
        """The same for paths and arguments: from Python, bytes that are no UTF-8 may be there as in `os.fsdecode`."""
        text = self._string(default)
        if not text.isascii():
            try:
                text.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:
                raise self.error("holds half of a surrogate pair") from None
        return text

    def os_texts(self) -> tuple[str, ...]:
        """An array of them."""
        return self._plain_texts() or tuple([entry.os_text() for entry in self.array()])

    def texts(self) -> tuple[str, ...]:
        """An array of strings."""
        return self._plain_texts() or tuple([entry.text() for entry in self.array()])

    def _plain_texts(self) -> tuple[str, ...]:
        """An array of strings of which no one need be looked at: ASCII without NUL, as hundreds are; else nothing."""
        if type(self.value) is not list or set(map(type, self.value)) != {str}:
            return ()
        together = "".join(self.value)
        return tuple(self.value) if together.isascii() and "\0" not in together else ()

    def line(self) -> str:
        """A string that the kernel reads as one line; empty when it is missing."""
        text = self.text("")
        if "\n" in text:
            raise self.error("must be a single line")
        return text

    def name(self) -> str:
        """A string that names one file in a directory."""
        text = self.text()
        if not text or text in (".", "..") or "/" in text or "\n" in text:
            raise self.error(f"{shown(text)} cannot be the name of a file")
        return text

    def some_path(self) -> str:
        """A path, absolute or not."""
        text = self.os_text()
        if not text:
            raise self.error("is empty")
        if len(text) > PATH_MAX or len(text.encode("utf-8", "surrogateescape")) > PATH_MAX:
            raise self.error(f"is longer than a path may be, {PATH_MAX} bytes")
        return text

    def path_text(self) -> str:
        """An absolute path."""
        text = self.some_path()
        if not text.startswith("/"):
            raise self.error(f"must be an absolute path, not {shown(text)}")
        return text

    def one_of(self, names: Collection[str]) -> str:
        """A string that is among `names`."""
        text = self.text()
        if text not in names:
            raise self.error(f"unknown: {shown(text)}; one of {', '.join(names)}")
        return text

    def integer(self, least: int, most: int, default: int | None = None) -> int:
        """An integer in [least, most], or a ConfigError that names its path; `default` when it is missing."""
        if self.value is None and default is not None:
            return default
        if type(self.value) is not int:  # not isinstance: True is an int
            raise self.required().error(f"must be an integer, not {shown(self.value)}")
        if not least <= self.value <= most:
            raise self.error(f"must be from {least} to {most}, not {shown(self.value)}")
        return self.value

    def optional_integer(self, least: int, most: int) -> int | None:
        """The same, or None when it is missing."""
        return None if self.value is None else self.integer(least, most)

    def flag(self) -> bool:
        """A boolean; false when it is missing."""
        return bool(self.optional_flag())

    def optional_flag(self) -> bool | None:
        """A boolean, or None when it is missing."""
        if self.value is None or type(self.value) is bool:
            return self.value
        raise self.error(f"must be true or false, not {shown(self.value)}")

    def number_list(self) -> frozenset[int] | None:
        """CPUs or memory nodes, as in "0-2,7"; None when it is missing or blank. Source: cpuset(7), "List Format"."""
        text = self.text("")
        if not text.strip():
            return None
        numbers: set[int] = set()
        for part in text.split(","):
            low, dash, high = (number.strip() for number in part.partition("-"))
            ends = (low, high if dash else low)
            if not all(end.isascii() and end.isdigit() for end in ends):
                raise self.error(f"must be a list such as 0-2,7, not {shown(text)}")
            if any(len(end) > 4 for end in ends) or not int(ends[0]) <= int(ends[1]) <= MOST_NUMBER:
                raise self.error(f"{shown(part)} is no range of numbers from 0 to {MOST_NUMBER}")
            numbers.update(range(int(ends[0]), int(ends[1]) + 1))
        return frozenset(numbers)
