"""Limits as files and values of cgroups. Compile; pure. Sources: config-linux.md "Control groups", cgroup-v1/*.rst."""

from __future__ import annotations

from cycontainer.config import Resources
from cycontainer.errors import ConfigError
from cycontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.config import BlockIO, Cpu, DeviceRule, Memory
    from cycontainer.host import CgroupLayout

    Writes = list[tuple[bytes, bytes]]

# What the init's own mknod needs, whatever the rules say: type, major, minor.
ALWAYS_ALLOWED: Final = (
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
)


class HierarchyPlan(Record):
    """One hierarchy that the container has a cgroup in, and what is written there, in order."""

    mount: str
    controllers: tuple[str, ...]
    writes: tuple[tuple[bytes, bytes], ...] = ()


class CgroupPlan(Record):
    """All of a container's cgroups."""

    hierarchies: tuple[HierarchyPlan, ...] = ()


def _add(writes: Writes, file: str, value: object) -> None:
    if value is not None:
        writes.append((file.encode(), str(value).encode()))


def _memory(memory: Memory | None) -> Writes:
    writes: Writes = []
    if memory is None:
        return writes
    _add(writes, "memory.limit_in_bytes", memory.limit)  # before memsw, which must not be below it
    _add(writes, "memory.memsw.limit_in_bytes", memory.swap)
    _add(writes, "memory.soft_limit_in_bytes", memory.reservation)
    _add(writes, "memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp)
    _add(writes, "memory.swappiness", memory.swappiness)
    if memory.disable_oom_killer is not None:
        _add(writes, "memory.oom_control", int(memory.disable_oom_killer))
    return writes


def _cpu(cpu: Cpu | None) -> Writes:
    writes: Writes = []
    if cpu is None:
        return writes
    _add(writes, "cpu.shares", cpu.shares or None)
    _add(writes, "cpu.cfs_period_us", cpu.period_us or None)  # before the quota, which is judged by it
    _add(writes, "cpu.cfs_quota_us", cpu.quota_us or None)
    _add(writes, "cpu.cfs_burst_us", cpu.burst_us)
    _add(writes, "cpu.rt_period_us", cpu.realtime_period_us)
    _add(writes, "cpu.rt_runtime_us", cpu.realtime_runtime_us)
    _add(writes, "cpu.idle", cpu.idle)
    return writes


def _cpuset(cpu: Cpu | None) -> Writes:
    writes: Writes = []
    if cpu is not None:
        _add(writes, "cpuset.cpus", cpu.cpus)
        _add(writes, "cpuset.mems", cpu.mems)
    return writes


def _rule(rule: DeviceRule) -> tuple[bytes, bytes]:
    numbers = ":".join("*" if number is None else str(number) for number in (rule.major, rule.minor))
    file = b"devices.allow" if rule.allow else b"devices.deny"
    if rule.type == "a":  # the controller knows a only alone, and then it means everything
        return file, b"a"
    return file, f"{rule.type} {numbers} {rule.access}".encode()


def _devices(rules: tuple[DeviceRule, ...]) -> Writes:
    writes: Writes = []
    for rule in rules:
        if rule.type != "a" or (rule.major is None and rule.minor is None and rule.access == "rwm"):
            writes.append(_rule(rule))
        else:
            writes.extend(_rule(rule.replace(type=kind)) for kind in "bc")
    if rules:
        writes.extend((b"devices.allow", text.encode()) for text in ALWAYS_ALLOWED)
    return writes


def _block_io(block: BlockIO | None) -> Writes:
    writes: Writes = []
    if block is None:
        return writes
    _add(writes, "blkio.bfq.weight", block.weight or None)
    for device in block.weight_devices:
        _add(writes, "blkio.bfq.weight_device", f"{device.major}:{device.minor} {device.weight}")
    for file, throttles in (
        ("read_bps", block.throttle_read_bps),
        ("write_bps", block.throttle_write_bps),
        ("read_iops", block.throttle_read_iops),
        ("write_iops", block.throttle_write_iops),
    ):
        for throttle in throttles:
            _add(writes, f"blkio.throttle.{file}_device", f"{throttle.major}:{throttle.minor} {throttle.rate}")
    return writes


def _all_writes(resources: Resources) -> dict[str, tuple[str, Writes]]:
    """By controller: the property's path, and what is written."""
    pids: Writes = []
    if resources.pids is not None:
        _add(pids, "pids.max", "max" if resources.pids < 0 else resources.pids)
    huge = [(f"hugetlb.{size}.limit_in_bytes".encode(), str(limit).encode()) for size, limit in resources.hugepages]
    classes: Writes = []
    _add(classes, "net_cls.classid", resources.network_class)
    priorities = [(b"net_prio.ifpriomap", f"{name} {value}".encode()) for name, value in resources.network_priorities]
    rdma: Writes = []
    for name, handles, objects in resources.rdma:
        limits = [f"hca_handle={handles}"] * (handles is not None) + [f"hca_object={objects}"] * (objects is not None)
        _add(rdma, "rdma.max", " ".join([name, *limits]))
    return {
        "memory": ("memory", _memory(resources.memory)),
        "cpu": ("cpu", _cpu(resources.cpu)),
        "cpuset": ("cpu.cpus", _cpuset(resources.cpu)),
        "pids": ("pids", pids),
        "devices": ("devices", _devices(resources.devices)),
        "blkio": ("blockIO", _block_io(resources.block_io)),
        "hugetlb": ("hugepageLimits", huge),
        "net_cls": ("network.classID", classes),
        "net_prio": ("network.priorities", priorities),
        "rdma": ("rdma", rdma),
    }


def compile_resources(resources: Resources, layout: CgroupLayout, *, all_controllers: bool) -> CgroupPlan:
    """What `resources` comes to on this layout; only where something is written, or everywhere.

    Raises:
        ConfigError: a limit's controller is not there.
    """
    wanted = _all_writes(resources)
    if layout.mode in ("v2", "none"):
        for path, writes in wanted.values():
            if writes:
                raise ConfigError(f"linux.resources.{path}", "limits need cgroup v1 controllers in this version")
        return CgroupPlan()
    if resources.unified:
        raise ConfigError("linux.resources.unified", "needs a pure cgroup v2 machine; this one has v1 controllers")
    found = []
    for hierarchy in layout.v1:
        writes = [write for name in hierarchy.controllers for write in wanted.pop(name, ("", []))[1]]
        if writes or all_controllers:
            found.append(HierarchyPlan(mount=hierarchy.mount, controllers=hierarchy.controllers, writes=tuple(writes)))
    for name, (path, writes) in wanted.items():
        if writes:
            raise ConfigError(f"linux.resources.{path}", f"this machine has no {name} controller")
    return CgroupPlan(hierarchies=tuple(found))


def cgroup_path(asked: str, container_id: str) -> str:
    """Where a container's cgroup is, below each hierarchy's mount. Source: config-linux.md, "Cgroups Path"."""
    if not asked:
        return f"/cycontainer/{container_id}"
    return "/" + "/".join(part for part in asked.split("/") if part and part != ".")
