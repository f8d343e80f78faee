"""The global option --rootless: whether a container may be without the cgroup that it could not get."""

from __future__ import annotations

import os
import subprocess
import tempfile

import pytest
from oci_command import COMMAND, PATIENCE, Done, Oci
from ordinary import OrdinaryUser
from test_rootless_life import config_for

from cycontainer.json_text import to_json
from cycontainer.lifecycle import Container

READ_ONLY = """
for place in $(grep -E '^[^ ]+ [^ ]+ cgroup2? ' /proc/mounts | cut -d' ' -f2); do
    mount -o remount,bind,ro $place || exit 99
done
exec "$@"
"""
NEEDS = "rootless needs no limits + no cgrouppath when no permission is granted for cgroups"


def where_cgroups_are_read_only(oci: Oci, *words: str) -> Done:
    """The command in a mount namespace in which nobody can make a cgroup."""
    command = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", *COMMAND, "--root", oci.states, *words]
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=oci.bundle, timeout=PATIENCE
    )


@pytest.mark.root
def test_a_root_that_may_make_no_cgroup_can_say_so(oci: Oci) -> None:
    oci.write("sh", "-c", "exit 3")
    done = where_cgroups_are_read_only(oci, "run", "one")
    assert done.returncode == 1 and "read-only file system" in done.stderr
    done = where_cgroups_are_read_only(oci, "--rootless=true", "run", "one")
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.root
def test_what_is_limited_needs_its_cgroup(oci: Oci) -> None:
    config = oci.config("true")
    config["linux"]["resources"] = {"pids": {"limit": 10}}
    oci.write(config=config)
    done = where_cgroups_are_read_only(oci, "--rootless", "true", "run", "one")
    assert done.returncode == 1 and NEEDS in done.stderr
    config["linux"] = {**config["linux"], "resources": {}, "cgroupsPath": "/cycontainer/asked"}
    oci.write(config=config)
    done = where_cgroups_are_read_only(oci, "--rootless", "true", "run", "one")
    assert done.returncode == 1 and "read-only file system" in done.stderr


@pytest.mark.root
def test_a_root_that_may_has_its_cgroup_all_the_same(oci: Oci) -> None:
    oci.leaving("--rootless=true", "create", "one")
    assert Container.load("one", root=oci.states).state()["cgroupPaths"]
    done = oci("--rootless=perhaps", "list")
    assert done.returncode == 1 and "invalid rootless option 'perhaps'" in done.stderr


def both(rootfs: str) -> list[tuple[int, str]]:
    with tempfile.TemporaryDirectory() as directory:
        with open(f"{directory}/config.json", "w") as file:
            file.write(to_json(config_for(rootfs, (os.getuid(), os.getgid()), "sh", "-c", "exit 3")))
        found = []
        for word in ("auto", "false"):
            command = [*COMMAND, "--root", f"{directory}/states", f"--rootless={word}", "run", "-b", directory, "one"]
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)
            found.append((done.returncode, done.stderr))
    return found


def test_an_ordinary_user_without_a_cgroup_can_insist_on_one(busybox_rootfs: str, ordinary_user: OrdinaryUser) -> None:
    (status, said), (insisting, refusal) = ordinary_user(both, busybox_rootfs)
    assert (status, said) == (3, "")
    assert insisting == 1 and "permission denied" in refusal


@pytest.mark.root
def test_with_a_disabled_manager_there_is_no_cgroup_and_no_limit(oci: Oci) -> None:
    config = oci.config("sh", "-c", "exit 3")
    config["linux"]["resources"] = {}
    oci.write(config=config)
    oci.leaving("--cgroup-manager=disabled", "create", "one")
    assert Container.load("one", root=oci.states).state()["cgroupPaths"] == {}
    assert oci("--cgroup-manager", "disabled", "run", "two").returncode == 3
    config["linux"]["resources"] = {"pids": {"limit": 10}}
    oci.write(config=config)
    done = oci("--cgroup-manager=disabled", "run", "three")
    assert done.returncode == 1 and "linux.resources" in done.stderr
