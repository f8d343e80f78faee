"""Cgroups on cgroup v2, and in the v2 hierarchy of a hybrid machine, asked of the kernel."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from in_cgroup import PATH, SLEEP, TOP, cgroup_of, plan_of, process_in

from cycontainer.cgroups import Cgroup
from cycontainer.config import Cpu, DeviceRule, Memory, Resources
from cycontainer.device_rules import device_program
from cycontainer.errors import CgroupError, ConfigError
from cycontainer.host import CgroupLayout, Hierarchy, current
from cycontainer.resources import CgroupPlan, HierarchyPlan, compile_resources

pytestmark = [pytest.mark.root]
LIMITS = Resources(memory=Memory(limit=64 << 20, swap=64 << 20), pids=100)


def v2() -> Hierarchy:
    found = current().cgroups.v2
    if found is None:
        pytest.skip("needs a cgroup v2 mount")
    return found


def unified_plan(**parts: object) -> CgroupPlan:
    """A plan for the v2 hierarchy alone, also where v1 has the controllers."""
    plan = HierarchyPlan(mount=v2().mount, controllers=(), unified=True)
    return CgroupPlan(hierarchies=(plan.replace(**parts),))


# --- with the whole machine on v2


WRITTEN: list[tuple[Resources, str, bytes]] = [
    (Resources(memory=Memory(limit=1 << 25)), "memory.max", b"33554432"),
    (Resources(memory=Memory(limit=1 << 25, swap=1 << 26)), "memory.swap.max", b"33554432"),
    (Resources(memory=Memory(reservation=1 << 24)), "memory.low", b"16777216"),
    (Resources(cpu=Cpu(shares=512)), "cpu.weight", b"59"),
    (Resources(cpu=Cpu(quota_us=5000, period_us=20000)), "cpu.max", b"5000 20000"),
    (Resources(cpu=Cpu(quota_us=5000, burst_us=3000)), "cpu.max.burst", b"3000"),
    (Resources(cpu=Cpu(shares=300, idle=1)), "cpu.idle", b"1"),
    (Resources(cpu=Cpu(cpus="0")), "cpuset.cpus", b"0"),
    (Resources(pids=0), "pids.max", b"0"),
    (Resources(pids=-1), "pids.max", b"max"),
    (Resources(hugepages=(("2MB", 4 << 20),)), "hugetlb.2MB.max", b"4194304"),
    (Resources(hugepages=(("2MB", 4 << 20),)), "hugetlb.2MB.rsvd.max", b"4194304"),
    (Resources(unified=(("memory.high", "16777216"),)), "memory.high", b"16777216"),
]


@pytest.mark.cgroup2
@pytest.mark.parametrize(("resources", "file", "value"), WRITTEN, ids=[row[1] for row in WRITTEN])
def test_a_limit_is_written(resources: Resources, file: str, value: bytes) -> None:
    if current().cgroups.v1 and not file.startswith(v2().controllers):
        pytest.skip("v1 has that controller here")
    with cgroup_of(plan_of(resources)) as cgroup:
        assert cgroup.read(file) == value + b"\n"


@pytest.mark.cgroup2
def test_controllers_are_handed_down_all_the_way() -> None:
    offered = v2().controllers
    with cgroup_of(unified_plan(controllers=offered, needed=offered[:1]), f"{TOP}/a/b/c") as cgroup:
        assert set(cgroup.read("cgroup.controllers").decode().split()) == set(offered)


@pytest.mark.cgroup2
def test_a_parent_with_processes_cannot_hand_controllers_on() -> None:
    offered = tuple([name for name in v2().controllers if name in ("memory", "hugetlb")][:1])  # no threaded one
    with cgroup_of(unified_plan(), f"{TOP}/full") as parent, process_in(parent, SLEEP):
        with (
            pytest.raises(CgroupError) as failure,
            cgroup_of(unified_plan(controllers=offered, needed=offered), f"{TOP}/full/x"),
        ):
            pass
        assert failure.value.path == f"{parent.paths[0]}/cgroup.subtree_control"
        assert (failure.value.errno, failure.value.value) == (errno.EBUSY, f"+{offered[0]}")
        assert "processes" in str(failure.value), "it says what to do"
        assert not os.path.exists(f"{parent.paths[0]}/x")


def test_the_file_that_refuses_is_named_and_nothing_is_left() -> None:
    plan = unified_plan(writes=((b"cgroup.max.depth", b"1"), (b"no.such.file", b"1")))
    with pytest.raises(CgroupError) as failure, cgroup_of(plan, f"{TOP}/deep/er"):
        pass
    assert failure.value.path.endswith("/deep/er/no.such.file")
    assert (failure.value.errno, failure.value.value) == (errno.ENOENT, "1")


def test_an_alternative_is_written_where_a_file_is_missing() -> None:
    writes = ((b"no.such.file", b"1"), (b"|cgroup.max.depth", b"3"), (b"none.either", b"1"), (b"|", b""))
    with cgroup_of(unified_plan(writes=writes)) as cgroup:
        assert cgroup.read("cgroup.max.depth") == b"3\n"
    with cgroup_of(unified_plan(writes=((b"cgroup.max.depth", b"1"), (b"|cgroup.max.depth", b"3")))) as cgroup:
        assert cgroup.read("cgroup.max.depth") == b"1\n"


# --- processes


def test_all_are_killed_at_once_also_the_frozen_and_those_below() -> None:
    code = "import os, signal; os.fork(); signal.pause()"
    with cgroup_of(unified_plan()) as cgroup, process_in(cgroup, code) as process:
        os.mkdir(f"{cgroup.paths[0]}/below")
        cgroup.freeze()
        cgroup.kill()
        assert cgroup.processes() == []
        assert process.wait() == -signal.SIGKILL


def test_frozen_is_stopped_and_goes_on_when_thawed() -> None:
    count = "import os\nwhile True: os.write(1, b'.')"
    with cgroup_of(unified_plan()) as cgroup, process_in(cgroup, count) as process:
        assert process.stdout
        process.stdout.read(1)
        cgroup.freeze()
        assert b"frozen 1" in cgroup.read("cgroup.events")
        cgroup.thaw()
        process.stdout.read(1 << 17)  # more than a pipe holds: it goes on


def test_processes_in_threaded_cgroups_are_found_and_killed() -> None:
    code = f"""
