"""Many cgroups: at once, and one after the other."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Iterator

import pytest
from in_cgroup import TOP, plan_of

from cycontainer.cgroups import Cgroup
from cycontainer.config import Memory, Resources

pytestmark = [pytest.mark.root]

LIMITS = Resources(memory=Memory(limit=64 << 20), pids=7)


@pytest.fixture
def every_descriptor() -> Iterator[None]:
    """As many as this process may have; 1,000 cgroups take two each on v2."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("every_descriptor")
def test_a_thousand_at_once_have_each_their_own_limit() -> None:
    made: list[Cgroup] = []
    try:
        for number in range(1000):
            plan = plan_of(LIMITS.replace(pids=number))
            made.append(Cgroup.create(plan, (f"{TOP}/many-{number}",) * len(plan.hierarchies)))
            made[-1].release_tasks()
        assert [int(cgroup.read("pids.max")) for cgroup in made] == list(range(1000))
        assert not any(cgroup.processes() for cgroup in made)
    finally:
        for cgroup in made:
            cgroup.destroy()


@pytest.mark.slow
def test_ten_thousand_in_a_row_leave_nothing_and_do_not_slow_down() -> None:
    plan, took = plan_of(LIMITS), []
    for _ in range(10_000):
        begun = time.thread_time_ns()  # what other work takes of the processor is left out
        cgroup = Cgroup.create(plan, (f"{TOP}/again",) * len(plan.hierarchies))
        cgroup.destroy()
        took.append(time.thread_time_ns() - begun)
    first, last = statistics.median(took[:1000]), statistics.median(took[-1000:])
    assert last < 1.5 * first, (first, last)
