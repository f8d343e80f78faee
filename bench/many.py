"""A thousand containers alive at once: what the first and the last cost to make, and a list of all. Milliseconds.

    python bench/many.py ROOTFS [COUNT]

As root, with a descriptor for each. States are below /run, which is memory: elsewhere each waits for a disk.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time

from cycontainer import Container
from cycontainer.spec import default_config
from cycontainer.streams import DEVNULL

COMMAND = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cycontainer/command/cycontainer")
FEW = 25  # the least of as many: other work only ever adds


def life(rootfs: str, root: str, made: list[Container]) -> float:
    """Make a container and let it run; the milliseconds that took."""
    config = default_config()
    config["root"] = {"path": rootfs, "readonly": True}
    config["process"].update(args=["sleep", "1000"], terminal=False)
    before = time.perf_counter()
    made.append(
        Container.create(f"n{len(made)}", config, root=root, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL),
    )
    made[-1].start()
    return (time.perf_counter() - before) * 1e3


def list_all(root: str) -> float:
    before = time.perf_counter()
    subprocess.run([COMMAND, "--root", root, "list", "--format", "json"], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - before) * 1e3


def main(rootfs: str, count: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    made: list[Container] = []
    with tempfile.TemporaryDirectory(prefix="many-", dir="/run") as root:
        try:
            took = [life(rootfs, root, made) for _ in range(count)]
            listed = min(list_all(root) for _ in range(5))
        finally:
            for container in made:
                container.delete(force=True)
    print(json.dumps({"first": min(took[:FEW]), "last": min(took[-FEW:]), "list": listed, "count": count}))


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
