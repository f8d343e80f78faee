"""What a container's cgroups count, as typed records. Lifecycle: it reads the cgroups, in one call.

Sources: cgroup-v2.rst, "Interface Files"; cgroup-v1/{memory,cpuacct,blkio-controller,pids,hugetlb}.rst; psi.rst.
"""

from __future__ import annotations

import os

from cycontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from cycontainer.cgroups import Cgroup

UNLIMITED: Final = 1 << 62  # v1 has the largest number of pages in place of "max"


class PressureLine(Record):
    """The share of time in which tasks waited, in percent, over the last seconds; and all of it."""

    avg10: float
    avg60: float
    avg300: float
    total_us: int


class Pressure(Record):
    """`some`: at least one task waited; `full`: all did at once. psi.rst."""

    some: PressureLine
    full: PressureLine | None


class CpuStats(Record):
    """Nanoseconds of CPU time since the cgroup was made, and how often its quota held it back."""

    total_ns: int
    user_ns: int
    system_ns: int
    per_cpu_ns: tuple[int, ...] = ()  # v1 only, as are the next two
    per_cpu_user_ns: tuple[int, ...] = ()
    per_cpu_system_ns: tuple[int, ...] = ()
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0
    pressure: Pressure | None = None


class MemoryCount(Record):
    """Bytes."""

    usage: int
    peak: int | None  # None: this kernel does not tell
    limit: int | None  # None is unlimited
    failures: int  # how often the limit was hit


class MemoryStats(Record):
    """What is charged to the cgroup and those below.

    Attributes:
        memory: all of it.
        memory_and_swap: the two together, on v2 as on v1; None without swap accounting.
        kernel, kernel_tcp: the part that the kernel holds; None where it is not told apart.
        cache: bytes of files.
        oom_kills: processes killed for exceeding the limit.
        detail: memory.stat as it stands.
        events: memory.events of v2 as it stands: how often a limit held something back.
    """

    memory: MemoryCount
    memory_and_swap: MemoryCount | None
    kernel: MemoryCount | None
    kernel_tcp: MemoryCount | None
    cache: int
    oom_kills: int
    detail: dict[str, int]
    events: dict[str, int] = {}  # noqa: RUF012  # nobody changes it
    pressure: Pressure | None = None


class PidsStats(Record):
    """Tasks, threads among them. `limit`: None is unlimited."""

    current: int
    limit: int | None


class DeviceIO(Record):
    """What one block device did for the cgroup and those below."""

    major: int
    minor: int
    read_bytes: int = 0
    written_bytes: int = 0
    discarded_bytes: int = 0
    reads: int = 0
    writes: int = 0
    discards: int = 0


class HugePages(Record):
    """Huge pages of one size, in bytes. `peak` is None on v2, which does not tell."""

    size: str  # "2MB"
    usage: int
    peak: int | None
    failures: int


class Rdma(Record):
    device: str
    handles: int
    objects: int


class Stats(Record):
    """One look at a container's cgroups. What has no controller is None, or empty."""

    cpu: CpuStats | None
    memory: MemoryStats | None
    pids: PidsStats | None
    io: tuple[DeviceIO, ...]
    io_pressure: Pressure | None
    hugepages: tuple[HugePages, ...]
    rdma: tuple[Rdma, ...]
    cpus: str  # "0-1": of the cpuset, "" without one
    mems: str
    cpuset_flags: dict[str, int]  # what v1's has beside, by CPUSET_FLAGS


CPUSET_FLAGS: Final = (
    *("cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab"),
    *("memory_pressure", "sched_load_balance", "sched_relax_domain_level"),
)
_Texts = dict[str, bytes | None]


# --- lines


def _pairs(text: bytes | None) -> dict[str, int]:
    """ "name number" lines."""
    words = (text or b"").decode().split()
    return dict(zip(words[::2], map(int, words[1::2])))


def _number(text: bytes | None) -> int:
    return int(text) if text else 0


