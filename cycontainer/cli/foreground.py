"""Waiting for a process in the foreground: signals are passed on, and the exit status is as a shell has it. Face."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Final

    from cycontainer.process import Process

NOT_FORWARDED: Final = frozenset(  # what stops or kills us, what tells of our own faults, what is about us
    (4, 5, 6, 7, 8, 9, 11, 13, 17, 19, 23, 28)
)


def wait_in_foreground(process: Process) -> int:
    """The process's exit status, or 128 and its signal's number."""
    before = _forward_to(process)
    try:
        code = process.wait()
    finally:
        _restore(before)
    return 128 - code if code < 0 else code


def _forward_to(process: Process) -> dict[int, Any]:
    """Pass signals on; what was set before, to be put back."""
    import signal

    def forward(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    return {number: signal.signal(number, forward) for number in range(1, 32) if number not in NOT_FORWARDED}


def _restore(handlers: dict[int, Any]) -> None:
    import signal

    for number, handler in handlers.items():
        signal.signal(number, handler)
