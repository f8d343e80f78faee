"""Limits as files and values of cgroups. Compile; pure. Sources: config-linux.md "Control groups", cgroup-v1/*.rst.

Each controller has a function that turns its part of `linux.resources` into writes, in the order the kernel wants them.
A number that the kernel could not take as a limit (no shares, no period) is "not given", as engines mean it.
"""

from __future__ import annotations

from cycontainer.errors import ConfigError
from cycontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.config import BlockIO, Cpu, DeviceRule, Memory, Resources
    from cycontainer.host import CgroupLayout

PATH: Final = "linux.resources"
V2_LATER: Final = "limits on cgroup v2 come with the next version; this one knows those of v1"
LONGEST_NAME: Final = 255  # bytes, NAME_MAX

# What every container may use, whatever its rules say: the init's own mknod needs it, and programs its devices.
# Making any node is allowed, as by other runtimes: it gives no access. config-linux.md, "Default Devices".
ALWAYS_ALLOWED: Final = (
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),  # null
    ("c", 1, 5, "rwm"),  # zero
    ("c", 1, 7, "rwm"),  # full
    ("c", 1, 8, "rwm"),  # random
    ("c", 1, 9, "rwm"),  # urandom
    ("c", 5, 0, "rwm"),  # tty
    ("c", 5, 1, "rwm"),  # console
    ("c", 5, 2, "rwm"),  # ptmx
    ("c", 136, None, "rwm"),  # the terminals of pts
)


class HierarchyPlan(Record):
    """One hierarchy that the container has a cgroup in, and what is written there: file and value, in order."""

    mount: str
    controllers: tuple[str, ...]
    writes: tuple[tuple[bytes, bytes], ...] = ()


class CgroupPlan(Record):
    """All of a container's cgroups. `warnings`: what was asked for and does not exist any more, a sentence each."""

    hierarchies: tuple[HierarchyPlan, ...] = ()
    warnings: tuple[str, ...] = ()


class _Writes(list[tuple[bytes, bytes]]):
    """What one controller gets; `path` is that of the last property which asked for something."""

    path = ""

    def add(self, path: str, file: str, value: object) -> None:
        if value is not None:
            self.append((file.encode(), str(value).encode(errors="surrogateescape")))
            self.path = path


# --- one controller each


