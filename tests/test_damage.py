"""What happens to states, disks and first processes, and containers that defend themselves: the verbs still work."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oci_command import COMMAND, IN_PYTHON, PATIENCE, Oci, gone

pytestmark = pytest.mark.root


@pytest.fixture
def oci(tmp_path: Path, busybox_rootfs: str) -> Iterator[Oci]:
    command = Oci(str(tmp_path), busybox_rootfs)
    yield command
    command.clean()


# --- states


def truncate(path: str) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


def cut_off_lines(path: str) -> None:
    with open(path, "rb") as file:
        lines = file.readlines()
    replace(path, b"".join(lines[: len(lines) // 2]))


def empty(path: str) -> None:
    os.truncate(path, 0)


def replace(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def make_later(path: str) -> None:
    with open(path, "rb") as file:
        first, _, rest = file.read().partition(b"\n")
    replace(path, first.rpartition(b" ")[0] + b" 99\n" + rest)


def scramble(path: str) -> None:
    replace(path, bytes(range(256)) * 16)


def make_fifo(path: str) -> None:
    os.unlink(path)
    os.mkfifo(path)


def make_huge(path: str) -> None:
    os.truncate(path, 10 << 30)


def name_no_process(path: str) -> None:
    """A pid beyond what the kernel has."""
    text = Path(path).read_bytes()
    replace(path, re.sub(rb"(?m)^pid \d+$", b"pid 99999999999", text))


def lose(path: str) -> None:
    os.unlink(path)


def make_directory(path: str) -> None:
    os.unlink(path)
    os.mkdir(path)


def make_loop(path: str) -> None:
    os.unlink(path)
    os.symlink(os.path.basename(path), path)


DAMAGES = [truncate, cut_off_lines, empty, make_later, scramble, make_fifo, make_huge, name_no_process, lose,
           make_directory, make_loop]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_told_and_nothing_is_lost(damage: Callable[[str], None], oci: Oci) -> None:
    """Each verb says so in one line and does nothing; `delete --force` finds by the configuration what lives."""
    pid = oci.start()
    path = f"{oci.states}/one/state"
    kept = Path(path).read_bytes()
    damage(path)
    for words in (("state", "one"), ("kill", "one"), ("start", "one"), ("exec", "one", "true"), ("delete", "one")):
        done = oci(*words)
        assert done.returncode in (1, 255) and done.stderr.count("\n") == 1, done
        assert "Traceback" not in done.stderr and done.stdout == ""
    assert oci("list").returncode == 0
    os.kill(pid, 0)
    if damage is not lose:
        os.rmdir(path) if damage is make_directory else os.unlink(path)
    replace(path, kept)
    assert oci.state()["status"] == "running"
    damage(path)
    first = os.pidfd_open(pid)
    oci.done("delete", "--force", "one")
    gone(first)
    assert os.listdir(oci.states) == []


@pytest.mark.parametrize("name", ["go", "outcome", "config.json"])
@pytest.mark.parametrize("damage", [lose, make_directory, make_loop, make_fifo])
@pytest.mark.parametrize("command", [COMMAND, IN_PYTHON])
def test_what_else_is_damaged_hides_no_other_and_is_removed(
    name: str, damage: Callable[[str], None], command: tuple[str, ...], oci: Oci
) -> None:
    pid = oci.start()
    damage(f"{oci.states}/one/{name}")
    oci.command = command
    assert oci.done("list", "--quiet") == "one\n" and oci.state()["status"] == "running"
    first = os.pidfd_open(pid)
    oci.done("delete", "--force", "one")
    gone(first)
    assert os.listdir(oci.states) == []


def test_a_lost_state_beside_a_configuration_that_is_a_fifo_is_no_wait_for_ever(oci: Oci) -> None:
    os.makedirs(f"{oci.states}/one")
    os.mkfifo(f"{oci.states}/one/config.json")
    oci.done("delete", "--force", "one")
    assert os.listdir(oci.states) == []


def test_of_a_lost_state_nothing_is_taken_for_its_own_that_another_has(oci: Oci) -> None:
    pid = oci.start()
    os.mkdir(f"{oci.states}/two")
    shutil.copy(f"{oci.states}/one/config.json", f"{oci.states}/two/config.json")
    config = json.loads(Path(f"{oci.states}/two/config.json").read_text())
    state = Path(f"{oci.states}/one/state").read_text()
    config["linux"]["cgroupsPath"] = re.search(r"(?m)^cgroup \S+ \S+ (/\S+)$", state)[1]  # type: ignore[index]
    Path(f"{oci.states}/two/config.json").write_text(json.dumps(config))
    oci.done("delete", "--force", "two")
    os.kill(pid, 0)
    assert oci.state()["status"] == "running" and os.listdir(oci.states) == ["one"]


def test_a_full_disk_stops_a_creation_and_nothing_else(oci: Oci) -> None:
    os.mkdir(oci.states)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "full", oci.states], check=True)
    try:
        oci.start()
        with pytest.raises(OSError), open(f"{oci.states}/filler", "wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 4096)
        done = oci("create", "two")
        assert done.returncode == 1 and "no space left" in done.stderr.lower(), done
        assert sorted(os.listdir(oci.states)) == ["filler", "one"]
        assert oci.state()["status"] == "running"
        oci.done("kill", "one", "KILL")
        oci.done("delete", "--force", "one")
        assert os.listdir(oci.states) == ["filler"]
    finally:
        oci.clean()
        subprocess.run(["umount", oci.states], check=True)


def test_a_full_disk_stops_no_deletion_and_none_of_its_hooks(oci: Oci) -> None:
    os.mkdir(oci.states)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "full", oci.states], check=True)
    try:
        config = oci.config("sleep", "1000")
        config["hooks"] = {"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", f"echo > {oci.bundle}/ran"]}]}
        oci.write(config=config)
        oci.start()
        with pytest.raises(OSError), open(f"{oci.states}/filler", "wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 4096)
        done = oci("--log", f"{oci.bundle}/log", "delete", "--force", "one")
        assert (done.returncode, done.stderr, os.listdir(oci.states)) == (0, "", ["filler"])
        assert os.path.exists(f"{oci.bundle}/ran")
        assert (
            "its state could not be written before its poststop hooks: ENOSPC" in Path(f"{oci.bundle}/log").read_text()
        )
    finally:
        oci.clean()
        subprocess.run(["umount", oci.states], check=True)


def test_an_init_that_is_killed_before_start_is_told(oci: Oci) -> None:
    pid = oci.create()
    first = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    gone(first)
    done = oci("start", "one")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done
    assert oci.state()["status"] == "stopped"
    oci.done("delete", "one")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc", "a/b", "a\n", "\udce4", "x" * 2000])
def test_an_id_that_is_none_is_refused_by_every_verb(name: str, oci: Oci) -> None:
    for words in (("create",), ("start",), ("state",), ("kill",), ("delete", "--force"), ("exec",)):
        done = oci(*words, name, *(("true",) if words == ("exec",) else ()))
        assert done.returncode in (1, 255) and done.stderr.count("\n") == 1, done
        assert "invalid container ID" in done.stderr, done


def test_of_two_that_create_one_id_one_wins(oci: Oci) -> None:
    command = [*COMMAND, "--root", oci.states, "create", "one"]
    null = subprocess.DEVNULL
    for _ in range(5):
        both = [
            subprocess.Popen(command, cwd=oci.bundle, stdin=null, stdout=null, stderr=subprocess.PIPE) for _ in range(2)
        ]
        said = []
        for process in both:
            process.wait()
            assert process.stderr
            os.set_blocking(process.stderr.fileno(), False)
            said.append(process.stderr.read() or b"")
            process.stderr.close()
        assert sorted(process.returncode for process in both) == [0, 1], said
        assert any(b"already exists" in text or b"exists" in text for text in said)
        assert oci.state()["status"] == "created"
        oci.done("delete", "--force", "one")


# --- containers that defend themselves

HOSTILE = """
trap '' TERM INT HUP QUIT USR1 USR2
printf cycontainer/new > /proc/self/comm
for directory in /sys/fs/cgroup/*/; do
    mkdir $directory/hidden && echo $$ > $directory/hidden/cgroup.procs
done 2> /dev/null
(setsid sh -c "trap '' TERM; while :; do sleep 100; done" &)
(sh -c 'kill -STOP $$' &)
echo ready
while :; do sleep 100; done
"""


def write_with_cgroups(oci: Oci, script: str) -> None:
    """A bundle whose program can write the cgroup file systems."""
    config = oci.config("sh", "-c", script)
    for mount in config["mounts"]:
        if mount["destination"] == "/sys/fs/cgroup":
            mount["options"].remove("ro")
    oci.write(config=config)


def test_a_container_that_defends_itself_is_ended_all_the_same(oci: Oci) -> None:
    """It ignores signals, has our init's name, hides in a sub-cgroup, and has children that are stopped or daemons."""
    write_with_cgroups(oci, HOSTILE)
    reader, writer = os.pipe()
    command = [*COMMAND, "--root", oci.states]
    subprocess.run([*command, "create", "one"], cwd=oci.bundle, stdin=subprocess.DEVNULL, stdout=writer, check=True)
    os.close(writer)
    oci.done("start", "one")
    with open(reader) as output:
        assert output.readline() == "ready\n"
    assert oci.state()["status"] == "running"
    assert "one" in oci.done("list", "--quiet")
    assert oci.done("exec", "one", "echo", "inside") == "inside\n"
    oci.done("kill", "one", "TERM")
    assert oci.state()["status"] == "running"
    first = os.pidfd_open(oci.pid())
    oci.done("delete", "--force", "one")
    gone(first)
    assert oci("state", "one").returncode == 1


FROZEN = """
mkdir /sys/fs/cgroup/freezer/below /sys/fs/cgroup/freezer/below/still
sleep 1000 &
echo $! > /sys/fs/cgroup/freezer/below/still/cgroup.procs
echo FROZEN > /sys/fs/cgroup/freezer/below/freezer.state
echo ready
while :; do sleep 100; done
"""


@pytest.mark.cgroup1
@pytest.mark.parametrize("command", [COMMAND, IN_PYTHON], ids=["compiled", "python"])
@pytest.mark.parametrize(
    "words", [("kill", "one", "KILL"), ("kill", "--all", "one", "KILL"), ("delete", "--force", "one")]
)
def test_what_a_container_has_frozen_itself_dies_with_it(
    words: tuple[str, ...], command: tuple[str, ...], oci: Oci
) -> None:
    """v1: nobody who is frozen dies, and no pid 1 while one of its namespace is there."""
    write_with_cgroups(oci, FROZEN)
    reader, writer = os.pipe()
    words_of_run = [*COMMAND, "--root", oci.states, "run", "--detach", "one"]
    subprocess.run(words_of_run, cwd=oci.bundle, stdin=subprocess.DEVNULL, stdout=writer, check=True)
    os.close(writer)
    with open(reader) as output:
        assert output.readline() == "ready\n"
        first = os.pidfd_open(oci.pid())
        oci.command = command
        oci.done(*words)
        gone(first)
    oci.done("delete", "--force", "one")


def await_full(master: int) -> None:
    """Until a terminal has output, and takes no more of it."""
    deadline, before = time.monotonic() + PATIENCE, -1
    while (now := struct.unpack("i", fcntl.ioctl(master, termios.FIONREAD, b"\0" * 4))[0]) != before or not now:
        assert time.monotonic() < deadline
        before = now
        time.sleep(0.3)


@pytest.mark.parametrize("command", [COMMAND, IN_PYTHON], ids=["compiled", "python"])
@pytest.mark.parametrize("words", [("kill", "one", "KILL"), ("delete", "--force", "one")])
def test_a_container_that_floods_its_terminal_is_ended(
    words: tuple[str, ...], command: tuple[str, ...], oci: Oci, tmp_path: Path
) -> None:
    """Nobody reads the master: its other side is full, and who writes there waits."""
    oci.write("sh", "-c", "while :; do cat /proc/cpuinfo; done", terminal=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{tmp_path}/console")
        listening.listen()
        oci.done("create", "--console-socket", f"{tmp_path}/console", "one")
        with listening.accept()[0] as connection:
            _, (master,), _, _ = socket.recv_fds(connection, 64, 4)
    oci.done("start", "one")
    first, oci.command = os.pidfd_open(oci.pid()), command
    await_full(master)
    assert oci.done("exec", "one", "echo", "it works") == "it works\n"
    assert [each["status"] for each in json.loads(oci.done("list", "--format", "json"))] == ["running"]
    oci.done(*words)
    gone(first)
    oci.done("delete", "--force", "one")
    assert os.read(master, 4096)  # what had been printed
    os.close(master)


def test_a_container_that_floods_its_output_is_ended(oci: Oci) -> None:
    """Nobody reads it: the pipe is full, and its writer waits."""
    oci.write("sh", "-c", "while :; do cat /proc/cpuinfo; done")
    reader, writer = os.pipe()
    command = [*COMMAND, "--root", oci.states]
    subprocess.run([*command, "create", "one"], cwd=oci.bundle, stdin=subprocess.DEVNULL, stdout=writer, check=True)
    os.close(writer)
    oci.done("start", "one")
    assert oci.state()["status"] == "running"
    oci.end(oci.pid())
    oci.done("delete", "one")
    os.close(reader)
