"""Set-up is attacked while it is held at each step, by who shares a pid or user namespace and may trace there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from typing import Any

import pytest
from guard import read
from launching import document, launched, plan_of

from cycontainer._clone import Child
from cycontainer.errors import LaunchError
from cycontainer.plan import Plan

pytestmark = pytest.mark.root

SECRET = "the launcher's secret"
ATTACKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "attacker.py")
SHARED = {  # what is shared with the attacker: how it is started, which namespaces are joined
    "pid": (["--pid", "--fork", "--kill-child", "--mount-proc"], ("pid",)),
    "user": (["--user", "--map-root-user"], ("user",)),
    "user and pid": (
        ["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"],
        ("user", "pid"),
    ),
}


class Attacker:
    """`attacker.py` in namespaces of its own."""

    def __init__(self, process: subprocess.Popen[str], pid: int) -> None:
        self.process, self.pid = process, pid

    def ask(self, verb: str, *pids: int) -> list[str]:
        assert self.process.stdin and self.process.stdout
        print(verb, *(pids or ["all"]), file=self.process.stdin, flush=True)
        found: list[str] = json.loads(self.process.stdout.readline())
        return found


@contextmanager
def attacker(options: list[str], host_file: str) -> Iterator[Attacker]:
    command = ["unshare", *options, sys.executable, "-I", "-S", ATTACKER, SECRET, host_file]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "ready\n"
        try:
            yield Attacker(process, children(process.pid)[0] if "--fork" in options else process.pid)
        finally:
            process.stdin.close()


def plan_joining(rootfs: str, pid: int, kinds: tuple[str, ...]) -> Plan:
    """The default configuration, joined to namespaces of a process."""
    config: dict[str, Any] = document(rootfs)
    for namespace in config["linux"]["namespaces"]:
        if namespace["type"] in kinds:
            namespace["path"] = f"/proc/{pid}/ns/{namespace['type']}"
    if "user" in kinds:
        config["linux"]["namespaces"].append({"type": "user", "path": f"/proc/{pid}/ns/user"})
        config["mounts"][2]["options"].remove("gid=5")
    return plan_of(config)


def children(pid: int) -> list[int]:
    return [int(word) for path in glob(f"/proc/{pid}/task/*/children") for word in read(path).split()]


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    return [pid, *(each for child in children(pid) for each in family(child))]


def test_the_attacker_is_one(tmp_path: object) -> None:
    """On a process that is no init of ours, all that it tries comes off."""
    victim = subprocess.Popen(["sleep", "1000"], env={"SECRET": SECRET})
    with attacker(["--mount"], f"{tmp_path}") as hostile:
        found = hostile.ask("look", victim.pid)
    victim.kill()
    victim.wait()
    assert {"got ptrace", "got pidfd_getfd", "got fd", "the secret is in its mem", "the secret is in its environ",
            "its root leads to the host", "its cwd leads to the host"} <= {*found}  # fmt: skip


@pytest.mark.parametrize("shared", SHARED)
def test_an_init_that_is_held_gives_nothing_away(
    shared: str, busybox_rootfs: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who shares a user namespace gets nothing at all; who is root on the host too, nothing of the host."""
    monkeypatch.setenv("SECRET", SECRET)
    host_file = f"{tmp_path}/host-file"
    open(host_file, "w").close()
    options, kinds = SHARED[shared]
    came = set()
    with attacker(options, host_file) as hostile:
        plan = plan_joining(busybox_rootfs, hostile.pid, kinds)
        for step, attempt in enumerate(plan.attempts):

            def attack(child: Child, attempt: str = attempt) -> None:
                found = hostile.ask("look", *(() if "pid" in kinds else family(child.pid)))
                leaks = [text for text in found if "user" in kinds or not text.startswith("got ")]
                assert not leaks, f"before {attempt!r}: {leaks}"
                came.update(found)

            assert launched(plan.held_at(step), {"held": attack}) == 0
    assert ("got ptrace" in came) == ("user" not in kinds)


@pytest.mark.parametrize("shared", ["pid", "user and pid"])
def test_an_init_that_is_stopped_can_be_ended(shared: str, busybox_rootfs: str) -> None:
    """Whoever lives in a joined pid namespace may stop what comes there; the launcher stays the master of it."""
    options, kinds = SHARED[shared]
    with attacker(options, "/") as hostile:
        plan = plan_joining(busybox_rootfs, hostile.pid, kinds)
        last = len(plan.attempts) - 1

        def stop(child: Child) -> None:
            hostile.ask("stop")
            child.send_signal(signal.SIGKILL)

        assert launched(plan.held_at(last), {"held": stop}) == -signal.SIGKILL


def test_a_root_that_changes_while_the_init_is_held_stays_inside(busybox_rootfs: str, tmp_path: object) -> None:
    """At each step, all directories that mounts go to become links to the host's, and back afterwards."""
    root, outside = f"{tmp_path}/root", f"{tmp_path}/outside"
    subprocess.run(["cp", "-a", busybox_rootfs, root], check=True)
    for name in ("dev", "proc", "sys", "tmp", "run"):
        os.makedirs(f"{outside}/{name}")
    config = document(root)
    config["mounts"].append({"destination": "/run/a/b", "type": "tmpfs", "source": "tmpfs"})
    plan = plan_of(config)

    def swap(_child: Child) -> None:
        for name in ("dev", "proc", "sys", "run"):
            os.rename(f"{root}/{name}", f"{root}/{name}.kept")
            os.symlink(f"{outside}/{name}", f"{root}/{name}")

    def swap_back() -> None:
        for name in ("dev", "proc", "sys", "run"):
            if os.path.exists(f"{root}/{name}.kept"):
                os.unlink(f"{root}/{name}")
                os.rename(f"{root}/{name}.kept", f"{root}/{name}")

    for step in range(len(plan.attempts)):
        try:
            launched(plan.held_at(step), {"held": swap})
        except LaunchError as failure:
            assert failure.errno, failure
        swap_back()
        assert sum(len(names) + len(files) for _, names, files in os.walk(outside)) == 5, plan.attempts[step]
