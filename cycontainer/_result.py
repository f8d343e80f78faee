"""What a run comes to. Face; it touches nothing."""

from __future__ import annotations

from cycontainer.errors import RunError
from cycontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal


class Usage(Record):
    """What a run has used.

    Attributes:
        wall, user, system: seconds; user and system of all processes that were waited for.
        peak_memory: bytes that all held at once where there was a memory limit, else the largest of one process; that
            is never less than the caller's own with `init=False`, or where pid 1 had to be killed: the kernel counts
            it in.
        processes: processes and threads that were started; None when no pid 1 stayed to count them.
    """

    wall: float
    user: float
    system: float
    peak_memory: int
    processes: int | None


class Result(Record):
    """What became of a program.

    Attributes:
        args: the program and its arguments, as text.
        returncode: the exit status, or minus the number of the signal that ended it; -9 when `timeout` or
            `output_limit` did.
        stdout, stderr: bytes, or str with `text`; None where they were not captured.
        timed_out: the timeout ended it.
        oom_killed: a process was killed for exceeding the memory limit.
        signal: the signal that ended it, None when it exited.
        ended_by: what ended it, of several the first of "timeout", "output_limit", "memory" (it failed, and a process
            of its had been killed for the limit), "signal" and, when it exited by itself, "exit".
        usage: what it used.
        output_exceeded: more than `output_limit` came; that ended it.
        files: what was to be collected, by its path below the working directory.
        refused: what the patterns match but is not there: {path: why}, as it is a link, a device, or too much. Of more
            than 4 MiB of paths, of files and refused ones together, the rest was not looked at; the path "" says so.
    """

    args: list[str]
    returncode: int
    stdout: Any
    stderr: Any
    timed_out: bool
    oom_killed: bool
    usage: Usage
    output_exceeded: bool = False
    files: dict[str, bytes] = {}  # noqa: RUF012  # a new one where there are any
    refused: dict[str, str] = {}  # noqa: RUF012

    @property
    def signal(self) -> int | None:
        return -self.returncode if self.returncode < 0 else None

    @property
    def ended_by(self) -> Literal["timeout", "output_limit", "memory", "signal", "exit"]:
        if self.timed_out:
            return "timeout"
        if self.output_exceeded:
            return "output_limit"
        if self.oom_killed and self.returncode != 0:
            return "memory"
        return "signal" if self.returncode < 0 else "exit"

    def check_returncode(self) -> None:
        """Raise RunError unless the program returned 0."""
        if self.returncode != 0:
            raise RunError(self)
