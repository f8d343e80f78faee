"""A container's cgroups across a checkpoint: those of every hierarchy, v1 and v2, with their limits."""

from __future__ import annotations

import os

import pytest
from saved import Obedient, config_of

from cycontainer.host import current

pytestmark = [pytest.mark.root, pytest.mark.criu]


def test_a_cgroup_in_the_unified_hierarchy_is_entered_again(busybox_rootfs: str, tmp_path: object) -> None:
    if current().cgroups.v2 is None:
        pytest.skip("needs a cgroup2 mount")
    config = config_of(busybox_rootfs, resources={"unified": {"cgroup.max.descendants": "10"}})
    root = f"{tmp_path}/states"
    with Obedient.start("one", config, root) as first:
        first.container.checkpoint(f"{tmp_path}/images")
    with Obedient.restore("two", config, f"{tmp_path}/images", root) as second:
        assert second.do("echo here") == "here\n"
        (path,) = [path for path in second.container.state()["cgroupPaths"].values() if is_unified(path)]
        for name, wanted in (("procs", str(second.container.pid)), ("max.descendants", "10")):
            with open(f"{path}/cgroup.{name}") as file:
                assert file.read().split() == [wanted]


def is_unified(path: str) -> bool:
    return os.path.exists(f"{path}/cgroup.controllers")
