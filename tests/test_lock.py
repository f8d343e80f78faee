"""Two programs at one container: the second waits, not for ever, and `delete --force` ends what the first waits for."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pytest
from oci_command import PATIENCE, ROOT, Oci, gone
from test_hooks import hook, share

from cycontainer import state
from cycontainer.errors import ContainerBusy
from cycontainer.lifecycle import Container
from cycontainer.process_stat import name_and_state
from cycontainer.state import Directory

pytestmark = pytest.mark.root

HASTY = f"import sys; sys.path.insert(0, {ROOT!r}); from cycontainer import state; state.PATIENCE = 0.3; "
HASTY += "from cycontainer.cli.__main__ import main; sys.exit(main(sys.argv[1:]))"
LOCKING = (["start"], ["pause"], ["resume"], ["update", "--pids-limit", "9"], ["delete"])


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def own_oci(tmp_path: Path, own_rootfs: str) -> Iterator[Oci]:
    """Containers whose image may be changed."""
    command = Oci(str(tmp_path), own_rootfs)
    yield command
    command.clean()


@pytest.mark.parametrize("kind", ["createRuntime", "poststart"])
def test_a_verb_that_a_hook_calls_on_its_own_container_is_an_error(oci: Oci, tmp_path: Path, kind: str) -> None:
    """Its caller waits for the hook, the hook for the verb, and the verb for the caller."""
    before = [sys.executable, "-I", "-c", HASTY, "--root", oci.states]
    calls = [f"{shlex.join([*before, *verb, 'one'])} 2> {tmp_path}/{verb[0]}" for verb in LOCKING]
    config = oci.config("sleep", "1000")
    config["hooks"] = {kind: [hook("; ".join([*calls, "true"]))]}
    oci.write(config=config)
    oci.start()
    caller = "create" if kind == "createRuntime" else "start"
    for verb in LOCKING:
        said = (tmp_path / verb[0]).read_text()
        assert said.startswith("cycontainer: the container is being changed by pid "), verb
        assert said.endswith(f" {caller} one): one\n"), verb


def test_delete_by_force_ends_what_a_start_waits_for(oci: Oci) -> None:
    """An init that somebody has stopped: the start would wait for a minute."""
    pid = oci.create()
    os.kill(pid, signal.SIGSTOP)
    until(lambda: name_and_state(pid)[1] == "T")
    with subprocess.Popen([*oci.command, "--root", oci.states, "start", "one"], stderr=subprocess.PIPE) as start:
        until(lambda: state._is_locked(oci.states, "one"))
        oci.done("delete", "--force", "one", timeout=state.PATIENCE)
        assert start.communicate(timeout=PATIENCE)[1] == b"cycontainer: unable to start container process: " + (
            b"start the container: its init has died\n"
        )
    assert os.listdir(oci.states) == []


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer"])
def test_delete_by_force_ends_a_hook_that_hangs(own_oci: Oci, tmp_path: Path, kind: str) -> None:
    """The init that waits for it is killed, and so nobody does any more."""
    oci = own_oci
    config = oci.config("sleep", "1000")
    os.chmod(tmp_path, 0o777)
    share(config, tmp_path)
    config["hooks"] = {kind: [hook(f"echo > {tmp_path}/hook; exec sleep 1000")]}
    oci.write(config=config)
    words = [*oci.command, "--root", oci.states, "run", "--detach", "one"]
    with subprocess.Popen(words, cwd=oci.bundle, stderr=subprocess.PIPE) as caller:
        until(lambda: os.path.exists(f"{tmp_path}/hook"))
        oci.done("delete", "--force", "one", timeout=state.PATIENCE)
        assert kind in caller.communicate(timeout=PATIENCE)[1].decode() and caller.returncode == 1
    assert os.listdir(oci.states) == []


@pytest.mark.parametrize(
    ("kind", "options"), [("createContainer", ()), ("startContainer", ("--cgroup-manager", "disabled"))]
)
def test_delete_by_force_ends_a_hook_that_no_namespace_and_no_cgroup_takes_along(
    own_oci: Oci, tmp_path: Path, kind: str, options: tuple[str, ...]
) -> None:
    """Without a pid namespace a hook outlives the first process, and one of the host's cgroup the container's."""
    oci = own_oci
    config = oci.config("sleep", "1000")
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    if options:
        del config["linux"]["resources"]
    os.chmod(tmp_path, 0o777)
    share(config, tmp_path)
    config["hooks"] = {kind: [hook(f"echo > {tmp_path}/hook; exec sleep 1000")]}
    oci.write(config=config)
    words = [*oci.command, "--root", oci.states, *options, "run", "--detach", "one"]
    with subprocess.Popen(words, cwd=oci.bundle, stderr=subprocess.PIPE) as caller:
        try:
            until(lambda: os.path.exists(f"{tmp_path}/hook"))
            oci.done("delete", "--force", "one", timeout=state.PATIENCE)
            said = caller.communicate(timeout=PATIENCE)[1].decode()
        finally:
            caller.kill()
    assert kind in said and "was killed: who waited for it has ended" in said and caller.returncode == 1
    assert os.listdir(oci.states) == []


def test_delete_by_force_kills_although_a_hook_hangs_that_nobody_needs(
    oci: Oci, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to follow its start does not end with the container."""
    script = f"sed 's/.*\"pid\": *//; s/,.*//' > {tmp_path}/pid; echo $$ > {tmp_path}/hook; exec sleep 1000"
    config = oci.config("sleep", "1000")
    config["hooks"] = {"poststart": [hook(script)]}
    oci.write(config=config)
    with subprocess.Popen([*oci.command, "--root", oci.states, "run", "--detach", "one"], cwd=oci.bundle) as caller:
        until(lambda: os.path.exists(f"{tmp_path}/hook") and (tmp_path / "hook").read_text())
        first = os.pidfd_open(int((tmp_path / "pid").read_text()))
        monkeypatch.setattr(state, "PATIENCE", 0.3)
        with pytest.raises(ContainerBusy, match=rf"by pid {caller.pid} \(.* run --detach one\): one"):
            Container.handle("one", root=oci.states).delete(force=True)
        gone(first)
        os.kill(int((tmp_path / "hook").read_text()), signal.SIGKILL)
        assert caller.wait(PATIENCE) == 1
    oci.done("delete", "--force", "one")


