"""What of a repeated `cycontainer.run()` is Python: prints microseconds, with all that the kernel does slowly left out.

    python bench/python_part.py ROOTFS

As root. After some true runs, the child, the waiting and the cgroup are stand-ins that do nothing; pipes, the plan's
file and the look at the host stay.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from cycontainer import _clone, _wait, cgroup_runs, run


class Nothing:
    """Stands for a child and for its cgroup."""

    pid, pidfd, socket, terminal, listener, birthplace, tasks = 1, -1, -1, -1, -1, -1, ()

    def nothing(self, *_: object) -> None:
        return

    receive = settled = close = abandon = release_tasks = destroy = nothing

    def memory_report(self) -> tuple[int, int]:
        return 1, 0


class Waiter:
    flooded = False

    def __init__(self, _child: object, *rest: Any) -> None:
        for fd in rest[:3]:
            if fd >= 0:
                os.close(fd)

    def wait(self) -> int:
        return _wait.ENDED

    def output(self) -> tuple[bytes, bytes]:
        return b"", b""

    def release_mounts(self) -> int:
        return -1

    def close(self) -> None:
        return


class Cgroup:
    @staticmethod
    def create(*_: object) -> Nothing:
        return Nothing()


def run_once() -> None:
    run(["/bin/true"], rootfs=sys.argv[1], memory=1 << 28, pids=100, init=False)


for _ in range(3):
    run_once()
for module, name, stand_in in (
    (_clone, "spawn", lambda *_: Nothing()),
    (_wait, "Waiter", Waiter),
    (_wait, "exited_with_0", lambda _: True),
    (_wait, "reap", lambda _: (0, 0.0, 0.0, 0)),
    (cgroup_runs, "Cgroup", Cgroup),
):
    setattr(module, name, stand_in)
took = []
for _ in range(3000):
    start = time.perf_counter()
    run_once()
    took.append((time.perf_counter() - start) * 1e6)
took.sort()
print(f'{{"p10": {took[300]:.1f}, "p50": {took[1500]:.1f}}}')
