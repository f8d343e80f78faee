"""Memory that is saved while a container runs on, then only what has changed: it takes a kernel that tracks that."""

from __future__ import annotations

import os
import subprocess

import pytest
from saved import Obedient, config_of, python_config

from cycontainer.errors import ConfigError, HostError

pytestmark = [pytest.mark.root, pytest.mark.criu]

SIZE = 4 << 20


@pytest.fixture
def top(tmp_path: object) -> str:
    return str(tmp_path)


def tracks() -> bool:
    checked = subprocess.run(["criu", "check", "--feature", "mem_dirty_track"], capture_output=True)
    return checked.returncode == 0


def saved(images: str) -> tuple[int, int]:
    """The size of the memory in an image directory, and what it takes on the disk."""
    found = [os.stat(f"{images}/{name}") for name in os.listdir(images) if name.startswith("pages-")]
    return sum(each.st_size for each in found), 512 * sum(each.st_blocks for each in found)


def test_where_the_kernel_tracks_nothing_it_is_refused(busybox_rootfs: str, top: str) -> None:
    if tracks():
        pytest.skip("this kernel tracks memory")
    with Obedient.start("one", config_of(busybox_rootfs), f"{top}/states") as first:
        with pytest.raises(HostError, match="CONFIG_MEM_SOFT_DIRTY"):
            first.container.pre_dump(f"{top}/pre")
        os.mkdir(f"{top}/pre")
        with pytest.raises(HostError, match="CONFIG_MEM_SOFT_DIRTY"):
            first.container.checkpoint(f"{top}/images", parent_path="../pre")
        assert first.do("echo here") == "here\n" and not os.path.exists(f"{top}/images")


def test_only_what_has_changed_is_saved_again(top: str) -> None:
    if not tracks():
        pytest.skip("this kernel does not track memory: CONFIG_MEM_SOFT_DIRTY")
    config, root = python_config(f"{top}/root"), f"{top}/states"
    with Obedient.start("one", config, root) as first:
        first.do(f"a = bytearray(b'x' * {SIZE})")
        first.container.pre_dump(f"{top}/pre-1")
        assert first.do("a[0] = 1; print(a[0])") == "1\n"
        first.container.pre_dump(f"{top}/pre-2", parent_path="../pre-1")
        first.do(f"a[:] = b'y' * {SIZE}")
        before = saved(f"{top}/pre-1")
        assert before[0] > SIZE and saved(f"{top}/pre-2")[0] < SIZE / 4
        first.container.checkpoint(f"{top}/images", parent_path="../pre-2", auto_dedup=True)
        assert saved(f"{top}/pre-1")[1] < before[1] - SIZE / 2  # what it has is saved anew, and taken out there
    with pytest.raises(ConfigError, match="is of a pre-dump"):
        Obedient.restore("two", config, f"{top}/pre-2", root)
    with Obedient.restore("two", config, f"{top}/images", root) as second:
        assert second.do("print(set(a), len(a))") == f"{{121}} {SIZE}\n"
