"""The systemd driver: names and properties, and a real manager where there is one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cycontainer.config import Cpu, Memory, Resources
from cycontainer.errors import ConfigError, HostError
from cycontainer.systemd import INFINITY, Systemd, Unit, annotated, limits_of, unit_of

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


def test_limits_become_properties() -> None:
    resources = Resources(
        memory=Memory(limit=1 << 20, swap=3 << 20, reservation=-1),
        cpu=Cpu(shares=1024, quota_us=50000, period_us=100000, cpus="0-2,9", mems="0"),
        pids=-1,
        unified=(("memory.high", "max"), ("memory.oom.group", "1"), ("memory.min", "5")),
    )
    assert dict(limits_of(resources)) == {
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
    assert limits_of(Resources()) == ()
    assert dict(limits_of(Resources(pids=0))) == {"TasksMax": ("t", 0)}, "0 is a limit"


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
    [("a", "1"), ("", "1"), ("X", "'a"), ("X", "uint64 x"), ("X", "[1, 2]"), ("XSec", "'a'"), ("X", "")],
)
def test_an_annotation_that_is_no_property_is_refused(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"annotations.org.systemd.property.{name}"):
        annotated(((f"org.systemd.property.{name}", text),))


@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="systemd is here")
def test_without_systemd_it_says_so() -> None:
    pytest.importorskip("jeepney")
    with pytest.raises(HostError, match="systemd is not the first process"):
        Systemd()


# --- with a manager


@contextmanager
def process_in_unit(unit: Unit, resources: Resources) -> Iterator[tuple[Systemd, subprocess.Popen[bytes]]]:
    pytest.importorskip("jeepney")
    with (
        Systemd(rootless=os.geteuid() != 0) as systemd,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
    ):
        try:
            systemd.start(unit, process.pid, limits_of(resources))
            yield systemd, process
        finally:
            process.kill()
            systemd.stop(unit)


def own_cgroup(pid: int) -> str:
    with open(f"/proc/{pid}/cgroup") as file:
        return next(line.strip()[3:] for line in file if line.startswith("0::"))


def read(path: str) -> str:
    with open(f"/sys/fs/cgroup{path}") as file:
        return file.read().strip()


LIMITS = Resources(memory=Memory(limit=64 << 20), pids=33)


def own_unit() -> Unit:
    return unit_of(f":cycontainer:test-{os.getpid()}", "", rootless=os.geteuid() != 0)


@pytest.mark.systemd
@pytest.mark.cgroup2
def test_a_scope_has_the_process_and_the_limits_also_after_a_reload() -> None:
    unit = own_unit()
    with process_in_unit(unit, LIMITS) as (systemd, process):
        path = systemd.control_group() + unit.path
        assert own_cgroup(process.pid) == path
        assert (read(f"{path}/memory.max"), read(f"{path}/pids.max")) == (str(64 << 20), "33")
        systemd.set_properties(unit, limits_of(Resources(pids=44)))
        user = [] if os.geteuid() == 0 else ["--user"]
        subprocess.run(["systemctl", *user, "daemon-reload"], check=True)
        assert (read(f"{path}/memory.max"), read(f"{path}/pids.max")) == (str(64 << 20), "44")
    assert not os.path.exists(f"/sys/fs/cgroup{path}")


@pytest.mark.systemd
@pytest.mark.cgroup2
def test_a_process_is_moved_into_a_scope() -> None:
    unit = own_unit()
    with (
        process_in_unit(unit, Resources()) as (systemd, process),
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
    ):
        systemd.attach(unit, other.pid)
        assert own_cgroup(other.pid) == own_cgroup(process.pid)
        other.kill()


@pytest.mark.systemd
def test_what_systemd_refuses_is_an_error_with_its_words() -> None:
    unit = own_unit()
    pytest.importorskip("jeepney")
    with Systemd(rootless=os.geteuid() != 0) as systemd:
        with pytest.raises(HostError, match="systemd refuses StartTransientUnit"):
            systemd.start(unit, os.getpid(), (("NoSuchProperty", ("b", True)),))
        systemd.stop(unit)  # one that is not there
