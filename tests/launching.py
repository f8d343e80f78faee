"""Configurations compiled and launched without a state on disk: what a test of a plan starts from."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

from cycontainer import _clone, _wait
from cycontainer._clone import Child
from cycontainer.compile import Style, compile_plan
from cycontainer.host import current
from cycontainer.launch import abandon, attend, end_of, launch
from cycontainer.plan import Plan
from cycontainer.read_config import read_config
from cycontainer.spec import default_config


def copy_rootfs(rootfs: str, target: str) -> None:
    """A copy of `rootfs` as `target`, which is not there yet; devices stay devices: as files they would have no end."""
    subprocess.run(["cp", "-a", rootfs, target], check=True)


def document(rootfs: str, script: str = "true", **linux: Any) -> dict[str, Any]:
    """The default configuration, for a script."""
    config = default_config()
    config["root"]["path"] = rootfs
    config["process"]["args"] = ["sh", "-c", script]
    config["process"]["env"] = ["PATH=/bin"]
    config["linux"].update(linux)
    return config


def plan_of(config: dict[str, Any], **style: Any) -> Plan:
    """Compiled without limits: `launched` makes no cgroups."""
    config = {**config, "linux": {**config["linux"], "resources": {}}}
    return compile_plan(read_config(config, bundle="/"), current(), Style(every_cgroup=False, **style))


def launched(plan: Plan, duties: Mapping[str, Callable[[Child], None]] | None = None, *, stdout: int = 1) -> int:
    """Launch a plan without its cgroups' steps, and wait for its end; the program's returncode."""
    child = launch(plan, descriptors=(0, stdout, 2))
    try:
        waiter = _wait.Waiter(child, -1, -1, -1, b"", 20.0)
        ended = None
        while (event := waiter.wait()) != _wait.ENDED:
            assert event == _wait.MESSAGE, "the launch took 20 seconds"
            message = child.receive()
            if message and message[0] == _clone.ENDED:
                ended = message
            elif message:
                attend(plan, child, message, duties)
                if message[0] == _clone.CLONED:
                    waiter.watch()
        return end_of(child, ended)[0]
    except BaseException:
        abandon(child)
        raise
    finally:
        child.close()


def printed(plan: Plan, duties: Mapping[str, Callable[[Child], None]] | None = None) -> str:
    """What a launched plan's program prints; it must not fail."""
    fd = os.memfd_create("printed")
    try:
        status = launched(plan, duties, stdout=fd)
        assert status == 0, f"the program returned {status}"
        return os.pread(fd, os.fstat(fd).st_size, 0).decode()
    finally:
        os.close(fd)
