"""Readiness: what a program inside tells with sd_notify(3) comes to who started it, and nothing else does."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from threading import Thread

import pytest
from oci_command import Oci
from test_lifecycle import config_of

from cycontainer.json_text import to_json
from cycontainer.lifecycle import Container

pytestmark = pytest.mark.root

TELL = """
import os, socket
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect(os.environ["NOTIFY_SOCKET"])
for message in (b"STATUS=hostile", b"MAINPID=1\\nREADY=1"):
    sender.send(message)
"""


def receive(manager: socket.socket, seen: list[bytes]) -> None:
    for _ in range(2):
        message, descriptors, _, _ = socket.recv_fds(manager, 4096, 4)
        seen.append(message)
        for fd in descriptors:
            os.close(fd)


def test_readiness_is_passed_on_and_nothing_else(busybox_rootfs: str, tmp_path: Path) -> None:
    config = config_of("/", "/usr/bin/python3", "-I", "-c", TELL)
    config["root"]["readonly"] = True
    config["mounts"].append({"destination": "/run", "type": "tmpfs", "source": "tmpfs"})
    seen: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{tmp_path}/manager")
        reader = Thread(target=receive, args=(manager, seen))
        reader.start()
        document = to_json(config).encode()
        with Container.create_from("one", document, root=f"{tmp_path}/states", notify=True) as container:
            pid = container.pid
            container.start(service_manager=f"{tmp_path}/manager")
            reader.join(10)
    assert seen == [b"READY=1\nMAINPID=%d\n" % pid, b"BARRIER=1"]
    assert os.listdir(f"{tmp_path}/states") == []


def test_a_service_manager_that_is_gone_is_a_warning_of_run(oci: Oci) -> None:
    """In a thread: whoever waits for the program has its status all the same."""
    config = config_of("/", "/usr/bin/python3", "-I", "-c", f"{TELL}\nimport time; time.sleep(1)")
    config["mounts"].append({"destination": "/run", "type": "tmpfs", "source": "tmpfs"})
    oci.write(config=config)
    done = oci("run", "one", env={"NOTIFY_SOCKET": f"{oci.bundle}/nobody"})
    said = "cycontainer: warning: tell the service manager that it is ready: ENOENT (No such file or directory)\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", said)


def test_the_end_ends_the_waiting(own_rootfs: str, tmp_path: Path) -> None:
    document = to_json(config_of(own_rootfs, "true")).encode()
    with Container.create_from("one", document, root=f"{tmp_path}/states", notify=True) as container:
        container.start(service_manager=f"{tmp_path}/nobody")
        assert container.wait(10) == 0
