"""Configurations: what is read from a right one, and how a wrong one is refused."""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
import time
from glob import glob
from typing import Any

import pytest

from cycontainer.config import Capabilities, Config, DeviceRule, IdMap, Rlimit, Root
from cycontainer.errors import ConfigError
from cycontainer.node import Node
from cycontainer.read_config import load_bundle, parse, read_config
from cycontainer.spec import default_config
from cycontainer.tables import CAPABILITIES, NAMESPACES, RLIMITS, capability_mask, signal_number

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EXAMPLES = f"{ROOT}/tests/data/runtime-spec"


def read(document: Any) -> Config:
    return read_config(document, bundle="/bundle")


def changed(path: str, value: Any, document: dict[str, Any] | None = None) -> dict[str, Any]:
    """The default configuration with one property set; "-" removes it. A dot in a name is written as a colon."""
    document = default_config() if document is None else document
    *way, last = (name.replace(":", ".") for name in path.split("/"))
    place: Any = document
    for name in way:
        place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
    if value == "-":
        del place[last]
    elif isinstance(place, list):
        place[int(last) :] = [value]
    else:
        place[last] = value
    return document


def with_namespaces(*kinds: str, **linux: Any) -> dict[str, Any]:
    document = default_config()
    document["linux"]["namespaces"] += [{"type": kind} for kind in kinds]
    document["linux"].update(linux)
    return document


def lines(*entries: tuple[int, int, int]) -> list[dict[str, int]]:
    return [{"containerID": inner, "hostID": outer, "size": size} for inner, outer, size in entries]


