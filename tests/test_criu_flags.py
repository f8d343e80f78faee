"""Options of checkpoint and restore, as the command takes them: what each changes is seen in the container."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
from oci_command import COMMAND, PATIENCE, Oci
from saved import namespaces, python_config
from test_criu_lazy import has_large_pipes
from test_criu_pre_dump import tracks
from test_foreground import ORPHAN

pytestmark = [pytest.mark.root, pytest.mark.criu]

NULL: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@pytest.fixture
def oci(tmp_path: object, busybox_rootfs: str) -> Iterator[Oci]:
    command = Oci(str(tmp_path), busybox_rootfs)
    yield command
    command.clean()


def start(oci: Oci, text: str, **linux: object) -> None:
    """A container in which a Python has done what the text says, and goes on counting in /tmp/n."""
    config = python_config(f"{oci.bundle}/root", **linux)
    count = "n = 0\nwhile True:\n    open('/tmp/m', 'w').write(str(n)); os.rename('/tmp/m', '/tmp/n'); n += 1"
    config["process"]["args"][-1] = f"import fcntl, os, socket\n{textwrap.dedent(text)}\n{count}"
    config["mounts"].append({"destination": oci.bundle, "type": "bind", "source": oci.bundle, "options": ["bind"]})
    oci.write(config=config)
    oci.start()
    goes_on(oci)


def goes_on(oci: Oci, container_id: str = "one") -> None:
    """Wait until it counts, and counts on."""
    before = ""
    while not before or count_of(oci, container_id) == before:
        before = count_of(oci, container_id)


def count_of(oci: Oci, container_id: str) -> str:
    return oci("exec", container_id, "/usr/bin/cat", "/tmp/n").stdout


def images_of(oci: Oci, name: str = "images") -> tuple[str, str]:
    return "--image-path", f"{oci.bundle}/{name}"


CONNECTED = """
    server = socket.create_server(("127.0.0.1", 999))
    client = socket.create_connection(("127.0.0.1", 999))
