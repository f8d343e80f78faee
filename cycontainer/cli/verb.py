"""What a verb of the command is, and how its words are read. Face; it touches nothing.

Options and operands may be mixed; --opt VALUE and --opt=VALUE both work; what follows -- is operands.
"""

from __future__ import annotations

from cycontainer.errors import Error
from cycontainer.record import Record


class UsageError(Error):
    """The words of a call are off."""


class Option(Record):
    """One option: its names, and that of its value ("" for a flag)."""

    names: tuple[str, ...]
    help: str
    value: str = ""


class Verb(Record):
    usage: str
    help: str
    operands: tuple[int, int]  # how many, least and most
    options: tuple[Option, ...] = ()


class Arguments:
    """A verb's words, read.

    Attributes:
        root: the directory that states are kept in, by the global option; None is the default one.
    """

    def __init__(self, operands: list[str], values: dict[str, str]) -> None:
        self.operands, self._values = operands, values
        self.root: str | None = None

    def given(self, name: str) -> bool:
        return name in self._values

    def value(self, name: str, default: str = "") -> str:
        return self._values.get(name, default)


def _split(word: str) -> tuple[str, str | None]:
    name, equals, value = word.partition("=")
    return name, value if equals else None


def read(
    options: tuple[Option, ...], words: list[str], *, stop_at_operand: bool = False
) -> tuple[Arguments, list[str]]:
    """The options and operands in `words`, and what was left unread.

    Raises:
        UsageError: an unknown option, or one without its value.
    """
    known = {name: option for option in options for name in option.names}
    values: dict[str, str] = {}
    operands: list[str] = []
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if word == "--":
            return Arguments(operands + words[place:], values), []
        if not word.startswith("-") or word == "-":
            if stop_at_operand:
                return Arguments(operands, values), words[place - 1 :]
            operands.append(word)
            continue
        name, value = _split(word)
        if name not in known:
            raise UsageError(f"flag provided but not defined: {name}")
        option = known[name]
        if option.value and value is None:
            if place == len(words):
                raise UsageError(f"flag needs an argument: {name}")
            value = words[place]
            place += 1
        values[option.names[0]] = value or ""
    return Arguments(operands, values), []


def help_text(name: str, verb: Verb) -> str:
    """What --help prints."""
    lines = [f"usage: cycontainer {name} [options] {verb.usage}", "", verb.help]
    if verb.options:
        lines += ["", "options:"]
        for option in verb.options:
            lines.append(f"  {', '.join(option.names)} {option.value}".rstrip().ljust(30) + option.help)
    return "\n".join(lines)
