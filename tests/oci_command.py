"""The real command on bundles of a test's own: what is asked goes through a new process, as an engine asks."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from typing import Any

from pace import SLOWER

from cycontainer.spec import default_config

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COMMAND = (f"{ROOT}/cycontainer/command/cycontainer",)  # the compiled one, as `make build` leaves it
BOOT = f"import sys; sys.path.insert(0, {ROOT!r}); from cycontainer.cli.__main__ import run_command; run_command()"
IN_PYTHON = (sys.executable, "-I", "-S", "-c", BOOT)  # what it executes for all that it does not do itself
PATIENCE = 20.0 * SLOWER  # seconds that a call may take on a busy machine

Done = subprocess.CompletedProcess[str]


class Oci:
    """Calls of the command with a root directory, and a bundle, of their own.

    Attributes:
        command: what is called.
        states: the root directory.
        bundle: the bundle's directory.
    """

    def __init__(self, directory: str, rootfs: str, command: tuple[str, ...] = COMMAND) -> None:
        self.command = command
        self.states, self.bundle, self.rootfs = f"{directory}/states", f"{directory}/bundle", rootfs
        os.mkdir(self.bundle)
        self.write("sleep", "1000")

    def config(self, *args: str, **process: Any) -> dict[str, Any]:
        config = default_config()
        config["root"]["path"] = self.rootfs
        config["process"].update({"args": list(args), "terminal": False, "env": ["PATH=/bin"], **process})
        return config

    def write(self, *args: str, config: dict[str, Any] | None = None, **process: Any) -> None:
        """The bundle's configuration: the default one with a program, or `config`."""
        with open(f"{self.bundle}/config.json", "w") as file:
            json.dump(config or self.config(*args, **process), file)

    def __call__(self, *words: str, **keywords: Any) -> Done:
        """The command with its root directory, and what it returned and said."""
        keywords = {"stdin": subprocess.DEVNULL, "cwd": self.bundle, "timeout": PATIENCE, **keywords}
        command = [*self.command, "--root", self.states, *words]
        return subprocess.run(command, capture_output=True, text=True, **keywords)

    def done(self, *words: str, **keywords: Any) -> str:
        """What a call that has to succeed prints."""
        done = self(*words, **keywords)
        assert (done.returncode, done.stderr) == (0, ""), f"{words}: {done}"
        return done.stdout

    def leaving(self, *words: str) -> None:
        """A call that has to succeed and leaves a process behind, which would hold our end of a pipe open."""
        null, log = subprocess.DEVNULL, f"{self.bundle}/log"
        command = [*self.command, "--root", self.states, "--log", log, *words]
        done = subprocess.run(command, stdin=null, stdout=null, stderr=null, cwd=self.bundle, timeout=PATIENCE)
        assert (done.returncode, os.path.exists(log)) == (0, False), words

    def create(self, container_id: str = "one") -> int:
        """A container that waits; its pid."""
        self.leaving("create", container_id)
        return self.pid(container_id)

    def start(self, container_id: str = "one") -> int:
        """A container that runs; its pid."""
        pid = self.create(container_id)
        self.done("start", container_id)
        return pid

    def state(self, container_id: str = "one") -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.done("state", container_id))
        return state

    def pid(self, container_id: str = "one") -> int:
        return int(self.state(container_id)["pid"])

    def end(self, pid: int, container_id: str = "one") -> None:
        """Kill a container and wait until it has stopped."""
        pidfd = os.pidfd_open(pid)
        self.done("kill", container_id, "KILL")
        gone(pidfd)

    def clean(self) -> None:
        """Remove all containers, whatever a test has left."""
        for name in os.listdir(self.states) if os.path.isdir(self.states) else ():
            self("delete", "--force", name)


def gone(pidfd: int) -> None:
    """Wait until a process has ended, and close the descriptor."""
    watch = select.poll()
    watch.register(pidfd, select.POLLIN)
    assert watch.poll(PATIENCE * 1000), "it has not ended"
    os.close(pidfd)
