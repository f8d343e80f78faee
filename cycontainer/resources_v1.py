"""Limits as files and values of cgroup v1. Compile; pure. Source: config-linux.md "Control groups", cgroup-v1/*.rst.

Each controller has a function that turns its part of `linux.resources` into writes, in the order the kernel wants them.
A number that the kernel could not take as a limit (no shares, no period) is "not given", as engines mean it.
"""

from __future__ import annotations

from cycontainer.device_rules import device_writes
from cycontainer.errors import ConfigError
from cycontainer.limits import Writes, cpuset_writes, hugepage_writes, pids_writes, rdma_writes, throttles_of
from cycontainer.resources import PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cycontainer.config import BlockIO, Cpu, Memory, Resources


def _memory(memory: Memory) -> Writes:
    writes = Writes()
    writes.add("memory.limit", "memory.limit_in_bytes", memory.limit)  # before memsw, which must not be below it
    writes.add("memory.swap", "memory.memsw.limit_in_bytes", memory.swap or None)
    writes.add("memory.reservation", "memory.soft_limit_in_bytes", memory.reservation)
    writes.add("memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp)
    writes.add("memory.swappiness", "memory.swappiness", memory.swappiness)
    if memory.disable_oom_killer is not None:
        writes.add("memory.disableOOMKiller", "memory.oom_control", int(memory.disable_oom_killer))
    return writes


def _cpu(cpu: Cpu) -> Writes:
    writes = Writes()
    writes.add("cpu.shares", "cpu.shares", cpu.shares or None)
    writes.add("cpu.period", "cpu.cfs_period_us", cpu.period_us or None)  # before the quota, which is judged by it
    writes.add("cpu.quota", "cpu.cfs_quota_us", cpu.quota_us or None)
    writes.add("cpu.burst", "cpu.cfs_burst_us", cpu.burst_us)  # after the quota, which it must not exceed
    writes.add("cpu.realtimePeriod", "cpu.rt_period_us", cpu.realtime_period_us or None)
    writes.add("cpu.realtimeRuntime", "cpu.rt_runtime_us", cpu.realtime_runtime_us or None)
    writes.add("cpu.idle", "cpu.idle", cpu.idle)  # after the shares, which an idle group cannot be given
    return writes


def _block_io(block: BlockIO) -> Writes:
    """BFQ's weights: CFQ, to which `leafWeight` and blkio.weight belonged, was removed in Linux 5.0."""
    writes = Writes()
    writes.add("blockIO.weight", "blkio.bfq.weight", block.weight or None)
    for device in block.weight_devices:
        value = f"{device.major}:{device.minor} {device.weight}" if device.weight else None
        writes.add("blockIO.weightDevice", "blkio.bfq.weight_device", value)
    for name, _, each in throttles_of(block):
        writes.add("blockIO.throttle", f"blkio.throttle.{name}_device", f"{each.major}:{each.minor} {each.rate}")
    return writes


def _network_class(number: int | None) -> Writes:
    writes = Writes()
    writes.add("network.classID", "net_cls.classid", number)
    return writes


def _network_priorities(priorities: tuple[tuple[str, int], ...]) -> Writes:
    writes = Writes()
    for name, priority in priorities:
        if not name or name.split() != [name]:
            raise ConfigError(f"{PATH}.network.priorities", f"{name!r} is no name of an interface")
        writes.add("network.priorities", "net_prio.ifpriomap", f"{name} {priority}")
    return writes


def writes_v1(resources: Resources, *, every_device_rule: bool) -> dict[str, Writes]:
    """What is written, by controller."""
    memory, cpu, block_io = resources.memory, resources.cpu, resources.block_io
    return {
        "memory": _memory(memory) if memory else Writes(),
        "cpu": _cpu(cpu) if cpu else Writes(),
        "cpuset": cpuset_writes(cpu) if cpu else Writes(),
        "pids": pids_writes(resources.pids) if resources.pids is not None else Writes(),
        "devices": device_writes(resources.devices) if resources.devices or every_device_rule else Writes(),
        "blkio": _block_io(block_io) if block_io else Writes(),
        "hugetlb": hugepage_writes(resources.hugepages, "limit_in_bytes"),
        "net_cls": _network_class(resources.network_class),
        "net_prio": _network_priorities(resources.network_priorities),
        "rdma": rdma_writes(resources.rdma),
    }
