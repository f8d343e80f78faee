"""A container's resctrl group: made, joined and removed, on a file system of the tests' own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_resctrl import FakeResctrl
from in_cgroup import PATH, cgroup_of, plan_of

from cycontainer.config import IntelRdt, Resources
from cycontainer.errors import ConfigError
from cycontainer.handles import open_cgroup
from cycontainer.intelrdt import Group, assign, find_root, join, plan_group, remove, update
from cycontainer.state_text import CgroupPlace, State
from cycontainer.updating import update as update_limits

pytestmark = pytest.mark.root
PID = 4_000_000  # of no process


def assigned(config: IntelRdt, name: str, pid: int, root: str) -> Group:
    group = plan_group(config, name, root)
    assign(group, config, pid)
    return group


@pytest.fixture
def resctrl(tmp_path: Path) -> Iterator[FakeResctrl]:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("needs /dev/fuse")
    with FakeResctrl(str(tmp_path)) as fake:
        yield fake


def test_a_group_of_its_own_lives_as_long_as_the_container(resctrl: FakeResctrl) -> None:
    config = IntelRdt(l3_cache_schema="L3:0=f\nMB:0=10", memory_bandwidth_schema="MB:0=20")
    group = assigned(config, "c1", PID, resctrl.path)
    assert resctrl.nodes["c1/schemata"] == "L3:0=f\nMB:0=20\n"
    assert resctrl.nodes["c1/tasks"] == f"{PID}\n"
    join(group, PID + 1)
    assert resctrl.nodes["c1/tasks"] == f"{PID}\n{PID + 1}\n"
    remove(group)
    assert "c1" not in resctrl.nodes
    remove(group)


def test_schemata_are_written_as_they_are_after_the_others(resctrl: FakeResctrl) -> None:
    config = IntelRdt(l3_cache_schema="L3:0=f", schemata=("L3:0=3", "MB:0=30"))
    assigned(config, "c1", PID, resctrl.path)
    assert resctrl.nodes["c1/schemata"] == "L3:0=f\nL3:0=3\nMB:0=30\n"


def test_a_group_that_was_there_stays(resctrl: FakeResctrl) -> None:
    os.mkdir(f"{resctrl.path}/gold")
    group = assigned(IntelRdt(clos_id="gold"), "c1", PID, resctrl.path)
    assert resctrl.nodes["gold/tasks"] == f"{PID}\n"
    assert resctrl.nodes["gold/schemata"] == "L3:0=ff\nMB:0=100\n"
    remove(group)
    assert "gold" in resctrl.nodes


def test_a_named_group_that_we_made_stays_while_others_are_in_it(resctrl: FakeResctrl) -> None:
    first = assigned(IntelRdt(clos_id="gold", schemata=("L3:0=f",)), "c1", PID, resctrl.path)
    assigned(IntelRdt(clos_id="gold"), "c2", PID + 1, resctrl.path)
    remove(first)
    assert "gold" in resctrl.nodes
    resctrl.nodes["gold/tasks"] = ""
    remove(first)
    assert "gold" not in resctrl.nodes


def test_a_missing_group_without_schemata_is_an_error(resctrl: FakeResctrl) -> None:
    with pytest.raises(ConfigError, match="there is no group gold") as failure:
        assigned(IntelRdt(clos_id="gold"), "c1", PID, resctrl.path)
    assert failure.value.path == "linux.intelRdt.closID"
    assert "gold" not in resctrl.nodes


def test_the_roots_own_group(resctrl: FakeResctrl) -> None:
    group = assigned(IntelRdt(clos_id="/"), "c1", PID, resctrl.path)
    assert resctrl.nodes["tasks"] == f"{PID}\n"
    remove(group)


def test_monitoring_has_a_group_for_the_container_alone(resctrl: FakeResctrl) -> None:
    os.mkdir(f"{resctrl.path}/gold")
    group = assigned(IntelRdt(clos_id="gold", enable_monitoring=True), "c1", PID, resctrl.path)
    assert resctrl.nodes["gold/mon_groups/c1/tasks"] == f"{PID}\n"
    remove(group)
    assert "gold/mon_groups/c1" not in resctrl.nodes and "gold" in resctrl.nodes


def test_what_the_kernel_refuses_is_told_in_its_words_and_nothing_is_left(resctrl: FakeResctrl) -> None:
    with pytest.raises(ConfigError, match=r"EINVAL.*: Missing '='"):
        assigned(IntelRdt(schemata=("nonsense",)), "c1", PID, resctrl.path)
    assert "c1" not in resctrl.nodes


def test_schemata_can_be_changed(resctrl: FakeResctrl) -> None:
    group = assigned(IntelRdt(schemata=("L3:0=f",)), "c1", PID, resctrl.path)
    update(group, IntelRdt(l3_cache_schema="L3:0=1"))
    assert resctrl.nodes["c1/schemata"] == "L3:0=1\n"


@pytest.mark.parametrize("name", ["info", "schemata", "mon_groups"])
def test_a_name_that_resctrl_has_for_itself_is_refused(resctrl: FakeResctrl, name: str) -> None:
    before = dict(resctrl.nodes)
    with pytest.raises(ConfigError):
        assigned(IntelRdt(clos_id=name, schemata=("L3:0=f",)), "c1", PID, resctrl.path)
    assert resctrl.nodes == before


def test_a_machine_without_resctrl_says_so(resctrl: FakeResctrl) -> None:
    with open("/proc/self/mountinfo") as mounts:
        if " - resctrl " in mounts.read():
            pytest.skip("this machine has one")
    with pytest.raises(ConfigError, match="no resctrl file system is mounted"):
        find_root()


def test_what_a_killed_process_has_made_is_found_by_what_it_meant_to_make(resctrl: FakeResctrl) -> None:
    config = IntelRdt(schemata=("L3:0=f",), enable_monitoring=True)
    group = plan_group(config, "c1", resctrl.path)
    assert "c1" not in resctrl.nodes
    remove(group)
    os.mkdir(f"{resctrl.path}/c1")
    remove(group)
    assert "c1" not in resctrl.nodes


def test_a_failed_start_removes_the_named_group_that_it_is_alone_in(resctrl: FakeResctrl) -> None:
    group = assigned(IntelRdt(clos_id="gold", schemata=("L3:0=f",)), "c1", PID, resctrl.path)
    assigned(IntelRdt(clos_id="gold"), "c2", PID + 1, resctrl.path)
    remove(group, PID)
    assert "gold" in resctrl.nodes
    resctrl.nodes["gold/tasks"] = f"{PID}\n"
    remove(group, PID)
    assert "gold" not in resctrl.nodes


@pytest.mark.cgroups
def test_an_update_whose_schemata_are_refused_takes_the_limits_back(resctrl: FakeResctrl) -> None:
    group = assigned(IntelRdt(schemata=("L3:0=f",)), "c1", PID, resctrl.path)
    plan = plan_of(Resources(pids=5))
    with cgroup_of(plan):
        places = [CgroupPlace(mount=at.mount, controllers=at.controllers, path=PATH) for at in plan.hierarchies]
        state = State(
            id="c1", bundle="/", version="1.3.0", created="", owner=0, cgroups=tuple(places), resctrl=group
        )  # fmt: skip
        with pytest.raises(ConfigError, match=r"Missing '='"):
            update_limits(state, {"pids": {"limit": 6}}, IntelRdt(l3_cache_schema="nonsense"))
        assert open_cgroup(state).read("pids.max") == b"5\n"
        update_limits(state, {"pids": {"limit": 6}}, IntelRdt(l3_cache_schema="L3:0=1"))
        assert (open_cgroup(state).read("pids.max"), resctrl.nodes["c1/schemata"]) == (b"6\n", "L3:0=1\n")
