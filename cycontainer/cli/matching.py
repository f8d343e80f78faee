"""The containers whose ids a regular expression matches, as --regex asks for them. Face."""

from __future__ import annotations

from cycontainer.cli.verb import UsageError
from cycontainer.errors import Error
from cycontainer.lifecycle import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cycontainer.cli.verb import Arguments


def for_each(arguments: Arguments, act: Callable[[Container], object]) -> int:
    """Act on each; the exit status. What fails for one is a warning: it is to be done for the others all the same."""
    import re

    try:
        pattern = re.compile(arguments.operands[0])
    except re.error as error:
        raise UsageError(f"--regex: {error}") from None
    status = 0
    for container in Container.list(root=arguments.root):
        if not pattern.search(container.id):
            continue
        try:
            act(container)
        except Error as error:
            arguments.warn(str(error))
            status = 1
    return status
