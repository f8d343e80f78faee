"""Shortage of memory as an event: v1's pressure levels, v2's triggers of PSI."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest

from cycontainer.cgroup_events import _sources, events
from cycontainer.cgroups import Cgroup
from cycontainer.errors import CgroupError
from cycontainer.host import current
from cycontainer.lifecycle import Container
from cycontainer.process_stat import start_time_of
from cycontainer.spec import default_config
from cycontainer.state_text import CgroupPlace, State
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


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


class Fake:
    """A cgroup of v2, as far as its events go: a directory of files."""

    def __init__(self, directory: Path) -> None:
        self.paths = (str(directory),)
        (directory / "memory.events").write_text("low 0\noom_kill 0\n")
        (directory / "memory.pressure").write_text("")


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOENT])
def test_a_kernel_that_measures_no_pressure_tells_the_rest(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def without_pressure(path: str, flags: int) -> int:
        if path.endswith("/memory.pressure"):  # as with psi=0
            raise OSError(code, os.strerror(code), path)
        return opened(path, flags)

    monkeypatch.setattr(os, "open", without_pressure)
    fake = cast("Cgroup", Fake(tmp_path))
    found = list(_sources(fake))
    assert [source.kind for source in found] == ["oom"]
    for source in found:
        source.close()


def test_events_that_cannot_be_had_leave_no_descriptor(tmp_path: Path) -> None:
    place = CgroupPlace(mount=str(tmp_path), controllers=("memory",), path="/box")
    state = State(id="box", bundle="/", version="1.2.0", created="", owner=0, cgroups=(place,))
    with subprocess.Popen(["sleep", "100"]) as process:
        state = state.replace(pid=process.pid, start_time=start_time_of(process.pid))
        before = descriptors()
        with pytest.raises(CgroupError):  # that is no cgroup file system
            next(events(state, None))
        assert descriptors() == before
        process.kill()
