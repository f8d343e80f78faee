"""Containers saved and brought back: they go on where they were, with all that they had."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from glob import glob
from typing import Any

import pytest
from saved import KINDS, Obedient, Round, config_of, namespaces

from cycontainer.errors import CheckpointError, ConfigError, ContainerNotRunning, CriuError
from cycontainer.lifecycle import Container
from cycontainer.streams import DEVNULL, PIPE

pytestmark = [pytest.mark.root, pytest.mark.criu]


@pytest.fixture
def top(tmp_path: object) -> str:
    return str(tmp_path)


def test_it_goes_on_where_it_was_again_and_again(busybox_rootfs: str, top: str) -> None:
    round = Round(top, config_of(busybox_rootfs))
    assert round.run("a=1; echo x >/tmp/x", "a=$((a+1)); echo $a; cat /tmp/x", times=2)[1:] == ["2\nx\n", "3\nx\n"]


def test_an_image_is_restored_many_times(busybox_rootfs: str, top: str) -> None:
    config, root = config_of(busybox_rootfs), f"{top}/states"
    with Obedient.start("first", config, root) as first:
        first.do("a=1")
        first.container.checkpoint(f"{top}/images", leave_running=True)
        assert first.do("a=$((a+1)); echo $a") == "2\n"
        assert first.container.status == "running"
        with (
            Obedient.restore("second", config, f"{top}/images", root) as second,
            Obedient.restore("third", config, f"{top}/images", root) as third,
        ):
            assert [each.do("a=$((a+1)); echo $a") for each in (first, second, third)] == ["3\n", "2\n", "2\n"]


def test_its_state_is_true(busybox_rootfs: str, top: str) -> None:
    config, root = config_of(busybox_rootfs), f"{top}/states"
    with Obedient.start("one", config, root) as first:
        first.container.checkpoint(f"{top}/images")
        assert first.container.status == "stopped"
        with pytest.raises(ContainerNotRunning, match="stopped"):
            first.container.checkpoint(f"{top}/again")
        assert not os.path.exists(f"{top}/again")
    before = datetime.now(UTC).isoformat()
    with Obedient.restore("one", config, f"{top}/images", root) as second:
        state = second.container.state()
        assert (state["status"], state["pid"]) == ("running", second.container.pid)
        assert before < state["created"] < datetime.now(UTC).isoformat()
        with open(f"/proc/{state['pid']}/cgroup") as file:
            assert all(line.rstrip().endswith(("/one", "/")) for line in file)
        assert second.container.pids() == [state["pid"]]
        process = second.container.process
        assert process is not None and process.stdin is not None
        process.stdin.close()
        assert second.container.wait(10) == 0


def test_exec_joins_a_restored_container(busybox_rootfs: str, top: str) -> None:
    config, root = config_of(busybox_rootfs), f"{top}/states"
    with Obedient.start("one", config, root) as first:
        first.container.checkpoint(f"{top}/images")
    with Obedient.restore("one", config, f"{top}/images", root) as second:
        for kind in ("pid", "mnt", "time", "net", "ipc", "uts", "cgroup"):
            with second.container.exec(["readlink", f"/proc/self/ns/{kind}"], stdin=DEVNULL, stdout=PIPE) as process:
                seen = process.communicate()[0].decode().strip()
            assert seen == os.readlink(f"/proc/{second.container.pid}/ns/{kind}")


def test_a_paused_container_is_saved_and_stays_paused(busybox_rootfs: str, top: str) -> None:
    config, root = config_of(busybox_rootfs), f"{top}/states"
    with Obedient.start("one", config, root) as first:
        first.container.pause()
        first.container.checkpoint(f"{top}/images", leave_running=True)
        assert first.container.status == "paused"
        first.container.resume()
        assert first.do("echo here") == "here\n"
        first.container.pause()
        first.container.checkpoint(f"{top}/images-2")
        assert first.container.status == "stopped"


def test_processes_that_came_in_by_exec_are_named(busybox_rootfs: str, top: str) -> None:
    config, root = config_of(busybox_rootfs), f"{top}/states"
    with (
        Obedient.start("one", config, root) as first,
        first.container.exec(["sleep", "100"], stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL) as process,
    ):
        with pytest.raises(CheckpointError, match=rf"{process.pid} \(sleep 100\)"):
            first.container.checkpoint(f"{top}/images")
        assert not os.path.exists(f"{top}/images")
        assert first.do("echo here") == "here\n"
        first.container.checkpoint(f"{top}/images", without_exec=True, leave_running=True)
        assert process.poll() is None
        process.kill()


def test_a_process_that_came_in_by_exec_may_be_lost(busybox_rootfs: str, top: str) -> None:
    config, root = config_of(busybox_rootfs), f"{top}/states"
    with Obedient.start("one", config, root) as first:
        process = first.container.exec(["sleep", "100"], stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
        first.container.checkpoint(f"{top}/images", without_exec=True)
        assert (process.poll(), first.container.status) == (-9, "stopped")
        process.close()
    with Obedient.restore("two", config, f"{top}/images", root) as second:
        assert second.container.pids() == [second.container.pid]


def test_processes_that_came_in_by_exec_are_named_without_a_cgroup(busybox_rootfs: str, top: str) -> None:
    config = config_of(busybox_rootfs, resources={})
    streams: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": DEVNULL}
    container = Container.create("one", config, root=f"{top}/states", cgroup_manager="disabled", **streams)
    with Obedient(container) as first:
        container.start()
        first.do("sleep 1000 <&- >&- 2>&- &")  # a descendant
        with container.exec(["sleep", "100"], stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL) as process:
            with pytest.raises(CheckpointError, match=rf"would not be saved: {process.pid} \(sleep 100\);"):
                container.checkpoint(f"{top}/images")
            process.kill()
        container.checkpoint(f"{top}/images")
    streams["cgroup_manager"] = "disabled"
    with Obedient(Container.restore("two", config, f"{top}/images", root=f"{top}/states", **streams)) as second:
        assert second.do("echo here") == "here\n"


# --- what it has from outside


@pytest.fixture
def volume(top: str) -> Iterator[str]:
    """A directory with a file, and a file system mounted below it."""
    os.makedirs(f"{top}/volume/below")
    with open(f"{top}/volume/file", "w") as file:
        file.write("outside\n")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", f"{top}/volume/below"], check=True)
    with open(f"{top}/volume/below/deep", "w") as file:
        file.write("deep\n")
    yield f"{top}/volume"
    subprocess.run(["umount", f"{top}/volume/below"], check=True)


def test_bind_mounts_come_from_outside(busybox_rootfs: str, top: str, volume: str) -> None:
    config = config_of(busybox_rootfs)
    config["mounts"] += [
        {"destination": "/tmp/volume", "type": "bind", "source": volume, "options": ["rbind"]},
        {"destination": "/tmp/file", "type": "bind", "source": f"{volume}/file", "options": ["bind", "ro"]},
        {"destination": "/tmp/volume/own", "type": "tmpfs", "source": "tmpfs", "options": []},
    ]
    look = "cat /tmp/volume/below/deep /tmp/file /tmp/volume/own/x; cat <&5; echo x >/tmp/file || echo refused"
    said = Round(top, config).run("echo own >/tmp/volume/own/x; exec 5</tmp/volume/file", look, times=2)
    assert said[1:] == ["deep\noutside\nown\noutside\nrefused\n", "deep\noutside\nown\nrefused\n"]


def test_a_link_below_a_volume_leads_nowhere(busybox_rootfs: str, top: str, volume: str) -> None:
    config = config_of(busybox_rootfs)
    config["mounts"].append({"destination": "/tmp/x", "type": "bind", "source": volume, "options": ["rbind"]})
    with Obedient.start("one", config, f"{top}/states") as first:
        first.container.checkpoint(f"{top}/images")
    subprocess.run(["umount", f"{volume}/below"], check=True)
    os.rmdir(f"{volume}/below")
    os.symlink("/etc", f"{volume}/below")  # what a container could do that has the volume, too
    with pytest.raises(ConfigError, match=r"has a mount of the host at /tmp/x/below, and .*/volume/below is none here"):
        Obedient.restore("two", config, f"{top}/images", f"{top}/states")
    os.unlink(f"{volume}/below")
    os.mkdir(f"{volume}/below")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", f"{volume}/below"], check=True)
    assert os.listdir(f"{top}/states") == []


@pytest.mark.slow
def test_a_volume_may_be_elsewhere_on_another_machine(busybox_rootfs: str, top: str) -> None:
    config, root = config_of(busybox_rootfs), f"{top}/states"
    for name in ("here", "there"):
        os.mkdir(f"{top}/{name}")
        with open(f"{top}/{name}/file", "w") as file:
            file.write(f"{name}\n")
    mount = {"destination": "/tmp/data", "type": "bind", "source": f"{top}/here", "options": ["bind"]}
    config["mounts"].append(mount)
    with Obedient.start("one", config, root) as first:
        assert first.do("cat /tmp/data/file") == "here\n"
        first.container.checkpoint(f"{top}/images")
    mount["source"] = f"{top}/there"
    with Obedient.restore("one", config, f"{top}/images", root) as second:
        assert second.do("cat /tmp/data/file") == "there\n"


def test_mount_points_are_made_in_a_fresh_root(busybox_rootfs: str, top: str) -> None:
    roots = [f"{top}/root-{number}" for number in range(2)]
    for each in roots:
        subprocess.run(["cp", "-a", busybox_rootfs, each], check=True)
        os.rmdir(f"{each}/tmp")
    config = config_of(roots[0])
    os.symlink(top, f"{top}/link")
    volume = {"destination": "/a/b/c", "type": "bind", "source": f"{top}/link", "options": ["bind"]}
    config["mounts"].pop()  # its /tmp
    config["mounts"] += [volume, {"destination": "/d", "type": "tmpfs", "source": "tmpfs", "options": []}]
    with Obedient.start("one", config, f"{top}/states") as first:
        first.do("echo x >/d/x")
        first.container.checkpoint(f"{top}/images")
    config["root"]["path"] = roots[1]
    with Obedient.restore("one", config, f"{top}/images", f"{top}/states") as second:
        assert second.do("cat /d/x; ls /a/b/c/root-1 | head -n 1") == "x\na\n"


@pytest.mark.slow
def test_masked_and_read_only_paths_stay_so(busybox_rootfs: str, top: str) -> None:
    look = "cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l; grep -c ' /proc/sys .*ro,' /proc/mounts"
    assert Round(top, config_of(busybox_rootfs)).run(look, look) == ["0\n0\n1\n"] * 2


def test_a_file_of_the_host_as_output_goes_on(busybox_rootfs: str, top: str) -> None:
    count = "i=0; while read line; do i=$((i+1)); echo $i; done"
    config, root, path = config_of(busybox_rootfs, "sh", "-c", count), f"{top}/states", f"{top}/out"
    reader, writer = os.pipe()
    os.write(writer, b"a\nb\n")
    with (
        open(path, "ab") as output,
        Container.create("one", config, root=root, stdin=reader, stdout=output, stderr=DEVNULL) as first,
    ):
        first.start()
        wait_for_size(path, 4)
        first.checkpoint(f"{top}/images")
    with (
        open(path, "ab") as output,
        Container.restore(
            "two", config, f"{top}/images", root=root, stdin=reader, stdout=output, stderr=DEVNULL
        ) as second,
    ):
        os.write(writer, b"c\n")
        os.close(writer)
        assert second.wait(10) == 0
    os.close(reader)
    with open(path) as file:
        assert file.read() == "1\n2\n3\n"


def wait_for_size(path: str, size: int) -> None:
    """Until a file has grown so large."""
    while os.path.getsize(path) < size:
        os.sched_yield()


# --- namespaces


@pytest.fixture
def holder() -> Iterator[int]:
    """A process in namespaces of its own, whose loopback is up."""
    script = "hostname joined; ip link set lo up; echo; exec sleep 1000"
    process = subprocess.Popen(["unshare", "--net", "--ipc", "--uts", "sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    process.kill()
    process.communicate()


ALONE = [pytest.param((kind,), marks=pytest.mark.slow) for kind in ("network", "ipc", "uts")]


@pytest.mark.parametrize("kinds", [("network", "ipc", "uts"), *ALONE])
def test_joined_namespaces_are_joined_again(busybox_rootfs: str, top: str, holder: int, kinds: tuple[str, ...]) -> None:
    names = {"network": "net"}
    paths = {kind: f"/proc/{holder}/ns/{names.get(kind, kind)}" for kind in kinds}
    config = config_of(busybox_rootfs, namespaces=namespaces(**paths))
    look = "; ".join(f"readlink /proc/self/ns/{names.get(kind, kind)}" for kind in kinds)
    wanted = "".join(f"{os.readlink(path)}\n" for path in paths.values())
    assert Round(top, config).run(look, look) == [wanted] * 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "cgroup"])
def test_what_it_shares_with_the_host_it_shares_again(busybox_rootfs: str, top: str, kind: str) -> None:
    config = config_of(busybox_rootfs, namespaces=namespaces((kind,)))
    name = {"network": "net"}.get(kind, kind)
    look = f"readlink /proc/self/ns/{name}"
    assert Round(top, config).run(look, look) == [f"{os.readlink(f'/proc/self/ns/{name}')}\n"] * 2


def test_a_namespace_that_criu_cannot_join_is_refused(busybox_rootfs: str, top: str, holder: int) -> None:
    config = config_of(busybox_rootfs, namespaces=namespaces(cgroup=f"/proc/{holder}/ns/cgroup"))
    with Obedient.start("one", config, f"{top}/states") as first:
        with pytest.raises(ConfigError, match="criu cannot restore into a cgroup namespace"):
            first.container.checkpoint(f"{top}/images")
        assert first.do("echo here") == "here\n"


def test_a_user_namespace(busybox_rootfs: str, top: str) -> None:
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    kinds = [*namespaces(), {"type": "user"}]
    config = config_of(busybox_rootfs, namespaces=kinds, uidMappings=maps, gidMappings=maps)
    look = "id -u; touch /tmp/x; stat -c %u /tmp/x; tail -n 1 /proc/self/uid_map | tr -s ' '"
    assert Round(top, config).run(look, look, times=2) == ["0\n0\n 0 100000 65536\n"] * 3
    assert not [path for path in glob(f"{top}/images-*/*.img") if os.stat(path).st_mode & 0o007]


@pytest.mark.slow
def test_a_time_namespace(busybox_rootfs: str, top: str) -> None:
    kinds = [*namespaces(), {"type": "time"}]
    config = config_of(busybox_rootfs, namespaces=kinds, timeOffsets={"boottime": {"secs": 1_000_000}})
    look = "cut -d. -f1 /proc/uptime"
    times = [int(each) for each in Round(top, config).run(look, look)]
    assert times == sorted(times) and times[0] > 1_000_000 and times[-1] - times[0] < 100


@pytest.mark.parametrize("own", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.cgroup1
def test_cgroups_with_limits_and_their_mounts(busybox_rootfs: str, top: str, own: bool) -> None:
    kinds = namespaces(() if own else ("cgroup",))
    config = config_of(busybox_rootfs, namespaces=kinds, resources={"memory": {"limit": 50 << 20}})
    options = ["ro", "nosuid", "nodev", "noexec"]
    config["mounts"].append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options})
    look = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes; cat /sys/fs/cgroup/pids/cgroup.procs | head -n 1"
    assert Round(top, config).run(look, look) == [f"{50 << 20}\n1\n"] * 2


# --- what its processes have


CONNECT = (
    "mkfifo /tmp/in /tmp/ready; nc -l -p 999 -e sh -c 'echo >/tmp/ready; exec cat' & "
    "until nc 127.0.0.1 999 </tmp/in >/tmp/out; do :; done & exec 9>/tmp/in; read x </tmp/ready"
)


@pytest.fixture(params=["iptables", "nftables"])
def lock(request: pytest.FixtureRequest, top: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The lock that is taken by itself: nftables where there is no iptables-restore."""
    if request.param == "iptables" and shutil.which("iptables-restore") is None:
        pytest.skip("needs iptables")
    if request.param == "nftables":
        os.mkdir(f"{top}/bin")
        for name in ("criu", "tar", "gzip"):  # all that criu runs then
            os.symlink(str(shutil.which(name)), f"{top}/bin/{name}")
        monkeypatch.setenv("PATH", f"{top}/bin")
    return str(request.param)


