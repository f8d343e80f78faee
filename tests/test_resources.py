"""Limits compiled to files and values: pure, so every layout is asked without having it."""

from __future__ import annotations

import os
import random

import pytest

from cycontainer.cgroup_layout import CgroupLayout, Hierarchy
from cycontainer.config import BlockIO, Cpu, DeviceRule, Memory, Resources
from cycontainer.device_rules import ALWAYS_ALLOWED
from cycontainer.errors import ConfigError
from cycontainer.resources import compile_resources, where

ROOT = "/sys/fs/cgroup"


def v1(*names: str, own: str = "/") -> CgroupLayout:
    """A machine with these hierarchies; "cpu,cpuacct" is one."""
    hierarchies = [Hierarchy(controllers=tuple(name.split(",")), mount=f"{ROOT}/{name}", own=own) for name in names]
    return CgroupLayout(mode="v1", v1=tuple(hierarchies))


USUAL = v1("memory", "cpu,cpuacct", "cpuset", "pids", "devices", "blkio", "freezer", "name=systemd")
V2 = CgroupLayout(mode="v2", v2=Hierarchy(controllers=("memory", "pids"), mount=ROOT, own="/"))
HYBRID = CgroupLayout(
    mode="hybrid",
    v1=v1("memory", "cpu").v1,
    v2=Hierarchy(controllers=("hugetlb", "pids"), mount=f"{ROOT}/unified", own="/"),
)
NONE = CgroupLayout(mode="none")


def files(resources: Resources, layout: CgroupLayout = USUAL) -> list[str]:
    plan = compile_resources(resources, layout, all_controllers=False)
    return [file.decode() for hierarchy in plan.hierarchies for file, _ in hierarchy.writes]


def test_only_hierarchies_with_a_limit_are_used_unless_all_are_wanted() -> None:
    limits = Resources(pids=5, cpu=Cpu(shares=100))
    some = compile_resources(limits, USUAL, all_controllers=False)
    assert [hierarchy.mount for hierarchy in some.hierarchies] == [f"{ROOT}/cpu,cpuacct", f"{ROOT}/pids"]
    every = compile_resources(limits, USUAL, all_controllers=True)
    assert [hierarchy.mount for hierarchy in every.hierarchies] == [hierarchy.mount for hierarchy in USUAL.v1]
    assert compile_resources(Resources(), USUAL, all_controllers=False).hierarchies == ()


def test_the_order_is_what_the_kernel_wants() -> None:
    memory = Memory(limit=1 << 20, swap=1 << 21, reservation=1 << 19)
    assert files(Resources(memory=memory))[:2] == ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
    cpu = Cpu(shares=2, quota_us=3000, period_us=10000, burst_us=1, idle=1)
    assert files(Resources(cpu=cpu)) == [
        "cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.cfs_burst_us", "cpu.idle",
    ]  # fmt: skip


def test_pages_and_network_classes_are_written_where_v1_governs_them() -> None:
    """cgroup-v1/hugetlb.rst, net_cls.rst, net_prio.rst: machines with these hierarchies have become rare."""
    limits = Resources(hugepages=(("2MB", 4 << 20),), network_class=0x100001, network_priorities=(("lo", 3),))
    plan = compile_resources(limits, v1("hugetlb", "net_cls,net_prio"), all_controllers=False)
    assert [(hierarchy.mount, *hierarchy.writes) for hierarchy in plan.hierarchies] == [
        (
            f"{ROOT}/hugetlb",
            (b"hugetlb.2MB.limit_in_bytes", b"4194304"),
            (b"hugetlb.2MB.rsvd.limit_in_bytes", b"4194304"),
            (b"|", b""),  # an alternative to the one before: it may be missing
        ),
        (f"{ROOT}/net_cls,net_prio", (b"net_cls.classid", b"1048577"), (b"net_prio.ifpriomap", b"lo 3")),
    ]


