"""The verb `run`: one container from a bundle, in the foreground."""

from __future__ import annotations

from cycontainer.cli.bundle import OPTIONS, create_from_bundle
from cycontainer.cli.foreground import wait_in_foreground
from cycontainer.cli.verb import Arguments, Option, Verb

VERB = Verb(
    usage="ID",
    help="run the container of a bundle, pass signals on, and return its program's exit status",
    operands=(1, 1),
    options=(
        *OPTIONS,
        Option(names=("--detach", "-d"), help="return when it runs"),
        Option(names=("--keep",), help="do not delete it when it has ended"),
        Option(names=("--no-subreaper",), help="leave orphans of the container to the system"),
    ),
)


def main(arguments: Arguments) -> int:
    """Returns the exit status. Errors pass through: cli/__main__.py prints them, for every verb."""
    container = create_from_bundle(arguments)
    try:
        container.start()
        assert container.process is not None  # this call made it
        if arguments.given("--detach"):
            return 0
        return wait_in_foreground(container.process)
    except BaseException:
        container.delete(force=True)
        raise
    finally:
        if not arguments.given("--detach") and not arguments.given("--keep"):
            container.delete(force=True)
