"""A container's life as an ordinary user: no group, no range of ids, no capability."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from oci_command import COMMAND, PATIENCE
from ordinary import OrdinaryUser

from cycontainer.json_text import to_json
from cycontainer.lifecycle import Container
from cycontainer.spec import default_config
from cycontainer.streams import DEVNULL, PIPE


def config_for(rootfs: str, ids: tuple[int, int], *args: str) -> dict[str, object]:
    config = default_config(ids)
    config["root"]["path"] = rootfs
    config["process"].update(args=list(args), env=["PATH=/bin"], terminal=False)
    return config


def life(rootfs: str) -> list[object]:
    root = tempfile.mkdtemp()
    ids = os.getuid(), os.getgid()
    seen: list[object] = []
    with Container.create("one", config_for(rootfs, ids, "sleep", "100"), root=root, stdin=DEVNULL) as container:
        seen.append(container.status)
        container.start()
        seen.append(container.status)
        with container.exec(["sh", "-c", "id -u; hostname; cat"], stdin=PIPE, stdout=PIPE) as process:
            seen.append(process.communicate(b"in")[0])
        with container.exec(["sh", "-c", "tty"], terminal=True) as process:
            seen.append(os.read(process.terminal, 100).strip())
            process.wait(10)
        seen.append(len(container.pids()))
        container.kill()
        seen.append(container.wait(10))
    seen.append(os.listdir(root))
    os.rmdir(root)
    return seen


def test_an_ordinary_user_has_the_whole_life(busybox_rootfs: str, ordinary_user: OrdinaryUser) -> None:
    seen = ordinary_user(life, busybox_rootfs)
    assert seen == ["created", "running", b"0\ncycontainer\nin", b"/dev/pts/0", 1, -9, []]


def deletion_of_one_that_waits_for_a_hook(rootfs: str) -> tuple[int, str, str, list[str]]:
    with tempfile.TemporaryDirectory() as directory:
        config = config_for(rootfs, (os.getuid(), os.getgid()), "sleep", "100")
        script = f"echo > {directory}/hook; exec sleep 1000"
        config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
        Path(f"{directory}/config.json").write_text(to_json(config))
        command, null = [*COMMAND, "--root", f"{directory}/states"], subprocess.DEVNULL
        words = [*command, "run", "--detach", "-b", directory, "one"]
        with subprocess.Popen(words, stdin=null, stderr=subprocess.PIPE, text=True) as caller:
            try:
                deadline = time.monotonic() + PATIENCE
                while not os.path.exists(f"{directory}/hook"):
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                done = subprocess.run([*command, "delete", "--force", "one"], capture_output=True, text=True)
                said = caller.communicate(timeout=PATIENCE)[1] if done.returncode == 0 else ""
            finally:
                caller.kill()
        return done.returncode, done.stderr, said, os.listdir(f"{directory}/states")


def test_an_ordinary_user_deletes_one_that_waits_for_a_hook(busybox_rootfs: str, ordinary_user: OrdinaryUser) -> None:
    """It has no cgroup that its init would be found in."""
    status, error, said, left = ordinary_user(deletion_of_one_that_waits_for_a_hook, busybox_rootfs)
    assert (status, error, left) == (0, "", []) and "was killed: who waited for it has ended" in said
