"""Mounts over the root itself: the program would still see the old one, so they are refused."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from launching import document, launched, plan_of

from cycontainer import ConfigError, Container, LaunchError, Template, run

pytestmark = pytest.mark.root

KINDS: dict[str, dict[str, Any]] = {
    "tmpfs": {"type": "tmpfs", "source": "tmpfs"},
    "copied up": {"type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]},
    "bind": {"type": "bind", "source": "/usr", "options": ["bind"]},
    "recursive bind": {"type": "bind", "source": "/", "options": ["rbind", "rslave"]},
    "proc": {"type": "proc", "source": "proc"},
    "overlay": {"type": "overlay", "source": "overlay", "options": ["lowerdir=/usr:/etc"]},
    "cgroup": {"type": "cgroup", "source": "cgroup"},
    "propagation": {"type": "none", "source": "none", "options": ["rslave"]},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_a_mount_over_the_root_is_refused(kind: str, first: bool, busybox_rootfs: str) -> None:
    config = document(busybox_rootfs)
    index = 0 if first else len(config["mounts"])
    config["mounts"].insert(index, {**KINDS[kind], "destination": "/"})
    with pytest.raises(ConfigError, match=rf"mounts\[{index}\].destination: is the root"):
        plan_of(config)


@pytest.mark.parametrize("path", ["/", "//", "/.", "/..", "/tmp/..", "/tmp/./../../"])
def test_the_root_is_refused_however_it_is_written(path: str) -> None:
    mounts = [{**KINDS["tmpfs"], "destination": path}]
    with pytest.raises(ConfigError, match=r"mounts\[0\].destination: is the root"):
        run(["true"], mounts=mounts)
    with pytest.raises(ConfigError, match=r"mounts\[0\].destination: is the root"), Template(mounts=mounts) as template:
        template.run(["true"])


def test_nothing_is_left_of_a_container_that_is_refused(busybox_rootfs: str, tmp_path: object) -> None:
    config, states = document(busybox_rootfs), f"{tmp_path}/states"
    config["mounts"].append({**KINDS["tmpfs"], "destination": "/"})
    with pytest.raises(ConfigError, match=r"mounts\[\d+\].destination: is the root"):
        Container.create("one", config, root=states)
    assert [name for name in os.listdir(states) if not name.startswith(".")] == []


@pytest.mark.parametrize("text", ["/", "..", "tmp/../../..", "/link/.."])
@pytest.mark.parametrize("kind", ["tmpfs", "bind", "copied up"])
def test_a_link_to_the_root_hides_no_volume(kind: str, text: str, own_rootfs: str) -> None:
    """It would be mounted there, and the program would not see it."""
    os.symlink(text, f"{own_rootfs}/volume")
    os.symlink("/tmp", f"{own_rootfs}/link")
    config = document(own_rootfs)
    config["mounts"].append({**KINDS[kind], "destination": "/volume"})
    with pytest.raises(LaunchError) as failure:
        launched(plan_of(config))
    assert failure.value.errno == errno.EBUSY and failure.value.attempt.startswith("find or make /volume")
