"""Reads `linux.resources` of a configuration. Model; pure. Source: runtime-spec 1.3, config-linux.md, "cgroups"."""

from __future__ import annotations

from cycontainer.config import BlockIO, Cpu, DeviceRule, Memory, Resources, Throttle, WeightDevice
from cycontainer.errors import shown
from cycontainer.node import INT64, UINT32, UINT64
from cycontainer.tables import DEVICE_MAJOR, DEVICE_MINOR, MOST_PIDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.node import Node

MOST_QUOTA_US: Final = (1 << 44) - 1  # MAX_BW of kernel/sched/sched.h
LEAST_US, MOST_PERIOD_US = 1000, 1_000_000  # sched-bwc.rst
MOST_SHARES: Final = 1 << 18  # MAX_SHARES of kernel/sched/sched.h
# Files of a cgroup that are no limit: they move, stop or kill processes, of others too, or hand controllers on.
_NO_LIMITS: Final = ("procs", "threads", "kill", "freeze", "type", "subtree_control", "pressure")


def read_resources(node: Node) -> Resources:
    """The section `linux.resources`."""
    if not node:
        return Resources()
    network = node["network"]
    return Resources(
        devices=tuple([_read_device_rule(entry) for entry in node["devices"].array()]),
        memory=_read_memory(node["memory"]),
        cpu=_read_cpu(node["cpu"]),
        pids=node["pids"]["limit"].integer(-1, MOST_PIDS) if node["pids"] else None,
        block_io=_read_block_io(node["blockIO"]),
        hugepages=_read_hugepages(node["hugepageLimits"]),
        network_class=network["classID"].optional_integer(0, UINT32),
        network_priorities=tuple([_read_priority(entry) for entry in network["priorities"].array()]),
        rdma=_read_rdma(node["rdma"]),
        unified=_read_unified(node["unified"]),
    )


def read_interface(node: Node) -> str:
    """The name of a network device, as the kernel's dev_valid_name() wants it."""
    name = node.text()
    if not 0 < len(name.encode()) < 16 or name in (".", "..") or any(c in "/:" or c.isspace() for c in name):
        raise node.error(f"{shown(name)} cannot be the name of a network device")
    return name


def _read_priority(node: Node) -> tuple[str, int]:
    return read_interface(node["name"]), node["priority"].integer(0, UINT32)


def _read_device_rule(node: Node) -> DeviceRule:
    allow, access = node["allow"].required().flag(), node["access"].text("")
    if allow and not access:  # absent is none, not all
        raise node["access"].error("is missing: letters of rwm say what is allowed")
    if len(set(access)) != len(access) or not set(access) <= set("rwm"):
        raise node["access"].error(f"must be letters of rwm, each once, not {shown(access)}")
    major, minor = (node[key].optional_integer(-1, UINT32) for key in ("major", "minor"))
    return DeviceRule(
        allow=allow,
        type=node["type"].one_of(("a", "b", "c")) if node["type"].text("") else "a",
        major=None if major == -1 else major,
        minor=None if minor == -1 else minor,
        access="".join(letter for letter in "rwm" if letter in access) or "rwm",
    )


def _read_memory(node: Node) -> Memory | None:
    if not node:
        return None
    limit, swap = (node[key].optional_integer(-1, INT64) for key in ("limit", "swap"))
    if limit == 0:
        raise node["limit"].error("0 bytes hold no process; -1 is unlimited")
    if swap is not None and swap >= 0:
        if limit is None or limit < 0:
            raise node["swap"].error("is memory and swap together, and needs a memory limit as well")
        if swap < limit:
            raise node["swap"].error(f"{swap} is memory and swap together, and less than the memory limit, {limit}")
    return Memory(
        limit=limit,
        reservation=node["reservation"].optional_integer(-1, INT64),
        swap=swap,
        kernel=node["kernel"].optional_integer(-1, INT64),
        kernel_tcp=node["kernelTCP"].optional_integer(-1, INT64),
        swappiness=node["swappiness"].optional_integer(0, 100),
        disable_oom_killer=node["disableOOMKiller"].optional_flag(),
        use_hierarchy=node["useHierarchy"].optional_flag(),
        check_before_update=node["checkBeforeUpdate"].flag(),
    )


def _read_us(node: Node, least: int, most: int) -> int | None:
    """Microseconds that the kernel takes; 0 stays, it is what Go programs write for "not given"."""
    value = node.optional_integer(-1 if least < 0 else 0, most)
    if value and 0 < value < LEAST_US:
        raise node.error(f"must be from {LEAST_US} to {most}, not {value}")
    return value


