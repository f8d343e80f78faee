"""The verb `kill`: send a signal to a container's first process. Face."""

from __future__ import annotations

from cycontainer.cli.verb import Arguments, Option, UsageError, Verb
from cycontainer.errors import ContainerNotFound, ContainerNotRunning
from cycontainer.lifecycle import Container
from cycontainer.tables import signal_number

DEFAULT = "TERM"
VERB = Verb(
    usage="ID [SIGNAL]",
    help=f"send SIGNAL ({DEFAULT} when none is given) to the container's first process",
    example="cycontainer kill web HUP",
    operands=(1, 2),
    options=(
        Option(names=("--all", "-a"), help="send it to all processes of the container"),
        Option(
            names=("--regex", "-r"), help="ID is a regular expression: send it to all whose ids it matches, if they run"
        ),
    ),
)


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    container_id, *name = arguments.operands
    text = name[0] if name and name[0] else DEFAULT
    number = 0 if text == "0" else signal_number(text)
    if number is None:
        raise UsageError(f"unknown signal {text!r}")
    everyone = arguments.given("--all")
    if not arguments.given("--regex"):
        Container.load(container_id, root=arguments.root).signal(number, all=everyone)
        return 0
    from cycontainer.cli.matching import for_each

    return for_each(arguments, lambda container: _signal_living(container, number, everyone))


def _signal_living(container: Container, number: int, everyone: bool) -> None:
    try:
        container.signal(number, all=everyone)
    except (ContainerNotFound, ContainerNotRunning):  # it may have ended meanwhile
        return
