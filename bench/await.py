"""What `await` adds to a run, and 500 containers at once beside one after the other; prints milliseconds.

    python bench/await.py ROOTFS

As root. Runs alternate, p10 and median of 400 of each; the five hundred are asked for in one loop.
"""

from __future__ import annotations

import asyncio
import sys
import time

import cycontainer
from cycontainer import aio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PAIRS: Final = 400
AT_ONCE: Final = 500


def once() -> float:
    start = time.perf_counter()
    cycontainer.run(["/bin/true"], rootfs=sys.argv[1])
    return time.perf_counter() - start


async def awaited() -> float:
    start = time.perf_counter()
    await aio.run(["/bin/true"], rootfs=sys.argv[1])
    return time.perf_counter() - start


async def at_once() -> float:
    start = time.perf_counter()
    await asyncio.gather(*(aio.run(["/bin/true"], rootfs=sys.argv[1]) for _ in range(AT_ONCE)))
    return time.perf_counter() - start


with asyncio.Runner() as runner:
    for _ in range(20):
        once(), runner.run(awaited())
    pairs = [(once(), runner.run(awaited())) for _ in range(PAIRS)]
    for name, column in zip(("run", "await aio.run"), zip(*pairs, strict=True), strict=True):
        times = sorted(column)
        print(f"{name}: p10 {times[PAIRS // 10] * 1e3:.3f}, median {times[PAIRS // 2] * 1e3:.3f}")
    after = sum(once() for _ in range(AT_ONCE))
    print(f"{AT_ONCE} one after the other: {after * 1e3:.0f}; at once: {runner.run(at_once()) * 1e3:.0f}")
