"""The verb `run`: one container from a bundle, in the foreground."""

from __future__ import annotations

import os

from cycontainer.cli.bundle import OPTIONS, create_from_bundle
from cycontainer.cli.foreground import Foreground
from cycontainer.cli.verb import Arguments, Option, Verb
from cycontainer.lifecycle import Container

VERB = Verb(
    usage="ID",
    help="run the container of a bundle, pass signals on, and return its program's exit status",
    example="cycontainer run --bundle ./bundle web",
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
    container = None
    try:
        if arguments.given("--detach"):
            container = create_from_bundle(arguments, detached=True)
            _start(container, arguments, in_background=False)
            return 0
        with Foreground(adopt=not arguments.given("--no-subreaper")) as foreground:
            container = create_from_bundle(arguments, detached=False)
            assert container.process is not None  # this call made it
            foreground.follow(container.process)
            _start(container, arguments, in_background=True)
            status = foreground.wait()
    except BaseException:  # out of the foreground, which would reap the hooks of its end
        if container is not None:
            container.delete(force=True)  # also one that was to be kept: it is nobody's, and runs
        raise
    if not arguments.given("--keep"):
        container.delete(force=True, warn=arguments.warn)
    return status


def _start(container: Container, arguments: Arguments, *, in_background: bool) -> None:
    manager = os.environ.get("NOTIFY_SOCKET", "")
    container.start(service_manager=manager, in_background=in_background, warn=arguments.warn)
