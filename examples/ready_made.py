"""The same container again and again: a template is prepared once, a pool has containers that wait. Each is used once.

The program leaves a mark where it can write and looks for another's: no container finds one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cycontainer import Pool, Result, Template, run

COUNT = 20
SCRIPT = "ls /tmp /dev/shm | grep -c mark; touch /tmp/mark /dev/shm/mark; tr a-z A-Z"


def measured(call: Callable[..., Result]) -> tuple[float, set[str]]:
    """The least milliseconds of a call, and all that was printed."""
    took, printed = [], set()
    for _ in range(COUNT):
        start = time.perf_counter()
        printed.add(call(["sh", "-c", SCRIPT], input="hello", text=True, timeout=10).stdout)
        took.append((time.perf_counter() - start) * 1e3)
        time.sleep(0.01)  # in which the next is made ready, as between the requests of a service
    return min(took), printed


def main() -> None:
    with Template(networks=4, cgroups=4) as template, Pool(2) as pool:
        for name, call in {"run()": run, "a template": template.run, "a pool": pool.run}.items():
            milliseconds, printed = measured(call)
            marks, answer = printed.pop().splitlines()
            print(f"{name}: {milliseconds:.1f} ms, {answer}, {marks} marks of others, {len(printed)} other answers")


if __name__ == "__main__":
    main()