def rule(**changes: Any) -> dict[str, Any]:
    syscall = {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", **changes}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [syscall]}


# What is changed in the default configuration; where the error stands; a part of what it says.
WRONG: list[tuple[str, Any, str, str]] = [
    ("ociVersion", "-", "ociVersion", "is missing"),
    ("ociVersion", 1.3, "ociVersion", "must be a string, not 1.3"),
    ("ociVersion", "1.3", "ociVersion", "must be a version such as 1.3.0"),
    ("ociVersion", "2.0.0", "ociVersion", "must be 1.x.y"),
    ("root", "-", "root", "is missing"),
    ("root/path", "", "root.path", "is empty"),
    ("root/path", "x" * 4096, "root.path", "longer than a path"),
    ("root/readonly", "yes", "root.readonly", "must be true or false, not 'yes'"),
    ("root", [], "root", "must be an object, not an array"),
    ("process/args", "-", "process.args", "must name a program"),
    ("process/args", [], "process.args", "must name a program"),
    ("process/args", [""], "process.args", "must name a program"),
    ("process/args", "sh", "process.args", "must be an array"),
    ("process/args", ["sh", 1], "process.args[1]", "must be a string, not 1"),
    ("process/args", ["sh", "a\0b"], "process.args[1]", "holds a NUL"),
    ("process/args", ["sh", "\ud800"], "process.args[1]", "half of a surrogate pair"),
    ("process/args", ["sh", "x" * 131072], "process.args[1]", "longer than execve takes, 131071 bytes"),
    ("process/cwd", "-", "process.cwd", "is missing"),
    ("process/cwd", "tmp", "process.cwd", "must be an absolute path, not 'tmp'"),
    ("process/env", ["A=b", "C"], "process.env[1]", "must be NAME=value"),
    ("process/env", ["=b"], "process.env[0]", "must be NAME=value"),
    ("process/env", ["A=" + "x" * (1 << 20)], "process.env[0]", "longer than execve takes"),
    ("process/env", [f"V{n}={'x' * 100_000}" for n in range(21)], "process.env", "larger than execve takes"),
    ("process/terminal", 1, "process.terminal", "must be true or false, not 1"),
    ("process/consoleSize", {"height": 1}, "process.consoleSize.width", "is missing"),
    ("process/user/uid", -1, "process.user.uid", "must be from 0 to 4294967294, not -1"),
    ("process/user/uid", 2**32 - 1, "process.user.uid", "must be from 0"),
    ("process/user/uid", True, "process.user.uid", "must be an integer, not true"),
    ("process/user/gid", 1.0, "process.user.gid", "must be an integer, not 1.0"),
    ("process/user/umask", 0o1000, "process.user.umask", "must be from 0 to 511"),
    ("process/user/additionalGids", [1, "2"], "process.user.additionalGids[1]", "must be an integer, not '2'"),
    ("process/user/additionalGids", [1] * 65537, "process.user.additionalGids", "setgroups takes 65536"),
    ("process/capabilities", ["CAP_KILL"], "process.capabilities", "must be an object"),
    ("process/capabilities/permitted", [], "process.capabilities.effective", "CAP_KILL"),
    ("process/capabilities/inheritable", ["CAP_BPF"], "process.capabilities.inheritable", "CAP_BPF would have to be"),
    ("process/rlimits/0/type", "RLIMIT_X", "process.rlimits[0].type", "unknown resource limit"),
    ("process/rlimits/0/soft", 2048, "process.rlimits[0].soft", "2048 is above the hard limit, 1024"),
    ("process/rlimits/0/hard", 2**64, "process.rlimits[0].hard", "must be from 0"),
    ("process/rlimits/0/hard", 10**5000, "process.rlimits[0].hard", "more than 38 digits"),
    ("process/rlimits/1", default_config()["process"]["rlimits"][0], "process.rlimits[1].type", "is there twice"),
    ("process/oomScoreAdj", 1001, "process.oomScoreAdj", "must be from -1000 to 1000"),
    ("process/ioPriority", {"class": "RT"}, "process.ioPriority.class", "IOPRIO_CLASS_RT"),
    ("process/ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 8}, "process.ioPriority.priority", "from 0 to 7"),
    ("process/scheduler", {"policy": "SCHED_X"}, "process.scheduler.policy", "SCHED_OTHER"),
    ("process/scheduler", {"policy": "SCHED_ISO"}, "process.scheduler.policy", "no kernel has it"),
    ("process/scheduler", {"policy": "SCHED_OTHER", "nice": 20}, "process.scheduler.nice", "must be from -20 to 19"),
    ("process/scheduler", {"policy": "SCHED_FIFO"}, "process.scheduler.priority", "must be from 1 to 99"),
    (
        "process/scheduler",
        {"policy": "SCHED_OTHER", "priority": 1},
        "process.scheduler.priority",
        "goes with SCHED_FIFO",
    ),
    (
        "process/scheduler",
        {"policy": "SCHED_OTHER", "period": 1},
        "process.scheduler.period",
        "goes with SCHED_DEADLINE",
    ),
    ("process/scheduler", {"policy": "SCHED_DEADLINE"}, "process.scheduler.runtime", "at least 1024 ns"),
    (
        *("process/scheduler", {"policy": "SCHED_DEADLINE", "runtime": 9999, "deadline": 9998}),
        *("process.scheduler.deadline", "9998 is less than the runtime, 9999"),
    ),
    ("process/scheduler", {"policy": "SCHED_RR", "flags": ["X"]}, "process.scheduler.flags[0]", "SCHED_FLAG"),
    ("process/execCPUAffinity", {"initial": "1-"}, "process.execCPUAffinity.initial", "must be a list such as 0-2,7"),
    ("process/execCPUAffinity", {"final": "3-1"}, "process.execCPUAffinity.final", "is no range"),
    ("process/execCPUAffinity", {"final": "0-99999999999"}, "process.execCPUAffinity.final", "is no range"),
    ("process/apparmorProfile", "a\nb", "process.apparmorProfile", "single line"),
    ("hostname", "x" * 65, "hostname", "longer than 64 bytes"),
    ("hostname", "é" * 33, "hostname", "longer than 64 bytes"),
    ("domainname", 1, "domainname", "must be a string"),
    ("annotations", {"": "x"}, "annotations", "is not a name"),
    ("annotations", {"a.b c": 1}, "annotations['a.b c']", "must be a string"),
    ("annotations", {"a": None}, "annotations.a", "is missing"),
    ("mounts/0", {"type": "tmpfs"}, "mounts[0].destination", "is missing"),
    ("mounts/0", {"destination": ""}, "mounts[0].destination", "is empty"),
    ("mounts/0/options", "ro", "mounts[0].options", "must be an array"),
    ("mounts/0/uidMappings", lines((0, 0, 1)), "mounts[0].gidMappings", "it goes with uidMappings"),
    ("hooks/prestart", [{"path": "bin/true"}], "hooks.prestart[0].path", "must be an absolute path"),
    ("hooks/poststop", [{"path": "/bin/true", "timeout": 0}], "hooks.poststop[0].timeout", "must be from 1"),
    ("hooks/poststop", [{"path": "/bin/true", "env": ["A"]}], "hooks.poststop[0].env[0]", "must be NAME=value"),
    (
        "linux/namespaces/0/type",
        "net",
        "linux.namespaces[0].type",
        "unknown namespace 'net'; one of mount, pid, network",
    ),
    ("linux/namespaces/1", {"type": "pid"}, "linux.namespaces[1].type", "the pid namespace is there twice"),
    ("linux/namespaces/0/path", "proc/1/ns/pid", "linux.namespaces[0].path", "must be an absolute path"),
    ("linux/uidMappings", lines((0, 0, 1)), "linux.uidMappings", "needs a user namespace"),
    ("linux/timeOffsets", {"boottime": {"secs": 1}}, "linux.timeOffsets", "needs a new time namespace"),
    ("linux/timeOffsets", {"realtime": {}}, "linux.timeOffsets.realtime", "unknown clock"),
    ("linux/timeOffsets", {"boottime": {"nanosecs": 10**9}}, "linux.timeOffsets.boottime.nanosecs", "999999999"),
    ("linux/timeOffsets", {"boottime": {"secs": 2**63 - 1}}, "linux.timeOffsets.boottime.secs", "must be from"),
    ("linux/devices", [{"type": "x", "path": "/dev/x"}], "linux.devices[0].type", "one of c, b, u, p"),
    ("linux/devices", [{"type": "c", "path": "/dev/x"}], "linux.devices[0].major", "is missing"),
    ("linux/devices", [{"type": "p", "path": "dev/x"}], "linux.devices[0].path", "must be an absolute path"),
    ("linux/devices", [{"type": "p", "path": "/dev/../x"}], "linux.devices[0].path", "must be the path of a file"),
    ("linux/devices", [{"type": "p", "path": "/x", "fileMode": 666}], "linux.devices[0].fileMode", "no octal numbers"),
    ("linux/netDevices", {"a/b": {}}, "linux.netDevices['a/b']", "cannot be the name of a network device"),
    ("linux/netDevices", {"eth0": {"name": "x" * 16}}, "linux.netDevices.eth0.name", "cannot be the name"),
    ("linux/netDevices", {"a": {"name": "c"}, "b": {"name": "c"}}, "linux.netDevices.b", "twice in the container"),
    ("linux/cgroupsPath", "/a/../../b", "linux.cgroupsPath", "must not climb"),
    ("linux/rootfsPropagation", "up", "linux.rootfsPropagation", "one of private, shared"),
    ("linux/maskedPaths", ["proc/kcore"], "linux.maskedPaths[0]", "must be an absolute path"),
    ("linux/readonlyPaths", [1], "linux.readonlyPaths[0]", "must be a string"),
    ("linux/personality", {"domain": "BSD"}, "linux.personality.domain", "one of LINUX, LINUX32"),
    ("linux/personality", {"domain": "LINUX", "flags": ["X"]}, "linux.personality.flags", "no flags are known"),
    ("linux/intelRdt", {"closID": "../x"}, "linux.intelRdt.closID", "cannot be the name of a file"),
    ("linux/intelRdt", {"memBwSchema": "L3:0=f"}, "linux.intelRdt.memBwSchema", "begins with MB:"),
    ("linux/memoryPolicy", {"mode": "MPOL_X"}, "linux.memoryPolicy.mode", "invalid memory policy mode 'MPOL_X'"),
    ("linux/memoryPolicy", {"mode": "MPOL_BIND"}, "linux.memoryPolicy.nodes", "invalid memory policy nodes"),
    (
        "linux/memoryPolicy",
        {"mode": "MPOL_BIND", "nodes": "x"},
        "linux.memoryPolicy.nodes",
        "invalid memory policy nodes",
    ),
    (
        *("linux/memoryPolicy", {"mode": "MPOL_BIND", "nodes": "0", "flags": ["X"]}),
        *("linux.memoryPolicy.flags[0]", "invalid memory policy flag 'X'"),
    ),
    ("linux/sysctl", {"kernel.panic": "1"}, "linux.sysctl['kernel.panic']", "belongs to no namespace"),
    ("linux/sysctl", {"kernel/hostname": "x"}, "linux.sysctl['kernel/hostname']", "use the property hostname"),
    ("linux/sysctl", {"user.max_user_namespaces": "1"}, "linux.sysctl['user.max_user_namespaces']", "user namespace"),
    ("linux/sysctl", {"net/../kernel/panic": "1"}, "linux.sysctl['net/../kernel/panic']", "the name of a sysctl"),
    ("linux/sysctl", {"net.//.kernel.panic": "1"}, "linux.sysctl['net.//.kernel.panic']", "the name of a sysctl"),
    ("linux/sysctl", {"kernel.sem": 1}, "linux.sysctl['kernel.sem']", "must be a string"),
    ("linux/sysctl", {"net.a": "1", "net/a": "2"}, "linux.sysctl['net/a']", "twice, in two spellings"),
    ("linux/resources/memory", {"limit": 0}, "linux.resources.memory.limit", "hold no process"),
    ("linux/resources/memory", {"limit": -2}, "linux.resources.memory.limit", "must be from -1"),
    ("linux/resources/memory", {"swap": 9}, "linux.resources.memory.swap", "needs a memory limit"),
    ("linux/resources/memory", {"limit": 9, "swap": 8}, "linux.resources.memory.swap", "less than the memory limit, 9"),
    ("linux/resources/memory", {"swappiness": 101}, "linux.resources.memory.swappiness", "must be from 0 to 100"),
    ("linux/resources/cpu", {"quota": 999}, "linux.resources.cpu.quota", "must be from 1000"),
    ("linux/resources/cpu", {"period": 1_000_001}, "linux.resources.cpu.period", "must be from 0 to 1000000"),
    ("linux/resources/cpu", {"quota": 1000, "burst": 1001}, "linux.resources.cpu.burst", "more than the quota"),
    ("linux/resources/cpu", {"cpus": "a"}, "linux.resources.cpu.cpus", "must be a list"),
    ("linux/resources/cpu", {"idle": 2}, "linux.resources.cpu.idle", "must be from 0 to 1"),
    ("linux/resources/pids", {}, "linux.resources.pids.limit", "is missing"),
    ("linux/resources/pids", {"limit": 2**22 + 1}, "linux.resources.pids.limit", "must be from -1 to 4194304"),
    ("linux/resources/devices", [{}], "linux.resources.devices[0].allow", "is missing"),
    ("linux/resources/devices", [{"allow": True}], "linux.resources.devices[0].access", "is missing"),
    (
        "linux/resources/devices",
        [{"allow": False, "access": "rx"}],
        "linux.resources.devices[0].access",
        "letters of rwm",
    ),
    ("linux/resources/devices", [{"allow": False, "type": "p"}], "linux.resources.devices[0].type", "one of a, b, c"),
    ("linux/resources/blockIO", {"weight": 1001}, "linux.resources.blockIO.weight", "must be from 0 to 1000"),
    (
        *("linux/resources/blockIO", {"throttleReadBpsDevice": [{"major": 8, "minor": 0}]}),
        *("linux.resources.blockIO.throttleReadBpsDevice[0].rate", "is missing"),
    ),
    (
        *("linux/resources/hugepageLimits", [{"pageSize": "64kB", "limit": 1}]),
        *("linux.resources.hugepageLimits[0].pageSize", "such as 2MB"),
    ),
    ("linux/resources/network", {"classID": 2**32}, "linux.resources.network.classID", "must be from 0"),
    ("linux/resources/rdma", {"mlx5": {}}, "linux.resources.rdma.mlx5", "needs hcaHandles or hcaObjects"),
    ("linux/resources/unified", {"../x.y": "1"}, "linux.resources.unified['../x.y']", "the name of a file of a cgroup"),
    ("linux/resources/unified", {"memory": "1"}, "linux.resources.unified.memory", "the name of a file of a cgroup"),
    ("linux/resources/unified", {"cpuset.cpus": ""}, "linux.resources.unified['cpuset.cpus']", "is empty, and nothing"),
    ("linux/resources/unified", {"cgroup.procs": "1"}, "linux.resources.unified['cgroup.procs']", "is not a limit"),
    ("linux/seccomp", {}, "linux.seccomp.defaultAction", "is missing"),
    ("linux/seccomp", {"defaultAction": "SCMP_ACT_NOTIFY"}, "linux.seccomp.defaultAction", "as default action"),
    ("linux/seccomp", rule(names=[]), "linux.seccomp.syscalls[0].names", "at least one"),
    ("linux/seccomp", rule(names=["a b"]), "linux.seccomp.syscalls[0].names[0]", "the name of a system call"),
    ("linux/seccomp", rule(action="DENY"), "linux.seccomp.syscalls[0].action", "SCMP_ACT_KILL"),
    ("linux/seccomp", rule(errnoRet=4096), "linux.seccomp.syscalls[0].errnoRet", "must be from 0 to 4095"),
    ("linux/seccomp", rule(action="SCMP_ACT_KILL", errnoRet=1), "linux.seccomp.syscalls[0].errnoRet", "goes with"),
    ("linux/seccomp", rule(action="SCMP_ACT_NOTIFY"), "linux.seccomp.listenerPath", "is missing"),
    (
        *("linux/seccomp", {**rule(action="SCMP_ACT_NOTIFY", names=["write"]), "listenerPath": "/x"}),
        *("linux.seccomp.syscalls[0].names", "SCMP_ACT_NOTIFY cannot be used for the write syscall"),
    ),
    (
        "linux/seccomp",
        rule(args=[{"index": 6, "value": 0, "op": "X"}]),
        "linux.seccomp.syscalls[0].args[0].index",
        "to 5",
    ),
    (
        "linux/seccomp",
        rule(args=[{"index": 0, "value": 0, "op": "X"}]),
        "linux.seccomp.syscalls[0].args[0].op",
        "SCMP_CMP",
    ),
    ("linux/seccomp", {**rule(), "flags": ["X"]}, "linux.seccomp.flags[0]", "SECCOMP_FILTER_FLAG_LOG"),
    ("linux/seccomp", {**rule(), "architectures": ["X"]}, "linux.seccomp.architectures[0]", "SCMP_ARCH_X86"),
]


@pytest.mark.parametrize(("change", "value", "path", "part"), WRONG, ids=[row[2] for row in WRONG])
def test_what_is_wrong_is_named_with_its_place(change: str, value: Any, path: str, part: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        read(changed(change, value))
    assert refusal.value.path == path
    assert part in refusal.value.problem
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 1000


USER_NAMESPACE_WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({}, "linux.uidMappings", "is missing"),
    ({"uidMappings": lines((0, 0, 1))}, "linux.gidMappings", "is missing"),
    ({"uidMappings": lines((0, 0, 0))}, "linux.uidMappings[0].size", "must be from 1"),
    ({"uidMappings": lines((1, 0, 2**32 - 1))}, "linux.uidMappings[0].size", "beyond the last id"),
    ({"uidMappings": lines((0, 5, 9), (8, 99, 1))}, "linux.uidMappings[1].containerID", "is mapped twice"),
    ({"uidMappings": lines((0, 5, 9), (9, 13, 1))}, "linux.uidMappings[1].hostID", "is mapped twice"),
    ({"uidMappings": lines(*((n, n, 1) for n in range(341)))}, "linux.uidMappings", "the kernel takes 340"),
    (
        {"uidMappings": lines((1, 1, 9)), "gidMappings": lines((0, 0, 9))},
        *("process.user.uid", "0 is not among linux.uidMappings"),
    ),
]


@pytest.mark.parametrize(("linux", "path", "part"), USER_NAMESPACE_WRONG)
def test_a_user_namespace_has_ids_that_fit(linux: dict[str, Any], path: str, part: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        read(with_namespaces("user", **linux))
    assert refusal.value.path == path
    assert part in refusal.value.problem


@pytest.mark.parametrize(
    ("kind", "change", "path"),
    [
        ("uts", ("hostname", "x"), "hostname"),
        ("uts", ("domainname", "x"), "domainname"),
        ("network", ("linux/sysctl", {"net.core.somaxconn": "1"}), "linux.sysctl['net.core.somaxconn']"),
        ("network", ("linux/netDevices", {"eth0": {}}), "linux.netDevices"),
        ("ipc", ("linux/sysctl", {"kernel.sem": "1"}), "linux.sysctl['kernel.sem']"),
        ("ipc", ("linux/sysctl", {"fs.mqueue.msg_max": "1"}), "linux.sysctl['fs.mqueue.msg_max']"),
        ("uts", ("linux/sysctl", {"kernel.domainname": "x"}), "linux.sysctl['kernel.domainname']"),
    ],
)
def test_what_would_change_the_host_needs_its_namespace(kind: str, change: tuple[str, Any], path: str) -> None:
    document = changed(*change)
    if change[0] != "hostname":
        del document["hostname"]
    read({**document, "hostname": ""})
    spaces = [space for space in document["linux"]["namespaces"] if space["type"] != kind]
    document["linux"]["namespaces"] = spaces
    with pytest.raises(ConfigError) as refusal:
        read(document)
    assert refusal.value.path == path
    assert f"needs a {kind} namespace" in refusal.value.problem


def test_a_joined_user_namespace_may_come_with_its_maps() -> None:
    config = read(with_namespaces(uidMappings=lines((0, 7, 1)), gidMappings=lines((0, 8, 1)), namespaces=[
        {"type": "user", "path": "/proc/1/ns/user"}, {"type": "uts"}
    ]))  # fmt: skip
    assert config.linux.uid_map == (IdMap(container=0, host=7, size=1),)


# --- what is right


def test_the_default_configuration_becomes_records() -> None:
    config = read(default_config())
    mask, _ = capability_mask(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"])
    assert config.root == Root(path="/bundle/rootfs", readonly=True)
    assert config.process is not None
    assert config.process.args == ("sh",)
    assert config.process.capabilities == Capabilities(bounding=mask, effective=mask, permitted=mask)
    assert config.process.rlimits == (Rlimit(resource=7, soft=1024, hard=1024),)
    assert config.linux.resources.devices == (DeviceRule(allow=False),)
    assert [mount.destination for mount in config.mounts][:3] == ["/proc", "/dev", "/dev/pts"]
    assert config.warnings == ()


def test_what_is_absent_grants_nothing() -> None:
    config = read({"ociVersion": "1.0.0", "root": {"path": "/r"}, "process": {"args": ["x"], "cwd": "/"}})
    assert config.process is not None
    assert config.process.capabilities == Capabilities()
    assert config.linux.namespaces == ()


def test_null_is_absent() -> None:
    assert read(changed("hooks", None)) == read(changed("mounts", default_config()["mounts"]))


def test_unknown_properties_and_other_platforms_are_ignored() -> None:
    extra = {"windows": {"x": [1]}, "vm": 1, "zos": {}, "solaris": {}, "freebsd": {}, "future": {"a": {}}}
    assert read({**default_config(), **extra}) == read(default_config())


def test_of_an_environment_the_last_of_duplicates_wins() -> None:
    config = read(changed("process/env", ["A=1", "B=2", "A=3=4", "C="]))
    assert config.process is not None
    assert sorted(config.process.env) == ["A=3=4", "B=2", "C="]


def test_an_unknown_capability_is_a_warning() -> None:
    config = read(changed("process/capabilities/bounding", ["CAP_KILL", "CAP_X", "kill"]))
    assert config.process is not None
    assert config.process.capabilities.bounding == 1 << CAPABILITIES.index("CAP_KILL")
    assert [warning.partition(":")[0] for warning in config.warnings] == ["process.capabilities.bounding"] * 2


def test_an_ambient_capability_that_cannot_be_is_a_warning() -> None:
    document = changed("process/capabilities/inheritable", ["CAP_KILL"])
    config = read(changed("process/capabilities/ambient", ["CAP_KILL", "CAP_AUDIT_WRITE"], document))
    assert config.process is not None
    assert config.process.capabilities.ambient == 1 << CAPABILITIES.index("CAP_KILL")
    assert "CAP_AUDIT_WRITE" in config.warnings[0]


def test_relative_paths_are_the_bundles() -> None:
    bind = {"destination": "data/../x", "source": "data", "options": ["rbind"]}
    config = read(changed("mounts/0", bind))
    assert (config.mounts[0].source, config.mounts[0].destination) == ("/bundle/data", "/x")
    assert "mounts[0].destination" in config.warnings[0]


def test_a_bundle_is_relative_to_the_current_directory() -> None:
    assert read_config(default_config(), bundle="b").root.path == f"{os.getcwd()}/b/rootfs"


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
    ],
)
def test_both_spellings_of_a_sysctl_are_one_path(key: str, path: str) -> None:
    assert read(changed("linux/sysctl", {key: "1"})).linux.sysctl == ((path, "1"),)


def test_the_file_type_that_engines_leave_in_a_mode_is_taken_off() -> None:
    device = {"type": "u", "path": "/dev/x", "major": 1, "minor": 3, "fileMode": 0o20666}
    found = read(changed("linux/devices", [device])).linux.devices[0]
    assert (found.type, found.mode) == ("c", 0o666)


def test_python_may_name_files_that_are_no_utf8() -> None:
    name = os.fsdecode(b"/\xff")
    assert read(changed("root/path", name)).root.path == name
    with pytest.raises(ConfigError):
        read(changed("hostname", name))


@pytest.mark.parametrize("example", ["minimal", "minimal-for-start", "linux-rdma", "linux-netdevice", "spec-example"])
def test_the_specifications_good_examples_are_read(example: str) -> None:
    with open(f"{EXAMPLES}/good/{example}.json", "rb") as file:
        document: Any = parse(file.read())
    if example == "spec-example":  # an old version, and an IPv4 sysctl
        document["ociVersion"] = "1.3.0"
    if example == "linux-netdevice":  # the schema does not ask where the devices would go
        document["linux"]["namespaces"] = [{"type": "network"}]
    assert read(document).root.path == "/bundle/rootfs"


@pytest.mark.parametrize("path", sorted(glob(f"{EXAMPLES}/bad/*.json")))
def test_the_specifications_bad_examples_are_refused(path: str) -> None:
    with open(path, "rb") as file, pytest.raises(ConfigError):
        read(parse(file.read()))


def values_in(document: Any) -> list[tuple[Any, Any]]:
    """Every place in a document: a container, and a key or index."""
    found, open_ = [], [document]
    while open_:
        place = open_.pop()
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        found += [(place, key) for key in keys]
        open_ += [place[key] for key in keys if isinstance(place[key], dict | list)]
    return found


def test_whatever_stands_anywhere_only_a_config_error_comes_out() -> None:
    odd: list[Any] = [
        None,
        True,
        -1,
        2**70,
        10**5000,
        1.5,
        float("nan"),
        "",
        "\0",
        "\ud800",
        "a" * 5000,
        "../..",
        [],
        [None],
        {},
    ]
    odd += [{"": 1}, {1: 2}, [[[]]], b"x", object(), {"path": "/x"}, "1-2,3", "/", -(2**70), ("x",), {"type": "user"}]
    with open(f"{EXAMPLES}/good/spec-example.json", "rb") as file:
        full: Any = parse(file.read())
    full["ociVersion"] = "1.3.0"
    generator = random.Random(20)
    for _ in range(3000):
        document = copy.deepcopy(full)
        for _ in range(generator.choice((1, 1, 2))):
            place, key = generator.choice(values_in(document))
            place[key] = generator.choice(odd)
        try:
            read(document)
        except ConfigError as refusal:
            assert str(refusal).isprintable() and len(str(refusal)) < 1000


# --- JSON


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "not JSON at line 1, column 1"),
        (b" \n {]", "line 2 column 3"),
        (b'{"a": 1} x', "not JSON at line 1, column 10"),
        (b'{"a": 1,}', "line 1 column"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": "\xff"}', "utf-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        ('{"a": 1}'.encode("utf-16"), "utf-8"),
        (b'{"a": "\x01"}', "control character"),
        (b'{"a": 01}', "line 1 column"),
        (b'{"a": ' + b"9" * 100_000 + b"}", "has 100000 digits"),
        (b"[" * 100_000, "nested more than 32 deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested more than 32 deep"),
        (b'["\\\\", "\\"", ' + b"[" * 100_000 + b"]" * 100_001, "nested more than 32 deep"),
        (b" " * ((16 << 20) + 1), "larger than"),
    ],
    ids=range(16),
)
def test_what_is_not_json_is_refused_in_one_line(data: bytes, part: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse(data)
    assert part in str(refusal.value)
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 300


def test_a_property_that_is_there_twice_is_named_with_its_path() -> None:
    with pytest.raises(ConfigError) as refusal:
        parse(b'{"process": {"rlimits": [{}, {"soft": 1, "hard": 2, "soft": 3}]}}')
    assert refusal.value.path == "process.rlimits[1]"
    assert "'soft' is there twice" in refusal.value.problem


def test_json_is_read_as_the_standard_library_reads_it() -> None:
    text = ' \t\r\n{"a": [1, -2.5e3, true, false, null, "\\u00e9\\ud83d\\ude00\\"[{", {}], "\\\\": {"b": []}} \n'
    assert parse(text.encode()) == json.loads(text)
    deep = "[" * 32 + "]" * 32
    assert parse(deep.encode()) == json.loads(deep)
    assert parse(b"[" + b"[[[]]]," * 5000 + b'"]]]]"]') == [[[[]]]] * 5000 + ["]]]]"]


@pytest.mark.parametrize("pattern", [b"[", b"[{", b'"\\', b"[]", b'["', b"[],", b"[}"])
def test_the_largest_nonsense_is_refused_in_seconds(pattern: bytes) -> None:
    begin = time.monotonic()
    with pytest.raises(ConfigError):
        parse(pattern * ((16 << 20) // len(pattern)))
    assert time.monotonic() - begin < 10


# --- bundles


def test_a_bundle_is_loaded_through_a_link(tmp_path: Any) -> None:
    (tmp_path / "real.json").write_text(json.dumps(default_config()))
    (tmp_path / "config.json").symlink_to("real.json")
    assert load_bundle(str(tmp_path)).root.path == f"{tmp_path}/rootfs"


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Any) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    for file, part in (
        *(("fifo", "not a regular file"), ("device", "not a regular file"), (".", "EISDIR"), ("loop", "ELOOP")),
        *(("none", "ENOENT"), ("a\0b", "NUL"), ("x" * 300, "ENAMETOOLONG")),
    ):
        with pytest.raises(ConfigError) as refusal:
            load_bundle(str(tmp_path), file)
        assert part in str(refusal.value)


# --- tables


def test_the_tables_are_the_kernels() -> None:
    import resource
    import signal

    for name, number in RLIMITS.items():
        assert getattr(resource, name, number) == number
    for kind, (_, file) in NAMESPACES.items():
        assert os.path.exists(f"/proc/self/ns/{file}"), kind
    with open("/proc/sys/kernel/cap_last_cap") as file_:
        assert int(file_.read()) <= len(CAPABILITIES) - 1
    for member in signal.Signals:
        assert signal_number(member.name) == signal_number(member.name[3:].lower()) == member


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("9", 9), ("KILL", 9), ("sigkill", 9), ("64", 64), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)),
        *(("0", None), ("65", None), ("-9", None), ("", None), ("SIG9", None), ("RTMIN+31", None), ("RTMIN+", None)),
        *(("٣", None), ("9" * 5000, None), ("SIGSIGKILL", None), ("KILL\0", None)),
    ],
)
def test_a_signal_is_given_by_name_or_number(text: str, number: int | None) -> None:
    assert signal_number(text) == number


