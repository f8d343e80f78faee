"""The verb `delete`: remove a container with all that belongs to it. Face."""

from __future__ import annotations

from cycontainer.cli.verb import Arguments, Option, Verb
from cycontainer.lifecycle import Container

VERB = Verb(
    usage="ID",
    help="remove a container that has ended, or has not been started",
    example="cycontainer delete --force web",
    operands=(1, 1),
    options=(
        Option(names=("--force", "-f"), help="kill what runs; that there is no such container is no error"),
        Option(names=("--regex", "-r"), help="ID is a regular expression: remove all whose ids it matches"),
    ),
)


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    force = arguments.given("--force")
    if not arguments.given("--regex"):
        Container.handle(arguments.operands[0], root=arguments.root).delete(force=force, warn=arguments.warn)
        return 0
    from cycontainer.cli.matching import for_each

    return for_each(arguments, lambda container: container.delete(force=force, warn=arguments.warn))
