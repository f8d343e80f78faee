"""A thousand containers alive at once: the next costs what the first did, and a list of all is there at once."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from oci_command import COMMAND, PATIENCE
from test_lifecycle import config_of

from cycontainer.lifecycle import Container
from cycontainer.streams import DEVNULL

pytestmark = [pytest.mark.root, pytest.mark.slow]

COUNT, FEW = 1000, 25
MOST_SECONDS = 0.5  # of a list


@pytest.fixture
def containers() -> Iterator[list[Container]]:
    made: list[Container] = []
    yield made
    for container in made:
        container.delete(force=True)


def seconds_of_a_life(rootfs: str, root: str, made: list[Container]) -> float:
    """Make a container and let it run; what that took."""
    before = time.perf_counter()
    streams = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL}
    config = config_of(rootfs, "sleep", "1000")
    made.append(Container.create(f"n{len(made)}", config, root=root, **streams))  # type: ignore[arg-type]  # streams
    made[-1].start()
    took = time.perf_counter() - before
    process = made[-1].process
    assert process is not None
    process.close()  # its descriptors: a thousand are more than a process may have
    made[-1].process = None
    return took


def test_a_thousand_are_alive_at_once(busybox_rootfs: str, tmp_path: Path, containers: list[Container]) -> None:
    root = f"{tmp_path}/states"
    took = [seconds_of_a_life(busybox_rootfs, root, containers) for _ in range(COUNT)]
    listed = []
    for _ in range(5):
        before = time.perf_counter()
        done = subprocess.run(
            [*COMMAND, "--root", root, "list", "--format", "json"], capture_output=True, timeout=PATIENCE, check=True
        )
        listed.append(time.perf_counter() - before)
    found = json.loads(done.stdout)
    assert (len(found), {each["status"] for each in found}) == (COUNT, {"running"})
    first, last = min(took[:FEW]), min(took[-FEW:])  # the least of a few: other work only ever adds
    print(f"first {first * 1e3:.2f} ms, last {last * 1e3:.2f} ms, list {min(listed) * 1e3:.0f} ms")
    assert last < 1.3 * first + 0.001
    assert min(listed) < MOST_SECONDS
