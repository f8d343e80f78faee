"""Limits compiled for cgroup v2, and for machines that have both versions: pure."""

from __future__ import annotations

import random

import pytest

from cycontainer._bpf import device_program
from cycontainer.cgroup_layout import CgroupLayout, Hierarchy
from cycontainer.config import BlockIO, Cpu, DeviceRule, Memory, Resources, Throttle, WeightDevice
from cycontainer.device_rules import ALWAYS_ALLOWED
from cycontainer.resources import HierarchyPlan, compile_resources, where
from cycontainer.resources_v2 import cpu_weight, io_weight, writes_v2

ROOT = "/sys/fs/cgroup"
ALL = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc")
V2 = CgroupLayout(mode="v2", v2=Hierarchy(controllers=ALL, mount=ROOT, own="/system.slice/me.service"))
HYBRID = CgroupLayout(
    mode="hybrid",
    v1=tuple(
        [Hierarchy(controllers=(name,), mount=f"{ROOT}/{name}", own="/") for name in ("memory", "cpu", "devices")]
    ),
    v2=Hierarchy(controllers=("hugetlb", "pids", "cpuset"), mount=f"{ROOT}/unified", own="/"),
)


def plan_of(resources: Resources, layout: CgroupLayout = V2, *, every: bool = False) -> HierarchyPlan:
    return compile_resources(resources, layout, all_controllers=every).hierarchies[-1]


def writes(resources: Resources) -> list[str]:
    return [f"{file.decode()} {value.decode()}" for file, value in plan_of(resources).writes]


THROTTLED = BlockIO(
    throttle_read_bps=(Throttle(major=8, minor=0, rate=100),), throttle_write_iops=(Throttle(major=8, minor=1, rate=0),)
)
WRITES: list[tuple[Resources, list[str]]] = [
    (Resources(memory=Memory(limit=1000)), ["memory.max 1000"]),
    (Resources(memory=Memory(limit=-1, swap=-1)), ["memory.max max", "memory.swap.max max", "| "]),
    (Resources(memory=Memory(limit=1000, swap=1000)), ["memory.max 1000", "memory.swap.max 0", "| "]),
    (Resources(memory=Memory(limit=1000, swap=1500)), ["memory.max 1000", "memory.swap.max 500"]),
    (Resources(memory=Memory(limit=1000, swap=0)), ["memory.max 1000"]),
    (Resources(memory=Memory(reservation=500)), ["memory.low 500"]),
    (Resources(cpu=Cpu(shares=1024)), ["cpu.weight 100"]),
    (Resources(cpu=Cpu(shares=0)), []),
    (Resources(cpu=Cpu(quota_us=5000)), ["cpu.max 5000"]),
    (Resources(cpu=Cpu(quota_us=5000, period_us=20000)), ["cpu.max 5000 20000"]),
    (Resources(cpu=Cpu(quota_us=-1, period_us=20000)), ["cpu.max max 20000"]),
    (Resources(cpu=Cpu(quota_us=5000, burst_us=100)), ["cpu.max 5000", "cpu.max.burst 100"]),
    (Resources(cpu=Cpu(shares=2, idle=1)), ["cpu.weight 1", "cpu.idle 1"]),
    (Resources(cpu=Cpu(cpus="0-1", mems="0")), ["cpuset.cpus 0-1", "cpuset.mems 0"]),
    (Resources(pids=0), ["pids.max 0"]),
    (Resources(pids=-1), ["pids.max max"]),
    (Resources(block_io=BlockIO(weight=500)), ["io.bfq.weight 500", "|io.weight 4950"]),
    (
        Resources(block_io=BlockIO(weight_devices=(WeightDevice(major=8, minor=0, weight=10),))),
        ["io.bfq.weight 8:0 10", "|io.weight 8:0 1"],
    ),
    (Resources(block_io=THROTTLED), ["io.max 8:0 rbps=100", "io.max 8:1 wiops=max"]),
    (Resources(hugepages=(("2MB", 4096),)), ["hugetlb.2MB.max 4096", "hugetlb.2MB.rsvd.max 4096", "| "]),
    (Resources(rdma=(("mlx5_1", 3, 10000),)), ["rdma.max mlx5_1 hca_handle=3 hca_object=10000"]),
    (
        Resources(pids=5, unified=(("pids.max", "7"), ("memory.high", "9"), ("cgroup.max.depth", "2"))),
        ["memory.high 9", "pids.max 5", "pids.max 7", "cgroup.max.depth 2"],
    ),
]


