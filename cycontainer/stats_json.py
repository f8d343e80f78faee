"""Stats as the document that `runc events --stats` prints, for the engines that read it. Lifecycle; pure.

Its field names, units and omissions are those of runc's types/events.go.
"""

from __future__ import annotations

from cycontainer.stats import CPUSET_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from cycontainer.stats import CpuStats, DeviceIO, MemoryCount, MemoryStats, Pressure, PressureLine, Stats

UNLIMITED: Final = 2**64 - 1
_EVENTS: Final = ("low", "high", "max", "oom", "oom_kill")

_Document = dict[str, "Any"]


def stats_event(container_id: str, stats: Stats) -> _Document:
    """The whole event: `{"type": "stats", "id": ..., "data": ...}`."""
    return {"type": "stats", "id": container_id, "data": stats_document(stats)}


def stats_document(stats: Stats) -> _Document:
    """What stands under "data"."""
    return {
        "cpu": _cpu(stats.cpu) if stats.cpu else {"usage": {"kernel": 0, "user": 0}, "throttling": {}},
        "cpuset": _cpuset(stats),
        "memory": _memory(stats.memory) if stats.memory else _no_memory(),
        "pids": _given(current=stats.pids.current, limit=stats.pids.limit) if stats.pids else {},
        "blkio": _io(stats),
        "hugetlb": {each.size: _given(usage=each.usage, max=each.peak) | {"failcnt": each.failures}
                    for each in stats.hugepages},
        "intel_rdt": {},
        "network_interfaces": None,
    }  # fmt: skip


def _given(**values: object) -> _Document:
    """What is not empty: Go's omitempty."""
    return {name: value for name, value in values.items() if value}


def _cpu(cpu: CpuStats) -> _Document:
    return {
        "usage": _given(
            total=cpu.total_ns,
            percpu=list(cpu.per_cpu_ns),
            percpu_kernel=list(cpu.per_cpu_system_ns),
            percpu_user=list(cpu.per_cpu_user_ns),
        )
        | {"kernel": cpu.system_ns, "user": cpu.user_ns},
        "throttling": _given(
            periods=cpu.periods, throttledPeriods=cpu.throttled_periods, throttledTime=cpu.throttled_ns
        ),
        **_psi(cpu.pressure),
    }


def _numbers(text: str) -> list[int]:
    """ "0-2,4" is [0, 1, 2, 4]."""
    found: list[int] = []
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found


def _cpuset(stats: Stats) -> _Document:
    return _given(cpus=_numbers(stats.cpus), mems=_numbers(stats.mems)) | {
        name: stats.cpuset_flags.get(name, 0) for name in CPUSET_FLAGS
    }


def _count(count: MemoryCount | None) -> _Document:
    if count is None:
        return {"limit": 0, "failcnt": 0}
    limit = UNLIMITED if count.limit is None else count.limit
    return {"limit": limit, **_given(usage=count.usage, max=count.peak), "failcnt": count.failures}


def _no_memory() -> _Document:
    return {name: _count(None) for name in ("usage", "swap", "kernel", "kernelTCP")}


def _memory(memory: MemoryStats) -> _Document:
    return {
        **_given(cache=memory.cache),
        "usage": _count(memory.memory),
        "swap": _count(memory.memory_and_swap),
        "kernel": _count(memory.kernel),
        "kernelTCP": _count(memory.kernel_tcp),
        **_given(raw=memory.detail),
        **_psi(memory.pressure),
        "event_count": {name: memory.events.get(name, 0) for name in _EVENTS},
    }


def _line(line: PressureLine) -> _Document:
    return {"avg10": line.avg10, "avg60": line.avg60, "avg300": line.avg300, "total": line.total_us}


def _psi(pressure: Pressure | None) -> _Document:
    if pressure is None:
        return {}
    nothing = {"avg10": 0, "avg60": 0, "avg300": 0, "total": 0}
    return {"psi": {"some": _line(pressure.some), "full": _line(pressure.full) if pressure.full else nothing}}


def _entry(device: DeviceIO, operation: str, value: int) -> _Document:
    return _given(major=device.major, minor=device.minor, op=operation, value=value)


def _io(stats: Stats) -> _Document:
    moved, served = [], []
    for each in stats.io:
        moved += [_entry(each, "Read", each.read_bytes), _entry(each, "Write", each.written_bytes)]
        served += [_entry(each, "Read", each.reads), _entry(each, "Write", each.writes)]
    return _given(ioServiceBytesRecursive=moved, ioServicedRecursive=served) | _psi(stats.io_pressure)
