"""The verb `resume`: let a paused container go on. Face."""

from __future__ import annotations

from cycontainer.cli.verb import ONE_ID, Arguments, Verb
from cycontainer.lifecycle import Container

VERB = Verb(
    usage="ID",
    help="let a paused container go on",
    example="cycontainer resume web",
    operands=ONE_ID,
)


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    Container.load(arguments.operands[0], root=arguments.root).resume()
    return 0
