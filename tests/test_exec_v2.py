"""exec and the limits of a container on cgroup v2: where a process beside it is born."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from in_cgroup import needs_v2_alone
from test_lifecycle import config_of

from cycontainer.lifecycle import Container
from cycontainer.streams import DEVNULL, PIPE

pytestmark = [pytest.mark.root, pytest.mark.cgroup2, needs_v2_alone]
LIMITS = {"memory": {"limit": 64 << 20}, "pids": {"limit": 40}, "cpu": {"shares": 512}}


@pytest.fixture
def container(busybox_rootfs: str, tmp_path: object) -> Iterator[Container]:
    config = config_of(busybox_rootfs, "sleep", "1000", resources=LIMITS)
    with Container.create("one", config, root=f"{tmp_path}/states", stdin=DEVNULL) as made:
        made.start()
        yield made
        made.delete(force=True)


def cgroup_of(pid: int) -> str:
    with open(f"/proc/{pid}/cgroup") as file:
        return file.read().strip().removeprefix("0::")


def test_who_joins_is_in_the_same_cgroup(container: Container) -> None:
    with container.exec(["cat"], stdin=PIPE, stdout=PIPE) as process:
        assert cgroup_of(process.pid) == cgroup_of(container.pid)
        stats = container.stats()
        assert stats.pids and stats.memory
        assert (stats.pids.current, stats.pids.limit, stats.memory.memory.limit) == (2, 40, 64 << 20)
        process.communicate(b"")


def test_who_joins_goes_where_the_program_has_moved(container: Container) -> None:
    """A cgroup that hands controllers on takes no processes: cgroup-v2.rst, "No Internal Process Constraint"."""
    home = f"/sys/fs/cgroup{cgroup_of(container.pid)}"
    os.mkdir(f"{home}/inner")
    for file, text in (("inner/cgroup.procs", str(container.pid)), ("cgroup.subtree_control", "+memory")):
        with open(f"{home}/{file}", "w") as entry:
            entry.write(text)
    with container.exec(["cat"], stdin=PIPE, stdout=PIPE) as process:
        assert cgroup_of(process.pid) == cgroup_of(container.pid)
        assert cgroup_of(process.pid).endswith("/inner")
        process.communicate(b"")


def test_a_running_container_gets_other_limits_and_is_held(container: Container) -> None:
    home = f"/sys/fs/cgroup{cgroup_of(container.pid)}"
    container.update({"memory": {"limit": 32 << 20}, "pids": {"limit": 20}})
    with open(f"{home}/memory.max") as memory, open(f"{home}/pids.max") as pids:
        assert (memory.read(), pids.read()) == (f"{32 << 20}\n", "20\n")
    container.pause()
    assert container.status == "paused"
    container.resume()
    assert container.status == "running"


def test_a_kill_for_memory_is_told_of(container: Container) -> None:
    events = container.events(interval=0.05)
    assert next(events).kind == "stats"  # now it watches
    with container.exec(["sh", "-c", "read line; exec tail /dev/zero"], stdin=PIPE, stdout=PIPE) as process:
        process.communicate(b"go\n")
        assert process.returncode == -9
    assert "oom" in (event.kind for event in events)
    stats = container.stats()
    assert stats.memory and stats.memory.oom_kills == 1
    container.signal(9)
    assert "exit" in (event.kind for event in events)
