"""Limits as an ordinary user, in what systemd has delegated: cgroup v2."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from in_cgroup import plan_of

from cycontainer import run
from cycontainer.cgroup_runs import run_path, run_paths
from cycontainer.cgroups import Cgroup
from cycontainer.config import Memory, Resources
from cycontainer.host import Hierarchy, current
from cycontainer.lifecycle import Container
from cycontainer.spec import default_config
from cycontainer.streams import DEVNULL

pytestmark = [pytest.mark.cgroup2]


def delegated() -> Hierarchy:
    v2 = current().cgroups.v2
    if v2 is None or not v2.delegated:
        pytest.skip("needs an ordinary user below a systemd that delegates to it")
    return v2


def test_a_cgroup_is_made_beside_the_caller_s_own() -> None:
    v2 = delegated()
    plan = plan_of(Resources(pids=7, memory=Memory(limit=64 << 20)))
    paths = run_paths(plan, run_path(), current().cgroups)
    assert paths[0].startswith(v2.own.rpartition("/")[0] + "/cycontainer-run-")
    cgroup = Cgroup.create(plan, paths)
    try:
        assert (cgroup.read("pids.max"), cgroup.read("memory.max")) == (b"7\n", b"67108864\n")
    finally:
        cgroup.destroy()


def test_a_program_is_born_in_it_and_held_by_its_limits() -> None:
    delegated()
    result = run(["sh", "-c", "cat /proc/self/cgroup; (true) & (true) & (true) & wait"], pids=3)
    assert result.stdout == b"0::/\n"
    assert b"fork" in result.stderr


def ranges() -> list[list[dict[str, int]]]:
    """uidMappings and gidMappings: root is the caller, and ten more ids are its subordinate ones."""
    found = []
    for name, own in (("subuid", os.getuid()), ("subgid", os.getgid())):
        user = pwd.getpwuid(os.getuid()).pw_name
        with open(f"/etc/{name}") as file:
            first = next((int(line.split(":")[1]) for line in file if line.startswith(f"{user}:")), 0)
        if not first or current().id_mappers is None:
            pytest.skip("needs subordinate ids, and newuidmap")
        found.append([{"containerID": 0, "hostID": own, "size": 1}, {"containerID": 1, "hostID": first, "size": 10}])
    return found


def test_what_a_container_s_users_have_made_in_its_cgroup_is_removed_with_it(
    tmp_path: Path, busybox_rootfs: str
) -> None:
    delegated()
    config = default_config((os.getuid(), os.getgid()))
    config["root"]["path"] = busybox_rootfs
    config["process"].update(args=["sleep", "1000"], env=["PATH=/bin"], terminal=False)
    config["linux"]["uidMappings"], config["linux"]["gidMappings"] = ranges()
    config["mounts"].append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]})
    with Container.create("one", config, root=str(tmp_path), stdin=DEVNULL) as container:
        (path,) = container.state()["cgroupPaths"].values()
        container.start()
        with container.exec(["mkdir", "-m", "777", "/sys/fs/cgroup/all"]) as process:
            assert process.wait(20) == 0
        with container.exec(["mkdir", "-p", "/sys/fs/cgroup/all/theirs/own"], user=(5, 5)) as process:
            assert process.wait(20) == 0
        assert os.stat(f"{path}/all/theirs").st_uid != os.getuid()
    assert not os.path.exists(path)