def test_established_connections(busybox_rootfs: str, top: str, lock: str) -> None:
    say = 'echo line >&9; until [ "$(grep -c line /tmp/out)" -gt ${n:-0} ]; do :; done; n=$((n+1)); echo $n'
    config = config_of(busybox_rootfs)
    options = {"tcp_established": True}
    said = Round(top, config).run(f"{CONNECT}; {say}", say, times=2, saving=options, restoring=options)
    assert said == ["1\n", "2\n", "3\n"]
    with open(f"{top}/images-1/cycontainer.json") as file:
        assert json.load(file)["network_lock"] == lock


def test_what_needs_an_option_names_it_and_the_container_runs_on(busybox_rootfs: str, top: str) -> None:
    config = config_of(busybox_rootfs)
    with Obedient.start("one", config, f"{top}/states") as first:
        first.do(CONNECT)
        with pytest.raises(CriuError, match="--tcp-established") as failure:
            first.container.checkpoint(f"{top}/images")
        assert failure.value.log == f"{top}/images/dump.log"
        assert os.listdir(f"{top}/images") == ["dump.log"]
        assert (first.do("echo here"), first.container.status) == ("here\n", "running")


def test_hooks_are_run_as_for_a_new_container(busybox_rootfs: str, top: str) -> None:
    with open(f"{top}/hook", "w") as file:
        file.write(f'#!/bin/sh\nread state\necho $1 $(echo "$state" | grep -o \'"id":"[^"]*"\') >>{top}/said\n')
    os.chmod(f"{top}/hook", 0o755)
    config = config_of(busybox_rootfs)
    kinds = ("prestart", "createRuntime", "poststop")
    config["hooks"] = {kind: [{"path": f"{top}/hook", "args": ["hook", kind]}] for kind in kinds}
    Round(top, config).run("true", "true")
    with open(f"{top}/said") as file:
        assert file.read() == "".join(f'{kind} "id":"{name}"\n' for name in ("first", "next-0") for kind in kinds)


