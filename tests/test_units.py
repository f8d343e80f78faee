"""A container's unit of systemd: its name, and what its limits are as properties."""

from __future__ import annotations

import pytest

from cycontainer.config import BlockIO, Cpu, DeviceRule, Memory, Resources
from cycontainer.errors import ConfigError
from cycontainer.units import INFINITY, annotated, devices_of, limits_of, unit_of

UNITS = [  # linux.cgroupsPath, as an ordinary user, the unit, its cgroup
    ("", False, "cycontainer-box.scope", "/system.slice/cycontainer-box.scope"),
    ("", True, "cycontainer-box.scope", "/user.slice/cycontainer-box.scope"),
    ("machine.slice:libpod:abc", False, "libpod-abc.scope", "/machine.slice/libpod-abc.scope"),
    ("user-1000.slice:a:b", False, "a-b.scope", "/user.slice/user-1000.slice/a-b.scope"),
    ("a-b-c.slice:p:n", False, "p-n.scope", "/a.slice/a-b.slice/a-b-c.slice/p-n.scope"),
    ("-:p:n", False, "p-n.scope", "/p-n.scope"),
    (":p:n", False, "p-n.scope", "/system.slice/p-n.scope"),
    ("::n", False, "n.scope", "/system.slice/n.scope"),
    ("x.slice:ignored:x-y.slice", False, "x-y.slice", "/x.slice/x-y.slice"),
    ("::cpu", False, "cpu.scope", "/system.slice/_cpu.scope"),
    ("memory.slice:_p:n", False, "_p-n.scope", "/_memory.slice/__p-n.scope"),
]


@pytest.mark.parametrize(("asked", "rootless", "name", "path"), UNITS, ids=[row[0] or str(row[1]) for row in UNITS])
def test_a_cgroups_path_names_a_unit(asked: str, rootless: bool, name: str, path: str) -> None:
    unit = unit_of(asked, "box", rootless=rootless)
    assert (unit.name, unit.path) == (name, path)


@pytest.mark.parametrize(
    "asked",
    ["/a/b", "a:b", "a.slice:b:c:d", "a/b.slice:p:n", "nothing:p:n", "a--b.slice:p:n", "a.slice:p:", ":p:n/../x",
     ":p:n\n", ":p:" + "n" * 300, "-a.slice:p:n", ":p:a--b.slice"],
)  # fmt: skip
def test_what_names_no_unit_is_refused(asked: str) -> None:
    with pytest.raises(ConfigError, match="cgroupsPath"):
        unit_of(asked, "box", rootless=False)


def test_a_plus_in_an_id_is_escaped() -> None:
    assert unit_of("", "a+b", rootless=False).name == "cycontainer-a\\x2bb.scope"


def test_limits_become_properties() -> None:
    resources = Resources(
        memory=Memory(limit=1 << 20, swap=3 << 20, reservation=-1),
        cpu=Cpu(shares=1024, quota_us=50000, period_us=100000, cpus="0-2,9", mems="0"),
        pids=-1,
        unified=(("memory.high", "max"), ("memory.oom.group", "1"), ("memory.min", "5")),
    )
    assert dict(limits_of(resources, version=257)) == {
        "MemoryMax": ("t", 1 << 20),
        "MemorySwapMax": ("t", 2 << 20),
        "MemoryLow": ("t", INFINITY),
        "MemoryHigh": ("t", INFINITY),
        "MemoryMin": ("t", 5),
        "CPUWeight": ("t", 100),
        "CPUQuotaPerSecUSec": ("t", 500000),
        "CPUQuotaPeriodUSec": ("t", 100000),
        "AllowedCPUs": ("ay", bytes([0b111, 0b10])),
        "AllowedMemoryNodes": ("ay", bytes([1])),
        "TasksMax": ("t", INFINITY),
        "OOMPolicy": ("s", "kill"),
    }
    assert limits_of(Resources(), version=252) == ()
    assert dict(limits_of(Resources(pids=0), version=252)) == {"TasksMax": ("t", 1)}, "0 is a limit; the init is there"


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("memory.max", "64M", {"MemoryMax": ("t", 64 << 20)}),
        ("memory.swap.max", "0", {"MemorySwapMax": ("t", 0)}),
        ("memory.max", "-1", {}),
        ("cpu.max", "max 50000", {"CPUQuotaPerSecUSec": ("t", INFINITY), "CPUQuotaPeriodUSec": ("t", 50000)}),
        ("cpu.max", "33333", {"CPUQuotaPerSecUSec": ("t", 340000), "CPUQuotaPeriodUSec": ("t", 100000)}),
        ("cpu.idle", "1", {"CPUWeight": ("t", 0)}),
        ("cpuset.cpus", "1,3", {"AllowedCPUs": ("ay", b"\x0a")}),
        ("cpuset.cpus", "0-99999999999", {}),
        ("cpuset.mems", "x", {}),
        ("memory.oom.group", "1", {}),  # a scope has no OOMPolicy yet
        ("hugetlb.2MB.max", "0", {}),
    ],
)
def test_what_systemd_knows_of_unified_is_told_and_the_rest_left_to_the_kernel(
    key: str, text: str, expected: dict[str, object]
) -> None:
    assert dict(limits_of(Resources(unified=((key, text),)), version=252)) == expected


