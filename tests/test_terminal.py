"""Terminals: one of the container's own, handed over, relayed, resized."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from oci_command import PATIENCE, Oci
from pace import SLOWER
from test_lifecycle import config_of

from cycontainer.errors import ConfigError
from cycontainer.lifecycle import Container
from cycontainer.streams import DEVNULL

pytestmark = pytest.mark.root


def read_all(terminal: int) -> bytes:
    parts = b""
    try:
        while part := os.read(terminal, 4096):
            parts += part
    except OSError:  # EIO: nobody has the other side any more
        return parts
    return parts


def terminal_config(rootfs: str, script: str) -> dict[str, object]:
    config = config_of(rootfs, "sh", "-c", script)
    config["process"]["terminal"] = True
    config["process"]["consoleSize"] = {"height": 33, "width": 77}
    return config


LOOK = """tty; stty size; test -c /dev/console && echo console; exec 3</dev/tty && echo controlling
stat -c %t:%T /dev/pts/0"""


def test_the_program_has_a_terminal_of_its_own(busybox_rootfs: str, tmp_path: object) -> None:
    config = terminal_config(busybox_rootfs, LOOK)
    with Container.create("one", config, root=f"{tmp_path}/states") as container:
        assert container.process is not None
        container.start()
        assert read_all(container.process.terminal).split() == [
            b"/dev/pts/0", b"33", b"77", b"console", b"controlling", b"88:0",
        ]  # fmt: skip
        assert container.wait(10) == 0


def test_a_second_process_has_another_one_and_it_is_resized(busybox_rootfs: str, tmp_path: object) -> None:
    with Container.create("one", config_of(busybox_rootfs, "sleep", "100"), root=f"{tmp_path}/s", stdin=DEVNULL) as one:
        one.start()
        words = ["sh", "-c", "read x; tty; stty size; echo $x; pwd"]
        with one.exec(words, terminal=True, size=(10, 20), cwd="/tmp", user=(5, 6)) as process:
            process.resize(44, 55)
            os.write(process.terminal, b"typed\n")
            assert read_all(process.terminal).split() == [b"typed", b"/dev/pts/0", b"44", b"55", b"typed", b"/tmp"]
            assert process.wait(10) == 0


@pytest.fixture
def listener(tmp_path: object) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{tmp_path}/socket")
        listening.listen()
        yield listening


def test_the_master_and_a_pidfd_are_handed_over(busybox_rootfs: str, tmp_path: object, listener: socket.socket) -> None:
    document = terminal_config(busybox_rootfs, "stty size")
    from cycontainer.json_text import to_json

    for wish, kind in (("console_socket", "console"), ("pidfd_socket", "pidfd")):
        if kind == "pidfd":
            document["process"]["terminal"] = False  # type: ignore[index]
        container = Container.create_from(
            "one", to_json(document).encode(), root=f"{tmp_path}/states", detached=True, **{wish: f"{tmp_path}/socket"}
        )
        with container, listener.accept()[0] as connection:
            name, descriptors, _, _ = socket.recv_fds(connection, 64, 4)
            assert name == kind.encode()
            if kind == "console":
                container.start()
                assert read_all(descriptors[0]) == b"33 77\r\n"
            else:
                with open(f"/proc/self/fdinfo/{descriptors[0]}") as info:
                    assert f"Pid:\t{container.pid}\n" in info.read()
            os.close(descriptors[0])


@pytest.mark.parametrize("verb", ["create", "exec"])
def test_the_command_hands_a_terminal_over(oci: Oci, listener: socket.socket, verb: str, tmp_path: Path) -> None:
    look = ["sh", "-c", "tty; stty size; read x; echo got $x"]
    if verb == "create":
        config = oci.config(*look, terminal=True, consoleSize={"height": 33, "width": 77})
        oci.write(config=config)
        oci.done("create", "--console-socket", f"{tmp_path}/socket", "one")
    else:
        oci.start()
        oci.done("exec", "--tty", "--detach", "--console-socket", f"{tmp_path}/socket", "one", *look)
    with listener.accept()[0] as connection:
        name, (master,), _, _ = socket.recv_fds(connection, 64, 4)
    assert name == b"console"
    if verb == "create":
        oci.done("start", "one")
    else:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
    os.write(master, b"typed\n")
    said = read_all(master).replace(b"typed", b"", 1).split()
    assert said[0] == b"/dev/pts/0" and said[-2:] == [b"got", b"typed"]
    assert verb == "exec" or said[1:3] == [b"33", b"77"]
    os.close(master)


def test_a_terminal_that_nobody_gets_is_refused(busybox_rootfs: str, tmp_path: object) -> None:
    from cycontainer.json_text import to_json

    document = to_json(terminal_config(busybox_rootfs, "true")).encode()
    with pytest.raises(ConfigError, match="tty"):
        Container.create_from("one", document, root=f"{tmp_path}/states", detached=True)
    document = to_json(config_of(busybox_rootfs, "true")).encode()
    with pytest.raises(ConfigError, match="console-socket"):
        Container.create_from("one", document, root=f"{tmp_path}/states", console_socket="/nowhere")
    assert os.listdir(f"{tmp_path}/states") == []


# --- the command, at a person's terminal


def at_a_terminal(words: list[str], typed: bytes, until: bytes) -> tuple[int, bytes]:
    """Run the command on a pty of 40 by 90; when `until` is seen, resize it to 50 by 100 and type: status, output."""
    pid, master = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", 40, 90, 0, 0))
        os.execv(sys.executable, [sys.executable, "-m", "cycontainer", *words])
    seen = b""
    try:
        while part := os.read(master, 4096):
            seen += part
            if until in seen and typed:
                fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 50, 100, 0, 0))
                os.write(master, typed)
                typed = b""
    except OSError:  # EIO: it has ended
        pass
    os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen


SCRIPT = "stty size; trap 'stty size; exit 5' INT; echo ready; while :; do sleep 0.05; done"


def test_run_relays_a_raw_terminal(busybox_rootfs: str, tmp_path: object) -> None:
    with open(f"{tmp_path}/config.json", "w") as file:
        config = terminal_config(busybox_rootfs, SCRIPT)
        del config["process"]["consoleSize"]  # type: ignore[attr-defined]
        json.dump(config, file)
    words = ["--root", f"{tmp_path}/states", "run", "--bundle", str(tmp_path), "one"]
    status, seen = at_a_terminal(words, b"\x03", b"ready")
    assert (status, seen.replace(b"^C", b"").split()) == (5, [b"40", b"90", b"ready", b"50", b"100"])
    assert os.listdir(f"{tmp_path}/states") == []


def test_run_relays_more_than_a_program_has_read(busybox_rootfs: str, tmp_path: object) -> None:
    """Whose terminal echoes what it is given, and so waits for us in turn."""
    with open(f"{tmp_path}/config.json", "w") as file:
        json.dump(terminal_config(busybox_rootfs, "cat"), file)
    words = ["--root", f"{tmp_path}/states", "run", "--bundle", str(tmp_path), "one"]
    given = b"".join(b"%d\n" % number for number in range(20000)) + b"\x04"
    command = [sys.executable, "-m", "cycontainer", *words]
    done = subprocess.run(command, input=given, capture_output=True, timeout=60 * SLOWER)
    assert done.returncode == 0 and b"19999" in done.stdout  # an echo may be lost, what is printed not


PRINTS = "seq 20000; exit 3"


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_what_is_printed_waits_for_room_where_our_output_does_not_block(oci: Oci, verb: str) -> None:
    words = prepared(oci, verb, PRINTS)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writer, False)
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE) as command:
        os.close(writer)
        with pytest.raises(subprocess.TimeoutExpired):  # the pipe is full long before
            command.wait(1)
        with open(reader, "rb") as file:
            assert file.read().split() == [b"%d" % number for number in range(1, 20001)]
        assert (command.wait(PATIENCE), command.stderr and command.stderr.read()) == (3, b"")


@pytest.mark.parametrize("verb", ["run", "run --keep", "exec"])
def test_where_nothing_can_be_printed_nothing_is_left_running(oci: Oci, verb: str) -> None:
    words = prepared(oci, verb, "echo $$; exec sleep 1000")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (
        (255, b"cycontainer: exec failed: no space left on device\n")
        if verb == "exec"
        else (1, b"cycontainer: run failed: no space left on device\n")
    )
    if verb == "exec":
        assert oci.done("ps", "--format", "json", "one").count(",") == 0  # the first process alone
    else:
        assert os.listdir(oci.states) == []


def prepared(oci: Oci, verb: str, script: str) -> list[str]:
    """The words that have a script run with a terminal."""
    if verb == "exec":
        oci.start()
        return [*oci.command, "--root", oci.states, "exec", "--tty", "one", "sh", "-c", script]
    oci.write("sh", "-c", script, terminal=True)
    return [*oci.command, "--root", oci.states, *verb.split(), "--bundle", oci.bundle, "one"]


def test_exec_relays_a_raw_terminal(busybox_rootfs: str, tmp_path: object) -> None:
    root = f"{tmp_path}/states"
    with Container.create("one", config_of(busybox_rootfs, "sleep", "100"), root=root, stdin=DEVNULL) as container:
        container.start()
        status, seen = at_a_terminal(["--root", root, "exec", "--tty", "one", "sh", "-c", SCRIPT], b"\x03", b"ready")
    assert (status, seen.replace(b"^C", b"").split()) == (5, [b"40", b"90", b"ready", b"50", b"100"])