def test_an_array_of_plain_names_takes_no_node_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    made, make = [], Node.__init__

    def count(node: Node, value: object, path: str) -> None:
        made.append(path)
        make(node, value, path)

    monkeypatch.setattr(Node, "__init__", count)
    document = changed("linux/seccomp", {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": [f"call{number}" for number in range(1000)], "action": "SCMP_ACT_ALLOW"}
    ]})  # fmt: skip
    seccomp = read(document).linux.seccomp
    assert seccomp is not None and len(seccomp.syscalls[0].names) == 1000
    assert len(made) < 250, made


@pytest.mark.parametrize("odd", ["a\0", "\ud800", 1, None, "ab-", "\xe9", ""])
def test_of_many_names_the_one_that_is_none_is_named(odd: object) -> None:
    names = ["read", "write", odd]
    document = changed("linux/seccomp", {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": names, "action": "SCMP_ACT_ALLOW"}
    ]})  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        read(document)
    assert caught.value.path == "linux.seccomp.syscalls[0].names[2]"


def test_reading_imports_nothing_slow() -> None:
    script = (
        "import sys; from cycontainer.read_config import parse, read_config; parse(b'{}');"
        "print(*sys.modules.keys() & {'json', 're', 'enum', 'typing', 'collections', 'functools'})"
    )
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {ROOT!r}); {script}"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "\n"
