"""The verb `start`: let a created container's program go. Face."""

from __future__ import annotations

import os

from cycontainer.cli.verb import ONE_ID, Arguments, Verb
from cycontainer.lifecycle import Container

VERB = Verb(
    usage="ID",
    help="let the program of a created container go",
    example="cycontainer start web",
    operands=ONE_ID,
)


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    container = Container.load(arguments.operands[0], root=arguments.root)
    container.start(service_manager=os.environ.get("NOTIFY_SOCKET", ""))
    return 0
