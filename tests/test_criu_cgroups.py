"""A container's cgroups across a checkpoint: those of every hierarchy, v1 and v2, with their limits."""

from __future__ import annotations

import os

import pytest
from saved import Obedient, Round, config_of, namespaces

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


@pytest.mark.cgroup2
@pytest.mark.parametrize("own", [True, False])
def test_limits_and_their_mount_on_a_v2_machine(busybox_rootfs: str, tmp_path: object, own: bool) -> None:
    if current().cgroups.mode != "v2":
        pytest.skip("needs cgroup v2 alone")
    limits = {"memory": {"limit": 50 << 20}, "pids": {"limit": 20}, "cpu": {"quota": 50000, "period": 100000}}
    config = config_of(busybox_rootfs, namespaces=namespaces(() if own else ("cgroup",)), resources=limits)
    options = ["ro", "nosuid", "nodev", "noexec"]
    config["mounts"].append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options})
    look = "(cd /sys/fs/cgroup$(cut -d: -f3 /proc/$$/cgroup); cat memory.max pids.max cpu.max; head -n 1 cgroup.procs)"
    assert Round(str(tmp_path), config).run(look, look, times=2) == [f"{50 << 20}\n20\n50000 100000\n1\n"] * 3


@pytest.mark.cgroup2
def test_a_v2_cgroup_is_frozen_and_goes_on_as_it_was(busybox_rootfs: str, tmp_path: object) -> None:
    config = config_of(busybox_rootfs, resources={"unified": {"cgroup.max.descendants": "10"}})
    with Obedient.start("one", config, f"{tmp_path}/states") as first:
        first.container.checkpoint(f"{tmp_path}/running", leave_running=True)
        assert first.do("echo here") == "here\n"
        first.container.pause()
        first.container.checkpoint(f"{tmp_path}/paused", leave_running=True)
        assert first.container.status == "paused"
        first.container.resume()
        assert first.do("echo here") == "here\n"


def is_unified(path: str) -> bool:
    return os.path.exists(f"{path}/cgroup.controllers")
