"""Times `Container.exec` of /bin/true beside the same system calls in C (floor.c --join), interleaved.

    python bench/exec.py [--rounds N] [--n N]

As root, with cgroup v1. Both join the same container, into every cgroup of it, with capabilities and a seccomp filter,
by an execve more than the program's, and wait for the end. Over all rounds: the p10 of their p10, the median of their
median, and the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time

import workload

from cycontainer.lifecycle import Container
from cycontainer.streams import DEVNULL

ROUND = ["--hop", "tiny", "--caps", "--seccomp", "tree", "--stdio", "null", "--warm", "3"]
WARM = 3

Figures = dict[str, float]


def floor(program: str, pid: int, n: int) -> Figures:
    words = [program, "--join", str(pid), "--n", str(n), *ROUND]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    figures: Figures = json.loads(said)
    return figures


def library(container: Container, n: int) -> Figures:
    took = []
    for _ in range(WARM + n):
        start = time.perf_counter()
        with container.exec(["/bin/true"], stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL) as process:
            if process.wait():
                raise SystemExit("/bin/true has failed")
        took.append((time.perf_counter() - start) * 1e3)
    took = sorted(took[WARM:])
    return {"p10": took[(n - 1) // 10], "p50": took[(n - 1) // 2]}


def started(directory: str) -> Container:
    """A container of the benchmark's configuration that sleeps."""
    rootfs = os.path.join(directory, "rootfs")
    workload.make_rootfs(rootfs)
    config = workload.config(rootfs, "/bench-exec")
    config["process"]["args"] = ["/bin/busybox", "sleep", "1000"]
    config["process"]["env"] = ["PATH=/bin", "HOME=/"]
    streams = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL}
    root = os.path.join(directory, "states")
    container = Container.create("bench", config, root=root, **streams)  # type: ignore[arg-type]  # streams
    container.start()
    return container


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--n", type=int, default=25)
    asked = parser.parse_args()
    program = workload.build_floor()
    directory = tempfile.mkdtemp(prefix="exec-", dir="/run")
    seen: dict[str, list[Figures]] = {"C": [], "Container.exec": []}
    try:
        with started(directory) as container:
            for number in range(-1, asked.rounds):  # the first round warms up
                figures = {"C": floor(program, container.pid, asked.n), "Container.exec": library(container, asked.n)}
                for name in seen if number >= 0 else ():
                    seen[name].append(figures[name])
    finally:
        shutil.rmtree(directory)
    low = {name: sorted(each["p10"] for each in found)[(len(found) - 1) // 10] for name, found in seen.items()}
    median = {name: statistics.median(each["p50"] for each in found) for name, found in seen.items()}
    print("| way | p10, ms | median, ms | p10 : C | median : C |\n|---|---:|---:|---:|---:|")
    for name in seen:
        ratios = f"{low[name] / low['C']:.2f} | {median[name] / median['C']:.2f}"
        print(f"| {name} | {low[name]:.3f} | {median[name]:.3f} | {ratios} |")


if __name__ == "__main__":
    main()
