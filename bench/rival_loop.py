"""Starts /bin/true by another library, again and again in this process; prints a line of JSON, as spawn_loop.py does.

    PYTHON bench/rival_loop.py LIBRARY --rootfs DIR [--n N]

PYTHON is an interpreter that has the library. Each start is a sandbox's whole life, as its documentation shows it, with
what it isolates without further programs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Call = Callable[[], None]

SECONDS = 30  # that a start may take
MEMORY, PIDS = 268435456, 100  # as workload.py has them, which other interpreters need not import


def sandlock(rootfs: str) -> Call:
    """Landlock, a filter and a supervisor; no namespaces. The root is a chroot that its supervisor plays."""
    module: Any = importlib.import_module("sandlock")

    def call() -> None:
        sandbox = module.Sandbox(chroot=rootfs, fs_readable=["/"], max_memory="256M", max_processes=PIDS)
        result = sandbox.run(["/bin/true"], timeout=SECONDS)
        if not result.success:
            raise SystemExit(f"sandlock: {result}")

    return call


def sandboxkit(rootfs: str) -> Call:
    """Namespaces and rlimits, of the host's root; neither a filter nor cgroups."""
    module: Any = importlib.import_module("sandboxkit")
    program = os.path.join(rootfs, "bin/true")
    limits = module.RLimits(memory_bytes=MEMORY)

    def call() -> None:
        sandbox = module.Sandbox(rlimits=limits, timeout=SECONDS, strict=True, mount_proc=True, hostname="floor")
        result = sandbox.run_argv([program])
        if not result.ok:
            raise SystemExit(f"sandboxkit: {result}")

    return call


def nitrobox(rootfs: str) -> Call:
    """Namespaces, a filter, capabilities, an overlay as its root; a shell that waits for commands."""
    module: Any = importlib.import_module("nitrobox")
    # Else it would ask a daemon of its own what image the directory is, thirty seconds where that cannot start.
    store: Any = importlib.import_module("nitrobox.image.store")
    store._image_store_populate(
        rootfs, {"cmd": None, "entrypoint": None, "env": {}, "working_dir": "/", "exposed_ports": []}
    )
    config = module.SandboxConfig(image=rootfs, hostname="floor", env_base_dir=f"{rootfs}-nitrobox")

    def call() -> None:
        sandbox = module.Sandbox(config, name="bench")
        said, status = sandbox.run("/bin/true")
        sandbox.delete()
        if status:
            raise SystemExit(f"nitrobox: {status}, {said}")

    return call


LIBRARIES = {"nitrobox": nitrobox, "sandboxkit": sandboxkit, "sandlock": sandlock}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("--rootfs", required=True)
    parser.add_argument("--n", type=int, default=5)
    asked = parser.parse_args()
    call = LIBRARIES[asked.library](asked.rootfs)
    call()
    took = []
    for _ in range(asked.n):
        start = time.perf_counter()
        call()
        took.append((time.perf_counter() - start) * 1e3)
    took.sort()
    print(json.dumps({"p10": took[(len(took) - 1) // 10], "p50": took[len(took) // 2], "min": took[0]}))


if __name__ == "__main__":
    main()
