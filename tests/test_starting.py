"""What `start` says of an init that ends between its byte and its program: it is held there by ptrace(2)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import addressof, sizeof

import pytest
from inject import AVAILABLE, OPTIONS, PTRACE_GET_SYSCALL_INFO, PTRACE_SYSCALL, WALL, SyscallInfo, ptrace
from oci_command import COMMAND, IN_PYTHON, PATIENCE
from test_lifecycle import config_of

from cycontainer._wait import exit_status
from cycontainer.lifecycle import Container
from cycontainer.process_stat import name_and_state
from cycontainer.streams import DEVNULL

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
EXECVE, EXECVEAT = 59, 322


def knows_ended() -> bool:
    """Whether this kernel tells the status of one that has been waited for: since Linux 6.15."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    pidfd = os.pidfd_open(pid)
    os.waitpid(pid, 0)
    try:
        return exit_status(pidfd) is not None
    finally:
        os.close(pidfd)


pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not AVAILABLE, reason="the tracer knows the registers of x86_64 only"),
    pytest.mark.parametrize("command", [COMMAND, IN_PYTHON], ids=["compiled", "python"]),
]
needs_status = pytest.mark.skipif(not knows_ended(), reason="this kernel does not tell how one has ended: before 6.15")


@contextmanager
def held_before_its_program(container: Container, command: tuple[str, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """A `start` that is stopped, and whose init, our child, stands in front of its execve; then `start` goes on."""
    pid, info = container.pid, SyscallInfo()
    ptrace(PTRACE_SEIZE, pid, 0, OPTIONS)
    ptrace(PTRACE_INTERRUPT, pid)
    os.waitpid(pid, WALL)
    words = [*command, "--root", container.root, "start", container.id]
    start = subprocess.Popen(words, stderr=subprocess.PIPE)
    while info.op != 1 or info.number not in (EXECVE, EXECVEAT):
        ptrace(PTRACE_SYSCALL, pid)
        os.waitpid(pid, WALL)
        ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), addressof(info))
    start.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + PATIENCE
    while name_and_state(start.pid)[1] != "T":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield start
    finally:
        start.send_signal(signal.SIGCONT)


@needs_status
def test_an_init_that_is_killed_and_waited_for_before_its_program_is_told(
    command: tuple[str, ...], busybox_rootfs: str, tmp_path: object
) -> None:
    config = config_of(busybox_rootfs, "sleep", "100")
    with Container.create("one", config, root=f"{tmp_path}/states", stdin=DEVNULL) as container:
        with held_before_its_program(container, command) as start:
            pid = container.pid
            os.kill(pid, signal.SIGKILL)
            assert os.waitpid(pid, WALL) == (pid, signal.SIGKILL)
        told = start.communicate(timeout=PATIENCE)[1]
    assert (start.returncode, told) == (
        1, b"cycontainer: unable to start container process: start the container: its init has died\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("script", "status"), [("true", 0), ("exit 7", 7 << 8), ("kill -TERM $$", signal.SIGTERM)], ids=str
)
def test_a_program_that_has_ended_and_was_waited_for_was_started(
    script: str, status: int, command: tuple[str, ...], busybox_rootfs: str, tmp_path: object
) -> None:
    config = config_of(busybox_rootfs, "sh", "-c", script)
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    config["mounts"] = [each for each in config["mounts"] if each["type"] != "proc"]
    config["linux"]["maskedPaths"] = config["linux"]["readonlyPaths"] = []
    with Container.create("one", config, root=f"{tmp_path}/states", stdin=DEVNULL) as container:
        with held_before_its_program(container, command) as start:
            pid = container.pid
            ptrace(PTRACE_DETACH, pid)
            assert os.waitpid(pid, WALL) == (pid, status)
        assert (start.communicate(timeout=PATIENCE)[1], start.returncode) == (b"", 0)
