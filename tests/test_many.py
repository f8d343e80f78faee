"""A thousand containers alive at once. What they cost is measured by bench/many.py."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import pytest
from oci_command import COMMAND, PATIENCE
from test_lifecycle import config_of

from cycontainer.lifecycle import Container
from cycontainer.streams import DEVNULL

pytestmark = [pytest.mark.root, pytest.mark.slow]

COUNT = 1000


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


def test_a_thousand_are_alive_at_once_and_listed(busybox_rootfs: str, root: str, containers: list[Container]) -> None:
    config = config_of(busybox_rootfs, "sleep", "1000")
    for number in range(COUNT):
        containers.append(
            Container.create(f"n{number}", config, root=root, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
        )
        containers[-1].start()
    words = [*COMMAND, "--root", root, "list", "--format", "json"]
    found = json.loads(subprocess.run(words, capture_output=True, timeout=PATIENCE, check=True).stdout)
    assert (len(found), {each["status"] for each in found}) == (COUNT, {"running"})
