"""The verb `ps`: the processes of a container, as ps(1) prints them. Face: it starts ps(1)."""

from __future__ import annotations

import os

from cycontainer.cli.verb import MANY, Arguments, Option, UsageError, Verb
from cycontainer.json_text import to_json
from cycontainer.lifecycle import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FORMATS = ("table", "json")
VERB = Verb(
    usage="ID [PS-OPTION...]",
    help="print the processes of a container, with ps(1) and its options, which must print a column PID; -ef when none",
    example="cycontainer ps web -o pid,rss,args",
    operands=(1, MANY),
    ends_at_operand=True,
    options=(Option(names=("--format", "-f"), value="FORMAT", choices=FORMATS, help="table or json: the pids alone"),),
)
DIRECTORIES = "/usr/local/bin:/usr/bin:/bin"  # where there is no PATH


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    form = arguments.choice("--format", FORMATS)
    container_id, *options = arguments.operands
    pids = [pid for pid in Container.load(container_id, root=arguments.root).pids() if pid]
    if form == "json":
        print(to_json(pids))
        return 0
    print("\n".join(_lines_of(_output_of_ps(options or ["-ef"]), set(pids))))
    return 0


def _output_of_ps(options: list[str]) -> str:
    """What ps(1) prints. Raises UsageError: it fails; OSError: there is none."""
    reader, writer = os.pipe()
    try:
        environment = {"PATH": DIRECTORIES, **os.environ}
        actions = [(os.POSIX_SPAWN_DUP2, writer, 1)]
        pid = _spawn(environment["PATH"], ["ps", *options], environment, actions)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    with open(reader, encoding="utf-8", errors="backslashreplace") as output:
        text = output.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise UsageError(f"ps {' '.join(options)} returned exit status {status}")
    return text


def _spawn(path: str, args: list[str], environment: dict[str, str], actions: Sequence[tuple[int, int, int]]) -> int:
    """Not posix_spawnp, which would take the PATH that we have, or not have."""
    for directory in path.split(":"):
        program = os.path.join(directory or ".", args[0])
        if os.access(program, os.X_OK):
            return os.posix_spawn(program, args, environment, file_actions=actions)
    raise FileNotFoundError(2, "No such file or directory", args[0])


def _lines_of(text: str, pids: set[int]) -> list[str]:
    """The title, and the lines whose PID is one of `pids`."""
    title, *lines = text.splitlines() or [""]
    if "PID" not in title.split():
        raise UsageError("ps prints no column PID with these options")
    place = title.split().index("PID")
    return [title, *[line for line in lines if _pid_in(line.split(), place) in pids]]


def _pid_in(words: list[str], place: int) -> int:
    return int(words[place]) if len(words) > place and words[place].isdecimal() else 0
