"""The `cycontainer` command: global options, the verb, and the one place where errors are printed. Face."""

from __future__ import annotations

import os
import sys

from cycontainer.cli.report import FORMATS, Report
from cycontainer.cli.verb import (
    HELP,
    TRUTH,
    Arguments,
    Option,
    UsageError,
    arguments_of,
    asks_for_help,
    help_text,
    read,
)
from cycontainer.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

VERBS: Final = {  # in the order of a container's life
    "create": "create a container from a bundle",
    "start": "let a created container's program go",
    "run": "create, start, and delete when it has ended",
    "exec": "start another process in a container",
    "kill": "send a signal to a container",
    "delete": "remove a container",
    "checkpoint": "save a container to files",
    "restore": "bring a saved container back",
    "state": "print a container's state",
    "list": "list containers",
    "ps": "print a container's processes",
    "pause": "stop all processes of a container where they are",
    "resume": "let a paused container go on",
    "update": "change a container's limits",
    "events": "print what a container uses, and what happens to it",
    "features": "print what this program can do",
    "plan": "print what a bundle compiles to",
    "spec": "write a configuration that works",
}
MANAGERS: Final = ("cgroupfs", "systemd", "disabled")
ROOTLESS: Final = {"auto": None, "": None, **TRUTH}
LEVELS: Final = ("warning", "debug", "error")
GLOBAL: Final = (
    Option(names=("--root",), value="DIR", help="where states are kept"),
    Option(names=("--debug",), help="say more"),
    Option(names=("--log-level",), value="LEVEL", choices=LEVELS, help="what is told: error, warning or debug"),
    Option(names=("--log",), value="FILE", help="write errors and warnings there as well"),
    Option(names=("--log-format",), value="FORMAT", choices=FORMATS, help="text or json"),
    Option(names=("--systemd-cgroup",), help="as --cgroup-manager systemd"),
    Option(names=("--cgroup-manager",), value="NAME", choices=MANAGERS, help="cgroupfs, systemd or disabled"),
    Option(
        names=("--rootless",),
        value="WHEN",
        choices=("auto", "true", "false"),
        help="true: cgroups may be forbidden; false: they may not; or auto",
    ),
    Option(names=("--criu",), value="FILE", help="obsolete, and ignored: criu is looked up in PATH"),
    Option(names=("--version", "-v", "-V"), help="print the version"),
    Option(names=HELP, help="print this"),
)
LIFE: Final = (  # what --help teaches; a test does it
    "mkdir -p bundle/rootfs/bin",
    "cp /bin/busybox bundle/rootfs/bin/sh   # a static one: Debian's busybox-static",
    "cycontainer spec --bundle bundle       # writes bundle/config.json",
    "cycontainer run --bundle bundle web    # sh, in a container; exit ends it",
)
FAILED: Final = {"exec": 255}  # and 1 for every other verb


def _usage() -> str:
    lines = ["usage: cycontainer [options] VERB ...", "", "verbs:"]
    lines += [f"  {name.ljust(12)} {text}" for name, text in VERBS.items()]
    lines += ["", "options:"]
    lines += [f"  {', '.join(option.names)} {option.value}".rstrip().ljust(26) + f" {option.help}" for option in GLOBAL]
    lines += ["", "a container's life:", *(f"  {line}" for line in LIFE)]
    return "\n".join([*lines, "", "cycontainer VERB --help prints a verb's options. man cycontainer tells more."])


def _version() -> str:
    from cycontainer.version import SPEC, VERSION

    return f"cycontainer version {VERSION}\ncommit: v{VERSION}\nspec: {SPEC}"


def _check(options: Arguments) -> None:
    """Global options that say how: what is not there is refused, not ignored."""
    if options.given("--log-format"):
        options.choice("--log-format", FORMATS)
    options.choice("--log-level", LEVELS)
    options.choice("--rootless", tuple(ROOTLESS))
    options.choice("--cgroup-manager", MANAGERS)


def _dispatch(name: str, words: list[str], options: Arguments, report: Report) -> int:
    if name not in VERBS:
        raise UsageError(f"no such verb: {name!r}; one of {', '.join(VERBS)}")
    module = __import__(f"cycontainer.cli.{name}", fromlist=["main"])
    if asks_for_help(module.VERB, words):
        print(help_text(name, module.VERB))
        return 0
    _check(options)
    arguments = arguments_of(name, module.VERB, words)
    arguments.root, arguments.warn = options.value("--root") or None, report.warn
    manager = options.choice("--cgroup-manager", MANAGERS)
    arguments.cgroup_manager = "systemd" if options.given("--systemd-cgroup") else manager
    arguments.rootless = ROOTLESS[options.choice("--rootless", tuple(ROOTLESS))]
    report.tell(f"{name} {' '.join(words)}")
    status: int = module.main(arguments)
    report.tell(f"{name} returns {status}")
    return status


def _answer(options: Arguments, rest: list[str], report: Report) -> int:
    """What the words ask for; the exit status."""
    if options.given("--version"):
        print(_version())
        return 0
    if rest and rest[0] in ("help", "h") and not options.given("--help"):
        rest = [*rest[1:2], "--help"]
    if options.given("--help") or rest == ["--help"] or not rest:
        print(_usage())
        return 0 if rest or options.given("--help") else 1
    return _dispatch(rest[0], rest[1:], options, report)


def _told(verb: str, error: Error | OSError) -> str:
    """An error in the words that engines match; where even these cannot be read, its own."""
    try:
        from cycontainer.cli.texts import message_of
    except OSError:
        return str(error)
    return message_of(verb, error)


def main(words: list[str]) -> int:
    """The whole command; returns the exit status."""
    _open_standard_descriptors()
    report, verb = Report(), ""
    try:
        options, rest = read(GLOBAL, words, ends_at_operand=True)
        level = "debug" if options.given("--debug") else options.value("--log-level")
        report = Report(options.value("--log"), options.value("--log-format"), level)
        verb = rest[0] if rest else ""
        status = _answer(options, rest, report)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except (Error, OSError) as error:
        message = _told(verb, error)
    except KeyboardInterrupt:
        message = "interrupted"
    except Exception as error:  # a defect of ours: still one line, no traceback
        message = f"defect: {type(error).__name__}: {error}"
    report.error(message)
    return FAILED.get(verb, 1)


def _open_standard_descriptors() -> None:
    """Whoever calls may have closed them; then what we open must not become a container's standard output."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # the lowest free number, which is this


def run_command() -> None:
    """The entry point of the installed command."""
    os._exit(main(sys.argv[1:]))  # all is written and closed: the interpreter need not tidy up, 2 ms


if __name__ == "__main__":
    run_command()