def _limit(text: bytes | None) -> int | None:
    return None if not text or text == b"max\n" or int(text) >= UNLIMITED else int(text)


def _text(text: bytes | None) -> str:
    return (text or b"").decode().strip()


def _pressure(text: bytes | None) -> Pressure | None:
    if not text:
        return None
    found = {}
    for line in text.decode().splitlines():
        name, *words = line.split()
        numbers = [word.partition("=")[2] for word in words]
        average = [float(number) for number in numbers[:3]]
        found[name] = PressureLine(avg10=average[0], avg60=average[1], avg300=average[2], total_us=int(numbers[3]))
    return Pressure(some=found["some"], full=found.get("full"))


# --- v1

_COUNTED: Final = ("memory", "memory.memsw", "memory.kmem", "memory.kmem.tcp")
_V1_FILES: Final = (
    *("cpu.stat", "cpuacct.usage", "cpuacct.usage_all", "cpuset.cpus", "cpuset.mems"),
    *(f"cpuset.{name}" for name in CPUSET_FLAGS),
    *("memory.stat", "memory.oom_control", "pids.current", "pids.max"),
    *(f"{name}.{file}" for name in _COUNTED for file in ("usage_in_bytes", "max_usage_in_bytes", "limit_in_bytes")),
    *(f"{name}.failcnt" for name in _COUNTED),
    *("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"),
)


def _cpu_v1(texts: _Texts) -> CpuStats | None:
    if texts["cpuacct.usage"] is None and texts["cpu.stat"] is None:
        return None
    rows = [line.split() for line in _text(texts["cpuacct.usage_all"]).splitlines()[1:]]
    user = tuple([int(row[1]) for row in rows])
    system = tuple([int(row[2]) for row in rows])
    quota = _pairs(texts["cpu.stat"])
    return CpuStats(
        total_ns=_number(texts["cpuacct.usage"]),
        user_ns=sum(user),
        system_ns=sum(system),
        per_cpu_ns=tuple([sum(pair) for pair in zip(user, system)]),
        per_cpu_user_ns=user,
        per_cpu_system_ns=system,
        periods=quota.get("nr_periods", 0),
        throttled_periods=quota.get("nr_throttled", 0),
        throttled_ns=quota.get("throttled_time", 0),
    )


def _count_v1(texts: _Texts, name: str) -> MemoryCount | None:
    if texts[f"{name}.usage_in_bytes"] is None:
        return None
    return MemoryCount(
        usage=_number(texts[f"{name}.usage_in_bytes"]),
        peak=_number(texts[f"{name}.max_usage_in_bytes"]),
        limit=_limit(texts[f"{name}.limit_in_bytes"]),
        failures=_number(texts[f"{name}.failcnt"]),
    )


def _memory_v1(texts: _Texts) -> MemoryStats | None:
    memory = _count_v1(texts, "memory")
    if memory is None:
        return None
    detail = _pairs(texts["memory.stat"])
    return MemoryStats(
        memory=memory,
        memory_and_swap=_count_v1(texts, "memory.memsw"),
        kernel=_count_v1(texts, "memory.kmem"),
        kernel_tcp=_count_v1(texts, "memory.kmem.tcp"),
        cache=detail.get("total_cache", 0),
        oom_kills=_pairs(texts["memory.oom_control"]).get("oom_kill", 0),
        detail=detail,
    )


_V1_IO: Final = {
    ("blkio.throttle.io_service_bytes_recursive", "Read"): "read_bytes",
    ("blkio.throttle.io_service_bytes_recursive", "Write"): "written_bytes",
    ("blkio.throttle.io_service_bytes_recursive", "Discard"): "discarded_bytes",
    ("blkio.throttle.io_serviced_recursive", "Read"): "reads",
    ("blkio.throttle.io_serviced_recursive", "Write"): "writes",
    ("blkio.throttle.io_serviced_recursive", "Discard"): "discards",
}


