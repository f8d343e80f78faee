"""The agent at `listenerPath`: what it is sent, and that it answers the container's system calls."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from launching import document, launched, plan_of, printed

from cycontainer._clone import Child
from cycontainer._listener import answer, receive
from cycontainer.errors import LaunchError
from cycontainer.lifecycle import Container
from cycontainer.seccomp_agent import process_state, send_listener
from cycontainer.streams import PIPE

pytestmark = pytest.mark.root
STATE = {"ociVersion": "1.3.0", "id": "c1", "status": "creating", "pid": 12, "bundle": "/b", "annotations": {"a": "b"}}


class Agent:
    """Takes one connection, and answers one call with `number`, all in a thread.

    Attributes:
        document: what it was sent.
    """

    def __init__(self, path: str, number: int) -> None:
        self.document: dict[str, Any] = {}
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, args=(number,))
        self._thread.start()

    def _serve(self, number: int) -> None:
        connection, _ = self._socket.accept()
        data, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 10)
        while part := connection.recv(1 << 16):
            data += part
        connection.close()
        self.document = json.loads(data)
        (listener,) = descriptors
        call = receive(listener)
        assert call is not None
        answer(listener, call[0], number, 0)
        os.close(listener)

    def close(self) -> None:
        self._thread.join()
        self._socket.close()


def to_agent(path: str, metadata: str = "") -> dict[str, Callable[[Child], None]]:
    return {"listener": lambda child: send_listener(path, child.listener, process_state(STATE, child.pid, metadata))}


def notifying(rootfs: str, path: str, script: str, **process: Any) -> dict[str, Any]:
    rule = {"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}
    seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "syscalls": [rule]}
    config = document(rootfs, script, seccomp=seccomp)
    config["process"].update(process)
    return config


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_an_agent_gets_the_state_and_answers(busybox_rootfs: str, tmp_path: Path, no_new_privileges: bool) -> None:
    path = f"{tmp_path}/agent"
    agent = Agent(path, 4711)
    try:
        config = notifying(busybox_rootfs, path, "echo $PPID", noNewPrivileges=no_new_privileges)
        assert printed(plan_of(config), to_agent(path, "some words")) == "4711\n"
    finally:
        agent.close()
    pid = agent.document.pop("pid")
    assert agent.document == {"ociVersion": "1.3.0", "fds": ["seccompFd"], "metadata": "some words", "state": STATE}
    assert pid > 1


def test_a_state_of_any_length_arrives_whole(busybox_rootfs: str, tmp_path: Path) -> None:
    path, words = f"{tmp_path}/agent", "m" * 1_000_000
    agent = Agent(path, 1)
    try:
        launched(plan_of(notifying(busybox_rootfs, path, "echo $PPID >/dev/null")), to_agent(path, words))
    finally:
        agent.close()
    assert agent.document["metadata"] == words


@pytest.mark.parametrize(
    ("name", "code"),
    [("none", errno.ENOENT), ("file", errno.ECONNREFUSED), ("n" * 200, errno.ENAMETOOLONG)],
)
def test_an_agent_that_is_not_there_stops_the_start(busybox_rootfs: str, tmp_path: Path, name: str, code: int) -> None:
    Path(f"{tmp_path}/file").touch()
    path = f"{tmp_path}/{name}"
    with pytest.raises(LaunchError, match="failed to connect with seccomp agent") as failure:
        launched(plan_of(notifying(busybox_rootfs, path, "true")), to_agent(path))
    assert failure.value.errno == code


def test_a_listener_path_without_a_rule_that_notifies_is_ignored(busybox_rootfs: str) -> None:
    seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/no/such", "listenerMetadata": "x", "syscalls": []}
    assert printed(plan_of(document(busybox_rootfs, "echo fine", seccomp=seccomp))) == "fine\n"


def test_after_the_filter_the_init_needs_write_and_execve_only(busybox_rootfs: str, tmp_path: Path) -> None:
    """All else that talks or waits is killed for."""
    path = f"{tmp_path}/agent"
    agent = Agent(path, 7)
    names = ["sendmsg", "recvmsg", "sendto", "recvfrom", "poll", "ppoll", "select", "pselect6", "read", "pidfd_open"]
    config = notifying(busybox_rootfs, path, "echo $PPID")
    config["linux"]["seccomp"]["syscalls"].append({"names": names, "action": "SCMP_ACT_KILL_PROCESS"})
    try:
        assert printed(plan_of(config), to_agent(path)) == "7\n"
    finally:
        agent.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_the_agent_of_a_container_is_told_of_its_first_process_and_of_others(
    busybox_rootfs: str, tmp_path: Path, stack: ExitStack, no_new_privileges: bool
) -> None:
    path, root = f"{tmp_path}/agent", f"{tmp_path}/states"
    script = "echo $PPID; trap 'exit 0' TERM; read x"
    config = notifying(busybox_rootfs, path, script, noNewPrivileges=no_new_privileges)
    config["annotations"] = {"a": "b"}
    first = Agent(path, 4711)
    try:
        container = stack.enter_context(Container.create("c1", config, root=root, stdin=PIPE, stdout=PIPE))
        container.start()
        assert container.process is not None and container.process.stdout is not None
        assert container.process.stdout.readline() == b"4711\n"
    finally:
        first.close()
    os.unlink(path)
    second = Agent(path, 12)
    try:
        process = container.exec(["sh", "-c", "echo $PPID"], stdout=PIPE)
        assert process.communicate()[0] == b"12\n"
        process.close()
    finally:
        second.close()
    status = "created" if no_new_privileges else "creating"
    state = {"ociVersion": config["ociVersion"], "id": "c1", "status": status, "pid": container.process.pid}
    assert first.document["state"] == {**state, "bundle": os.getcwd(), "annotations": {"a": "b"}}
    assert first.document["pid"] == container.process.pid
    if no_new_privileges:  # else it was loaded by the process that then cloned itself into the container's pids
        assert second.document["pid"] == process.pid
    assert second.document["state"] == {**first.document["state"], "status": "running"}


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_container_whose_agent_is_not_there_does_not_start(
    busybox_rootfs: str, tmp_path: Path, no_new_privileges: bool
) -> None:
    root = f"{tmp_path}/states"
    config = notifying(busybox_rootfs, f"{tmp_path}/none", "echo never", noNewPrivileges=no_new_privileges)
    with (
        pytest.raises(LaunchError, match="failed to connect with seccomp agent"),
        Container.create("c1", config, root=root, stdout=PIPE) as container,
    ):
        container.start()
    assert not os.path.exists(f"{root}/c1")
