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

FEW, MANY = 200, 10_000
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


def check_nothing_grows(launch: Callable[[], object], count: int, *, most: int) -> array[float]:
    """`most`: bytes that this process may have grown by.

    Returns what each took, in seconds of this thread: what other work takes of the processor is left out.
    """
    for _ in range(50):
        launch()
    took, held = array("d", bytes(8 * count)), resident()
    for number in range(count):
        begun = time.thread_time()
        launch()
        took[number] = time.thread_time() - begun
    assert resident() - held < most
    return took


@pytest.mark.parametrize("launch", [succeeds, takes_files, runs_too_long, is_not_there, cannot_be_made])
def test_hundreds_in_a_row_leave_nothing(launch: Callable[[], None]) -> None:
    check_nothing_grows(launch, FEW, most=FEW << 8)  # 256 bytes of each would show


@pytest.mark.root
def test_hundreds_with_limits_leave_nothing() -> None:
    check_nothing_grows(keeps_limits, FEW, most=FEW << 8)


@pytest.mark.root
def test_hundreds_of_a_template_leave_nothing() -> None:
    with Template(**LIMITS) as template:
        check_nothing_grows(lambda: template.run(["true"]).check_returncode(), FEW, most=FEW << 8)


@pytest.mark.slow
@pytest.mark.root
def test_ten_thousand_in_a_row_leave_nothing_and_do_not_slow_down() -> None:
    took = check_nothing_grows(keeps_limits, MANY, most=MANY << 7)
    first, last = statistics.median(took[:1000]), statistics.median(took[-1000:])
    assert last < 1.2 * first, (first, last)
