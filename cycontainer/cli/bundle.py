"""What `create` and `run` have in common: their options, and a container made from a bundle. Face."""

from __future__ import annotations

import os

from cycontainer.cli.verb import Arguments, Option, UsageError, number_in
from cycontainer.lifecycle import Container
from cycontainer.read_config import read_bundle

OPTIONS = (
    Option(names=("--bundle", "-b"), value="DIR", help="the bundle; the current directory when none is given"),
    Option(names=("--config", "-f"), value="FILE", help="the configuration; DIR/config.json when none is given"),
    Option(names=("--console-socket",), value="PATH", help="send the terminal's master to this socket"),
    Option(names=("--pidfd-socket",), value="PATH", help="send a pidfd of the first process to this socket"),
    Option(names=("--pid-file",), value="FILE", help="write the first process's pid there"),
    Option(names=("--no-pivot",), help="do not use pivot_root: for ramdisks"),
    Option(names=("--no-new-keyring",), help="keep the caller's session keyring"),
    Option(names=("--preserve-fds",), value="N", help="pass N descriptors on, from 3 on"),
)

MOST_PASSED = 1 << 20  # descriptors; a process has no more, fs.nr_open


def create_from_bundle(arguments: Arguments) -> Container:
    """The container that the options and operands of `create` and `run` ask for."""
    bundle = os.path.abspath(arguments.value("--bundle", "."))
    file = arguments.value("--config", "config.json")
    return Container.create_from(
        arguments.operands[0],
        read_bundle(bundle, file if file == "config.json" else os.path.abspath(file)),
        root=arguments.root,
        bundle=bundle,
        descriptors=descriptors(arguments),
        pid_file=os.path.abspath(arguments.value("--pid-file")) if arguments.given("--pid-file") else "",
        pivot=not arguments.given("--no-pivot"),
        new_keyring=not arguments.given("--no-new-keyring"),
        warn=arguments.warn,
    )


def descriptors(arguments: Arguments) -> tuple[int, ...]:
    """The program's descriptors: ours, and those that are to be preserved. Raises UsageError."""
    text = arguments.value("--preserve-fds", "0")
    numbers = tuple(range(3 + number_in(text, 0, MOST_PASSED, "--preserve-fds")))
    for fd in numbers[3:]:
        try:
            os.fstat(fd)
        except OSError:
            raise UsageError(f"--preserve-fds {text}: descriptor {fd} is not open") from None
    return numbers
