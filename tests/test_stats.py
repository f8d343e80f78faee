"""What cgroups count, read as records and as runc's document."""

from __future__ import annotations

import json
import os
from typing import cast

import pytest
from in_cgroup import cgroup_of, everywhere, process_in

from cycontainer.cgroups import Cgroup
from cycontainer.config import Memory, Resources
from cycontainer.host import current
from cycontainer.stats import DeviceIO, HugePages, Rdma, Stats, read_stats
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


class Beside:
    """A container's cgroups on a machine where v2 has io, rdma and huge pages, and v1 the rest: their texts."""

    unified = False
    texts = {  # noqa: RUF012  # nobody changes it
        "pids.current": b"1\n",
        "pids.max": b"max\n",
        "io.stat": b"8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n",
        "io.pressure": b"some avg10=1.00 avg60=0.00 avg300=0.00 total=7\n",
        "rdma.current": b"mlx4_0 hca_handle=2 hca_object=3\n",
        "hugetlb.2MB.current": b"4194304\n",
        "hugetlb.2MB.events": b"max 5\n",
    }

    def read_all(self, files: tuple[str, ...]) -> list[bytes | None]:
        return [self.texts.get(file) for file in files]


def test_on_a_hybrid_machine_what_v2_has_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cycontainer.stats.hugepage_sizes", lambda: ("2MB",))
    stats = read_stats(cast("Cgroup", Beside()))
    assert stats.io == (DeviceIO(major=8, minor=0, read_bytes=4096, reads=1),)
    assert stats.io_pressure is not None and stats.io_pressure.some.total_us == 7
    assert stats.rdma == (Rdma(device="mlx4_0", handles=2, objects=3),)
    assert stats.hugepages == (HugePages(size="2MB", usage=4 << 20, peak=None, failures=5),)


def test_huge_pages_of_v2_beside_v1_are_asked_of_the_kernel() -> None:
    layout = current().cgroups
    if not (layout.v1 and layout.v2 and "hugetlb" in layout.v2.controllers):
        pytest.skip("needs a hybrid machine whose v2 has huge pages")
    with cgroup_of(everywhere(LIMITS)) as cgroup:
        if not any(os.path.exists(f"{path}/hugetlb.2MB.current") for path in cgroup.paths):
            pytest.skip("the cgroup that this is run in has processes, and hands no controller on")
        assert {each.usage for each in read_stats(cgroup).hugepages} == {0}


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


def test_what_v1_s_cpuset_has_set_is_as_the_kernel_says() -> None:
    with cgroup_of(everywhere(LIMITS)) as cgroup:
        document = stats_document(read_stats(cgroup))["cpuset"]
        names = set(document) - {"cpus", "mems"}
        assert len(names) == 9
        if cgroup.unified:
            assert {document[name] for name in names} == {0}
        else:
            assert document["sched_load_balance"] == 1
            assert {name: document[name] for name in names} == {
                name: int(cgroup.read(f"cpuset.{name}")) for name in names
            }


def test_without_controllers_the_document_is_whole() -> None:
    nothing = Stats(
        cpu=None, memory=None, pids=None, io=(), io_pressure=None, hugepages=(), rdma=(), cpus="", mems="",
        cpuset_flags={},
    )  # fmt: skip
    document = stats_document(nothing)
    assert document["memory"]["usage"] == {"limit": 0, "failcnt": 0}
    assert document["pids"] == {}
