"""The verb `kill`: send a signal to a container's first process. Face."""

from __future__ import annotations

from cycontainer.cli.verb import Arguments, Option, UsageError, Verb
from cycontainer.lifecycle import Container
from cycontainer.tables import signal_number

DEFAULT = "TERM"
VERB = Verb(
    usage="ID [SIGNAL]",
    help=f"send SIGNAL ({DEFAULT} when none is given) to the container's first process",
    example="cycontainer kill web HUP",
    operands=(1, 2),
    options=(Option(names=("--all", "-a"), help="send it to all processes of the container"),),
)


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    container_id, *name = arguments.operands
    text = name[0] if name and name[0] else DEFAULT
    number = 0 if text == "0" else signal_number(text)
    if number is None:
        raise UsageError(f"unknown signal {text!r}")
    Container.load(container_id, root=arguments.root).signal(number, all=arguments.given("--all"))
    return 0