def _devices(found: Mapping[str, Mapping[str, int]]) -> tuple[DeviceIO, ...]:
    made = []
    for numbers, counts in found.items():
        major, minor = numbers.split(":")
        made.append(DeviceIO(major=int(major), minor=int(minor), **counts))
    return tuple(made)


def _io_v1(texts: _Texts) -> tuple[DeviceIO, ...]:
    """Lines "8:0 Read 4096", and a sum without a device."""
    found: dict[str, dict[str, int]] = {}
    for file in ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"):
        for line in _text(texts[file]).splitlines():
            words = line.split()
            if len(words) == 3 and (file, words[1]) in _V1_IO:
                found.setdefault(words[0], {})[_V1_IO[file, words[1]]] = int(words[2])
    return _devices(found)


# --- v2

_V2_FILES: Final = (
    *("cpu.stat", "cpu.pressure", "cpuset.cpus.effective", "cpuset.mems.effective"),
    *("memory.current", "memory.peak", "memory.max", "memory.events", "memory.stat", "memory.pressure"),
    *("memory.swap.current", "memory.swap.max", "memory.swap.events"),
    *("pids.current", "pids.max", "io.stat", "io.pressure", "rdma.current"),
)


_BESIDE_V1: Final = ("io.stat", "io.pressure", "rdma.current")


def _cpu_v2(texts: _Texts) -> CpuStats | None:
    counts = _pairs(texts["cpu.stat"])
    if not counts:
        return None
    return CpuStats(
        total_ns=counts.get("usage_usec", 0) * 1000,
        user_ns=counts.get("user_usec", 0) * 1000,
        system_ns=counts.get("system_usec", 0) * 1000,
        periods=counts.get("nr_periods", 0),
        throttled_periods=counts.get("nr_throttled", 0),
        throttled_ns=counts.get("throttled_usec", 0) * 1000,
        pressure=_pressure(texts["cpu.pressure"]),
    )


def _memory_v2(texts: _Texts) -> MemoryStats | None:
    """The kernel's share has no limit and no peak of its own on v2; swap's are told apart, and added here."""
    if texts["memory.current"] is None:
        return None
    events, detail = _pairs(texts["memory.events"]), _pairs(texts["memory.stat"])
    usage, limit = _number(texts["memory.current"]), _limit(texts["memory.max"])
    peak = _number(texts["memory.peak"]) if texts["memory.peak"] else None
    both = None
    if texts["memory.swap.current"] is not None:
        swap_limit = _limit(texts["memory.swap.max"])
        both = MemoryCount(
            usage=usage + _number(texts["memory.swap.current"]),
            peak=None,
            limit=None if limit is None or swap_limit is None else limit + swap_limit,
            failures=_pairs(texts["memory.swap.events"]).get("max", 0),
        )
    return MemoryStats(
        memory=MemoryCount(usage=usage, peak=peak, limit=limit, failures=events.get("max", 0)),
        memory_and_swap=both,
        kernel=MemoryCount(usage=detail["kernel"], peak=None, limit=None, failures=0) if "kernel" in detail else None,
        kernel_tcp=MemoryCount(usage=detail["sock"], peak=None, limit=None, failures=0) if "sock" in detail else None,
        cache=detail.get("file", 0),
        oom_kills=events.get("oom_kill", 0),
        detail=detail,
        events=events,
        pressure=_pressure(texts["memory.pressure"]),
    )


_V2_IO: Final = {
    **{"rbytes": "read_bytes", "wbytes": "written_bytes", "dbytes": "discarded_bytes"},
    **{"rios": "reads", "wios": "writes", "dios": "discards"},
}


def _io_v2(text: bytes | None) -> tuple[DeviceIO, ...]:
    """Lines "8:0 rbytes=4096 ..."; a device that did nothing has its numbers only."""
    found = {}
    for line in _text(text).splitlines():
        numbers, *words = line.split()
        pairs = [word.partition("=")[::2] for word in words]
        counts = {_V2_IO[name]: int(value) for name, value in pairs if name in _V2_IO}
        if counts:
            found[numbers] = counts
    return _devices(found)


