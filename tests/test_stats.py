"""What cgroups count, read as records and as runc's document."""

from __future__ import annotations

import json
import os

import pytest
from in_cgroup import cgroup_of, everywhere, process_in

from cycontainer.config import Memory, Resources
from cycontainer.stats import Stats, read_stats
from cycontainer.stats_json import stats_document, stats_event

pytestmark = [pytest.mark.root]

LIMITS = Resources(memory=Memory(limit=64 << 20, swap=64 << 20), pids=50)
BUSY = """
import os, time
held = b"x" * (16 << 20)
while time.process_time() < 0.1: pass
print(flush=True)
os.read(0, 1)
"""


def stats_of_a_busy_process() -> Stats:
    with cgroup_of(everywhere(LIMITS)) as cgroup, process_in(cgroup, BUSY) as process:
        assert process.stdout
        process.stdout.readline()
        return read_stats(cgroup)


def test_what_a_process_uses_is_counted() -> None:
    stats = stats_of_a_busy_process()
    assert stats.cpu and stats.memory and stats.pids
    assert stats.cpu.total_ns > 50_000_000
    assert stats.cpu.user_ns > 0
    assert stats.memory.memory.usage > 16 << 20
    assert stats.memory.memory.limit == 64 << 20
    assert stats.memory.memory.peak is None or stats.memory.memory.peak >= stats.memory.memory.usage
    assert stats.memory.memory_and_swap is None or stats.memory.memory_and_swap.limit == 64 << 20
    assert stats.memory.oom_kills == 0
    assert stats.memory.detail["pgfault"] > 0
    assert (stats.pids.current, stats.pids.limit) == (1, 50)


def test_what_v1_tells_of_each_cpu_adds_up() -> None:
    stats = stats_of_a_busy_process()
    assert stats.cpu
    if not stats.cpu.per_cpu_ns:
        pytest.skip("v2 does not tell CPUs apart")
    assert len(stats.cpu.per_cpu_ns) >= len(os.sched_getaffinity(0))
    assert sum(stats.cpu.per_cpu_user_ns) == stats.cpu.user_ns


def test_kills_for_memory_are_counted() -> None:
    with cgroup_of(everywhere(LIMITS)) as cgroup:
        with process_in(cgroup, "b'x' * (200 << 20)") as process:
            assert process.wait() == -9
        stats = read_stats(cgroup)
    assert stats.memory
    assert stats.memory.oom_kills == 1


def test_the_document_is_json_with_the_names_of_runc() -> None:
    event = stats_event("box", stats_of_a_busy_process())
    document = json.loads(json.dumps(event))["data"]
    assert (event["type"], event["id"]) == ("stats", "box")
    assert set(document) == {
        *("cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"),
    }
    assert document["cpu"]["usage"]["total"] > 50_000_000
    assert document["memory"]["usage"]["limit"] == 64 << 20
    assert document["memory"]["raw"]["pgfault"] > 0
    assert document["pids"] == {"current": 1, "limit": 50}


def test_without_controllers_the_document_is_whole() -> None:
    nothing = Stats(
        cpu=None, memory=None, pids=None, io=(), io_pressure=None, hugepages=(), rdma=(), cpus="", mems=""
    )  # fmt: skip
    document = stats_document(nothing)
    assert document["memory"]["usage"] == {"limit": 0, "failcnt": 0}
    assert document["pids"] == {}