@pytest.mark.parametrize(("resources", "expected"), WRITES, ids=[str(row[1]) for row in WRITES])
def test_a_limit_has_its_counterpart(resources: Resources, expected: list[str]) -> None:
    found = compile_resources(resources, V2, all_controllers=False).hierarchies
    assert [f"{file.decode()} {value.decode()}" for each in found for file, value in each.writes] == expected


@pytest.mark.parametrize(
    ("shares", "weight"), [(1, 1), (2, 1), (3, 2), (4, 2), (102, 17), (1024, 100), (4096, 303), (262144, 10000)]
)
def test_shares_become_weights_on_the_curve_that_runtimes_share(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight


def test_weights_grow_with_shares() -> None:
    found = [cpu_weight(shares) for shares in range(1, 262145, 101)]
    assert found == sorted(found)
    assert (io_weight(10), io_weight(1000), io_weight(1)) == (1, 10000, 1)


def test_only_what_is_limited_is_demanded_and_all_is_wanted_for_a_container() -> None:
    some = plan_of(Resources(pids=5))
    assert (some.controllers, some.needed, some.devices) == (("pids",), ("pids",), b"")
    every = plan_of(Resources(pids=5), every=True)
    assert (every.controllers, every.needed) == (ALL, ("pids",))
    assert every.devices, "devices are denied unless allowed"


def test_a_hybrid_machine_gets_each_limit_where_its_controller_is() -> None:
    resources = Resources(
        memory=Memory(limit=1), cpu=Cpu(shares=5, cpus="0"), pids=3, unified=(("pids.max", "4"),),
        devices=(DeviceRule(allow=False),),
    )  # fmt: skip
    plan = compile_resources(resources, HYBRID, all_controllers=False)
    found = {each.mount.rpartition("/")[2]: [file for file, _ in each.writes] for each in plan.hierarchies}
    devices = found.pop("devices")
    assert devices[0] == b"devices.deny"
    assert found == {
        "memory": [b"memory.limit_in_bytes"],
        "cpu": [b"cpu.shares"],
        "unified": [b"cpuset.cpus", b"pids.max", b"pids.max"],
    }
    assert [each.unified for each in plan.hierarchies] == [False, False, False, True]
    assert plan.hierarchies[-1].devices == b""
    assert len(plan.v1) == 3


def test_settings_without_a_counterpart_are_told_of() -> None:
    plan = compile_resources(Resources(memory=Memory(swappiness=5)), V2, all_controllers=False)
    assert plan.warnings == ("linux.resources.memory.swappiness is ignored: cgroup v2 has no such setting",)


def test_checking_before_an_update_is_remembered() -> None:
    limit = Memory(limit=1000, check_before_update=True)
    assert compile_resources(Resources(memory=limit), V2, all_controllers=False).memory_check == 1000
    assert compile_resources(Resources(memory=Memory(limit=1000)), V2, all_controllers=False).memory_check is None


DELEGATED = CgroupLayout(mode="v2", v2=Hierarchy(controllers=(), mount=ROOT, own="/a/b.scope", delegated=True))


def test_where_a_cgroup_is_on_v2() -> None:
    assert where("/x/y", "id", V2) == {ROOT: "/x/y"}
    assert where("", "id", V2) == {ROOT: "/cycontainer/id"}
    assert where("x", "id", V2) == {ROOT: "/system.slice/x"}, "beside the caller's own, which has processes"
    assert where("", "id", DELEGATED) == {ROOT: "/a/cycontainer-id"}


# --- the device program, carried out here


def permits(rules: tuple[DeviceRule, ...], kind: str, major: int, minor: int, letters: str) -> bool:
    """The rule of the spec: for each letter, the last rule that speaks of it decides."""
    for letter in letters:
        verdict = False
        for rule in rules:
            numbers = rule.major in (None, major) and rule.minor in (None, minor)
            if rule.type in ("a", kind) and numbers and letter in rule.access:
                verdict = rule.allow
        if not verdict:
            return False
    return True


def run_program(program: bytes, kind: str, major: int, minor: int, letters: str) -> bool:
    """What the kernel's interpreter would do with these few instructions."""
    access = sum({"m": 1, "r": 2, "w": 4}[letter] for letter in letters)
    context = {0: access << 16 | {"b": 1, "c": 2}[kind], 4: major, 8: minor}
    registers = [0] * 6
    at = 0
    while True:
        code, both = program[at], program[at + 1]
        to, source = both & 15, both >> 4
        offset = int.from_bytes(program[at + 2 : at + 4], "little", signed=True)
        number = int.from_bytes(program[at + 4 : at + 8], "little")
        at += 8
        if code == 0x95:
            return registers[0] == 1
        if code == 0x61:
            registers[to] = context[offset]
        elif code == 0xBC:
            registers[to] = registers[source]
        elif code == 0xB4:
            registers[to] = number
        elif code == 0x54:
            registers[to] &= number
        elif code == 0x74:
            registers[to] >>= number
        else:
            assert code in (0x16, 0x56)
            at += 8 * offset if (registers[to] == number) == (code == 0x16) else 0


def random_rules(chance: random.Random, count: int) -> tuple[DeviceRule, ...]:
    return tuple(
        DeviceRule(
            allow=chance.random() < 0.5,
            type=chance.choice("abc"),
            major=chance.choice((None, 1, 7, 2**32 - 1)),
            minor=chance.choice((None, 3, 8)),
            access=chance.choice(("r", "w", "m", "rw", "rwm", "rm")),
        )
        for _ in range(count)
    )


def test_the_program_does_what_the_rules_say() -> None:
    chance = random.Random(5)
    for _ in range(300):
        rules = random_rules(chance, chance.randrange(7))
        program = device_program(rules)
        for kind in "bc":
            for major in (1, 7, 9, 2**32 - 1):
                for minor in (3, 8, 9):
                    for letters in ("r", "w", "m", "rw"):
                        question = (kind, major, minor, letters)
                        assert run_program(program, *question) == permits(rules, *question), (rules, question)


def test_what_every_container_may_use_is_allowed_whatever_the_rules_say() -> None:
    program = plan_of(Resources(devices=(DeviceRule(allow=True), DeviceRule(allow=False)))).devices
    for kind, major, minor, access in ALWAYS_ALLOWED:
        assert run_program(program, kind, 77 if major is None else major, 5 if minor is None else minor, access)
    assert not run_program(program, "c", 10, 200, "r")


def test_a_program_ends_where_nothing_more_can_be_asked() -> None:
    assert len(device_program((DeviceRule(allow=False, type="c"), DeviceRule(allow=True)))) == 8 * 8


def test_of_a_value_with_several_lines_each_is_written() -> None:
    lines = "8:0 rbps=1\n8:16 wbps=2\n"
    found = writes_v2(Resources(unified=(("io.max", lines), ("cpuset.cpus", "\n"), ("pids.max", "7"))))
    assert found["io"] == [(b"io.max", b"8:0 rbps=1"), (b"io.max", b"8:16 wbps=2")]
    assert (found["cpuset"], found["pids"]) == ([(b"cpuset.cpus", b"\n")], [(b"pids.max", b"7")])
