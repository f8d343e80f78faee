"""A process in the foreground: signals are passed on, and the exit status is as a shell has it. Face."""

from __future__ import annotations

import os

from cycontainer._wait import adopt_orphans

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Final, Self

    from cycontainer.process import Process

SIGCHLD: Final = 17
SIGWINCH: Final = 28
NOT_FORWARDED: Final = frozenset(  # what stops or kills us, what tells of our own faults, what is about us
    (4, 5, 6, 7, 8, 9, 11, 13, 17, 19, 23, 28)
)


class Foreground:
    """While it is entered, signals go to the process; before there is one, they end what is being done, and undo it.

    With `adopt`, orphans of a container are ours, not the system's, and waited for as long as the process is.
    """

    def __init__(self, *, adopt: bool = False) -> None:
        self._process: Process | None = None
        self._adopt = adopt
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        from _signal import signal  # type: ignore[import-not-found]  # `signal` would import enum: 4 ms

        if self._adopt:
            adopt_orphans()
        self._before = {number: signal(number, self._pass_on) for number in range(1, 32) if number not in NOT_FORWARDED}
        return self

    def __exit__(self, *_: object) -> None:
        from _signal import signal

        for number, handler in self._before.items():
            signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self._process is None:
            raise KeyboardInterrupt
        self._process.send_signal(number)

    def follow(self, process: Process) -> None:
        """From now on signals are its, and its terminal has the size of ours, before it looks."""
        self._process = process
        if process.terminal >= 0:
            from cycontainer.console import Relay

            Relay(process).resize()

    def wait(self) -> int:
        """Its exit status, or 128 and its signal's number."""
        assert self._process is not None
        if self._adopt:
            self._wait_for_orphans(self._process.pid)
        code = self._process.wait() if self._process.terminal < 0 else self._relay(self._process)
        return 128 - code if code < 0 else code

    def _wait_for_orphans(self, first: int) -> None:
        """Now, and whenever a child ends; that is not a hook, which are awaited where they are called."""
        from _signal import signal

        def reap(number: int, frame: FrameType | None) -> None:
            while (ended := _ended_child()) not in (0, first):  # who waits for the process needs its status
                os.waitpid(ended, 0)

        self._before[SIGCHLD] = signal(SIGCHLD, reap)
        reap(SIGCHLD, None)

    def _relay(self, process: Process) -> int:
        from _signal import signal

        from cycontainer.console import Relay

        with Relay(process) as relay:
            self._before[SIGWINCH] = signal(SIGWINCH, lambda number, frame: relay.resize())
            return relay.run()


def _ended_child() -> int:
    """The pid of a child that has ended, and is still to be waited for; 0 when there is none."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return found.si_pid if found is not None else 0