def test_cgroup_v1_has_its_own_properties() -> None:
    resources = Resources(
        memory=Memory(limit=1 << 20), cpu=Cpu(shares=512, cpus="0"), pids=5, block_io=BlockIO(weight=100)
    )
    assert dict(limits_of(resources, version=252, v1=True)) == {
        "MemoryLimit": ("t", 1 << 20),
        "CPUShares": ("t", 512),
        "TasksMax": ("t", 5),
    }


def test_rules_of_devices_become_a_list_of_what_is_allowed() -> None:
    rules = (DeviceRule(allow=False), DeviceRule(allow=True, type="c", major=10, minor=200, access="rw"))
    policy, empty, (name, (_, allowed)) = devices_of(rules)
    assert (policy, empty) == (("DevicePolicy", ("s", "strict")), ("DeviceAllow", ("a(ss)", [])))
    assert name == "DeviceAllow"
    assert {("/dev/char/10:200", "rw"), ("/dev/char/1:3", "rwm"), ("char-136", "rwm"), ("block-*", "m")} <= set(allowed)
    assert devices_of((DeviceRule(allow=True),))[0] == ("DevicePolicy", ("s", "auto"))


ANNOTATIONS = [
    ("TimeoutStopUSec", "uint64 123", ("TimeoutStopUSec", ("t", 123))),
    ("TimeoutStopSec", "2.5", ("TimeoutStopUSec", ("t", 2500000))),
    ("TimeoutStopSec", "uint64 3", ("TimeoutStopUSec", ("t", 3000000))),
    ("CollectMode", "'inactive-or-failed'", ("CollectMode", ("s", "inactive-or-failed"))),
    ("SendSIGHUP", "true", ("SendSIGHUP", ("b", True))),
    ("After", "['a.service', 'b.service']", ("After", ("as", ["a.service", "b.service"]))),
    ("CPUWeight", "5", ("CPUWeight", ("i", 5))),
]


@pytest.mark.parametrize(("name", "text", "expected"), ANNOTATIONS, ids=[row[0] for row in ANNOTATIONS])
def test_annotations_are_properties(name: str, text: str, expected: object) -> None:
    assert annotated((("other", "x"), (f"org.systemd.property.{name}", text))) == (expected,)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a", "1"),
        ("", "1"),
        ("Slice", "'x.slice'"),
        ("PIDs", "1"),
        ("Delegate", "false"),
        ("X", "'a"),
        ("X", "uint64 x"),
        ("X", "[1, 2]"),
        ("XSec", "'a'"),
        ("X", ""),
    ],
)
def test_an_annotation_that_is_no_property_is_refused(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"annotations.org.systemd.property.{name}"):
        annotated(((f"org.systemd.property.{name}", text),))


FAR = str(2**64)


@pytest.mark.parametrize(
    ("key", "value"),
    [("memory.max", FAR), ("memory.high", "9" * 5000), ("pids.max", "1" + "0" * 20), ("cpu.max", f"{FAR} 100000"),
     ("cpu.max", f"100000 {FAR}"), ("cpu.max", f"{2**63} 1"), ("memory.max", f"1\n{FAR}")],
)  # fmt: skip
def test_a_limit_that_d_bus_cannot_carry_is_told_by_its_name(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match="is more than systemd can be told") as failure:
        limits_of(Resources(unified=((key, value),)), version=255)
    assert failure.value.path == f"linux.resources.unified.{key}"


def test_of_several_lines_the_last_is_what_systemd_keeps() -> None:
    assert limits_of(Resources(unified=(("pids.max", "max\n7\n"),)), version=255) == (("TasksMax", ("t", 7)),)
    assert limits_of(Resources(unified=(("cpuset.cpus", "9" * 5000),)), version=255) == ()  # the kernel will refuse it


@pytest.mark.parametrize(
    ("name", "text"),
    [("TasksMax", f"uint64 {FAR}"), ("TasksMax", "uint64 -1"), ("IOWeight", "byte 256"), ("CPUWeight", "int16 -32769"),
     ("CPUWeight", "2147483648"), ("TimeoutStopSec", "-1"), ("TimeoutStopSec", "1e400."), ("TimeoutStopSec", FAR)],
)  # fmt: skip
def test_a_number_that_d_bus_cannot_carry_is_told_by_its_annotation(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=r"must be from|is no value") as failure:
        annotated(((f"org.systemd.property.{name}", text),))
    assert failure.value.path == f"annotations.org.systemd.property.{name}"


@pytest.mark.parametrize("text", ["'a\0b'", "'\ud800'", "['\ud800']"])
def test_a_text_that_d_bus_cannot_carry_is_no_value(text: str) -> None:
    with pytest.raises(ConfigError, match="is no value"):
        annotated((("org.systemd.property.SyslogIdentifier", text),))


def test_by_its_description_a_unit_is_known_to_be_ours() -> None:
    with pytest.raises(ConfigError, match="is not to be set"):
        annotated((("org.systemd.property.Description", "'mine'"),))