def _memory(memory: Memory) -> _Writes:
    writes = _Writes()
    writes.add("memory.limit", "memory.limit_in_bytes", memory.limit)  # before memsw, which must not be below it
    writes.add("memory.swap", "memory.memsw.limit_in_bytes", memory.swap or None)
    writes.add("memory.reservation", "memory.soft_limit_in_bytes", memory.reservation)
    writes.add("memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp)
    writes.add("memory.swappiness", "memory.swappiness", memory.swappiness)
    if memory.disable_oom_killer is not None:
        writes.add("memory.disableOOMKiller", "memory.oom_control", int(memory.disable_oom_killer))
    return writes


def _obsolete(memory: Memory | None) -> tuple[str, ...]:
    found = []
    if memory is not None and memory.kernel is not None:
        found.append(f"{PATH}.memory.kernel is ignored: Linux has no limit of kernel memory any more")
    if memory is not None and memory.use_hierarchy is False:
        found.append(f"{PATH}.memory.useHierarchy is ignored: Linux always counts what is below")
    return tuple(found)


def _cpu(cpu: Cpu) -> _Writes:
    writes = _Writes()
    writes.add("cpu.shares", "cpu.shares", cpu.shares or None)
    writes.add("cpu.period", "cpu.cfs_period_us", cpu.period_us or None)  # before the quota, which is judged by it
    writes.add("cpu.quota", "cpu.cfs_quota_us", cpu.quota_us or None)
    writes.add("cpu.burst", "cpu.cfs_burst_us", cpu.burst_us)  # after the quota, which it must not exceed
    writes.add("cpu.realtimePeriod", "cpu.rt_period_us", cpu.realtime_period_us or None)
    writes.add("cpu.realtimeRuntime", "cpu.rt_runtime_us", cpu.realtime_runtime_us or None)
    writes.add("cpu.idle", "cpu.idle", cpu.idle)  # after the shares, which an idle group cannot be given
    return writes


def _cpuset(cpu: Cpu) -> _Writes:
    writes = _Writes()
    writes.add("cpu.cpus", "cpuset.cpus", cpu.cpus)
    writes.add("cpu.mems", "cpuset.mems", cpu.mems)
    return writes


def _block_io(block: BlockIO) -> _Writes:
    """BFQ's weights: CFQ, to which `leafWeight` and blkio.weight belonged, was removed in Linux 5.0."""
    writes = _Writes()
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


def _pids(limit: int) -> _Writes:
    writes = _Writes()
    writes.add("pids.limit", "pids.max", "max" if limit < 0 else limit)
    return writes


def _huge_pages(limits: tuple[tuple[str, int], ...]) -> _Writes:
    writes = _Writes()
    for size, limit in limits:
        writes.add("hugepageLimits", f"hugetlb.{size}.limit_in_bytes", limit)
    return writes


def _network_class(number: int | None) -> _Writes:
    writes = _Writes()
    writes.add("network.classID", "net_cls.classid", number)
    return writes


def _network_priorities(priorities: tuple[tuple[str, int], ...]) -> _Writes:
    writes = _Writes()
    for name, priority in priorities:
        if not name or name.split() != [name]:
            raise ConfigError(f"{PATH}.network.priorities", f"{name!r} is no name of an interface")
        writes.add("network.priorities", "net_prio.ifpriomap", f"{name} {priority}")
    return writes


def _rdma(limits: tuple[tuple[str, int | None, int | None], ...]) -> _Writes:
    writes = _Writes()
    for device, handles, objects in limits:
        if not device or device.split() != [device]:
            raise ConfigError(f"{PATH}.rdma", f"{device!r} is no name of a device")
        asked = (("hca_handle", handles), ("hca_object", objects))
        words = [f"{name}={number}" for name, number in asked if number is not None]
        writes.add("rdma", "rdma.max", " ".join([device, *words]) if words else None)
    return writes


# --- devices

_Number = tuple[str, "int | None", "int | None"]  # type, major, minor; None is every number


def _contains(wide: _Number, narrow: _Number) -> bool:
    return wide[0] == narrow[0] and all(a is None or a == b for a, b in zip(wide[1:], narrow[1:], strict=True))


def _overlaps(one: _Number, other: _Number) -> bool:
    pairs = zip(one[1:], other[1:], strict=True)
    return one[0] == other[0] and all(a is None or b is None or a == b for a, b in pairs)


class _DeviceRules:
    """The rules in their order, folded: a default for all devices, and the exceptions from it.

    The controller removes an exception only if it is given exactly the same numbers, and ignores all else in silence
    (devcgroup, cgroup-v1/devices.rst). So what it could not do is refused here, and only the outcome is written.
    """

    def __init__(self) -> None:
        self.default = False
        self.exceptions: dict[_Number, set[str]] = {}

    def apply(self, allow: bool, numbers: _Number, access: str, path: str) -> None:
        if allow != self.default:
            self.exceptions.setdefault(numbers, set()).update(access)
            return
        for other in tuple(self.exceptions):
            if _contains(numbers, other):
                self.exceptions[other] -= set(access)
            elif _overlaps(numbers, other) and self.exceptions[other] & set(access):
                raise ConfigError(path, "cgroup v1 cannot take a part out of what an earlier rule says of more devices")

    def apply_rule(self, rule: DeviceRule, path: str) -> None:
        if rule.type == "a" and (rule.major, rule.minor, rule.access) == (None, None, "rwm"):
            self.default, self.exceptions = rule.allow, {}
            return
        for kind in "bc" if rule.type == "a" else rule.type:
            self.apply(rule.allow, (kind, rule.major, rule.minor), rule.access, path)

    def writes(self) -> _Writes:
        writes = _Writes()
        default, exception = ("devices.allow", "devices.deny") if self.default else ("devices.deny", "devices.allow")
        writes.add("devices", default, "a")
        for (kind, major, minor), access in self.exceptions.items():
            numbers = ":".join("*" if number is None else str(number) for number in (major, minor))
            letters = "".join(letter for letter in "rwm" if letter in access)
            writes.add("devices", exception, f"{kind} {numbers} {letters}" if letters else None)
        return writes


def _devices(rules: tuple[DeviceRule, ...]) -> _Writes:
    folded = _DeviceRules()  # nothing is allowed unless a rule says so
    for index, rule in enumerate(rules):
        folded.apply_rule(rule, f"{PATH}.devices[{index}]")
    for kind, major, minor, access in ALWAYS_ALLOWED:
        folded.apply(True, (kind, major, minor), access, f"{PATH}.devices")
    return folded.writes()


# --- all of it


def _all_writes(resources: Resources, *, every_device_rule: bool) -> dict[str, _Writes]:
    """What is written, by controller."""
    memory, cpu, block_io = resources.memory, resources.cpu, resources.block_io
    return {
        "memory": _memory(memory) if memory else _Writes(),
        "cpu": _cpu(cpu) if cpu else _Writes(),
        "cpuset": _cpuset(cpu) if cpu else _Writes(),
        "pids": _pids(resources.pids) if resources.pids is not None else _Writes(),
        "devices": _devices(resources.devices) if resources.devices or every_device_rule else _Writes(),
        "blkio": _block_io(block_io) if block_io else _Writes(),
        "hugetlb": _huge_pages(resources.hugepages),
        "net_cls": _network_class(resources.network_class),
        "net_prio": _network_priorities(resources.network_priorities),
        "rdma": _rdma(resources.rdma),
    }


def compile_resources(
    resources: Resources, layout: CgroupLayout, *, all_controllers: bool, rootless: bool = False
) -> CgroupPlan:
    """What `resources` come to on this layout: in each v1 hierarchy, or only where something is written.

    With `all_controllers`, devices are denied where no rule allows them, as by other runtimes. A `rootless` caller
    cannot make devices, so their rules are left out: guarantees, 5.

    Raises:
        ConfigError: with the JSON path, for a limit that this machine cannot set.
    """
    if rootless:
        resources = resources.replace(devices=())
    has_devices = any("devices" in hierarchy.controllers for hierarchy in layout.v1)
    wanted = _all_writes(resources, every_device_rule=all_controllers and has_devices and not rootless)
    if resources.unified and layout.v1:
        raise ConfigError(f"{PATH}.unified", "needs a pure cgroup v2 machine; this one has v1 controllers")
    plans = []
    for hierarchy in layout.v1:
        writes = [write for name in hierarchy.controllers for write in wanted.pop(name, ())]
        if writes or all_controllers:
            plan = HierarchyPlan(mount=hierarchy.mount, controllers=hierarchy.controllers, writes=tuple(writes))
            plans.append(plan)
    _refuse_the_rest(wanted, resources, layout)
    return CgroupPlan(hierarchies=tuple(plans), warnings=_obsolete(resources.memory))


def _refuse_the_rest(wanted: dict[str, _Writes], resources: Resources, layout: CgroupLayout) -> None:
    """A confinement that cannot be had stops the start."""
    for name, writes in wanted.items():
        if not writes:
            continue
        path = f"{PATH}.{writes.path}"
        if layout.mode == "none":
            raise ConfigError(path, "no cgroup file system is mounted here")
        if layout.v2 is not None and (layout.mode == "v2" or name in layout.v2.controllers):
            raise ConfigError(path, V2_LATER)
        raise ConfigError(path, f"this machine has no {name} controller")
    if resources.unified:
        raise ConfigError(
            f"{PATH}.unified", "limits on cgroup v2 come with the next version; this one knows those of v1"
        )


# --- where


def cgroup_path(asked: str, container_id: str) -> str:
    """Where a container's cgroup is below each hierarchy's mount, a relative path from there too; "" is our own place.

    Raises:
        ConfigError: `linux.cgroupsPath` could lead elsewhere.
    """
    path = f"/cycontainer/{container_id}" if not asked else asked if asked.startswith("/") else f"/{asked}"
    for name in path[1:].split("/"):
        if (
            name in ("", ".", "..")
            or "\0" in name
            or "\n" in name
            or len(name.encode("utf-8", "surrogateescape")) > 255
        ):
            raise ConfigError(
                "linux.cgroupsPath", f"{asked!r} must be names between slashes, none of them empty, . or .."
            )
    return path


def where(asked: str, container_id: str, layout: CgroupLayout) -> dict[str, str]:
    """The container's cgroup in each v1 hierarchy: {mount: path below it}.

    Absolute: from the mount on. Relative: below the caller's own cgroup. Empty: /cycontainer/ID.
    Source: config-linux.md, "Cgroups Path".

    Raises:
        ConfigError: `linux.cgroupsPath` could lead elsewhere.
    """
    path = cgroup_path(asked, container_id)
    relative = bool(asked) and not asked.startswith("/")
    return {each.mount: each.own.rstrip("/") + path if relative else path for each in layout.v1}
