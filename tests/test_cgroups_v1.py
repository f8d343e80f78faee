"""Limits, devices and updates in the hierarchies of cgroup v1, asked of the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from in_cgroup import PATH, SLEEP, TOP, cgroup_of, everywhere, paths_in, plan_of, process_in

from cycontainer.cgroups import Cgroup
from cycontainer.config import BlockIO, Cpu, DeviceRule, Memory, Resources, Throttle, WeightDevice
from cycontainer.errors import CgroupError
from cycontainer.host import current, probe
from cycontainer.resources import compile_resources

pytestmark = [pytest.mark.root, pytest.mark.cgroup1]

LIMITS = Resources(memory=Memory(limit=64 << 20, swap=64 << 20), pids=100)


# --- limits


RESOURCES: list[tuple[Resources, str, bytes]] = [
    (Resources(memory=Memory(limit=1 << 25)), "memory.limit_in_bytes", b"33554432"),
    (Resources(memory=Memory(limit=1 << 25, swap=1 << 26)), "memory.memsw.limit_in_bytes", b"67108864"),
    (Resources(memory=Memory(reservation=1 << 24)), "memory.soft_limit_in_bytes", b"16777216"),
    (Resources(memory=Memory(kernel_tcp=1 << 24)), "memory.kmem.tcp.limit_in_bytes", b"16777216"),
    (Resources(memory=Memory(swappiness=7)), "memory.swappiness", b"7"),
    (Resources(memory=Memory(disable_oom_killer=True)), "memory.oom_control", b"oom_kill_disable 1"),
    (Resources(cpu=Cpu(shares=512)), "cpu.shares", b"512"),
    (Resources(cpu=Cpu(quota_us=5000, period_us=20000)), "cpu.cfs_quota_us", b"5000"),
    (Resources(cpu=Cpu(quota_us=5000, period_us=20000)), "cpu.cfs_period_us", b"20000"),
    (Resources(cpu=Cpu(quota_us=5000, period_us=20000, burst_us=3000)), "cpu.cfs_burst_us", b"3000"),
    (Resources(cpu=Cpu(shares=300, idle=1)), "cpu.idle", b"1"),
    (Resources(cpu=Cpu(cpus="0")), "cpuset.cpus", b"0"),
    (Resources(cpu=Cpu(mems="0")), "cpuset.mems", b"0"),
    (Resources(pids=17), "pids.max", b"17"),
    (Resources(pids=-1), "pids.max", b"max"),
    (Resources(pids=0), "pids.max", b"0"),
    (Resources(block_io=BlockIO(weight=300)), "blkio.bfq.weight", b"300"),
]
OPTIONAL = ("blkio.bfq.weight", "cpu.rt_runtime_us")  # a kernel may be built without them


def need(file: str) -> None:
    """Skip where this kernel has no such file; those that every kernel has are not asked for."""
    mount = next(each.mount for each in current().cgroups.v1 if file.partition(".")[0] in each.controllers)
    if file in OPTIONAL and not os.path.exists(f"{mount}/{file}"):
        pytest.skip(f"this kernel has no {file}")


@pytest.mark.parametrize(("resources", "file", "value"), RESOURCES, ids=[row[1] for row in RESOURCES])
def test_a_limit_is_written(resources: Resources, file: str, value: bytes) -> None:
    need(file)
    with cgroup_of(plan_of(resources)) as cgroup:
        assert cgroup.read(file).startswith(value + (b"" if file.endswith("control") else b"\n"))


def disk() -> tuple[int, int]:
    for name in sorted(os.listdir("/sys/block")):
        with open(f"/sys/block/{name}/dev") as file:
            major, minor = file.read().split(":")
        if not name.startswith(("loop", "ram", "zram")):
            return int(major), int(minor)
    pytest.skip("no disk")


@pytest.mark.parametrize("file", ["read_bps", "write_bps", "read_iops", "write_iops"])
def test_a_disk_is_throttled(file: str) -> None:
    major, minor = disk()
    throttle = (Throttle(major=major, minor=minor, rate=1 << 20),)
    resources = Resources(block_io=BlockIO().replace(**{f"throttle_{file}": throttle}))
    with cgroup_of(plan_of(resources)) as cgroup:
        assert cgroup.read(f"blkio.throttle.{file}_device") == f"{major}:{minor} {1 << 20}\n".encode()


def test_realtime_is_given_where_the_parents_have_some() -> None:
    need("cpu.rt_runtime_us")
    mount = next(each.mount for each in current().cgroups.v1 if "cpu" in each.controllers)
    with open(f"{mount}/cpu.rt_runtime_us") as file:
        if int(file.read()) < 1000:
            pytest.skip("the cgroup that the tests run in was given no realtime")
    resources = Resources(cpu=Cpu(realtime_period_us=1000000, realtime_runtime_us=1000))
    with cgroup_of(plan_of(resources), TOP) as cgroup:  # directly below the root, which has all
        assert cgroup.read("cpu.rt_runtime_us") == b"1000\n"


def devices_of(*rules: DeviceRule) -> set[str]:
    with cgroup_of(plan_of(Resources(devices=rules))) as cgroup:
        return set(cgroup.read("devices.list").decode().splitlines())


def test_devices_are_denied_but_those_that_each_container_has() -> None:
    always = {"c *:* m", "b *:* m", "c 136:* rwm", "c 1:3 rwm", "c 5:2 rwm"}
    found = devices_of(DeviceRule(allow=False))
    assert always <= found and len(found) == 11
    assert found | {"c 10:200 rwm"} == devices_of(
        DeviceRule(allow=False), DeviceRule(allow=True, type="c", major=10, minor=200)
    )


def test_an_engine_that_allows_all_devices_gets_all() -> None:
    assert devices_of(DeviceRule(allow=True)) == {"a *:* rwm"}


def is_mounted_anywhere(names: str) -> bool:
    with open("/proc/self/cgroup") as file:
        return f":{names}:" in file.read()


def goes_away(names: str) -> bool:
    deadline = time.monotonic() + 1
    while is_mounted_anywhere(names) and time.monotonic() < deadline:
        time.sleep(0.01)  # no event tells of it
    return not is_mounted_anywhere(names)


@contextmanager
def hierarchy_of(names: str) -> Iterator[None]:
    """Mount controllers that this machine has not mounted, together, at a place that nobody expects."""
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryDirectory(prefix="cyc groups") as point:
        arguments = (b"cgroup", point.encode(), b"cgroup", 0, names.encode())
        if is_mounted_anywhere(names) or libc.mount(*arguments):
            pytest.skip(f"{names} cannot be mounted: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            libc.umount2(point.encode(), 2)
            # the hierarchy goes, a moment later, with an unmount that finds no cgroup in it: one just removed counts
            while not goes_away(names):
                libc.mount(*arguments)
                libc.umount2(point.encode(), 2)


def test_network_controllers_are_found_where_they_are_and_written() -> None:
    with hierarchy_of("net_cls,net_prio"):
        layout = probe().cgroups
        resources = Resources(network_class=0x100001, network_priorities=(("lo", 5),))
        plan = compile_resources(resources, layout, all_controllers=False)
        assert [set(each.controllers) for each in plan.hierarchies] == [{"net_cls", "net_prio"}]
        with cgroup_of(plan) as cgroup:
            assert cgroup.read("net_cls.classid") == b"1048577\n"
            assert b"lo 5\n" in cgroup.read("net_prio.ifpriomap")


def test_a_limit_can_be_raised_and_lowered_later() -> None:
    with cgroup_of(plan_of(LIMITS)) as cgroup:
        for size in (128 << 20, 32 << 20):  # up, the file of both has to go first; down, last
            cgroup.update(plan_of(Resources(memory=Memory(limit=size, swap=size), pids=100)))
            assert cgroup.read("memory.limit_in_bytes") == cgroup.read("memory.memsw.limit_in_bytes") == b"%d\n" % size


def test_an_update_that_is_refused_changes_nothing() -> None:
    rules = (DeviceRule(allow=False), DeviceRule(allow=True, type="c", major=10, minor=200))
    before = Resources(
        memory=Memory(limit=64 << 20, swap=80 << 20, swappiness=7, disable_oom_killer=True),
        cpu=Cpu(shares=512, quota_us=5000, period_us=20000, burst_us=3000, cpus="0", mems="0"),
        devices=rules,
    )
    after = Resources(
        memory=Memory(limit=128 << 20, swap=128 << 20, swappiness=9, disable_oom_killer=False),
        cpu=Cpu(shares=100, quota_us=2000, period_us=10000, burst_us=0, idle=1, cpus="4095"),
        devices=rules[:1],
    )
    files = (
        *("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.swappiness", "memory.oom_control"),
        *("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us", "cpu.idle", "cpuset.cpus"),
        "devices.list",
    )
    with cgroup_of(plan_of(before)) as cgroup:
        found = [sorted((text or b"").splitlines()) for text in cgroup.read_all(files)]
        with pytest.raises(CgroupError) as failure:
            cgroup.update(plan_of(after))
        assert failure.value.path.endswith("/cpuset.cpus")
        assert not hasattr(failure.value, "__notes__")
        assert [sorted((text or b"").splitlines()) for text in cgroup.read_all(files)] == found
        cgroup.update(plan_of(after.replace(cpu=after.cpu.replace(cpus="0") if after.cpu else None)))
        assert cgroup.read("cpu.idle") == b"1\n"
        assert b"c 10:200 rwm" not in cgroup.read("devices.list").splitlines()
        cgroup.update(plan_of(Resources(cpu=Cpu(shares=300, idle=0))))  # shares of an idle group are refused
        assert cgroup.read("cpu.shares") == b"300\n"


def test_an_update_that_is_refused_elsewhere_has_not_touched_the_devices() -> None:
    with cgroup_of(everywhere(LIMITS)) as cgroup:
        cgroup.write("devices.allow", b"a")
        cgroup.write("devices.deny", b"c 10:200 rwm")  # what the list of all does not tell
        with pytest.raises(CgroupError):
            cgroup.update(plan_of(Resources(cpu=Cpu(cpus="4095"), devices=(DeviceRule(allow=False),))))
        assert cgroup.read("devices.list") == b"a *:* rwm\n"


def test_a_container_keeps_its_devices_while_they_are_updated() -> None:
    rules = (DeviceRule(allow=False), DeviceRule(allow=True, type="c", major=10, minor=200))
    code = """
