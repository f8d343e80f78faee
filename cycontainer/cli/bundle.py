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


def create_from_bundle(arguments: Arguments, *, detached: bool) -> Container:
    """The container that the options and operands of `create` and `run` ask for. `detached`: we do not stay with it."""
    bundle = os.path.abspath(arguments.value("--bundle", "."))
    file = arguments.value("--config") or "config.json"
    listening = listening_sockets()
    return Container.create_from(
        arguments.operands[0],
        read_bundle(bundle, file if file == "config.json" else os.path.abspath(file)),
        root=arguments.root,
        bundle=bundle,
        descriptors=descriptors(arguments, listening),
        env=(f"LISTEN_FDS={listening}", "LISTEN_PID=1") if listening else (),
        pid_file=path_of(arguments, "--pid-file"),
        console_socket=path_of(arguments, "--console-socket"),
        pidfd_socket=path_of(arguments, "--pidfd-socket"),
        detached=detached,
        notify=bool(os.environ.get("NOTIFY_SOCKET")),
        cgroup_manager=arguments.cgroup_manager,
        rootless=arguments.rootless,
        pivot=not arguments.given("--no-pivot"),
        new_keyring=not arguments.given("--no-new-keyring"),
        warn=arguments.warn,
    )


def path_of(arguments: Arguments, name: str) -> str:
    """An option's path, absolute; "" when it was not given."""
    return os.path.abspath(arguments.value(name)) if arguments.given(name) else ""


def descriptors(arguments: Arguments, listening: int = 0) -> tuple[int, ...]:
    """The program's descriptors: ours, sockets that listen, and those that are to be preserved. Raises UsageError."""
    text = arguments.value("--preserve-fds", "0")
    numbers = tuple(range(3 + listening + number_in(text, 0, MOST_PASSED, "--preserve-fds")))
    for fd in numbers[3:]:
        try:
            os.fstat(fd)
        except OSError:
            what = "LISTEN_FDS" if fd < 3 + listening else f"--preserve-fds {text}"
            raise UsageError(f"{what}: descriptor {fd} is not open") from None
    return numbers


def listening_sockets() -> int:
    """How many sockets the service manager has passed to us, from 3 on: the program's. sd_listen_fds(3)."""
    count = os.environ.get("LISTEN_FDS", "")
    ours = os.environ.get("LISTEN_PID", "") == str(os.getpid())
    return number_in(count, 0, MOST_PASSED, "LISTEN_FDS") if ours and count else 0
