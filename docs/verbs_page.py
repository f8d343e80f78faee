"""The verbs of the command as a part of a page, of their tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cycontainer.cli.__main__ import GLOBAL
from cycontainer.cli.verb import Option
from cycontainer.command.verbs import every_verb


def options(table: tuple[Option, ...]) -> Iterator[str]:
    yield from ("| option | |", "|---|---|")
    for option in table:
        names = ", ".join(f"`{name}`" for name in option.names)
        value = f" `{option.value}`" if option.value else ""
        yield f"| {names}{value} | {option.help.replace('|', chr(92) + '|')} |"


def page() -> str:
    lines = ["## Before the verb", "", *options(GLOBAL), ""]
    for name, verb in every_verb().items():
        lines += [f"## {name}", "", f"`cycontainer {name} [options] {verb.usage}".rstrip() + "`", ""]
        lines += [f"{verb.help[:1].upper()}{verb.help[1:]}.", ""]
        lines += [*options(verb.options), ""] if verb.options else []
        lines += ["```text", verb.example, "```", ""]
    return "\n".join(lines)
