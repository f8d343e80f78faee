"""What making, limiting, entering and removing a cgroup costs, beside the same system calls in C; and a stats().

    python bench/cgroups.py [--rounds N] [-n N]

As root, on cgroup v1, v2 or both: what the machine has. It prints a Markdown table of medians. The C program is kept in
build/, so that a machine without a compiler can be measured, too: python tests/vm run -- python3 bench/cgroups.py
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from cycontainer.cgroups import Cgroup  # noqa: E402
from cycontainer.config import Memory, Resources  # noqa: E402
from cycontainer.host import Host, current  # noqa: E402
from cycontainer.resources import CgroupPlan, HierarchyPlan, compile_resources  # noqa: E402
from cycontainer.stats import read_stats  # noqa: E402

LIMITS = Resources(memory=Memory(limit=256 << 20), pids=100)
NAME = f"cycontainer-bench-{os.getpid()}"


def plans_of(host: Host) -> dict[str, CgroupPlan]:
    """For each version that the machine has: memory and pids limited, or two of v2's own limits where v1 has those."""
    plan, v2 = compile_resources(LIMITS, host.cgroups, all_controllers=False), host.cgroups.v2
    found = {"v1" if host.cgroups.v1 else "v2": plan}
    if host.cgroups.v1 and v2 is not None:
        writes = ((b"cgroup.max.depth", b"9"), (b"cgroup.max.descendants", b"9"))
        found["v2"] = CgroupPlan(
            hierarchies=(HierarchyPlan(mount=v2.mount, controllers=v2.controllers, writes=writes, unified=True),)
        )
    return found


def compiled() -> str:
    program = f"{os.path.dirname(HERE)}/build/cgroup_floor"
    if shutil.which("cc"):
        subprocess.run(["cc", "-O2", "-o", program, f"{HERE}/cgroup_floor.c"], check=True)
    return program


def floor_us(program: str, plan: CgroupPlan, n: int) -> float:
    """The median of the C program's n."""
    words = [str(n), NAME]
    for each in plan.hierarchies:
        words += ["--", each.mount, *[f"{file.decode()}={value.decode()}" for file, value in each.writes]]
    done = subprocess.run([program, *words], check=True, capture_output=True, text=True)
    return statistics.median(map(int, done.stdout.split())) / 1000


def homes_of(plan: CgroupPlan) -> list[int]:
    """What leads out of each hierarchy's cgroup again."""
    return [os.open(f"{each.mount}/{way_into(each)}", os.O_WRONLY | os.O_CLOEXEC) for each in plan.hierarchies]


def way_into(hierarchy: HierarchyPlan) -> str:
    return "cgroup.procs" if hierarchy.unified else "tasks"


def once(plan: CgroupPlan, paths: tuple[str, ...], homes: list[int]) -> None:
    cgroup = Cgroup.create(plan, paths)
    for fd in cgroup.tasks:
        os.write(fd, b"0")
    if cgroup.birthplace >= 0:
        cgroup.write("cgroup.procs", b"0")
    for fd in homes:
        os.write(fd, b"0")
    cgroup.destroy()


def ours_us(plan: CgroupPlan, n: int) -> float:
    paths, homes = (f"/{NAME}",) * len(plan.hierarchies), homes_of(plan)
    took = []
    for _ in range(n):
        start = time.perf_counter_ns()
        once(plan, paths, homes)
        took.append(time.perf_counter_ns() - start)
    for fd in homes:
        os.close(fd)
    return statistics.median(took) / 1000


def stats_us(plan: CgroupPlan, n: int) -> float:
    """A stats()."""
    cgroup = Cgroup.create(plan, (f"/{NAME}",) * len(plan.hierarchies))
    took = []
    try:
        for _ in range(n):
            start = time.perf_counter_ns()
            read_stats(cgroup)
            took.append(time.perf_counter_ns() - start)
    finally:
        cgroup.destroy()
    return statistics.median(took) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("-n", type=int, default=200)
    asked = parser.parse_args()
    program = compiled()
    print("| create, limit, attach, destroy | C | library | ratio | a stats() |\n|---|---|---|---|---|")
    for name, plan in plans_of(current()).items():
        rounds = [(floor_us(program, plan, asked.n), ours_us(plan, asked.n)) for _ in range(asked.rounds)]
        floor, ours = (statistics.median(column) for column in zip(*rounds))
        ratio = statistics.median([mine / theirs for theirs, mine in rounds])
        stats = statistics.median([stats_us(plan, asked.n) for _ in range(asked.rounds)])
        print(f"| cgroup {name} | {floor:.1f} µs | {ours:.1f} µs | {ratio:.2f} | {stats:.1f} µs |")


if __name__ == "__main__":
    main()