def _rdma(text: bytes | None) -> tuple[Rdma, ...]:
    found = []
    for line in _text(text).splitlines():
        device, *words = line.split()
        counts = {name: int(value) for name, value in (word.split("=") for word in words)}
        found.append(Rdma(device=device, handles=counts["hca_handle"], objects=counts["hca_object"]))
    return tuple(found)


# --- huge pages, whose sizes are the machine's

_sizes: tuple[str, ...] | None = None


def hugepage_sizes() -> tuple[str, ...]:
    """The sizes that this machine has, as cgroups name them: "2MB", "1GB"."""
    global _sizes
    if _sizes is None:
        directory = "/sys/kernel/mm/hugepages"
        names = os.listdir(directory) if os.path.isdir(directory) else []
        _sizes = tuple([_size_name(int(name.removeprefix("hugepages-").removesuffix("kB"))) for name in sorted(names)])
    return _sizes


def _size_name(kb: int) -> str:
    """hugetlb_cgroup.c, mem_fmt()."""
    if kb >= 1 << 20:
        return f"{kb >> 20}GB"
    return f"{kb >> 10}MB" if kb >= 1 << 10 else f"{kb}KB"


_HUGEPAGES_V1, _HUGEPAGES_V2 = ("usage_in_bytes", "max_usage_in_bytes", "failcnt"), ("current", "events")


def _hugepage_files(*names: str) -> tuple[str, ...]:
    return tuple([f"hugetlb.{size}.{file}" for size in hugepage_sizes() for file in names])


def _hugepages(texts: _Texts) -> tuple[HugePages, ...]:
    found = []
    for size in hugepage_sizes():
        name = f"hugetlb.{size}"
        if texts.get(f"{name}.usage_in_bytes"):
            peak, failures = _number(texts[f"{name}.max_usage_in_bytes"]), _number(texts[f"{name}.failcnt"])
            usage = _number(texts[f"{name}.usage_in_bytes"])
            found.append(HugePages(size=size, usage=usage, peak=peak, failures=failures))
        elif texts.get(f"{name}.current"):
            usage, failures = _number(texts[f"{name}.current"]), _pairs(texts[f"{name}.events"]).get("max", 0)
            found.append(HugePages(size=size, usage=usage, peak=None, failures=failures))
    return tuple(found)


# --- all of it


def read_stats(cgroup: Cgroup) -> Stats:
    """What the cgroup counts now.

    Raises:
        CgroupError: a file could not be read, other than for not being there.
    """
    v2 = cgroup.unified
    files = (*_V2_FILES, *_hugepage_files(*_HUGEPAGES_V2))
    if not v2:  # v2 may have what v1 has not
        files = (*_V1_FILES, *_BESIDE_V1, *_hugepage_files(*_HUGEPAGES_V1, *_HUGEPAGES_V2))
    texts = dict(zip(files, cgroup.read_all(files)))
    pids = PidsStats(current=_number(texts["pids.current"]), limit=_limit(texts["pids.max"]))
    return Stats(
        cpu=_cpu_v2(texts) if v2 else _cpu_v1(texts),
        memory=_memory_v2(texts) if v2 else _memory_v1(texts),
        pids=pids if texts["pids.current"] is not None else None,
        io=_io_v2(texts["io.stat"]) if v2 or texts["io.stat"] else _io_v1(texts),
        io_pressure=_pressure(texts["io.pressure"]),
        hugepages=_hugepages(texts),
        rdma=_rdma(texts["rdma.current"]),
        cpus=_text(texts["cpuset.cpus.effective" if v2 else "cpuset.cpus"]),
        mems=_text(texts["cpuset.mems.effective" if v2 else "cpuset.mems"]),
        cpuset_flags={name: _number(text) for name in CPUSET_FLAGS if (text := texts.get(f"cpuset.{name}"))},
    )