def test_a_terminal_is_handed_over(busybox_rootfs: str, top: str) -> None:
    config, root = config_of(busybox_rootfs, "sh", "-c", "stty -echo; while read a; do echo =$a; done"), f"{top}/states"
    config["process"]["terminal"] = True
    container = Container.create("zero", config, root=root)
    try:
        container.start()
        for number in range(2):
            assert container.process is not None
            os.write(container.process.terminal, f"line {number}\n".encode())
            assert f"=line {number}\r\n".encode() in read_until(container.process.terminal, b"=line %d" % number)
            container.checkpoint(f"{top}/images-{number}")
            container.delete()
            container = Container.restore(f"next-{number}", config, f"{top}/images-{number}", root=root)
    finally:
        container.delete(force=True)


def read_until(fd: int, text: bytes) -> bytes:
    found = b""
    while text not in found or not found.endswith(b"\n"):
        found += os.read(fd, 1000)
    return found


@pytest.mark.slow
def test_every_namespace_is_its_own(busybox_rootfs: str, top: str) -> None:
    config, root = config_of(busybox_rootfs), f"{top}/states"
    with Obedient.start("one", config, root) as first:
        first.container.checkpoint(f"{top}/images", leave_running=True)
        with Obedient.restore("two", config, f"{top}/images", root) as second:
            for kind in KINDS:
                name = {"network": "net", "mount": "mnt"}.get(kind, kind)
                places = [f"/proc/{pid}/ns/{name}" for pid in ("self", first.container.pid, second.container.pid)]
                assert len({os.readlink(place) for place in places}) == 3
