"""Cgroups on cgroup v2, and in the v2 hierarchy of a hybrid machine, asked of the kernel."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from in_cgroup import PATH, SLEEP, TOP, cgroup_of, needs_v2_alone, plan_of, process_in, unified_plan, v2
from test_lifecycle import config_of

from cycontainer.cgroups import Cgroup
from cycontainer.config import Cpu, DeviceRule, Memory, Resources
from cycontainer.device_rules import device_program
from cycontainer.errors import CgroupError, ConfigError
from cycontainer.host import CgroupLayout, current
from cycontainer.lifecycle import Container
from cycontainer.resources import compile_resources
from cycontainer.streams import DEVNULL

pytestmark = [pytest.mark.root]


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
def test_one_that_was_there_gets_its_controllers_too() -> None:
    file = {"memory": b"memory.high", "pids": b"pids.max", "hugetlb": b"hugetlb.2MB.max"}
    offered = [name for name in v2().controllers if name in file]
    name, path = offered[0], f"{TOP}/there"
    where = f"{v2().mount}{path}"
    os.makedirs(where)
    try:
        plan = unified_plan(controllers=(name,), needed=(name,), writes=((file[name], b"4194304"),))
        cgroup = Cgroup.create(plan, (path,))
        assert name in cgroup.read("cgroup.controllers").decode().split()
        cgroup.destroy()
    finally:
        for each in (where, os.path.dirname(where)):
            if os.path.isdir(each):
                os.rmdir(each)


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


@contextmanager
def beside_threads() -> Iterator[str]:
    """A path in a domain whose threads are in cgroups of their own: what is made there is "domain invalid"."""
    with cgroup_of(unified_plan(), f"{TOP}/domain") as domain:
        os.mkdir(f"{domain.paths[0]}/threads")
        with open(f"{domain.paths[0]}/threads/cgroup.type", "w") as file:
            file.write("threaded")
        yield f"{TOP}/domain/invalid"


def test_no_process_can_be_where_threads_are_spread_and_it_says_so() -> None:
    with beside_threads() as path, cgroup_of(unified_plan(), path) as cgroup, subprocess.Popen(["sleep", "9"]) as other:
        assert cgroup.read("cgroup.type") == b"domain invalid\n"
        with pytest.raises(CgroupError, match="it is a threaded cgroup, or lies beside or below one") as failure:
            cgroup.attach(other.pid)
        assert (failure.value.path, failure.value.errno) == (f"{cgroup.paths[0]}/cgroup.procs", errno.EOPNOTSUPP)
        other.kill()


@pytest.mark.cgroup2
@needs_v2_alone
def test_a_container_is_not_made_where_threads_are_spread(tmp_path: Path, busybox_rootfs: str) -> None:
    with beside_threads() as path:
        config = config_of(busybox_rootfs, "true", cgroupsPath=path)
        with pytest.raises(CgroupError, match=r"invalid/cgroup\.procs: .* it is a threaded cgroup, or lies beside"):
            Container.create("one", config, root=str(tmp_path), stdin=DEVNULL)
        assert os.listdir(tmp_path) == []
        assert not os.path.exists(f"{v2().mount}{path}")


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
    with tempfile.TemporaryDirectory(prefix="devices-", dir="/dev") as directory:  # Debian 13's /tmp is nodev
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


# --- an update of everything


BEFORE = Resources(
    memory=Memory(limit=64 << 20, swap=80 << 20, reservation=16 << 20),
    cpu=Cpu(shares=512, quota_us=5000, period_us=20000, burst_us=3000, cpus="0", mems="0"),
    pids=50,
    hugepages=(("2MB", 4 << 20),),
    unified=(("memory.high", "33554432"), ("memory.oom.group", "1")),
)
FILES = (
    *("memory.max", "memory.swap.max", "memory.low", "memory.high", "memory.oom.group", "hugetlb.2MB.max"),
    *("cpu.weight", "cpu.idle", "cpu.max", "cpu.max.burst", "cpuset.cpus", "cpuset.mems", "pids.max"),
)
REFUSED: list[tuple[dict[str, str], str, int]] = [
    ({"cpuset.cpus": "4095"}, "cpuset.cpus", errno.ERANGE),
    ({"memory.high": "much"}, "memory.high", errno.EINVAL),
    ({"memory.nonsense": "1"}, "memory.nonsense", errno.ENOENT),
    ({"misc.nonsense": "1"}, "misc.nonsense", errno.ENOENT),
]


@pytest.mark.cgroup2
@needs_v2_alone
@pytest.mark.parametrize(("wrong", "file", "code"), REFUSED, ids=[row[1] for row in REFUSED])
def test_an_update_that_is_refused_changes_nothing(wrong: dict[str, str], file: str, code: int) -> None:
    after = Resources(
        memory=Memory(limit=128 << 20, swap=128 << 20, reservation=1 << 20),
        cpu=Cpu(shares=100, quota_us=2000, period_us=10000, burst_us=0, idle=1, cpus=wrong.get("cpuset.cpus", "0-1")),
        pids=7,
        hugepages=(("2MB", 0),),
        unified=(("memory.oom.group", "0"), *[item for item in wrong.items() if item[0] != "cpuset.cpus"]),
    )
    with cgroup_of(plan_of(BEFORE)) as cgroup:
        found = cgroup.read_all(FILES)
        with pytest.raises(CgroupError) as failure:
            cgroup.update(plan_of(after))
        assert (failure.value.path, failure.value.errno) == (f"{cgroup.paths[0]}/{file}", code)
        assert failure.value.value == wrong[file]
        assert not hasattr(failure.value, "__notes__"), "all that was written was put back"
        assert cgroup.read_all(FILES) == found


@pytest.mark.cgroup2
@needs_v2_alone
@pytest.mark.parametrize(("wrong", "file", "code"), REFUSED, ids=[row[1] for row in REFUSED])
def test_a_limit_that_is_refused_leaves_no_cgroup(wrong: dict[str, str], file: str, code: int) -> None:
    cpu = Cpu(cpus=wrong.get("cpuset.cpus", "0"))
    unified = tuple([item for item in wrong.items() if item[0] != "cpuset.cpus"])
    with (
        pytest.raises(CgroupError) as failure,
        cgroup_of(plan_of(Resources(cpu=cpu, pids=7, unified=unified)), f"{TOP}/deep/er"),
    ):
        pass
    assert (failure.value.path.partition(TOP)[2], failure.value.errno) == (f"/deep/er/{file}", code)
    assert failure.value.value == wrong[file]
    assert not os.path.exists(f"{v2().mount}{TOP}")
