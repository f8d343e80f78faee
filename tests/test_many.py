"""A thousand containers alive at once: the next costs what the first did, and a list of all is there at once."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator

import pytest
from oci_command import COMMAND, PATIENCE
from test_lifecycle import config_of

from cycontainer.lifecycle import Container
from cycontainer.streams import DEVNULL

pytestmark = [pytest.mark.root, pytest.mark.slow]

COUNT, FEW = 1000, 25
MOST_SECONDS = 0.5  # of a list


@pytest.fixture
def root() -> Iterator[str]:
    """On a file system in memory, as /run is: elsewhere each state waits for a disk."""
    path = tempfile.mkdtemp(prefix="many-", dir="/run")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def containers(root: str) -> Iterator[list[Container]]:
    """With as many descriptors as this process may have: each container that it made has a pidfd."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    made: list[Container] = []
    yield made
    for container in made:
        container.delete(force=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def seconds_of_a_life(rootfs: str, root: str, made: list[Container]) -> float:
    """Make a container and let it run; what that took."""
    before = time.perf_counter()
    streams = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL}
    config = config_of(rootfs, "sleep", "1000")
    made.append(Container.create(f"n{len(made)}", config, root=root, **streams))  # type: ignore[arg-type]  # streams
    made[-1].start()
    return time.perf_counter() - before


def test_a_thousand_are_alive_at_once(busybox_rootfs: str, root: str, containers: list[Container]) -> None:
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
