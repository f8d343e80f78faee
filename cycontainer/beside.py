"""What this program has started beside a container's first process. Lifecycle: it hears how they end."""

from __future__ import annotations

import _thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.process import Process

LISTENING: Final = 0.02  # seconds after which it is seen again who has ended,
NEWCOMERS: Final = 1.0  # and whether another thread has started one
FOREVER: Final = float("inf")


class Beside:
    """What this program has started beside a container's first process, until the end of each is heard.

    Until then it is a zombie, and the first process of its pid namespace does not end: pid_namespaces(7).
    """

    def __init__(self) -> None:
        self._processes: dict[Process, None] = {}

    def add(self, process: Process) -> None:
        """From now on its end is heard, also when it was closed before."""
        self.hear()
        self._processes[process], process.kept = None, True

    def hear(self) -> bool:
        """Take the status of all that have ended, for their `returncode`; whether others are still there."""
        for process in tuple(self._processes):
            if process.hear_end():
                self._processes.pop(process, None)
        return bool(self._processes)

    def pause(self) -> float:
        """How long to wait for the first process's end, in seconds, until `hear` is to be called again."""
        return LISTENING if self.hear() else NEWCOMERS if _thread._count() else FOREVER
