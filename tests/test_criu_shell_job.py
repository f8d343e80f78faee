"""A program on the caller's own terminal, saved and restored: --shell-job."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import termios

import pytest
from oci_command import COMMAND, PATIENCE, Oci

pytestmark = [pytest.mark.root, pytest.mark.criu]

ECHO = "while read line; do echo =$line; done; exit 3"


class Terminal:
    """A terminal whose session is the command's. It owns its ends; `with` closes them."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.master)
        os.close(self.slave)

    def start(self, oci: Oci, *words: str) -> subprocess.Popen[bytes]:
        """The command, as a shell starts its job."""
        return subprocess.Popen(
            [*COMMAND, "--root", oci.states, *words],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            cwd=oci.bundle,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def says(self, line: str) -> bool:
        """Type a line, and wait for what is made of it."""
        os.write(self.master, f"{line}\n".encode())
        found = b""
        while f"={line}\r\n".encode() not in found:
            ready, _, _ = select.select([self.master], [], [], PATIENCE)
            assert ready, found
            found += os.read(self.master, 1000)
        return True


def test_a_job_of_a_shell_moves_to_another_terminal(oci: Oci) -> None:
    oci.write(config=oci.config("sh", "-c", ECHO))
    with Terminal() as first:
        running = first.start(oci, "run", "one")
        assert first.says("here")
        oci.done("checkpoint", "--shell-job", "one")
        assert running.wait(PATIENCE) == 137
    with Terminal() as second:
        restored = second.start(oci, "restore", "--shell-job", "one")
        assert second.says("there")
        os.write(second.master, b"\4")  # the end of its input
        assert restored.wait(PATIENCE) == 3
    assert os.listdir(oci.states) == []
