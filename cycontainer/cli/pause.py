"""The verb `pause`: stop all processes of a container where they are. Face."""

from __future__ import annotations

from cycontainer.cli.verb import ONE_ID, Arguments, Verb
from cycontainer.lifecycle import Container

VERB = Verb(
    usage="ID",
    help="stop all processes of a container where they are, until resume",
    example="cycontainer pause web",
    operands=ONE_ID,
)


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    Container.load(arguments.operands[0], root=arguments.root).pause()
    return 0
