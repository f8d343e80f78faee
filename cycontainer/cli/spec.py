"""The verb `spec`: write a configuration that works."""

from __future__ import annotations

import os

from cycontainer.cli.verb import Arguments, Option, Verb
from cycontainer.errors import ConfigError
from cycontainer.spec import default_config

VERB = Verb(
    usage="",
    help="write a config.json that works as it is",
    example="cycontainer spec --bundle ./bundle",
    operands=(0, 0),
    options=(
        Option(names=("--bundle", "-b"), value="DIR", help="where to; the current directory when none is given"),
        Option(names=("--rootless",), help="one that an ordinary user can run"),
    ),
)


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    import json

    path = os.path.join(arguments.value("--bundle", "."), "config.json")
    ids = (os.geteuid(), os.getegid()) if arguments.given("--rootless") else None
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ConfigError("", f"{path}: {error.strerror}") from None
    with open(fd, "w") as file:
        json.dump(default_config(ids), file, indent=4)
        file.write("\n")
    return 0
