"""The verb `run`: one container from a bundle, in the foreground."""

from __future__ import annotations

from cycontainer.cli.verb import Arguments, Option, Verb
from cycontainer.lifecycle import run_bundle

VERB = Verb(
    usage="ID",
    help="run the container of a bundle, pass signals on, and return its program's exit status",
    operands=(1, 1),
    options=(
        Option(names=("--bundle", "-b"), value="DIR", help="the bundle; the current directory when none is given"),
        Option(names=("--config", "-f"), value="FILE", help="the configuration; DIR/config.json when none is given"),
        Option(names=("--pid-file",), value="FILE", help="write the program's pid there"),
        Option(names=("--no-pivot",), help="do not use pivot_root: for ramdisks"),
        Option(names=("--no-new-keyring",), help="keep the caller's session keyring"),
    ),
)


def main(arguments: Arguments) -> int:
    """Returns the exit status. Errors pass through: cli/__main__.py prints them, for every verb."""
    return run_bundle(
        arguments.operands[0],
        arguments.value("--bundle", "."),
        config=arguments.value("--config") or None,
        pid_file=arguments.value("--pid-file") or None,
        pivot=not arguments.given("--no-pivot"),
        new_keyring=not arguments.given("--no-new-keyring"),
    )