import os, threading
top = {v2().mount!r} + {PATH!r}
os.mkdir(top + "/threads")
open(top + "/threads/cgroup.type", "w").write("threaded")
open(top + "/threads/cgroup.threads", "w").write(str(os.getpid()))
print(flush=True)
threading.Event().wait()
"""
    with cgroup_of(unified_plan()) as cgroup, process_in(cgroup, code) as process:
        assert process.stdout
        process.stdout.readline()
        assert cgroup.processes() == [process.pid]
        cgroup.kill()
        assert process.wait() == -signal.SIGKILL


def test_no_one_freezes_or_kills_itself() -> None:
    with cgroup_of(unified_plan()) as cgroup:
        child = os.fork()
        if child == 0:
            with open(f"{cgroup.paths[0]}/cgroup.procs", "w") as file:
                file.write("0")
            refused = 0
            for verb in (cgroup.freeze, cgroup.kill):
                try:
                    verb()
                except CgroupError as failure:
                    refused += failure.errno == errno.EDEADLK
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


# --- ownership


def test_a_cgroup_is_handed_over_with_the_files_that_are_safe() -> None:
    with cgroup_of(unified_plan(owner=65534)) as cgroup:
        owned = {name for name in os.listdir(cgroup.paths[0]) if os.stat(f"{cgroup.paths[0]}/{name}").st_uid == 65534}
        with open("/sys/kernel/cgroup/delegate") as file:
            safe = set(file.read().split())
        assert os.stat(cgroup.paths[0]).st_uid == 65534
        assert {"cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} <= owned <= safe


# --- devices


@contextmanager
def device_nodes(numbers: list[tuple[str, int, int]]) -> Iterator[list[str]]:
    """Nodes of these devices, few of which have a driver: opening one is ENXIO then, and EPERM where it is denied."""
    with tempfile.TemporaryDirectory(prefix="devices-") as directory:
        paths = []
        for number, (kind, major, minor) in enumerate(numbers):
            paths.append(f"{directory}/{number}")
            os.mknod(paths[-1], 0o600 | {"b": stat.S_IFBLK, "c": stat.S_IFCHR}[kind], os.makedev(major, minor))
        yield paths


TRY = """
import os, sys
for path in sys.argv[1:]:
    for flags in (os.O_RDONLY, os.O_WRONLY):
        try:
            os.close(os.open(path, flags | os.O_NONBLOCK))
            verdict = "1"
        except PermissionError:
            verdict = "0"
        except OSError:
            verdict = "1"
        print(verdict, end="")
