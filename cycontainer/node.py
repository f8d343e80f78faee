"""One value of a configuration and its path: how it is checked, and named when it is wrong. Model; pure."""

from __future__ import annotations

from cycontainer.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Node:
    """A value of the config and its path, "process.rlimits[2].soft". A missing one is None."""

    __slots__ = ("path", "value")

    def __init__(self, value: object, path: str) -> None:
        self.value, self.path = value, path

    def error(self, problem: str) -> ConfigError:
        """What is wrong here."""
        return ConfigError(self.path, problem)

    def __bool__(self) -> bool:
        return self.value is not None

    def __getitem__(self, key: str) -> Node:
        """The property `key`, which may be missing; this has to be an object, or missing."""
        inner = f"{self.path}.{key}" if self.path else key
        if self.value is None:
            return Node(None, inner)
        if type(self.value) is not dict:
            raise self.error(f"must be an object, not {self._kind()}")
        return Node(self.value.get(key), inner)

    def required(self) -> Node:
        """This, or the error that it is missing."""
        if self.value is None:
            raise self.error("is missing")
        return self

    def _kind(self) -> str:
        text = repr(self.value)
        return text if len(text) <= 60 else f"{text[:60]}..."

    def items(self) -> Iterator[tuple[str, Node]]:
        """The properties of an object with free names; none when it is missing."""
        if self.value is None:
            return
        if type(self.value) is not dict:
            raise self.error(f"must be an object, not {self._kind()}")
        for key, value in self.value.items():
            if type(key) is not str or "\0" in key:
                raise self.error(f"{key!r} is not a name")
            yield key, Node(value, f"{self.path}[{key!r}]" if not key.isidentifier() else f"{self.path}.{key}")

    def array(self) -> list[Node]:
        """The entries of an array; none when it is missing."""
        if self.value is None:
            return []
        if type(self.value) not in (list, tuple):
            raise self.error(f"must be an array, not {self._kind()}")
        entries: list[object] = list(self.value)  # type: ignore[call-overload]  # its type was just looked at
        return [Node(value, f"{self.path}[{place}]") for place, value in enumerate(entries)]

    def text(self, default: str | None = None) -> str:
        """A string without NUL that can be encoded; `default` when it is missing."""
        if self.value is None and default is not None:
            return default
        self.required()
        if type(self.value) is not str:
            raise self.error(f"must be a string, not {self._kind()}")
        if "\0" in self.value:
            raise self.error("holds a NUL")
        try:
            self.value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise self.error("holds half of a surrogate pair") from None
        return self.value

    def texts(self) -> tuple[str, ...]:
        """An array of strings."""
        return tuple(entry.text() for entry in self.array())

    def path_text(self) -> str:
        """An absolute path."""
        text = self.text()
        if not text.startswith("/"):
            raise self.error(f"must be an absolute path, not {text!r}")
        if len(text) > 4095:
            raise self.error("is longer than a path may be, 4095 bytes")
        return text

    def one_of(self, names: object) -> str:
        """A string that is among `names`."""
        text = self.text()
        known = list(names)  # type: ignore[call-overload]  # any iterable of names
        if text not in known:
            raise self.error(f"unknown: {text!r}; one of {', '.join(known)}")
        return text

    def integer(self, least: int, most: int) -> int:
        """This value as an integer in [least, most], or a ConfigError that names its path."""
        self.required()
        if type(self.value) is not int:  # not isinstance: True is an int
            raise self.error(f"must be an integer, not {self._kind()}")
        if not least <= self.value <= most:
            raise self.error(f"must be from {least} to {most}, not {self.value}")
        return self.value

    def optional_integer(self, least: int, most: int) -> int | None:
        """The same, or None when it is missing."""
        return None if self.value is None else self.integer(least, most)

    def flag(self) -> bool:
        """A boolean; false when it is missing."""
        if self.value is None:
            return False
        if type(self.value) is not bool:
            raise self.error(f"must be true or false, not {self._kind()}")
        return self.value
