"""A container's whole life through podman and containerd, with each of the three runtimes, interleaved.

    python bench/engines.py [--rounds N]

As root. Both engines get a store of their own, and an image that is a directory of busybox. It goes into a mount
namespace without /sys/fs/cgroup/unified, which crun refuses beside v1. Each figure is the least and the median of all
rounds in milliseconds, from the engine's command to its end: created, started, waited for, deleted.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable

import workload

ROOT = os.path.dirname(workload.HERE)
OURS = f"{ROOT}/cycontainer/command/cycontainer"
NULL = subprocess.DEVNULL

Case = Callable[[str], list[str]]


def podman(directory: str, rootfs: str) -> Case:
    """The words that run a container with a runtime."""
    words = [
        "podman", "--root", f"{directory}/store", "--runroot", f"{directory}/run", "--tmpdir", f"{directory}/tmp",
        "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none",
    ]  # fmt: skip
    with tarfile.open(f"{directory}/image.tar", "w") as archive:
        archive.add(rootfs, ".")
    subprocess.run([*words, "import", f"{directory}/image.tar", "box"], check=True, stdout=NULL, stderr=NULL)
    limits = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"]
    return lambda runtime: [
        *words, "--runtime", runtime, "run", "--rm", "--network=none", *limits, "box", "/bin/true",
    ]  # fmt: skip


def containerd(directory: str, rootfs: str) -> tuple[Case, subprocess.Popen[bytes]]:
    """The same, and the daemon."""
    off = ", ".join(f'"io.containerd.{name}"' for name in ("grpc.v1.cri", "internal.v1.opt"))
    with open(f"{directory}/config.toml", "w") as file:
        file.write(
            f'version = 2\nroot = "{directory}/root"\nstate = "{directory}/state"\ndisabled_plugins = [{off}]\n'
            f'[grpc]\n  address = "{directory}/socket"\n'
        )
    with open(f"{directory}/log", "w") as log:
        daemon = subprocess.Popen(["containerd", "--config", f"{directory}/config.toml"], stdout=log, stderr=log)
    ctr = ["ctr", "--address", f"{directory}/socket"]
    while subprocess.run([*ctr, "version"], stdout=NULL, stderr=NULL).returncode:
        if daemon.poll() is not None:
            raise SystemExit(f"containerd has ended: {directory}/log")
        time.sleep(0.1)
    return lambda runtime: [
        *ctr, "run", "--rm", "--rootfs", "--runc-binary", runtime, rootfs, "bench", "/bin/true",
    ], daemon  # fmt: skip


def took_ms(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(words, check=True, stdin=NULL, stdout=NULL)
    return (time.perf_counter() - start) * 1e3


def measure(cases: dict[str, Case], runtimes: dict[str, str], rounds: int) -> dict[tuple[str, str], list[float]]:
    """Every engine with every runtime, in random order; the first round warms up."""
    times: dict[tuple[str, str], list[float]] = {(case, name): [] for case in cases for name in runtimes}
    for number in range(rounds + 1):
        for case, name in random.sample(list(times), len(times)):
            ms = took_ms(cases[case](runtimes[name]))
            if number:
                times[case, name].append(ms)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    if "CYCONTAINER_BENCH" not in os.environ:
        alone = 'umount /sys/fs/cgroup/unified 2> /dev/null; exec "$@"'
        environment = {**os.environ, "CYCONTAINER_BENCH": "inside"}
        os.execvpe("unshare", ["unshare", "-m", "sh", "-c", alone, "sh", sys.executable, *sys.argv], environment)
    runtimes = {"cycontainer": OURS}
    runtimes |= {name: path for name in ("runc", "crun") if (path := shutil.which(name))}
    directory = tempfile.mkdtemp(prefix="engines-", dir="/var/tmp")
    daemon = None
    try:
        rootfs = f"{directory}/rootfs"
        workload.make_rootfs(rootfs)
        cases: dict[str, Case] = {}
        if shutil.which("podman"):
            cases["podman run"] = podman(directory, rootfs)
        if shutil.which("containerd"):
            cases["ctr run"], daemon = containerd(directory, rootfs)
        times = measure(cases, runtimes, options.rounds)
        print("| min, median | " + " | ".join(runtimes) + " |\n|---" + "|---:" * len(runtimes) + "|")
        for case in cases:
            cells = [f"{min(times[case, name]):.0f}, {statistics.median(times[case, name]):.0f}" for name in runtimes]
            print(f"| {case} | " + " | ".join(cells) + " |")
    finally:
        if daemon is not None:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
