"""The host's null device: a container gets its own in its place, or one that it cannot change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cycontainer import Pool, Template, run
from cycontainer.errors import LaunchError
from cycontainer.lifecycle import Container
from cycontainer.spec import default_config
from cycontainer.streams import DEVNULL, PIPE

pytestmark = pytest.mark.root

# whether descriptor 0 is the null device that stands at /dev/null here, and the host's is another
SAME = ["sh", "-c", "stat -L -c %d:%i /proc/self/fd/0 /dev/null"]


def by_run(rootfs: str, args: list[str], states: str) -> Any:
    return run(args, rootfs=rootfs).stdout


def by_template(rootfs: str, args: list[str], states: str) -> Any:
    with Template(rootfs=rootfs) as template:
        return template.run(args).stdout


def by_pool(rootfs: str, args: list[str], states: str) -> Any:
    with Pool(1, rootfs=rootfs) as pool:
        return pool.run(args).stdout


def config_of(rootfs: str, *args: str) -> dict[str, Any]:
    config = default_config()
    config["root"]["path"], config["process"]["args"] = rootfs, list(args)
    config["process"]["terminal"], config["process"]["env"] = False, ["PATH=/bin"]
    return config


def by_create(rootfs: str, args: list[str], states: str) -> Any:
    with Container.create("one", config_of(rootfs, *args), root=states, stdin=DEVNULL, stdout=PIPE) as one:
        one.start()
        assert one.process is not None
        return one.process.communicate()[0]


def by_exec(rootfs: str, args: list[str], states: str) -> Any:
    config = config_of(rootfs, "sleep", "1000")
    with Container.create("one", config, root=states, stdin=DEVNULL) as one:
        one.start()
        with one.exec(args, stdin=DEVNULL, stdout=PIPE) as process:
            return process.communicate()[0]


@pytest.mark.parametrize("way", [by_run, by_template, by_pool, by_create, by_exec])
def test_what_is_the_null_device_is_the_containers_own(
    busybox_rootfs: str, way: Callable[..., Any], tmp_path: Path
) -> None:
    first, second = way(busybox_rootfs, SAME, f"{tmp_path}/states").split()
    host = os.stat("/dev/null")
    assert first == second != f"{host.st_dev}:{host.st_ino}".encode()


@pytest.mark.parametrize("user_namespace", [False, True])
def test_by_no_null_device_is_the_hosts_changed(busybox_rootfs: str, user_namespace: bool) -> None:
    config = default_config()
    if user_namespace:  # the container's root is the host's, who owns it
        config["linux"]["namespaces"].append({"type": "user"})
        config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 0, "size": 1000}]
        config["linux"]["gidMappings"] = config["linux"]["uidMappings"]
    before = os.stat("/dev/null")
    script = (
        "for file in /dev/null /proc/keys /proc/timer_list /proc/self/fd/0; do chmod 600 $file; done; echo > /proc/keys"
    )
    result = run(["sh", "-c", script], rootfs=busybox_rootfs, config=config, text=True)
    after = os.stat("/dev/null")
    assert (before.st_mode, before.st_ctime_ns) == (after.st_mode, after.st_ctime_ns)
    assert isinstance(result.stderr, str)
    assert result.stderr.count("Read-only file system") == (4 if user_namespace else 2)


def test_without_a_null_device_in_the_container_the_hosts_stays_outside(busybox_rootfs: str, tmp_path: Path) -> None:
    config = config_of(busybox_rootfs, "sh", "-c", "rm /dev/null; mkfifo /dev/null; echo; exec sleep 1000")
    with Container.create("one", config, root=f"{tmp_path}/states", stdin=DEVNULL, stdout=PIPE) as one:
        one.start()
        assert one.process is not None and one.process.stdout is not None
        one.process.stdout.readline()
        with pytest.raises(LaunchError, match="/dev/null"):
            one.exec(["true"], stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
        with one.exec(["true"], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
            assert process.wait(20) == 0