MISSING: list[tuple[Resources, CgroupLayout, str]] = [
    (
        Resources(hugepages=(("2MB", 0),)),
        USUAL,
        "linux.resources.hugepageLimits: this machine has no hugetlb controller",
    ),
    (Resources(network_class=1), USUAL, "linux.resources.network.classID: this machine has no net_cls controller"),
    (
        Resources(cpu=Cpu(mems="0")),
        v1("memory", "cpu"),
        "linux.resources.cpu.mems: this machine has no cpuset controller",
    ),
    (
        Resources(devices=(DeviceRule(allow=False),)),
        v1("memory"),
        "linux.resources.devices: this machine has no devices",
    ),
    (Resources(rdma=(("mlx", 1, None),)), USUAL, "linux.resources.rdma: this machine has no rdma controller"),
    (Resources(unified=(("memory.max", "1"),)), USUAL, "linux.resources.unified.memory.max: needs a cgroup v2"),
    (Resources(unified=(("memory.max", "1"),)), HYBRID, "linux.resources.unified.memory.max: needs a cgroup v2"),
    (Resources(unified=(("misc.max", "a 1"),)), V2, "linux.resources.unified.misc.max: this machine has no misc"),
    (Resources(unified=(("memory.max", "1"),)), NONE, "linux.resources.unified.memory.max: needs a cgroup v2"),
    (Resources(cpu=Cpu(shares=5)), V2, "linux.resources.cpu.shares: this machine has no cpu controller that we may"),
    (Resources(cpu=Cpu(cpus="0")), HYBRID, "linux.resources.cpu.cpus: this machine has no cpuset controller"),
    (Resources(cpu=Cpu(realtime_period_us=5)), V2, "linux.resources.cpu.realtimeRuntime: cgroup v2 has no"),
    (Resources(memory=Memory(disable_oom_killer=True)), V2, "linux.resources.memory.disableOOMKiller: cgroup v2"),
    (Resources(memory=Memory(kernel_tcp=5)), V2, "linux.resources.memory.kernelTCP: cgroup v2 has no"),
    (Resources(network_class=1), V2, "linux.resources.network.classID: needs the net_cls"),
    (Resources(network_priorities=(("lo", 1),)), V2, "linux.resources.network.priorities: needs the net_prio"),
    (Resources(block_io=BlockIO(leaf_weight=10)), V2, "linux.resources.blockIO.leafWeight: Linux has no such"),
    (
        Resources(memory=Memory(limit=1)),
        NONE,
        "linux.resources.memory.limit: no cgroup file system is mounted here",
    ),
    (Resources(block_io=BlockIO(leaf_weight=10)), USUAL, "linux.resources.blockIO.leafWeight: Linux has no such"),
    (
        Resources(network_priorities=(("lo\n1", 1),)),
        USUAL,
        "linux.resources.network.priorities: 'lo\\n1' is no name",
    ),
]


@pytest.mark.parametrize(("resources", "layout", "text"), MISSING)
def test_a_limit_that_cannot_be_had_is_refused_by_its_path(
    resources: Resources, layout: CgroupLayout, text: str
) -> None:
    with pytest.raises(ConfigError) as failure:
        compile_resources(resources, layout, all_controllers=False)
    assert str(failure.value).startswith(text)


@pytest.mark.parametrize("layout", [USUAL, HYBRID, V2, NONE])
def test_without_a_limit_any_machine_will_do(layout: CgroupLayout) -> None:
    assert compile_resources(Resources(), layout, all_controllers=False).hierarchies == ()
    every = compile_resources(Resources(), layout, all_controllers=True).hierarchies
    assert [each.mount for each in every] == [each.mount for each in layout.all]


def test_what_linux_no_longer_has_is_ignored_with_a_warning() -> None:
    plan = compile_resources(Resources(memory=Memory(kernel=1, use_hierarchy=False)), USUAL, all_controllers=False)
    assert plan.hierarchies == ()
    assert [warning.split(" is ")[0] for warning in plan.warnings] == [
        "linux.resources.memory.kernel",
        "linux.resources.memory.useHierarchy",
    ]


# --- devices


Rules = tuple[DeviceRule, ...]


def device_writes(*rules: DeviceRule) -> list[tuple[str, str]]:
    plan = compile_resources(Resources(devices=rules), v1("devices"), all_controllers=True)
    return [(file.decode(), value.decode()) for file, value in plan.hierarchies[0].writes]


