"""Shortage of memory as an event: v1's pressure levels, v2's triggers of PSI."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cycontainer.host import current
from cycontainer.lifecycle import Container
from cycontainer.spec import default_config
from cycontainer.streams import DEVNULL

MIB = 1 << 20
ORDINARY = os.geteuid() != 0


def short_of_memory(rootfs: str) -> dict[str, Any]:
    """It takes more than it may have: of a limit, or, on v2, of a mark above which it is slowed down."""
    config = default_config((os.getuid(), os.getgid()) if ORDINARY else None)
    config["root"]["path"] = rootfs
    config["process"].update(args=["sh", "-c", "head -c 40m /dev/zero | tail"], env=["PATH=/bin"], terminal=False)
    layout = current().cgroups
    v1 = any("memory" in each.controllers for each in layout.v1)
    if not v1 and (
        layout.v2 is None or "memory" not in layout.v2.controllers or (ORDINARY and not layout.v2.delegated)
    ):
        pytest.skip("needs a memory controller that this user may use")
    limits: dict[str, Any] = {"memory": {"limit": (32 if v1 else 64) * MIB, "swap": (32 if v1 else 64) * MIB}}
    config["linux"]["resources"] = limits if v1 else {**limits, "unified": {"memory.high": str(8 * MIB)}}
    config["linux"]["cgroupsPath"] = ""
    return config


@pytest.mark.skipif(ORDINARY and bool(current().cgroups.v1), reason="cgroup v1 gives a user nothing")
def test_a_shortage_of_memory_is_an_event(tmp_path: Path, busybox_rootfs: str) -> None:
    with Container.create("one", short_of_memory(busybox_rootfs), root=str(tmp_path), stdin=DEVNULL) as container:
        events = container.events(interval=0.05)
        assert next(events).kind == "stats", "it watches"
        container.start()
        assert "pressure" in (event.kind for event in events)  # they end with the container