import os
while True:
    os.close(os.open("/dev/null", os.O_RDWR))
    os.write(1, b".")
"""
    with cgroup_of(plan_of(Resources(devices=rules))) as cgroup, process_in(cgroup, code) as process:
        for _ in range(100):
            cgroup.update(plan_of(Resources(devices=rules[:1])))
            cgroup.update(plan_of(Resources(devices=rules)))
        assert process.stdout
        assert process.stdout.read(1 << 17) == b"." * (1 << 17)


def test_only_a_hierarchy_that_the_container_is_in_can_be_updated() -> None:
    with cgroup_of(plan_of(Resources(pids=5))) as cgroup:
        with pytest.raises(CgroupError) as failure:
            cgroup.update(plan_of(LIMITS))
        assert failure.value.errno == errno.ENOENT
        assert cgroup.read("pids.max") == b"5\n"


# --- making


def test_a_new_cpuset_has_what_its_parents_have() -> None:
    with (
        cgroup_of(plan_of(Resources(cpu=Cpu(cpus="0"))), f"{TOP}/a/b") as cgroup,
        process_in(cgroup, SLEEP) as process,
    ):
        assert process.pid in cgroup.processes()
        parent = os.path.dirname(cgroup.paths[0])
        with open(f"{parent}/cpuset.cpus") as file, open(f"{os.path.dirname(parent)}/cpuset.mems") as mems:
            assert file.read().strip() and mems.read().strip()


def test_the_file_that_refuses_is_named_and_nothing_is_left() -> None:
    plan = plan_of(Resources(memory=Memory(limit=1 << 25), pids=5, cpu=Cpu(cpus="4095")))
    with pytest.raises(CgroupError) as failure:
        Cgroup.create(plan, paths_in(plan, f"{TOP}/deep/er"))
    assert failure.value.path == f"/sys/fs/cgroup/cpuset{TOP}/deep/er/cpuset.cpus"
    assert (failure.value.value, failure.value.errno) == ("4095", errno.ERANGE)


def test_a_process_enters_through_the_tasks_descriptors() -> None:
    with cgroup_of(everywhere(LIMITS)) as cgroup, process_in(cgroup, SLEEP) as process:
        with open(f"/proc/{process.pid}/cgroup") as file:
            places = [line.split(":", 2) for line in file.read().splitlines()]
        assert {path for _, names, path in places if names} == {PATH}
        assert not [fd for fd in cgroup.tasks if os.get_inheritable(fd)]
        cgroup.release_tasks()
        assert cgroup.tasks == ()


def test_a_weight_is_given_to_a_device_or_the_refusing_file_is_named() -> None:
    major, minor = disk()
    resources = Resources(block_io=BlockIO(weight_devices=(WeightDevice(major=major, minor=minor, weight=300),)))
    try:
        with cgroup_of(plan_of(resources)) as cgroup:
            assert f"{major}:{minor} 300".encode() in cgroup.read("blkio.bfq.weight_device")
    except CgroupError as failure:  # the disk's scheduler is not BFQ
        assert failure.path.endswith("/blkio.bfq.weight_device")
