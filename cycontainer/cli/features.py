"""The verb `features`: print what this program can do. Face."""

from __future__ import annotations

from cycontainer._fd import known_filter_flags
from cycontainer.cli.verb import Arguments, Verb
from cycontainer.errors import HostError
from cycontainer.features import features
from cycontainer.json_text import to_json

VERB = Verb(
    usage="",
    help="print what this program can do, as JSON",
    example="cycontainer features",
    operands=(0, 0),
)


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    print(to_json(features(known_filter_flags(), _libseccomp()), indent=4))
    return 0


def _libseccomp() -> tuple[int, int, int] | None:
    from cycontainer._seccomp import version

    try:
        return version()
    except HostError:
        return None
