"""The verb `state`: print a container's state. Face. Source: runtime-spec runtime.md, "Query State"."""

from __future__ import annotations

from cycontainer.cli.summary import summary
from cycontainer.cli.verb import ONE_ID, Arguments, Verb
from cycontainer.json_text import to_json
from cycontainer.lifecycle import Container

VERB = Verb(
    usage="ID",
    help="print a container's state as JSON",
    example="cycontainer state web",
    operands=ONE_ID,
)


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    print(to_json(summary(Container.handle(arguments.operands[0], root=arguments.root)), indent=2))
    return 0