"""


def verdicts(cgroup: Cgroup, paths: list[str]) -> str:
    """For each node whether it may be read, and written."""
    code = TRY.replace("sys.argv[1:]", repr(paths))
    with process_in(cgroup, code) as process:
        assert process.stdout
        return process.stdout.read().decode()


NUMBERS = [(kind, major, minor) for kind in "bc" for major in (240, 250) for minor in (3, 8)]


def test_devices_are_decided_by_the_program_as_by_the_rules() -> None:
    rules = (
        DeviceRule(allow=True, type="c", major=240, access="rw"),
        DeviceRule(allow=False, type="c", major=240, minor=8, access="w"),
        DeviceRule(allow=True, type="b", major=250, minor=3, access="r"),
    )
    with (
        device_nodes([*NUMBERS, ("c", 1, 3)]) as paths,
        cgroup_of(unified_plan(devices=device_program(rules))) as cgroup,
    ):
        found = verdicts(cgroup, paths)
    expected = {("c", 240, 3): "11", ("c", 240, 8): "10", ("b", 250, 3): "10"}
    assert found == "".join(expected.get(number, "00") for number in NUMBERS) + "11"


def random_rules(chance: random.Random) -> tuple[DeviceRule, ...]:
    return tuple(
        DeviceRule(
            allow=chance.random() < 0.6,
            type=chance.choice("abc"),
            major=chance.choice((None, 240, 250)),
            minor=chance.choice((None, 3, 8)),
            access=chance.choice(("r", "w", "rw", "rwm")),
        )
        for _ in range(chance.randrange(5))
    )


@pytest.mark.cgroup1
def test_the_program_and_the_controller_of_v1_agree() -> None:
    """Random lists of rules: whatever v1 can hold, v2 decides in the same way; and one program replaces another."""
    chance = random.Random(7)
    layout = CgroupLayout(mode="v1", v1=tuple([each for each in current().cgroups.v1 if "devices" in each.controllers]))
    agreed = 0
    with device_nodes(NUMBERS) as paths, cgroup_of(unified_plan()) as cgroup:
        while agreed < 15:
            rules = random_rules(chance)
            try:
                v1 = compile_resources(Resources(devices=rules), layout, all_controllers=True)
            except ConfigError:
                continue  # the controller could not hold that
            cgroup.update(unified_plan(devices=device_program(rules)))
            with cgroup_of(v1) as other:
                assert verdicts(cgroup, paths) == verdicts(other, paths), rules
            agreed += 1


def test_an_update_that_is_refused_keeps_the_devices() -> None:
    allowed = device_program((DeviceRule(allow=True, type="c", major=240),))
    plan = unified_plan(devices=allowed, writes=((b"cgroup.max.depth", b"5"),))
    with device_nodes([("c", 240, 3)]) as paths, cgroup_of(plan) as cgroup:
        with pytest.raises(CgroupError):
            cgroup.update(unified_plan(devices=device_program(()), writes=((b"cgroup.max.depth", b"x"),)))
        assert verdicts(cgroup, paths) == "11"
        assert cgroup.read("cgroup.max.depth") == b"5\n"
        cgroup.update(unified_plan(devices=device_program(()), writes=((b"cgroup.max.depth", b"4"),)))
        assert verdicts(cgroup, paths) == "00"
        assert cgroup.read("cgroup.max.depth") == b"4\n"
