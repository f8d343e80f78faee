"""A container's cgroups across a checkpoint: those of every hierarchy, v1 and v2, with their limits."""

from __future__ import annotations

import os
from subprocess import DEVNULL, PIPE
from typing import Any

import pytest
from saved import Obedient, Round, config_of, namespaces

from cycontainer import Container
from cycontainer.errors import ConfigError, CriuError
from cycontainer.host import current

pytestmark = [pytest.mark.root, pytest.mark.criu]

STREAMS: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": DEVNULL}
HIERARCHIES = "grep cgroup /proc/self/mountinfo | cut -d' ' -f 4-6 | sort; head -n 1 /sys/fs/cgroup/pids/cgroup.procs"


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


@pytest.mark.cgroup1  # of v2 criu saves no limits, and the configuration's are there
@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize(("mode", "limit"), [("ignore", "77"), ("soft", "77"), ("full", "50")])
def test_whose_limits_it_has(busybox_rootfs: str, tmp_path: object, mode: str, limit: str, paused: bool) -> None:
    config, root = config_of(busybox_rootfs, resources={"pids": {"limit": 50}}), f"{tmp_path}/states"
    with Obedient.start("one", config, root) as first:
        if paused:
            first.container.pause()
        first.container.checkpoint(f"{tmp_path}/images", manage_cgroups_mode=mode)
    config["linux"]["resources"]["pids"]["limit"] = 77
    with Obedient.restore("two", config, f"{tmp_path}/images", root, manage_cgroups_mode=mode) as second:
        assert (second.do("echo here"), second.container.status) == ("here\n", "running")
        assert set(second.do("cut -d: -f3 /proc/self/cgroup").split()) == {"/"}  # its own namespace
        paths = second.container.state()["cgroupPaths"].values()
        (found,) = [f"{path}/pids.max" for path in paths if os.path.exists(f"{path}/pids.max")]
        with open(found) as file:
            assert file.read().strip() == limit


@pytest.mark.parametrize(
    ("before", "after"), [("disabled", "disabled"), ("cgroupfs", "disabled"), ("disabled", "cgroupfs")]
)
def test_it_may_have_none(busybox_rootfs: str, tmp_path: object, before: str, after: str) -> None:
    config, root = config_of(busybox_rootfs, resources={}), f"{tmp_path}/states"
    look = "cut -d: -f3 /proc/self/cgroup | sort -u; jobs | wc -l"
    first = Container.create("one", config, root=root, cgroup_manager=before, **STREAMS)
    with Obedient(first) as obedient:
        first.start()
        obedient.do("sleep 1000 <&- >&- 2>&- &")
        assert obedient.do(look) == "/\n1\n"
        first.checkpoint(f"{tmp_path}/images")
    second = Container.restore("two", config, f"{tmp_path}/images", root=root, cgroup_manager=after, **STREAMS)
    with Obedient(second) as obedient:
        assert obedient.do(look) == "/\n1\n"
        assert bool(second.state()["cgroupPaths"]) is (after == "cgroupfs")


def with_users(config: dict[str, Any]) -> dict[str, Any]:
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"].update(uidMappings=maps, gidMappings=maps)
    return config


@pytest.mark.cgroup1  # of v2 alone nothing is bound
@pytest.mark.parametrize("users", [False, True])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("cgroupfs", "cgroupfs"),
        ("disabled", "disabled"),
        ("cgroupfs", "disabled"),
        ("disabled", "cgroupfs"),
    ],
)
def test_hierarchies_are_those_of_a_new_container_where_no_namespace_has_a_top_of_its_own(
    busybox_rootfs: str, tmp_path: object, before: str, after: str, users: bool
) -> None:
    config, root = config_of(busybox_rootfs, namespaces=namespaces(("cgroup",)), resources={}), f"{tmp_path}/states"
    if users:
        with_users(config)
    with Obedient(Container.create("old", config, root=root, cgroup_manager=before, **STREAMS)) as saved:
        saved.container.start()
        saved.container.checkpoint(f"{tmp_path}/images")
    again = Container.restore("one", config, f"{tmp_path}/images", root=root, cgroup_manager=after, **STREAMS)
    with Obedient(again) as subject:
        found = subject.do(HIERARCHIES)
    with Obedient(Container.create("one", config, root=root, cgroup_manager=after, **STREAMS)) as new:
        new.container.start()
        assert found == new.do(HIERARCHIES)


@pytest.mark.cgroup1
@pytest.mark.parametrize(("manager", "mode"), [("cgroupfs", "ignore"), ("disabled", "soft")])
def test_cgroups_of_users_of_its_own_may_be_ignored(
    busybox_rootfs: str, tmp_path: object, manager: str, mode: str
) -> None:
    config, root = with_users(config_of(busybox_rootfs, resources={})), f"{tmp_path}/states"
    ignore: dict[str, Any] = {"manage_cgroups_mode": mode}
    with Obedient(Container.create("one", config, root=root, cgroup_manager=manager, **STREAMS)) as first:
        first.container.start()
        first.container.checkpoint(f"{tmp_path}/images", **ignore)
    again = Container.restore(
        "two", config, f"{tmp_path}/images", root=root, cgroup_manager=manager, **STREAMS, **ignore
    )
    with Obedient(again) as second:
        assert second.do(HIERARCHIES).splitlines()[-1] == "1"


@pytest.mark.cgroup1
def test_cgroups_of_users_of_its_own_are_ignored_by_both_or_by_none(busybox_rootfs: str, tmp_path: object) -> None:
    config, root = with_users(config_of(busybox_rootfs)), f"{tmp_path}/states"
    with Obedient.start("one", config, root) as first:
        first.container.checkpoint(f"{tmp_path}/images")
    with pytest.raises(CriuError, match=r"are ignored .* by both, or by none"):
        Obedient.restore("two", config, f"{tmp_path}/images", root, manage_cgroups_mode="ignore")
    assert os.listdir(root) == []


@pytest.mark.parametrize("manager", ["cgroupfs", "disabled"])
def test_a_mode_that_is_none_is_refused(busybox_rootfs: str, tmp_path: object, manager: str) -> None:
    config, root = config_of(busybox_rootfs, resources={}), f"{tmp_path}/states"
    with Obedient(Container.create("one", config, root=root, cgroup_manager=manager, **STREAMS)) as first:
        first.container.start()
        with pytest.raises(ConfigError, match="manage-cgroups-mode: 'none' is none of"):
            first.container.checkpoint(f"{tmp_path}/images", manage_cgroups_mode="none")
        first.container.checkpoint(f"{tmp_path}/images")
    with pytest.raises(ConfigError, match="manage-cgroups-mode: 'none' is none of"):
        Container.restore(
            "two", config, f"{tmp_path}/images", root=root, cgroup_manager=manager, manage_cgroups_mode="none"
        )


def test_strict_takes_no_cgroup_that_exists(busybox_rootfs: str, tmp_path: object) -> None:
    config, root, strict = config_of(busybox_rootfs), f"{tmp_path}/states", {"manage_cgroups_mode": "strict"}
    with Obedient.start("one", config, root) as first:
        first.container.checkpoint(f"{tmp_path}/images", **strict)
    with pytest.raises(CriuError, match="Abort restore of existing cgroups"):
        Obedient.restore("two", config, f"{tmp_path}/images", root, **strict)
    assert os.listdir(root) == []


def is_unified(path: str) -> bool:
    return os.path.exists(f"{path}/cgroup.controllers")
