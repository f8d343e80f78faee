"""The verb `delete`: remove a container with all that belongs to it. Face."""

from __future__ import annotations

from cycontainer.cli.verb import Arguments, Option, UsageError, Verb
from cycontainer.errors import Error
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
    status = 0
    for container in _matching(arguments):
        try:
            container.delete(force=force, warn=arguments.warn)
        except Error as error:  # the others are to be removed all the same
            arguments.warn(str(error))
            status = 1
    return status


def _matching(arguments: Arguments) -> list[Container]:
    import re

    try:
        pattern = re.compile(arguments.operands[0])
    except re.error as error:
        raise UsageError(f"--regex: {error}") from None
    return [container for container in Container.list(root=arguments.root) if pattern.search(container.id)]