def _read_cpu(node: Node) -> Cpu | None:
    if not node:
        return None
    quota, burst = _read_us(node["quota"], -1, MOST_QUOTA_US), node["burst"].optional_integer(0, MOST_QUOTA_US)
    if quota and burst and 0 < quota < burst:
        raise node["burst"].error(f"{burst} is more than the quota, {quota}")
    runtime = node["realtimeRuntime"].optional_integer(-1, INT64)
    period = node["realtimePeriod"].optional_integer(0, UINT64)
    if runtime and period and runtime > period:
        raise node["realtimeRuntime"].error(f"{runtime} is more than the period, {period}")
    return Cpu(
        shares=node["shares"].optional_integer(0, MOST_SHARES),
        quota_us=quota,
        burst_us=burst,
        period_us=_read_us(node["period"], 0, MOST_PERIOD_US),
        realtime_runtime_us=runtime,
        realtime_period_us=period,
        cpus=_read_number_list(node["cpus"]),
        mems=_read_number_list(node["mems"]),
        idle=node["idle"].optional_integer(0, 1),
    )


def _read_number_list(node: Node) -> str | None:
    """The text, which the kernel reads as we do."""
    return None if node.number_list() is None else node.text().strip()


def _read_device_numbers(node: Node) -> tuple[int, int]:
    return node["major"].integer(0, DEVICE_MAJOR), node["minor"].integer(0, DEVICE_MINOR)


def _read_throttles(node: Node) -> tuple[Throttle, ...]:
    found = []
    for entry in node.array():
        major, minor = _read_device_numbers(entry)
        found.append(Throttle(major=major, minor=minor, rate=entry["rate"].integer(0, UINT64)))
    return tuple(found)


def _read_weight_device(node: Node) -> WeightDevice:
    major, minor = _read_device_numbers(node)
    weight, leaf_weight = (node[key].optional_integer(0, 1000) for key in ("weight", "leafWeight"))
    if weight is None and leaf_weight is None:
        raise node["weight"].error("is missing, and leafWeight too")
    return WeightDevice(major=major, minor=minor, weight=weight, leaf_weight=leaf_weight)


def _read_block_io(node: Node) -> BlockIO | None:
    if not node:
        return None
    return BlockIO(
        weight=node["weight"].optional_integer(0, 1000),
        leaf_weight=node["leafWeight"].optional_integer(0, 1000),
        weight_devices=tuple([_read_weight_device(entry) for entry in node["weightDevice"].array()]),
        throttle_read_bps=_read_throttles(node["throttleReadBpsDevice"]),
        throttle_write_bps=_read_throttles(node["throttleWriteBpsDevice"]),
        throttle_read_iops=_read_throttles(node["throttleReadIOPSDevice"]),
        throttle_write_iops=_read_throttles(node["throttleWriteIOPSDevice"]),
    )


def _read_hugepages(node: Node) -> tuple[tuple[str, int], ...]:
    found: dict[str, int] = {}
    for entry in node.array():
        size = entry["pageSize"].text()
        number, unit = size[:-2], size[-2:]
        if unit not in ("KB", "MB", "GB") or not (number.isascii() and number.isdigit()) or number.startswith("0"):
            raise entry["pageSize"].error(f"must be a page size such as 2MB, not {shown(size)}")
        if size in found:
            raise entry["pageSize"].error(f"{shown(size)} is there twice")
        found[size] = entry["limit"].integer(0, UINT64)
    return tuple(found.items())


def _read_rdma(node: Node) -> tuple[tuple[str, int | None, int | None], ...]:
    found = []
    for name, value in node.items():
        if any(c == "/" or c.isspace() for c in name):
            raise value.error("cannot be the name of an RDMA device")
        handles, objects = (value[key].optional_integer(0, UINT32) for key in ("hcaHandles", "hcaObjects"))
        if handles is None and objects is None:
            raise value.error("needs hcaHandles or hcaObjects")
        found.append((name, handles, objects))
    return tuple(found)


def _read_unified(node: Node) -> tuple[tuple[str, str], ...]:
    found = []
    for key, value in node.items():
        controller, dot, file = key.partition(".")
        if not (controller and dot and file) or "/" in key or "\n" in key:
            raise value.error("must have the name of a file of a cgroup, such as memory.high")
        if controller == "cgroup" and file in _NO_LIMITS:
            raise value.error("is not a limit")
        if not value.text():
            raise value.error('is empty, and nothing would be written; "\\n" empties a list such as cpuset.cpus')
        found.append((key, value.text()))
    return tuple(found)
