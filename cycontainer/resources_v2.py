"""Limits as files and values of cgroup v2. Compile; pure. Source: cgroup-v2.rst, and what runtimes share.

The spec's numbers are v1's: shares become weights, memory with swap becomes swap alone.
"""

from __future__ import annotations

import math

from cycontainer.errors import ConfigError
from cycontainer.limits import Writes, cpuset_writes, hugepage_writes, pids_writes, rdma_writes, throttles_of
from cycontainer.resources import PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.config import BlockIO, Cpu, Memory, Resources

LEAST_SHARES: Final = 2
MOST_SHARES: Final = 1 << 18


def cpu_weight(shares: int) -> int:
    """v1's shares as v2's weight: 2 is 1, 1024 is 100, 262144 is 10000; a curve through these three.

    Source: runc, crun and systemd since 2025, github.com/kubernetes/kubernetes/issues/131216.
    """
    power = math.log2(min(max(shares, LEAST_SHARES), MOST_SHARES))
    return math.ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """BFQ's weight, 10 to 1000, as io.weight, 1 to 10000."""
    return 1 + (max(weight, 10) - 10) * 9999 // 990


def _most(value: int | None) -> int | str | None:
    return "max" if value is not None and value < 0 else value


def _memory(memory: Memory) -> Writes:
    if memory.disable_oom_killer:
        raise ConfigError(f"{PATH}.memory.disableOOMKiller", "cgroup v2 cannot disable the OOM killer")
    if memory.kernel_tcp is not None and memory.kernel_tcp >= 0:
        raise ConfigError(f"{PATH}.memory.kernelTCP", "cgroup v2 has no limit of TCP buffers alone")
    writes = Writes()
    writes.add("memory.limit", "memory.max", _most(memory.limit))
    swap = _swap(memory)
    writes.add("memory.swap", "memory.swap.max", swap)
    if swap in (0, "max"):
        writes.add_instead()  # a kernel without swap holds to that anyway
    writes.add("memory.reservation", "memory.low", _most(memory.reservation))
    return writes


def _swap(memory: Memory) -> int | str | None:
    """Swap alone; read_resources.py saw to it that the two together are no less than the limit."""
    if memory.swap is None or memory.swap == 0:
        return None
    if memory.swap < 0:
        return "max"
    assert memory.limit is not None
    return memory.swap - memory.limit


def _cpu(cpu: Cpu) -> Writes:
    if cpu.realtime_period_us or cpu.realtime_runtime_us:
        raise ConfigError(f"{PATH}.cpu.realtimeRuntime", "cgroup v2 has no limit of realtime scheduling")
    writes = Writes()
    writes.add("cpu.shares", "cpu.weight", cpu_weight(cpu.shares) if cpu.shares else None)
    if cpu.quota_us or cpu.period_us:
        quota = "max" if not cpu.quota_us or cpu.quota_us < 0 else str(cpu.quota_us)
        value = f"{quota} {cpu.period_us}" if cpu.period_us else quota
        writes.add("cpu.quota" if cpu.quota_us else "cpu.period", "cpu.max", value)
    writes.add("cpu.burst", "cpu.max.burst", cpu.burst_us)  # after the quota, which it must not exceed
    writes.add("cpu.idle", "cpu.idle", cpu.idle)  # after the weight, which an idle group cannot be given
    return writes


def _io(block: BlockIO) -> Writes:
    """BFQ's weights where its scheduler is there, else those of io.cost."""
    writes = Writes()
    if block.weight:
        writes.add("blockIO.weight", "io.bfq.weight", block.weight)
        writes.add_instead("io.weight", io_weight(block.weight))
    for device in block.weight_devices:
        if device.weight:
            numbers = f"{device.major}:{device.minor}"
            writes.add("blockIO.weightDevice", "io.bfq.weight", f"{numbers} {device.weight}")
            writes.add_instead("io.weight", f"{numbers} {io_weight(device.weight)}")
    for _, name, each in throttles_of(block):  # v1: 0 takes the limit away
        writes.add("blockIO.throttle", "io.max", f"{each.major}:{each.minor} {name}={each.rate or 'max'}")
    return writes


def _refuse_network(resources: Resources) -> None:
    if resources.network_class is not None:
        raise ConfigError(f"{PATH}.network.classID", "needs the net_cls controller, which cgroup v2 has not")
    if resources.network_priorities:
        raise ConfigError(f"{PATH}.network.priorities", "needs the net_prio controller, which cgroup v2 has not")


def writes_v2(resources: Resources) -> dict[str, Writes]:
    """What is written, by controller.

    Raises:
        ConfigError: with the JSON path, for what v2 cannot do.
    """
    memory, cpu, block_io = resources.memory, resources.cpu, resources.block_io
    found = {
        "memory": _memory(memory) if memory else Writes(),
        "cpu": _cpu(cpu) if cpu else Writes(),
        "cpuset": cpuset_writes(cpu) if cpu else Writes(),
        "pids": pids_writes(resources.pids) if resources.pids is not None else Writes(),
        "io": _io(block_io) if block_io else Writes(),
        "hugetlb": hugepage_writes(resources.hugepages, "max"),
        "rdma": rdma_writes(resources.rdma),
    }
    _refuse_network(resources)
    for key, value in resources.unified:
        writes = found.setdefault(key.partition(".")[0], Writes())
        for line in value.strip("\n").split("\n"):  # io.max takes one at a time: as runc
            writes.add(f"unified.{key}", key, line or "\n")
    return found
