"""What happens to a container: out of memory, memory pressure, its end; and what it uses. Lifecycle: it waits.

Sources: cgroup-v1/memory.rst, "OOM Control", "Memory Pressure"; cgroup-v2.rst, "memory.events"; accounting/psi.rst.
"""

from __future__ import annotations

import errno
import os
import select
import time

from cycontainer.handles import open_cgroup, open_first
from cycontainer.record import Record
from cycontainer.stats import read_stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from cycontainer.cgroups import Cgroup
    from cycontainer.state_text import State
    from cycontainer.stats import Stats

# Microseconds of each two seconds in which a process waited for memory; an ordinary user may ask for no other window.
STALLED: Final = b"some 300000 2000000"
LEVEL: Final = "medium"  # of v1: the kernel swaps, and gives up its file cache


class Event(Record):
    """One thing that happened.

    Attributes:
        kind: "oom": a process was killed, or waits, for the memory limit; "pressure": memory is short; "exit": the
            first process has ended, and nothing more will come; "stats": an interval is over.
        stats: with "stats", what is used now.
    """

    kind: str
    stats: Stats | None = None


def events(state: State, interval: float | None) -> Iterator[Event]:
    """What happens from now on, until the container has ended; see `Container.events`."""
    sources: dict[int, _Source] = {}
    first = open_first(state)
    try:
        cgroup = open_cgroup(state)
        watch = select.poll()
        watch.register(first, select.POLLIN)
        for source in _sources(cgroup):
            sources[source.descriptor] = source
            watch.register(source.descriptor, source.condition)
        yield from _wait(watch, first, sources, cgroup, interval)
    finally:
        for source in sources.values():
            source.close()
        os.close(first)


def _wait(
    watch: select.poll, first: int, sources: dict[int, _Source], cgroup: Cgroup, interval: float | None
) -> Iterator[Event]:
    due = time.monotonic() + interval if interval else None
    while True:
        ready = dict(watch.poll(None if due is None else max(0.0, due - time.monotonic()) * 1000))
        for descriptor in ready.keys() & sources.keys():
            yield from [Event(kind=sources[descriptor].kind)] * sources[descriptor].news()
        if first in ready:
            yield Event(kind="exit")
            return
        if due is not None and interval and time.monotonic() >= due:
            due = max(due + interval, time.monotonic())
            yield Event(kind="stats", stats=read_stats(cgroup))


class _Source:
    """A descriptor on which the kernel tells of events of one kind."""

    def __init__(self, kind: str, descriptor: int, condition: int) -> None:
        self.kind, self.descriptor, self.condition = kind, descriptor, condition

    def news(self) -> int:
        """How many events there are since the last time."""
        return 1

    def close(self) -> None:
        os.close(self.descriptor)


class _EventFd(_Source):
    """v1: an eventfd that was made known to a file."""

    def __init__(self, kind: str, directory: str, file: str, argument: str = "") -> None:
        super().__init__(kind, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK), select.POLLIN)
        self._file = f"{directory}/{file}"
        try:
            source = os.open(f"{directory}/{file}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _write(f"{directory}/cgroup.event_control", f"{self.descriptor} {source} {argument}".encode())
            finally:
                os.close(source)
        except BaseException:
            self.close()
            raise

    def news(self) -> int:
        count = os.eventfd_read(self.descriptor)
        return count if os.path.exists(self._file) else 0  # the cgroup's removal is told in the same way


class _Kills(_Source):
    """v2: memory.events, which has counts and says when one has changed."""

    def __init__(self, directory: str) -> None:
        super().__init__("oom", os.open(f"{directory}/memory.events", os.O_RDONLY | os.O_CLOEXEC), select.POLLPRI)
        self._seen = 0
        self._seen = self._count()

    def _count(self) -> int:
        try:
            words = os.pread(self.descriptor, 4096, 0).split()
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return self._seen  # the cgroup's removal is told in the same way
        return int(words[words.index(b"oom_kill") + 1])

    def news(self) -> int:
        before, self._seen = self._seen, self._count()
        return self._seen - before


class _Pressure(_Source):
    """v2: a trigger in memory.pressure."""

    def __init__(self, directory: str) -> None:
        fd = os.open(f"{directory}/memory.pressure", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        super().__init__("pressure", fd, select.POLLPRI)
        self._file = f"{directory}/memory.pressure"
        try:
            os.write(fd, STALLED + b"\0")
        except BaseException:
            self.close()
            raise

    def news(self) -> int:
        return int(os.path.exists(self._file))  # the cgroup's removal is told in the same way


def _write(path: str, value: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)


def _sources(cgroup: Cgroup) -> Iterator[_Source]:
    """What there is on this machine; where memory is not counted, there is nothing."""
    for path in cgroup.paths:
        if os.path.exists(f"{path}/memory.oom_control"):
            yield _EventFd("oom", path, "memory.oom_control")
            if os.path.exists(f"{path}/memory.pressure_level"):
                yield _EventFd("pressure", path, "memory.pressure_level", LEVEL)
        elif os.path.exists(f"{path}/memory.events"):
            yield _Kills(path)
            yield from _pressure(path)


def _pressure(directory: str) -> tuple[_Source, ...]:
    """A kernel that was started with psi=0, or a cgroup with a 0 in cgroup.pressure, measures none."""
    try:
        return (_Pressure(directory),)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP):
            raise
        return ()
