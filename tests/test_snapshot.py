"""Snapshots: a warmed-up container, and its clones."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from saved import KINDS, Obedient, config_of, python_config

from cycontainer import Container, Snapshot
from cycontainer.errors import ConfigError, ContainerNotRunning
from cycontainer.streams import DEVNULL, PIPE

pytestmark = [pytest.mark.root, pytest.mark.criu]


@pytest.fixture
def top(tmp_path: object) -> str:
    return str(tmp_path)


def spawn(snapshot: Snapshot, top: str, **keywords: object) -> Obedient:
    streams = {"stdin": PIPE, "stdout": PIPE, "stderr": DEVNULL}
    return Obedient(snapshot.spawn(root=f"{top}/states", **streams, **keywords))  # type: ignore[arg-type]  # streams


def test_clones_are_independent(busybox_rootfs: str, top: str) -> None:
    config = config_of(busybox_rootfs, cgroupsPath="/cycontainer/given")
    with Obedient.start("warm", config, f"{top}/states") as warm:
        warm.do("a=1; echo common >/tmp/x")
        with (
            warm.container.snapshot() as snapshot,
            spawn(snapshot, top) as one,
            spawn(snapshot, top, container_id="two") as two,
        ):
            assert [each.do("a=$((a+1)); echo $a") for each in (warm, one, one, two)] == ["2\n", "2\n", "3\n", "2\n"]
            one.do("echo own >/tmp/x; echo $$ >/tmp/pid")
            assert [each.do("cat /tmp/x") for each in (warm, one, two)] == ["common\n", "own\n", "common\n"]
            assert one.container.id.startswith("warm-") and two.container.id == "two"
            for kind in KINDS:
                name = {"network": "net", "mount": "mnt"}.get(kind, kind)
                pids = [each.container.pid for each in (warm, one, two)]
                assert len({os.readlink(f"/proc/{pid}/ns/{name}") for pid in pids}) == 3
            places = [each.container.state()["cgroupPaths"] for each in (warm, one, two)]
            assert len({tuple(sorted(place.items())) for place in places}) == 3
        assert not os.path.exists(snapshot.path)


def test_a_warm_java_goes_on_in_its_clones(top: str) -> None:
    compiler = shutil.which("javac")
    if compiler is None:
        pytest.skip("needs a JDK")
    os.makedirs(f"{top}/classes")
    with open(f"{top}/classes/Count.java", "w") as file:
        file.write(
            "public class Count { public static void main(String[] words) { int n = 0;"
            " for (var in = new java.util.Scanner(System.in); in.hasNextLine(); in.nextLine())"
            ' System.out.println(++n + "\\n."); } }'
        )
    subprocess.run([compiler, "-d", f"{top}/classes", f"{top}/classes/Count.java"], check=True)
    config = python_config(f"{top}/root")
    config["process"]["args"] = [os.path.realpath(compiler).removesuffix("c"), "-cp", "/classes", "Count"]
    for path, source in (("/etc", "/etc"), ("/classes", f"{top}/classes")):  # Debian's has its configuration in /etc
        config["mounts"].append({"destination": path, "type": "bind", "source": source, "options": ["rbind", "ro"]})
    with Obedient.start("warm", config, f"{top}/states") as warm:
        assert warm.do("") == "1\n"
        with warm.container.snapshot() as snapshot, spawn(snapshot, top) as one, spawn(snapshot, top) as two:
            assert [each.do("") for each in (one, one, two, warm)] == ["2\n", "3\n", "2\n", "2\n"]


def test_eight_at_once(busybox_rootfs: str, top: str) -> None:
    with Obedient.start("warm", config_of(busybox_rootfs), f"{top}/states") as warm:
        warm.do("a=1")
        snapshot = warm.container.snapshot(f"{top}/snapshot")
    with ThreadPoolExecutor(8) as pool:
        clones = list(pool.map(lambda _: spawn(snapshot, top), range(8)))
    try:
        assert [clone.do("echo $a") for clone in clones] == ["1\n"] * 8
    finally:
        for clone in clones:
            clone.container.delete(force=True)
    assert sorted(os.listdir(snapshot.path)) == ["bundle", "config.json", "images"]
    assert sorted(os.listdir(f"{top}/states")) == []


def test_a_clone_may_have_a_root_of_its_own(busybox_rootfs: str, top: str) -> None:
    config = config_of(busybox_rootfs)
    config["root"]["readonly"] = False
    subprocess.run(["cp", "-a", busybox_rootfs, f"{top}/copy"], check=True)
    with Obedient.start("warm", config, f"{top}/states") as warm:
        warm.container.snapshot(f"{top}/snapshot")
    with spawn(Snapshot(f"{top}/snapshot"), top, rootfs=f"{top}/copy") as clone:
        clone.do("echo x >/written")
    assert os.path.exists(f"{top}/copy/written") and not os.path.exists(f"{busybox_rootfs}/written")


def test_its_bundle_may_have_any_name(busybox_rootfs: str, top: str) -> None:
    bundle = f"{top}/a\nb\r\u2028c"
    os.mkdir(bundle)
    os.symlink(busybox_rootfs, f"{bundle}/root")
    streams: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": DEVNULL}
    container = Container.create("warm", config_of("root"), root=f"{top}/states", bundle=bundle, **streams)
    with Obedient(container) as warm:
        container.start()
        with warm.container.snapshot() as snapshot, spawn(snapshot, top) as clone:
            assert clone.do("echo here") == "here\n"


def test_it_may_end_the_container_that_it_is_of(busybox_rootfs: str, top: str) -> None:
    with Obedient.start("warm", config_of(busybox_rootfs), f"{top}/states") as warm:
        with warm.container.snapshot(leave_running=False), pytest.raises(ContainerNotRunning):
            warm.container.snapshot(f"{top}/again")
        assert (warm.container.status, os.path.exists(f"{top}/again")) == ("stopped", False)


def test_what_is_no_snapshot_is_told(busybox_rootfs: str, top: str) -> None:
    with pytest.raises(ConfigError, match="has no snapshot: ENOENT"):
        Snapshot(f"{top}/none")
    with Obedient.start("warm", config_of(busybox_rootfs), f"{top}/states") as warm:
        with pytest.raises(ConfigError, match="EEXIST"):
            warm.container.snapshot(top)
        assert isinstance(warm.container, Container) and warm.do("echo here") == "here\n"


@pytest.mark.parametrize("option", ["size=4k", "nr_inodes=2", "nr_inodes=3"])
def test_a_full_disk_is_told_with_the_file_that_has_no_room(busybox_rootfs: str, top: str, option: str) -> None:
    os.mkdir(f"{top}/small")
    subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", f"{top}/small"], check=True)
    try:
        with Obedient.start("warm", config_of(busybox_rootfs), f"{top}/states") as warm:
            with pytest.raises(ConfigError, match=r"path: /.*/small/snapshot/\w.*: ENOSPC"):
                warm.container.snapshot(f"{top}/small/snapshot")
            assert (os.listdir(f"{top}/small"), warm.do("echo here")) == ([], "here\n")
    finally:
        subprocess.run(["umount", f"{top}/small"], check=True)
