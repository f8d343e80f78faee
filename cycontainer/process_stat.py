"""What /proc/PID/stat says of a process. Lifecycle. Source: proc_pid_stat(5)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DEAD: Final = "ZX"  # the states of those that have ended


def stat_of(pid: int) -> tuple[bytes, list[bytes]]:
    """A process's name, and its fields from its state on; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # one read, and no look at what it is
            name, _, rest = file.read(4096).partition(b"(")[2].rpartition(b")")
    except (FileNotFoundError, ProcessLookupError):
        return b"", []
    return name, rest.split()


def start_of(pid: int) -> int:
    """When a process started, in clock ticks since boot, also when it has ended; 0 when there is none."""
    fields = stat_of(pid)[1]
    return int(fields[19]) if fields else 0


def start_time_of(pid: int) -> int:
    """The same of one that has not ended; else 0."""
    fields = stat_of(pid)[1]
    return int(fields[19]) if fields and fields[0].decode() not in DEAD else 0


def name_and_state(pid: int) -> tuple[bytes, str]:
    """A process's name, and the letter of its state; empty when it is gone."""
    name, fields = stat_of(pid)
    return name, fields[0].decode() if fields else ""
