"""A thousand containers alive at once: what the first and the last cost to make, and a list of all. Milliseconds.

    python bench/many.py [COUNT]

As root, with cgroup v1 and a descriptor for each. States are below /run, which is memory: elsewhere each waits for a
disk. Beside the first and the last, floor.c makes containers of its own by the same system calls: what these take
longer among a thousand others is the kernel's.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time

import workload

from cycontainer import Container
from cycontainer.spec import default_config
from cycontainer.streams import DEVNULL

COMMAND = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cycontainer/command/cycontainer")
FLOOR = ["--ns", "all", "--mounts", "spec", "--nofail", "--clone", "vfork", "--hop", "tiny", "--caps"]
FLOOR += ["--seccomp", "tree", "--stdio", "pipe", "--cgroup", "v1tasks"]
FEW = 25  # the least of as many: other work only ever adds


def life(rootfs: str, root: str, made: list[Container]) -> float:
    """Make a container and let it run; the milliseconds that took."""
    config = default_config()
    config["root"] = {"path": rootfs, "readonly": True}
    config["process"].update(args=["/bin/busybox", "sleep", "1000"], terminal=False)
    before = time.perf_counter()
    made.append(
        Container.create(f"n{len(made)}", config, root=root, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL),
    )
    made[-1].start()
    return (time.perf_counter() - before) * 1e3


def floor(program: str, rootfs: str) -> float:
    """The least that a container takes that the C floor makes, from clone to its end."""
    words = [program, "--rootfs", rootfs, "--n", str(FEW), "--warm", "3", *FLOOR]
    least: float = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)["min"]
    return least


def list_all(root: str) -> float:
    before = time.perf_counter()
    subprocess.run([COMMAND, "--root", root, "list", "--format", "json"], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - before) * 1e3


def main(count: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    made: list[Container] = []
    program = workload.build_floor()
    with tempfile.TemporaryDirectory(prefix="many-", dir="/run") as directory:
        root, rootfs = f"{directory}/states", f"{directory}/rootfs"
        workload.make_rootfs(rootfs)
        floors = [floor(program, rootfs)]
        try:
            took = [life(rootfs, root, made) for _ in range(count)]
            floors.append(floor(program, rootfs))
            listed = min(list_all(root) for _ in range(5))
        finally:
            for container in made:
                container.delete(force=True)
    first, last = min(took[:FEW]), min(took[-FEW:])
    print(json.dumps({"first": first, "last": last, "floor": floors, "list": listed, "count": count}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
