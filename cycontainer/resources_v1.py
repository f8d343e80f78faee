"""Limits as files and values of cgroup v1. Compile; pure. Source: config-linux.md "Control groups", cgroup-v1/*.rst.

Each controller has a function that turns its part of `linux.resources` into writes, in the order the kernel wants them.
A number that the kernel could not take as a limit (no shares, no period) is "not given", as engines mean it.
"""

from __future__ import annotations

from cycontainer.device_rules import device_writes
from cycontainer.errors import ConfigError
from cycontainer.limits import Writes, rdma_writes
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


def _cpuset(cpu: Cpu) -> Writes:
    writes = Writes()
    writes.add("cpu.cpus", "cpuset.cpus", cpu.cpus)
    writes.add("cpu.mems", "cpuset.mems", cpu.mems)
    return writes


def _block_io(block: BlockIO) -> Writes:
    """BFQ's weights: CFQ, to which `leafWeight` and blkio.weight belonged, was removed in Linux 5.0."""
    writes = Writes()
    if block.leaf_weight or any(device.leaf_weight for device in block.weight_devices):
        raise ConfigError(
            f"{PATH}.blockIO.leafWeight", "Linux has no such weight any more: it went with the CFQ scheduler"
        )
    writes.add("blockIO.weight", "blkio.bfq.weight", block.weight or None)
    for device in block.weight_devices:
        value = f"{device.major}:{device.minor} {device.weight}" if device.weight else None
        writes.add("blockIO.weightDevice", "blkio.bfq.weight_device", value)
    for name, throttles in (
        ("read_bps", block.throttle_read_bps),
        ("write_bps", block.throttle_write_bps),
        ("read_iops", block.throttle_read_iops),
        ("write_iops", block.throttle_write_iops),
    ):
        for each in throttles:
            value = f"{each.major}:{each.minor} {each.rate}"
            writes.add("blockIO.throttle", f"blkio.throttle.{name}_device", value)
    return writes


def _pids(limit: int) -> Writes:
    writes = Writes()
    writes.add("pids.limit", "pids.max", "max" if limit < 0 else limit)
    return writes


def _huge_pages(limits: tuple[tuple[str, int], ...]) -> Writes:
    writes = Writes()
    for size, limit in limits:
        writes.add("hugepageLimits", f"hugetlb.{size}.limit_in_bytes", limit)
        writes.add("hugepageLimits", f"hugetlb.{size}.rsvd.limit_in_bytes", limit)
        writes.add_instead()  # some kernels count only what is used
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
        "cpuset": _cpuset(cpu) if cpu else Writes(),
        "pids": _pids(resources.pids) if resources.pids is not None else Writes(),
        "devices": device_writes(resources.devices) if resources.devices or every_device_rule else Writes(),
        "blkio": _block_io(block_io) if block_io else Writes(),
        "hugetlb": _huge_pages(resources.hugepages),
        "net_cls": _network_class(resources.network_class),
        "net_prio": _network_priorities(resources.network_priorities),
        "rdma": rdma_writes(resources.rdma),
    }