def test_who_holds_the_lock_may_be_a_stranger(oci: Oci, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of another pid namespace, or one that has ended and left it to a child."""
    oci.create()
    monkeypatch.setattr(state, "PATIENCE", 0.1)
    script = f"exec 9< {oci.states}/one; flock 9; sleep 1000 & echo $!"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as shell:
        assert shell.stdout
        child = int(shell.stdout.readline())
        shell.wait()
    with pytest.raises(ContainerBusy, match="is being changed by another program: one"):
        Directory.open(oci.states, "one")
    os.kill(child, signal.SIGKILL)
    Directory.open(oci.states, "one").close()


@pytest.mark.parametrize("missing", ["/proc/locks", "/proc/1/cmdline"])
def test_who_holds_the_lock_may_be_hidden(oci: Oci, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """By hidepid, or by a kernel without a list of locks."""
    oci.create()
    with Directory.open(oci.states, "one"):
        assert busy_by(oci, monkeypatch, number="%02x:%02x:%d", missing=missing) == "another program"


def test_a_lock_of_another_file_systems_file_is_another(oci: Oci, monkeypatch: pytest.MonkeyPatch) -> None:
    oci.create()
    with Directory.open(oci.states, "one"):
        assert busy_by(oci, monkeypatch, number="%02x:%02x:%d").startswith("pid 1 (")
        assert busy_by(oci, monkeypatch, number="f%02x:%02x:%d") == "another program"


def busy_by(oci: Oci, monkeypatch: pytest.MonkeyPatch, *, number: str, missing: str = "") -> str:
    """Who is said to hold its lock, where /proc/locks has pid 1 do so, by a number made from its device and inode."""
    found = os.stat(f"{oci.states}/one")
    place = number % (os.major(found.st_dev), os.minor(found.st_dev), found.st_ino)

    def opened(path: str, mode: str) -> BinaryIO:
        if path == missing:
            raise PermissionError(errno.EACCES, "hidden", path)
        return BytesIO(
            b"1: FLOCK  ADVISORY  WRITE 1 %s 0 EOF\n" % place.encode() if path == "/proc/locks" else b"init\0"
        )

    with monkeypatch.context() as patch:
        patch.setattr(state, "PATIENCE", 0.0)
        patch.setattr(state, "open", opened, raising=False)
        with pytest.raises(ContainerBusy) as caught:
            Directory.open(oci.states, "one")
    return str(caught.value).removeprefix("the container is being changed by ").removesuffix(": one")
