"""What a verb of the command is, and how its words are read. Face; it touches nothing.

Options and operands may be mixed; --opt VALUE and --opt=VALUE both work; what follows -- is operands. Go's way to write
them works as well (-opt is --opt, and a flag's value is one of its words), and getopt's: -u5 is -u 5, and -dt is -d -t.
"""

from __future__ import annotations

from cycontainer.errors import Error
from cycontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

MANY: Final = 1 << 30  # operands
TRUTH: Final = {  # Go's strconv.ParseBool
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
HELP: Final = ("--help", "-h", "-?", "--usage")


class UsageError(Error):
    """The words of a call are off."""


class Option(Record):
    """One option: its names, that of its value ("" for a flag), and all values, if it is one of a few."""

    names: tuple[str, ...]
    help: str
    value: str = ""
    choices: tuple[str, ...] = ()


class Verb(Record):
    """A verb's words.

    Attributes:
        example: a call, as one would type it.
        operands: how many there may be, least and most.
        ends_at_operand: what follows the first operand is someone else's, options too.
    """

    usage: str
    help: str
    example: str
    operands: tuple[int, int]
    options: tuple[Option, ...] = ()
    ends_at_operand: bool = False


ONE_ID: Final = (1, 1)


class Arguments:
    """A verb's words, read.

    Attributes:
        root: the directory that states are kept in, by the global option; None is the default one.
        rootless: whether there may be no permission to make cgroups, by the global option; None: that is seen.
        cgroup_manager: who makes cgroups, by the global options: "cgroupfs", "systemd" or "disabled".
        warn: tells the user something that is no error.
    """

    def __init__(self, operands: list[str], values: dict[str, list[str]]) -> None:
        self.operands, self._values = operands, values
        self.root: str | None = None
        self.cgroup_manager = "cgroupfs"
        self.rootless: bool | None = None
        self.warn: Callable[[str], None] = lambda text: None

    def given(self, name: str) -> bool:
        """Whether an option is there. One whose value is empty is not, as in Go a text that was not given is empty."""
        return bool(self.value(name))

    def value(self, name: str, default: str = "") -> str:
        """The value of an option: the last, if it is there more than once."""
        return self._values[name][-1] if name in self._values else default

    def values(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def number(self, name: str, least: int, most: int, default: int = 0) -> int:
        """The value of an option as an integer in [least, most]. Raises UsageError."""
        text = self.value(name, str(default))
        return number_in(text, least, most, name)

    def choice(self, name: str, names: tuple[str, ...]) -> str:
        """The value of an option that is one of `names`; the first is the default. Raises UsageError."""
        text = self.value(name, names[0])
        if text not in names:
            raise UsageError(f"invalid {name.lstrip('-')} option {text!r}: one of {', '.join(names)}")
        return text


def number_in(text: str, least: int, most: int, name: str) -> int:
    """An integer in [least, most]; `name` says where it stands. Raises UsageError."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 20 and least <= int(text) <= most):
        raise UsageError(f"invalid value {text!r} for {name}: must be a number from {least} to {most}")
    return int(text)


def _known(options: tuple[Option, ...]) -> dict[str, Option]:
    return {name: option for option in options for name in option.names}


def _set_flag(values: dict[str, list[str]], option: Option, value: str | None) -> None:
    if value is not None and value not in TRUTH:
        raise UsageError(f"invalid value {value!r} for {option.names[0]}: true or false")
    if value is None or TRUTH[value]:
        values[option.names[0]] = ["true"]
    else:
        values.pop(option.names[0], None)


def _split(known: dict[str, Option], word: str) -> list[tuple[str, str | None]]:
    """The names of options in a word, which are known, each with its value if that is there. Raises UsageError."""
    name, equals, value = word.partition("=")
    for whole in (name, f"-{name}"):
        if whole in known:
            return [(whole, value if equals else None)]
    found: list[tuple[str, str | None]] = []
    for place, letter in enumerate(word[1:], 2):
        short, rest = f"-{letter}", word[place:]
        if short not in known or word.startswith("--"):
            raise UsageError(f"flag provided but not defined: {name}")
        if known[short].value:
            return [*found, (short, rest or None)]
        found.append((short, None))
    return found


def read(
    options: tuple[Option, ...], words: list[str], *, ends_at_operand: bool = False
) -> tuple[Arguments, list[str]]:
    """The options and operands in `words`.

    Args:
        ends_at_operand: the first operand and all after it are left unread.

    Raises:
        UsageError: an unknown option, or one without its value.
    """
    known = _known(options)
    values: dict[str, list[str]] = {}
    operands: list[str] = []
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if word == "--":
            return _all_read(operands, words[place:], values, ends_at_operand)
        if not word.startswith("-") or word == "-":
            if ends_at_operand:
                return Arguments([], values), words[place - 1 :]
            operands.append(word)
            continue
        *flags, (name, value) = _split(known, word)
        for flag, _ in flags:
            _set_flag(values, known[flag], None)
        if not known[name].value:
            _set_flag(values, known[name], value)
            continue
        if value is None:
            if place == len(words):
                raise UsageError(f"flag needs an argument: {name}")
            value = words[place]
            place += 1
        values.setdefault(known[name].names[0], []).append(value)
    return Arguments(operands, values), []


def _all_read(
    operands: list[str], rest: list[str], values: dict[str, list[str]], ends_at_operand: bool
) -> tuple[Arguments, list[str]]:
    if ends_at_operand:
        return Arguments([], values), rest
    return Arguments(operands + rest, values), []


def arguments_of(name: str, verb: Verb, words: list[str]) -> Arguments:
    """A verb's words. Raises UsageError."""
    arguments, rest = read(verb.options, words, ends_at_operand=verb.ends_at_operand)
    arguments.operands += rest
    least, most = verb.operands
    if not least <= len(arguments.operands) <= most:
        raise UsageError(f"usage: cycontainer {name} [options] {verb.usage}".rstrip())
    return arguments


def asks_for_help(verb: Verb, words: list[str]) -> bool:
    """Whether --help, or what else asks for it, stands where an option may stand."""
    known = _known(verb.options)
    place = 0
    while place < len(words):
        word = words[place]
        if word in HELP or f"-{word}" in HELP:
            return True
        if word == "--" or (verb.ends_at_operand and not word.startswith("-")):
            return False
        place += 2 if _lacks_value(known, word) else 1
    return False


def _lacks_value(known: dict[str, Option], word: str) -> bool:
    """Whether a word ends with an option whose value is the next one."""
    try:
        name, value = _split(known, word)[-1] if word[:1] == "-" and word != "-" else ("", None)
    except UsageError:  # which `read` will tell
        return False
    return bool(name and known[name].value and value is None)


def help_text(name: str, verb: Verb) -> str:
    """What --help prints."""
    lines = [f"usage: cycontainer {name} [options] {verb.usage}".rstrip(), "", verb.help]
    if verb.options:
        lines += ["", "options:"]
        for option in verb.options:
            lines.append(f"  {', '.join(option.names)} {option.value}".rstrip().ljust(30) + f" {option.help}")
    return "\n".join([*lines, "", "example:", f"  {verb.example}"])
