"""Starts containers one after the other in this process; prints one line of JSON, as floor.c does.

    python bench/spawn_loop.py --config config.json --rootfs DIR [--call run|run-direct|subprocess] [--n N] ...

`run` is cycontainer.run() as it is; `run-direct` has the program itself as pid 1 (`init=False`); `subprocess` is
subprocess.run() without any isolation, the zero line of a Python program.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import threading
import time

import workload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Call = Callable[[], None]


RUNS = ("run", "run-direct", "subprocess")
TEMPLATES = ("template", "template-direct", "template-net", "template-net-direct")
POOLS = ("pool", "pool-direct", "pool-reset")


def template(rootfs: str, config_file: str, call: str) -> Call:
    """`template`, `template-net` with network namespaces kept ready, `pool`; `-direct` without a pid 1 of ours."""
    import cycontainer

    with open(config_file) as file:
        config = json.load(file)
    keywords = {"rootfs": rootfs, "config": config, "memory": workload.MEMORY, "pids": workload.PIDS}
    keywords["init"] = "direct" not in call
    if call.startswith("pool"):
        made: Any = cycontainer.Pool(8, reset="reset" in call, **keywords)
    else:
        made = cycontainer.Template(networks=16 if "net" in call else 0, cgroups=16, **keywords)
    made.fill()

    def spawn_one() -> None:
        result = made.run(["/bin/true"])
        if result.returncode:
            raise SystemExit(f"/bin/true ended with {result.returncode}: {result.stderr!r}")

    return spawn_one


def library(rootfs: str, config_file: str, init: bool) -> Call:
    import cycontainer

    with open(config_file) as file:
        config = json.load(file)

    def call() -> None:
        result = cycontainer.run(
            ["/bin/true"],
            rootfs=rootfs,
            config=config,
            memory=workload.MEMORY,
            pids=workload.PIDS,
            init=init,
            capture_output=True,
        )
        if result.returncode:
            raise SystemExit(f"/bin/true ended with {result.returncode}: {result.stderr!r}")

    return call


def zero_line(rootfs: str) -> Call:
    import subprocess

    program = [os.path.join(rootfs, "bin/true")]

    def call() -> None:
        subprocess.run(program, stdin=subprocess.DEVNULL, capture_output=True, check=True)

    return call


def hold_memory(megabytes: int) -> mmap.mmap | None:
    """Touched small pages, as a program has that has grown; a huge page would make them cheap to copy."""
    if not megabytes:
        return None
    memory = mmap.mmap(-1, megabytes << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    memory[::4096] = bytes(len(memory) // 4096)
    return memory


def spawn(call: Call, count: int, rest_ms: float) -> list[float]:
    """Milliseconds of each call."""
    took = []
    for _ in range(count):
        if rest_ms:
            time.sleep(rest_ms / 1e3)
        start = time.perf_counter()
        call()
        took.append((time.perf_counter() - start) * 1e3)
    return took


def spawn_in_threads(call: Call, count: int, threads: int, rest_ms: float) -> list[float]:
    shares = [count * (i + 1) // threads - count * i // threads for i in range(threads)]
    took: list[float] = []
    workers = [threading.Thread(target=lambda n=share: took.extend(spawn(call, n, rest_ms))) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if len(took) != count:
        raise SystemExit("a thread failed")
    return took


def percentile(ascending: list[float], percent: int) -> float:
    return ascending[(percent * (len(ascending) - 1) + 50) // 100]


def holdings() -> dict[str, int]:
    """What a leak would show in: this process's descriptors, memory and mounts, the machine's cgroups."""
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * mmap.PAGESIZE // 1024
    with open("/proc/self/mountinfo") as file:
        mounts = len(file.readlines())
    with open("/proc/cgroups") as file:
        cgroups = sum(int(line.split()[2]) for line in file if not line.startswith("#"))
    return {"fds": len(os.listdir("/proc/self/fd")), "rss_kb": resident, "mounts": mounts, "cgroups": cgroups}


def soak(call: Call, count: int) -> list[dict[str, float]]:
    """Twenty blocks of runs: the time of a run in each, and what is held after it."""
    blocks = []
    for _ in range(20):
        took = sorted(spawn(call, max(1, count // 20), 0))
        blocks.append({"p10": percentile(took, 10), "p50": percentile(took, 50), **holdings()})
    return blocks


def networks() -> int:
    """How many network namespaces the machine has, those too that the kernel has not yet taken apart."""
    with open("/proc/slabinfo") as file:
        lines = [line.split() for line in file if line.startswith("net_namespace ")]
    return int(lines[0][1]) if lines else 0


def sustain(call: Call, seconds: float, threads: int) -> list[dict[str, float]]:
    """Ten blocks of so many seconds of runs, one after the other in each thread: throughput, latency, the backlog."""
    took: list[tuple[float, float]] = []
    counts = []
    begin = time.perf_counter()

    def work() -> None:
        while (start := time.perf_counter()) < begin + seconds:
            call()
            end = time.perf_counter()
            took.append((end - begin, (end - start) * 1e3))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for block in range(1, 11):
        time.sleep(max(0.0, begin + seconds * block / 10 - time.perf_counter()))
        counts.append(networks())
    for worker in workers:
        worker.join()
    blocks = []
    for block, count in enumerate(counts):
        times = sorted(ms for at, ms in took if int(at / seconds * 10) == block)
        figures = {f"p{percent}": percentile(times, percent) for percent in (10, 50, 99)}
        blocks.append({"per_s": len(times) / seconds * 10, **figures, "networks": count})
    return blocks


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", default="")
    parser.add_argument("--rootfs", required=True)
    parser.add_argument("--call", choices=[*RUNS, *TEMPLATES, *POOLS], default="run")
    parser.add_argument("--n", type=int, default=25)
    parser.add_argument("--warm", type=int, default=5)
    parser.add_argument("--rest", type=float, default=0, metavar="MS")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ballast", type=int, default=0, metavar="MB")
    parser.add_argument("--seconds", type=float, default=0, help="report ten blocks of runs for so long in all")
    parser.add_argument("--soak", action="store_true", help="report twenty blocks of --n runs in all")
    asked = parser.parse_args()
    if asked.call not in RUNS:
        call = template(asked.rootfs, asked.config, asked.call)
    elif asked.call == "subprocess":
        call = zero_line(asked.rootfs)
    else:
        call = library(asked.rootfs, asked.config, init=asked.call == "run")
    ballast = hold_memory(asked.ballast)
    spawn(call, asked.warm, 0)
    if asked.soak:
        print(json.dumps({"n": asked.n, "blocks": soak(call, asked.n)}))
        return
    if asked.seconds:
        print(json.dumps({"blocks": sustain(call, asked.seconds, asked.threads)}))
        return
    start = time.perf_counter()
    if asked.threads == 1:
        took = spawn(call, asked.n, asked.rest)
    else:
        took = spawn_in_threads(call, asked.n, asked.threads, asked.rest)
    wall = time.perf_counter() - start
    took.sort()
    report = {"label": asked.call, "n": asked.n}
    report.update({f"p{percent}": percentile(took, percent) for percent in (10, 50, 90, 99)})
    print(json.dumps({**report, "min": took[0], "per_s": asked.n / wall}))
    del ballast


if __name__ == "__main__":
    main()