"""
HELD = {  # an option: what is saved only with it, what else that takes, and whether a restore takes it, too
    "--file-locks": ("lock = open('/tmp/x', 'w'); fcntl.flock(lock, fcntl.LOCK_EX)", (), False),
    "--link-remap": ("a = open('/tmp/a', 'w'); os.link('/tmp/a', '/tmp/b'); os.unlink('/tmp/a')", (), False),
    "--tcp-established": (CONNECTED + "    peer = server.accept()", (), True),
    "--tcp-skip-in-flight": (CONNECTED, ("--tcp-established",), False),
}


@pytest.mark.parametrize("option", HELD)
def test_what_is_saved_with_an_option_alone(oci: Oci, option: str) -> None:
    text, others, restores = HELD[option]
    start(oci, text)
    refused = oci("checkpoint", *images_of(oci), *others, "one")
    assert refused.returncode == 1 and option in refused.stderr
    goes_on(oci)
    oci.done("checkpoint", *images_of(oci), *others, option, "one")
    if restores:
        refused = oci("restore", "--detach", *images_of(oci), *others, "one")
        assert refused.returncode == 1 and option in refused.stderr
    oci.leaving("restore", "--detach", *images_of(oci), *others, *([option] if restores else []), "one")
    goes_on(oci)


def test_a_socket_of_the_host(oci: Oci) -> None:
    path = f"{oci.bundle}/socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        text = f"host = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); host.connect({path!r})"
        start(oci, text, namespaces=namespaces(("network",)))
        refused = oci("checkpoint", *images_of(oci), "one")
        assert refused.returncode == 1 and "--ext-unix-sk" in refused.stderr
        oci.done("checkpoint", *images_of(oci), "--ext-unix-sk", "one")
        oci.leaving("restore", "--detach", *images_of(oci), "--ext-unix-sk", "one")
        goes_on(oci)


def test_connections_are_closed_by_a_restore(oci: Oci) -> None:
    start(oci, CONNECTED + "    peer = server.accept()[0]")
    oci.done("checkpoint", *images_of(oci), "--tcp-established", "--network-lock", "nftables", "one")
    with open(f"{oci.bundle}/images/cycontainer.json") as file:
        assert json.load(file)["network_lock"] == "nftables"
    oci.leaving("restore", "--detach", *images_of(oci), "--tcp-close", "one")
    goes_on(oci)
    assert " 01 " not in oci.done("exec", "one", "/usr/bin/cat", "/proc/net/tcp")  # TCP_ESTABLISHED


def test_a_process_that_came_in_by_exec(oci: Oci) -> None:
    start(oci, "")
    oci.leaving("exec", "--detach", "one", "/usr/bin/sleep", "1000")
    refused = oci("checkpoint", *images_of(oci), "one")
    assert refused.returncode == 1 and "--without-exec" in refused.stderr and "(/usr/bin/sleep 1000)" in refused.stderr
    oci.done("checkpoint", *images_of(oci), "--without-exec", "one")


def test_where_things_go(oci: Oci, tmp_path: object) -> None:
    start(oci, f"page = b'x' * {1 << 20}")
    oci.done("checkpoint", *images_of(oci), "--work-path", f"{oci.bundle}/saving", "one")
    before = os.stat(f"{oci.bundle}/images/pages-1.img")
    work = ("--work-path", f"{oci.bundle}/restoring")
    words = [*COMMAND, "--root", oci.states, "restore", "--detach", "--bundle", oci.bundle, *images_of(oci), *work]
    strict = subprocess.run([*words, "--manage-cgroups-mode", "strict", "one"], capture_output=True, text=True)
    assert strict.returncode == 1 and "strict has none to make" in strict.stderr
    subprocess.run([*words, "--auto-dedup", "one"], cwd=str(tmp_path), check=True, **NULL)
    goes_on(oci)
    assert os.stat(f"{oci.bundle}/images/pages-1.img").st_blocks < before.st_blocks / 2
    assert sorted(os.listdir(f"{oci.bundle}/saving")) == ["dump.log", "stats-dump"]
    assert sorted(os.listdir(f"{oci.bundle}/restoring")) == ["restore.log", "stats-restore"]
    assert not {"dump.log", "restore.log"} & set(os.listdir(f"{oci.bundle}/images"))


def test_memory_goes_to_a_page_server(oci: Oci) -> None:
    start(oci, "")
    os.mkdir(f"{oci.bundle}/there")
    words = ["criu", "page-server", "--images-dir", f"{oci.bundle}/there", "--port", "27200", "--status-fd", "1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None and server.stdout.read(1) == b"\0"
        oci.done("checkpoint", *images_of(oci), "--page-server", "127.0.0.1:27200", "one")
        assert server.wait(PATIENCE) == 0
    assert "pages-1.img" not in os.listdir(f"{oci.bundle}/images")
    for name in os.listdir(f"{oci.bundle}/there"):
        os.rename(f"{oci.bundle}/there/{name}", f"{oci.bundle}/images/{name}")
    oci.leaving("restore", "--detach", *images_of(oci), "one")
    goes_on(oci)


def test_memory_that_is_saved_before(oci: Oci) -> None:
    start(oci, "")
    for name, words in (("pre", ["--pre-dump"]), ("images", ["--parent-path", "../pre", "--leave-running"])):
        os.makedirs(f"{oci.bundle}/pre", exist_ok=True)
        done = oci("checkpoint", *images_of(oci, name), *words, "one")
        assert done.returncode == 0 if tracks() else "CONFIG_MEM_SOFT_DIRTY" in done.stderr
        goes_on(oci)


def test_memory_that_stays_behind(oci: Oci) -> None:
    if has_large_pipes():
        pytest.skip("criu has its pipes here: test_criu_lazy.py")
    start(oci, "")
    words = ("--lazy-pages", "--page-server", "127.0.0.1:27201", "--status-fd", "2")
    assert "lazy-pages takes pipes of 4 MiB" in oci("checkpoint", *images_of(oci), *words, "one").stderr
    goes_on(oci)


@pytest.mark.parametrize("option", ["", "--no-subreaper"])
def test_whose_the_orphans_of_a_restored_container_are(oci: Oci, option: str) -> None:
    config = oci.config("sh", "-c", f"read line; {ORPHAN}")
    config["linux"]["namespaces"] = [{"type": "mount"}]
    del config["hostname"]
    oci.write(config=config)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    pipes.update(cwd=oci.bundle, text=True)
    with subprocess.Popen([*COMMAND, "--root", oci.states, "run", "one"], **pipes) as process:
        while oci("state", "one").returncode or oci.state()["status"] != "running":
            continue
        oci.done("checkpoint", *images_of(oci), "one")
        process.communicate()
    words = [*COMMAND, "--root", oci.states, "restore", *images_of(oci), *filter(None, [option]), "one"]
    with subprocess.Popen(words, **pipes) as process:
        printed, _ = process.communicate("go\n", PATIENCE)
    assert (int(printed.split()[1]) == process.pid) == (not option)
