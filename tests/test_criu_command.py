"""checkpoint and restore as verbs of the command, as engines call them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from glob import glob

import pytest
from oci_command import COMMAND, Oci, gone

pytestmark = [pytest.mark.root, pytest.mark.criu]

COUNT = "i=0; while echo $i >/tmp/n; do i=$((i+1)); done"


@pytest.fixture
def oci(tmp_path: object, busybox_rootfs: str) -> Iterator[Oci]:
    command = Oci(str(tmp_path), busybox_rootfs)
    yield command
    command.clean()


def count_in(oci: Oci) -> None:
    """A program that counts in a tmpfs."""
    config = oci.config("sh", "-c", COUNT)
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": []})
    oci.write(config=config)


def counted(oci: Oci, container_id: str = "one") -> int:
    """Where it is."""
    while not (text := oci.done("exec", container_id, "cat", "/tmp/n").strip()):
        continue
    return int(text)


def restore(oci: Oci, *words: str) -> None:
    oci.leaving("restore", "--detach", *words)


def test_a_container_goes_on_under_its_id(oci: Oci) -> None:
    count_in(oci)
    pid = oci.start()
    pidfd, before = os.pidfd_open(pid), counted(oci)
    oci.done("checkpoint", "one")
    gone(pidfd)
    assert "does not exist" in oci("state", "one").stderr
    assert os.path.exists(f"{oci.bundle}/checkpoint/inventory.img")
    restore(oci, "--pid-file", f"{oci.bundle}/pid", "one")
    assert counted(oci) >= before
    state = oci.state()
    with open(f"{oci.bundle}/pid") as file:
        assert (state["status"], state["pid"]) == ("running", int(file.read()))
    oci.end(state["pid"])


def test_it_runs_on_beside_its_image(oci: Oci) -> None:
    count_in(oci)
    pid = oci.start()
    words = ("--image-path", f"{oci.bundle}/images", "--work-path", f"{oci.bundle}/work", "--leave-running")
    oci.done("checkpoint", *words, "one")
    assert "dump.log" in os.listdir(f"{oci.bundle}/work")
    assert (oci.pid(), oci.state()["status"]) == (pid, "running")
    restore(oci, "--image-path", f"{oci.bundle}/images", "two")
    oci.end(oci.pid("two"), "two")
    oci.end(pid)


def test_every_option_is_taken(oci: Oci) -> None:
    count_in(oci)
    oci.start()
    words: tuple[str, ...] = (
        "--tcp-established",
        "--ext-unix-sk",
        "--file-locks",
        "--auto-dedup",
        "--image-path",
        f"{oci.bundle}/images",
    )
    words += ("--empty-ns", "network", "--manage-cgroups-mode", "full", "--network-lock", "nftables")
    oci.done("checkpoint", *words, "--tcp-skip-in-flight", "--link-remap", "--work-path", f"{oci.bundle}/work", "one")
    restore(oci, *words, "--no-pivot", "--no-subreaper", "--bundle", oci.bundle, "one")
    before = counted(oci)
    while counted(oci) == before:
        continue
    oci.end(oci.pid())


def test_in_the_foreground_the_program_is_waited_for(oci: Oci) -> None:
    config = oci.config("sh", "-c", "read line; echo $line; exit 7")
    oci.write(config=config)
    command = [*COMMAND, "--root", oci.states, "run", "one"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=oci.bundle, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        while oci("state", "one").returncode or oci.state()["status"] != "running":
            continue
        oci.done("checkpoint", "one")
        process.communicate()
        assert process.returncode == 137
    done = oci("restore", "one", stdin=None, input="hello\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "hello\n", "")
    assert os.listdir(oci.states) == []


def test_a_terminal_is_sent_to_the_console_socket(oci: Oci) -> None:
    config = oci.config("sh", "-c", "stty -echo; read a; echo =$a; sleep 100", terminal=True)
    oci.write(config=config)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{oci.bundle}/console")
        listener.listen(2)
        oci.done("create", "--console-socket", f"{oci.bundle}/console", "one")
        first = received(listener)
        oci.done("start", "one")
        oci.done("checkpoint", "one")
        os.close(first)
        oci.done("restore", "--detach", "--console-socket", f"{oci.bundle}/console", "one")
        second = received(listener)
    os.write(second, b"x\n")
    found = b""
    while b"=x\r\n" not in found:
        found += os.read(second, 100)
    os.close(second)
    oci.end(oci.pid())


def received(listener: socket.socket) -> int:
    connection, _ = listener.accept()
    with connection:
        _, (descriptor,), *_ = socket.recv_fds(connection, 100, 1)
    return descriptor


def test_a_restore_that_is_killed_leaves_what_delete_finds(oci: Oci) -> None:
    count_in(oci)
    oci.start()
    oci.done("checkpoint", "one")
    with open(f"{oci.bundle}/config.json") as file:
        config = json.load(file)
    config["hooks"] = {"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"]}]}
    oci.write(config=config)
    assert oci("restore", "--detach", "one").returncode == -9
    oci.done("delete", "--force", "one")
    assert os.listdir(oci.states) == [] and not glob("/sys/fs/cgroup/*/cycontainer/one")


def test_a_checkpoint_that_is_killed_leaves_a_paused_container(oci: Oci) -> None:
    count_in(oci)
    pid = oci.start()
    command = [*COMMAND, "--root", oci.states, "checkpoint", "one"]
    with subprocess.Popen(command, cwd=oci.bundle, stdin=subprocess.DEVNULL) as process:
        while not os.path.exists(f"{oci.bundle}/checkpoint/dump.log"):
            assert process.poll() is None
        process.kill()
    while is_traced(pid):  # criu undoes what it did, and ends
        continue
    assert oci.state()["status"] == "paused"
    oci.done("resume", "one")
    before = counted(oci)
    while counted(oci) == before:
        continue
    oci.done("checkpoint", "--image-path", f"{oci.bundle}/again", "one")


def is_traced(pid: int) -> bool:
    with open(f"/proc/{pid}/status") as file:
        return "TracerPid:\t0\n" not in file.read()


def test_engines_probe_what_it_can_do(oci: Oci) -> None:
    for verb in ("checkpoint", "restore"):
        text = oci.done(verb, "--help")
        assert "--tcp-established" in text and "--manage-cgroups-mode" in text
    assert "flag needs an argument" in oci("restore", "--lsm-mount-context").stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("checkpoint", "none"), "container does not exist"),
        (("checkpoint", "--manage-cgroups-mode", "some", "one"), "manage-cgroups-mode: 'some' is none of"),
        (("checkpoint", "--empty-ns", "pid", "one"), "empty-ns: 'pid' is none of network"),
        (("checkpoint", "--network-lock", "x", "one"), "network-lock: 'x' is none of"),
        (("checkpoint", "--page-server", "x", "one"), "page-server: 'x' must be ADDRESS:PORT"),
        (("checkpoint", "--parent-path", "/x", "one"), "parent-path: /x must be relative to the image path"),
        (("checkpoint", "--parent-path", "x", "one"), "parent-path: x is no directory there"),
        (("checkpoint", "--lazy-pages", "one"), "lazy-pages: needs page-server"),
        (("checkpoint", "--status-fd", "7", "one"), "status-fd: goes with lazy-pages"),
        (("checkpoint", "--lazy-pages", "--status-fd", "3", "one"), "status-fd: 3: bad file descriptor"),
        (("restore", "--lsm-profile", "x", "two"), "lsm-profile: 'x' must be selinux:LABEL or apparmor:NAME"),
        (("restore", "one"), "already exists"),
        (("restore", "two"), "checkpoint: no such file or directory"),
    ],
)
def test_what_is_wrong_is_one_line(oci: Oci, words: tuple[str, ...], text: str) -> None:
    pid = oci.start()
    done = oci(*words)
    assert done.returncode == 1 and text in done.stderr and done.stderr.count("\n") == 1
    assert oci.state()["status"] == "running" and not os.path.exists(f"{oci.bundle}/checkpoint")
    assert json.loads(oci.done("list", "--format", "json"))[0]["pid"] == pid
