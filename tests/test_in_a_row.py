"""Many containers one after the other: memory does not grow, whatever came of them; all else the guard sees.

A thousand at once: test_many.py.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from array import array
from collections.abc import Callable

import pytest

from cycontainer import LaunchError, ProgramError, Template, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cycontainer._request import Outline

FEW, MANY = 200, 10_000  # of the few, 300 bytes that each leaves show
PAGE = os.sysconf("SC_PAGE_SIZE")
LIMITS: Outline = {"memory": 64 << 20, "pids": 8}


def resident() -> int:
    """Bytes of memory that this process has."""
    gc.collect()
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[1]) * PAGE


# --- a launch, and what is to come of it


def succeeds() -> None:
    assert run(["echo", "x"]).stdout == b"x\n"


def keeps_limits() -> None:
    assert run(["true"], **LIMITS).returncode == 0


def takes_files() -> None:
    assert run(["cp", "a", "b"], files={"a": "x"}, collect=["b"]).files == {"b": b"x"}


def runs_too_long() -> None:
    assert run(["sleep", "1000"], timeout=0.002, init=False).timed_out


def is_not_there() -> None:
    with pytest.raises(ProgramError):
        run(["no-such-program"])


def cannot_be_made() -> None:
    with pytest.raises(LaunchError):
        run(["true"], mounts=[{"destination": "/tmp/x", "type": "no-such-file-system"}])


# --- many of them


def check_nothing_grows(launch: Callable[[], object], count: int) -> array[float]:
    """In one quarter memory must not grow at all: what each leaves shows in all four, what a heap once takes in one.

    Returns what each took, in seconds of this thread: what other work takes of the processor is left out.
    """
    for _ in range(50):
        launch()
    took, grown = array("d", bytes(8 * count)), []
    for quarter in range(4):
        held = resident()
        for number in range(quarter * count // 4, (quarter + 1) * count // 4):
            begun = time.thread_time()
            launch()
            took[number] = time.thread_time() - begun
        grown.append(resident() - held)
    assert min(grown) <= 0, grown
    return took


@pytest.mark.parametrize("launch", [succeeds, takes_files, runs_too_long, is_not_there, cannot_be_made])
def test_hundreds_in_a_row_leave_nothing(launch: Callable[[], None]) -> None:
    check_nothing_grows(launch, FEW)


@pytest.mark.root
def test_hundreds_with_limits_leave_nothing() -> None:
    check_nothing_grows(keeps_limits, FEW)


@pytest.mark.root
def test_hundreds_of_a_template_leave_nothing() -> None:
    with Template(**LIMITS) as template:
        check_nothing_grows(lambda: template.run(["true"]).check_returncode(), FEW)


@pytest.mark.slow
@pytest.mark.root
def test_ten_thousand_in_a_row_leave_nothing_and_do_not_slow_down() -> None:
    took = check_nothing_grows(keeps_limits, MANY)
    first, last = statistics.median(took[:1000]), statistics.median(took[-1000:])
    assert last < 1.2 * first, (first, last)