def test_without_rules_an_engine_s_container_has_the_default_devices_only() -> None:
    writes = device_writes()
    assert writes[0] == ("devices.deny", "a")
    assert len(writes) == 1 + len(ALWAYS_ALLOWED)
    assert ("devices.allow", "c 1:3 rwm") in writes


def test_a_rootless_caller_s_device_rules_are_left_out() -> None:
    rules = Resources(devices=(DeviceRule(allow=False),))
    assert compile_resources(rules, v1("memory"), all_controllers=False, rootless=True).hierarchies == ()


def test_a_part_taken_out_of_a_wider_rule_is_refused_because_the_kernel_would_ignore_it() -> None:
    wide = DeviceRule(allow=True, type="c", access="rw")
    with pytest.raises(ConfigError, match=r"linux\.resources\.devices\[2\]: cgroup v1 cannot take a part out"):
        device_writes(DeviceRule(allow=False), wide, DeviceRule(allow=False, type="c", major=10))


def permits(rules: Rules, kind: str, major: int, minor: int, access: str) -> bool:
    """The plain model: the last rule that speaks of it decides, and none is no."""
    answer = False
    always = tuple(DeviceRule(allow=True, type=k, major=a, minor=i, access=x) for k, a, i, x in ALWAYS_ALLOWED)
    for rule in (*rules, *always):
        fits = rule.type in ("a", kind) and rule.major in (None, major) and rule.minor in (None, minor)
        if fits and access in rule.access:
            answer = rule.allow
    return answer


def kernel_permits(writes: list[tuple[str, str]], kind: str, major: int, minor: int, access: str) -> bool:
    """What the v1 controller makes of the lines: security/device_cgroup.c."""
    answer = False
    for file, line in writes:
        allow = file == "devices.allow"
        if line == "a":
            answer = allow
            continue
        of, numbers, letters = line.split()
        fits = of == kind and all(a in ("*", str(b)) for a, b in zip(numbers.split(":"), (major, minor), strict=True))
        if fits and access in letters:
            answer = allow
    return answer


def test_folded_rules_permit_what_the_rules_in_their_order_do() -> None:
    chance = random.Random(7)
    compiled = 0
    for _ in range(1000):
        rules = tuple(
            DeviceRule(
                allow=chance.random() < 0.5,
                type=chance.choice("abc"),
                major=chance.choice((None, 1, 7)),
                minor=chance.choice((None, 3, 8)),
                access=chance.choice(("r", "w", "m", "rw", "rwm")),
            )
            for _ in range(chance.randrange(5))
        )
        try:
            writes = device_writes(*rules)
        except ConfigError:
            continue  # the controller could not do it
        compiled += 1
        for kind, major, minor, access in [
            (k, a, i, x) for k in "bc" for a in (1, 7, 9) for i in (3, 8, 9) for x in "rwm"
        ]:
            question = (kind, major, minor, access)
            assert kernel_permits(writes, *question) == permits(rules, *question), (rules, question)
    assert compiled > 300


# --- where


@pytest.mark.parametrize(
    ("asked", "path"), [("", "/cycontainer/id"), ("/a/b", "/a/b"), ("a/b", "/user.slice/a/b"), ("/a b/ü", "/a b/ü")]
)
def test_where_a_cgroup_is(asked: str, path: str) -> None:
    assert where(asked, "id", v1("pids", own="/user.slice")) == {f"{ROOT}/pids": path}
    assert where("a", "id", v1("pids")) == {f"{ROOT}/pids": "/a"}


@pytest.mark.parametrize("asked", ["/", "..", "/a/../b", "a//b", "/a/", "./a", "a\0b", "a\nb", "/" + "x" * 256])
def test_a_path_that_could_lead_elsewhere_is_refused(asked: str) -> None:
    with pytest.raises(ConfigError, match="cgroupsPath"):
        where(asked, "id", USUAL)


def test_compiling_does_not_look_at_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", None)
    assert files(Resources(pids=1)) == ["pids.max"]
