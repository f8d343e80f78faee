"""The verb `exec`: another process in a container. Face."""

from __future__ import annotations

import os

from cycontainer.cli.bundle import descriptors, path_of
from cycontainer.cli.foreground import Foreground
from cycontainer.cli.verb import MANY, Arguments, Option, UsageError, Verb, number_in
from cycontainer.console import hand_over, size_of
from cycontainer.execution import Program, read_program
from cycontainer.lifecycle import Container
from cycontainer.process import write_pid_file
from cycontainer.tables import MOST_ID, capability_mask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cycontainer.config import Process as ProcessConfig
    from cycontainer.process import Process

CONFINING = ("--no-new-privs", "--apparmor", "--process-label")  # never without effect, and without a word

VERB = Verb(
    usage="ID [PROGRAM [ARGUMENT...]]",
    help="start a program in a container, confined as its own is; pass signals on, and return its exit status",
    example="cycontainer exec --env LANG=C web sh -c 'echo $$'",
    operands=(1, MANY),
    ends_at_operand=True,
    options=(
        Option(
            names=("--process", "-p"),
            value="FILE",
            help="the process as JSON, as in a config.json; it alone says what to start",
        ),
        Option(names=("--cwd",), value="DIR", help="where it begins, in the container"),
        Option(
            names=("--env", "-e"), value="NAME=VALUE", help="set a variable beside the container's; may be repeated"
        ),
        Option(names=("--user", "-u"), value="UID[:GID]", help="who it is"),
        Option(names=("--additional-gids", "-g"), value="GID", help="one more group; may be repeated"),
        Option(names=("--cap", "-c"), value="CAP", help="one more capability; may be repeated"),
        Option(names=("--no-new-privs",), help="set no_new_privs"),
        Option(names=("--apparmor",), value="PROFILE", help="an AppArmor profile of its own"),
        Option(names=("--process-label",), value="LABEL", help="an SELinux label of its own"),
        Option(names=("--cgroup",), value="[CTRL,...:]PATH", help="a cgroup below the container's; may be repeated"),
        Option(names=("--ignore-paused",), help="in a paused container, wait until it goes on"),
        Option(names=("--detach", "-d"), help="return when it runs"),
        Option(names=("--tty", "-t"), help="give it a terminal"),
        Option(names=("--console-socket",), value="PATH", help="send the terminal's master to this socket"),
        Option(names=("--pidfd-socket",), value="PATH", help="send a pidfd of the process to this socket"),
        Option(names=("--pid-file",), value="FILE", help="write its pid there"),
        Option(names=("--preserve-fds",), value="N", help="pass N descriptors on, from 3 on"),
    ),
)


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    container = Container.load(arguments.operands[0], root=arguments.root)
    if arguments.given("--detach"):
        _execute(container, arguments)
        return 0
    with Foreground() as foreground:
        process = _execute(container, arguments)
        try:
            foreground.follow(process)
            return foreground.wait()
        except BaseException:
            process.abandon()
            raise


def _execute(container: Container, arguments: Arguments) -> Process:
    config = container.config
    program = _program(arguments, config.process)
    console = path_of(arguments, "--console-socket")
    if program.terminal and arguments.given("--detach") and not console:
        raise UsageError("cannot allocate tty if we detach without setting console socket")
    if console and not program.terminal:
        raise UsageError("cannot use console socket without a terminal")
    process = container.execute(program, descriptors=descriptors(arguments), config=config)
    try:
        if console:
            master, process.terminal = process.terminal, -1
            hand_over(console, master, "console")
        if arguments.given("--pidfd-socket"):
            hand_over(path_of(arguments, "--pidfd-socket"), os.dup(process.pidfd), "pidfd")
        if arguments.given("--pid-file"):
            write_pid_file(path_of(arguments, "--pid-file"), process.pid)
    except BaseException:
        process.abandon()
        raise
    return process


def _program(arguments: Arguments, own: ProcessConfig | None) -> Program:
    """What FILE says, and nothing else; without one what is given, and what that leaves open is as the container's."""
    entered: dict[str, Any] = {
        "size": size_of(0),
        "cgroup": _cgroup(arguments.values("--cgroup")),
        "ignore_paused": arguments.given("--ignore-paused"),
    }
    if arguments.given("--process"):
        if beside := [name for name in CONFINING if arguments.given(name)]:
            raise UsageError(f"{beside[0]} goes without --process: FILE alone says what confines the process")
        file = _read_file(arguments, own)
        return Program(process=file, terminal=file.terminal, **entered)
    args = tuple(arguments.operands[1:])
    if not args:
        raise UsageError("exec needs a program, or --process FILE")
    user, more = _user(arguments, own)
    return Program(
        args=args,
        env=tuple(map(_variable, arguments.values("--env"))),
        cwd=arguments.value("--cwd") or None,
        user=user,
        additional_gids=more,
        terminal=arguments.given("--tty"),
        capabilities=_capabilities(arguments),
        no_new_privileges=arguments.given("--no-new-privs") or None,
        apparmor_profile=arguments.value("--apparmor"),
        selinux_label=arguments.value("--process-label"),
        **entered,
    )


def _read_file(arguments: Arguments, own: ProcessConfig | None) -> ProcessConfig:
    from cycontainer.read_config import read_given

    return read_program(read_given(arguments.value("--process")), own, arguments.warn)


def _capabilities(arguments: Arguments) -> tuple[str, ...]:
    """Those of --cap; an unknown one is warned of, as one in a configuration is."""
    names = arguments.values("--cap")
    unknown = capability_mask(names)[1]
    for name in unknown:
        arguments.warn(f"--cap: unknown capability {name}")
    return tuple([name for name in names if name not in unknown])


def _variable(text: str) -> str:
    if not text.partition("=")[0] or "=" not in text:
        raise UsageError(f"--env: must be NAME=VALUE, not {text!r}")
    return text


def _user(arguments: Arguments, base: ProcessConfig | None) -> tuple[tuple[int, int] | None, tuple[int, ...]]:
    """Who it is, and its groups beside: those of `base`, and what is given."""
    more = [number_in(text, 0, MOST_ID, "--additional-gids") for text in arguments.values("--additional-gids")]
    if not arguments.given("--user") and not more:
        return None, ()
    uid, colon, gid = arguments.value("--user").partition(":")
    user = base.user if base is not None else None
    numbers = (
        number_in(uid, 0, MOST_ID, "--user") if arguments.given("--user") else user.uid if user else 0,
        number_in(gid, 0, MOST_ID, "--user") if colon else user.gid if user else 0,
    )
    return numbers, (*(user.additional_gids if user else ()), *more)


def _cgroup(texts: list[str]) -> dict[str, str]:
    """PATH, or CTRL[,CTRL]:PATH each, as `execution.Program` has them."""
    places: dict[str, str] = {}
    for text in texts:
        names, colon, path = text.partition(":")
        if not colon:
            names, path = "", text
        if not colon and len(texts) > 1:
            raise UsageError(f"invalid --cgroup argument: {text!r} (missing CTRL: before the path)")
        for name in names.split(","):
            if colon and not name:
                raise UsageError(f"invalid --cgroup argument: {text!r} (empty controller)")
            if name in places:
                raise UsageError(f"invalid --cgroup argument: the controller {name!r} is there twice")
            places[name] = path
    return places
