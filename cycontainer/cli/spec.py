"""The verb `spec`: write a configuration that works."""

from __future__ import annotations

import os

from cycontainer.cli.verb import Arguments, Option, Verb
from cycontainer.errors import ConfigError, reason_of
from cycontainer.json_text import to_json
from cycontainer.spec import default_config

VERB = Verb(
    usage="",
    help="write a config.json that works as it is",
    example="cycontainer spec --bundle ./bundle",
    operands=(0, 0),
    options=(
        Option(names=("--bundle", "-b"), value="DIR", help="where to; the current directory when none is given"),
        Option(names=("--file", "-f"), value="FILE", help="its name there, or its path; it is overwritten"),
        Option(names=("--rootless",), help="one that an ordinary user can run"),
    ),
)


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    path = os.path.join(arguments.value("--bundle", "."), arguments.value("--file") or "config.json")
    how = os.O_TRUNC if arguments.given("--file") else os.O_EXCL
    ids = (os.geteuid(), os.getegid()) if arguments.given("--rootless") else None
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | how | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ConfigError("", f"{path}: {reason_of(error)}") from None
    with open(fd, "w") as file:
        file.write(to_json(default_config(ids), indent=4) + "\n")
    return 0
