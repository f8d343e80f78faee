"""The verb `create`: a container from a bundle, which waits for `start`. Face."""

from __future__ import annotations

from cycontainer.cli.bundle import OPTIONS, create_from_bundle
from cycontainer.cli.verb import ONE_ID, Arguments, Option, Verb

VERB = Verb(
    usage="ID",
    help="create the container of a bundle; its program waits for start",
    example="cycontainer create --bundle ./bundle web",
    operands=ONE_ID,
    options=(
        *OPTIONS,
        Option(names=("--detach", "-d"), help="as it is always; here for who calls run with it, too"),
        Option(names=("--keep",), help="the same"),
        Option(names=("--no-subreaper",), help="the same"),
    ),
)


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    create_from_bundle(arguments, detached=True)
    return 0
