"""Two programs at one container: the second waits, not for ever, and `delete --force` ends what the first waits for."""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from oci_command import COMMAND, IN_PYTHON, PATIENCE, ROOT, Oci, gone
from test_hooks import hook, share
from test_lifecycle import config_of

from cycontainer import deletion, state
from cycontainer.errors import ContainerBusy, ContainerExists, ContainerNotFound, HookError
from cycontainer.lifecycle import Container
from cycontainer.process_stat import name_and_state
from cycontainer.state import Directory
from cycontainer.streams import DEVNULL

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


def said_to_a_hook(oci: Oci, tmp_path: Path, kind: str) -> list[str]:
    """What each verb says that a hook of a container calls on it."""
    before = [sys.executable, "-I", "-c", HASTY, "--root", oci.states]
    calls = [f"{shlex.join([*before, *verb, 'one'])} 2> {tmp_path}/{verb[0]}" for verb in LOCKING]
    config = oci.config("sleep", "1000")
    config["hooks"] = {kind: [hook("; ".join([*calls, "true"]))]}
    oci.write(config=config)
    oci.start()
    return [(tmp_path / verb[0]).read_text() for verb in LOCKING]


def test_a_verb_that_a_hook_calls_on_its_own_container_is_an_error(oci: Oci, tmp_path: Path) -> None:
    """Its caller waits for the hook, the hook for the verb, and the verb for the caller."""
    for said in said_to_a_hook(oci, tmp_path, "createRuntime"):
        assert said.startswith("cycontainer: the container is being changed by pid ")
        assert said.endswith(" create one): one\n")


def test_a_hook_behind_the_start_may_change_its_container(oci: Oci, tmp_path: Path) -> None:
    start, pause, resume, update, delete = said_to_a_hook(oci, tmp_path, "poststart")
    assert start == "cycontainer: cannot start a container in the running state: one\n"
    assert (pause, resume, update) == ("", "", "")
    assert delete == "cycontainer: cannot delete container that is not stopped: running: one\n"
    assert oci.state()["status"] == "running"


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


def deleted_behind_its_hook(oci: Oci, words: list[str], tmp_path: Path) -> str:
    """What a creation says whose container is deleted by force when its hook hangs."""
    with subprocess.Popen(words, cwd=oci.bundle, stderr=subprocess.PIPE) as caller:
        try:
            until(lambda: os.path.exists(f"{tmp_path}/hook"))
            oci.done("delete", "--force", "one", timeout=state.PATIENCE)
            said = caller.communicate(timeout=PATIENCE)[1].decode()
        finally:
            caller.kill()
    assert caller.returncode == 1
    return said


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
    said = deleted_behind_its_hook(oci, words, tmp_path)
    assert kind in said and "was killed: who waited for it has ended" in said
    assert os.listdir(oci.states) == []


# --- a hook that hangs, of a container without a cgroup: only its first process can be found


@contextmanager
def hanging_in(oci: Oci, tmp_path: Path, kind: str, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`run --detach` that waits for a hook, and the pid of that."""
    os.chmod(tmp_path, 0o777)
    config = oci.config("sleep", "1000")
    if kind == "createContainer":  # it runs inside
        share(config, tmp_path)
    if options:
        del config["linux"]["resources"]
    config["hooks"] = {kind: [hook(f"echo $$ > {tmp_path}/hook; exec sleep 1000")]}
    oci.write(config=config)
    words = [*oci.command, "--root", oci.states, *options, "run", "--detach", "one"]
    with subprocess.Popen(words, cwd=oci.bundle, stderr=subprocess.PIPE) as caller:
        try:
            until(lambda: os.path.exists(f"{tmp_path}/hook") and (tmp_path / "hook").read_text())
            yield caller, int((tmp_path / "hook").read_text())
        finally:
            caller.kill()


CREATING = ["prestart", "createRuntime", "createContainer"]
WITHOUT_CGROUP = ("--cgroup-manager", "disabled")


@pytest.mark.parametrize("command", [COMMAND, IN_PYTHON], ids=["compiled", "python"])
@pytest.mark.parametrize("kind", CREATING)
def test_delete_by_force_ends_a_hook_that_hangs_where_there_is_no_cgroup(
    own_oci: Oci, tmp_path: Path, kind: str, command: tuple[str, ...]
) -> None:
    with hanging_in(own_oci, tmp_path, kind, *WITHOUT_CGROUP) as (caller, _):
        own_oci.command = command
        own_oci.done("delete", "--force", "one", timeout=state.PATIENCE)
        assert kind in caller.communicate(timeout=PATIENCE)[1].decode() and caller.returncode == 1
    assert os.listdir(own_oci.states) == []


@pytest.mark.criu
@pytest.mark.parametrize("options", [(), WITHOUT_CGROUP], ids=["with a cgroup", "without"])
def test_delete_by_force_ends_a_hook_of_a_restore(oci: Oci, tmp_path: Path, options: tuple[str, ...]) -> None:
    config = oci.config("sleep", "1000")
    del config["linux"]["resources"]
    oci.write(config=config)
    oci.leaving(*options, "run", "--detach", "one")
    oci.done("checkpoint", "one")
    config["hooks"] = {"createRuntime": [hook(f"echo > {tmp_path}/hook; exec sleep 1000")]}
    oci.write(config=config)
    words = [*oci.command, "--root", oci.states, *options, "restore", "--detach", "one"]
    said = deleted_behind_its_hook(oci, words, tmp_path)  # in the cgroup lives criu, too
    assert "was killed: who waited for it has ended" in said or "killed by signal 9" in said
    assert os.listdir(oci.states) == []


@pytest.mark.parametrize("command", [COMMAND, IN_PYTHON], ids=["compiled", "python"])
def test_what_is_known_of_an_init_is_no_container_yet(own_oci: Oci, tmp_path: Path, command: tuple[str, ...]) -> None:
    """Its pid is kept for `delete --force` alone: no other verb does anything to it."""
    with hanging_in(own_oci, tmp_path, "createRuntime", *WITHOUT_CGROUP) as (caller, _):
        own_oci.command = command
        assert b"\ninit_pid " in Path(f"{own_oci.states}/one/state").read_bytes()
        shown = own_oci.state()
        assert (shown["status"], shown["pid"]) == ("creating", 0)
        assert " creating " in own_oci.done("list")
        for words in (("kill", "one"), ("kill", "one", "KILL")):
            assert own_oci(*words).stderr == "cycontainer: container not running: one\n"
        own_oci.done("kill", "--all", "one", "KILL")
        refused = "cycontainer: exec failed: cannot exec in a stopped container: container not running: one\n"
        assert own_oci("exec", "one", "true").stderr == refused
        assert caller.poll() is None and own_oci.state()["status"] == "creating"
        own_oci.done("delete", "--force", "one")


@pytest.mark.parametrize("command", [COMMAND, IN_PYTHON], ids=["compiled", "python"])
def test_an_init_that_is_stopped_is_found_when_its_creator_was_killed(
    own_oci: Oci, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """It does not see that its creator is gone."""
    with hanging_in(own_oci, tmp_path, "createRuntime", *WITHOUT_CGROUP) as (caller, pid):
        text = Path(f"{own_oci.states}/one/state").read_text()
        init = int(text.partition("\ninit_pid ")[2].partition("\n")[0])
        first = os.pidfd_open(init)
        os.kill(init, signal.SIGSTOP)
        until(lambda: name_and_state(init)[1] == "T")
        caller.kill()
        caller.wait()
        own_oci.command = command
        own_oci.done("delete", "--force", "one")
        gone(first)
        os.kill(pid, signal.SIGKILL)
    assert os.listdir(own_oci.states) == []


# --- a hook that hangs behind the start: the container is there, and is anyone's to end


@pytest.mark.parametrize("command", [COMMAND, IN_PYTHON], ids=["compiled", "python"])
@pytest.mark.parametrize("verbs", ["delete --force one", "kill one KILL, delete one"])
def test_a_container_is_deleted_although_a_hook_behind_its_start_hangs(
    oci: Oci, tmp_path: Path, verbs: str, command: tuple[str, ...]
) -> None:
    """What its creator does with it in the end, it leaves alone what has its id by then."""
    with hanging_in(oci, tmp_path, "poststart") as (caller, pid):
        first, own = os.pidfd_open(oci.pid()), oci.command
        oci.command = command
        for verb in verbs.split(", "):
            oci.done(*verb.split(), timeout=state.PATIENCE)
            gone(os.dup(first))
        os.close(first)
        assert os.listdir(oci.states) == []
        oci.command = own
        oci.write("sleep", "1000")
        oci.start()
        assert caller.poll() is None
        os.kill(pid, signal.SIGKILL)
        said = caller.communicate(timeout=PATIENCE)[1].decode()
        failed = "error running poststart hook #0: killed by signal 9; container does not exist: one"
        assert (caller.returncode, said) == (1, f"cycontainer: run failed: {failed}\n")
    assert oci.state()["status"] == "running"


def test_a_hook_that_fails_behind_the_start_ends_what_another_has(
    busybox_rootfs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without waiting for that any longer than others do."""
    root = f"{tmp_path}/states"
    config = config_of(busybox_rootfs, "sleep", "100")
    config["hooks"] = {"poststart": [hook(f"mkfifo {tmp_path}/fifo; read line < {tmp_path}/fifo; exit 7")]}
    with Container.create("one", config, root=root, stdin=DEVNULL) as container, ThreadPoolExecutor(1) as pool:
        starting = pool.submit(container.start)
        until(lambda: os.path.exists(f"{tmp_path}/fifo"))
        monkeypatch.setattr(state, "PATIENCE", 0.3)
        with Directory.open(root, "one"):
            Path(f"{tmp_path}/fifo").write_bytes(b"\n")
            with pytest.raises(HookError, match="poststart hook #0: exit status 7") as failure:
                starting.result(PATIENCE)
        assert failure.value.__notes__[0].startswith("the container is being changed by pid ")
        assert container.status == "stopped"


# --- who waits to kill, and what is another's by then


def swap(root: str, config: dict[str, Any], held: Directory) -> Container:
    """Delete a container that is held, and make another of its id."""
    deletion.delete(held, root, force=True, idle=lambda: None)
    held.close()
    return Container.create("one", config, root=root, stdin=DEVNULL)


@pytest.mark.cgroups
@pytest.mark.parametrize("step", ["before its state is read", "before its cgroup is opened"])
def test_who_waits_to_delete_kills_no_later_container_of_the_id(
    busybox_rootfs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Also where both have the same cgroup, by its name."""
    root, config = f"{tmp_path}/states", config_of(busybox_rootfs, "sleep", "100", cgroupsPath="/cycontainer/swapped")
    first = Container.create("one", config, root=root, stdin=DEVNULL)
    held: list[Directory] = [Directory.open(root, "one")]
    later: list[Container] = []
    where, name = (Container, "hear_ends") if step == "before its state is read" else (deletion, "open_first")
    real = getattr(where, name)

    def swapping(subject: Any) -> Any:
        if held:
            later.append(swap(root, config, held.pop()))
        return real(subject)

    monkeypatch.setattr(where, name, swapping)
    Container.handle("one", root=root).delete(force=True)
    monkeypatch.undo()
    with later[0] as container:
        assert container.status == "created" and container.process and container.process.poll() is None
        first.delete(force=True)  # whose id is another's
        assert container.status == "created"


def when_made(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """What others do, once, between the making of a new container's directory and its lock."""
    real = state._open_directory

    def opened(root: str, container_id: str) -> int:
        monkeypatch.setattr(state, "_open_directory", real)
        happens()
        return real(root, container_id)

    monkeypatch.setattr(state, "_open_directory", opened)


def test_a_new_directory_that_a_delete_by_force_finds_is_made_anew(
    busybox_rootfs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, config = f"{tmp_path}/states", config_of(busybox_rootfs, "sleep", "100")
    when_made(monkeypatch, lambda: Container.handle("one", root=root).delete(force=True))
    with Container.create("one", config, root=root, stdin=DEVNULL) as container:
        assert container.status == "created"


def test_who_comes_when_a_new_directory_was_deleted_has_the_id(
    busybox_rootfs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, config, others = f"{tmp_path}/states", config_of(busybox_rootfs, "sleep", "100"), list[Container]()

    def happen() -> None:
        Container.handle("one", root=root).delete(force=True)
        others.append(Container.create("one", config, root=root, stdin=DEVNULL))

    when_made(monkeypatch, happen)
    with pytest.raises(ContainerExists):
        Container.create("one", config, root=root, stdin=DEVNULL)
    with others[0] as other:
        assert other.status == "created"


def test_who_made_a_container_starts_no_later_one_of_its_id(busybox_rootfs: str, tmp_path: Path) -> None:
    root, config = f"{tmp_path}/states", config_of(busybox_rootfs, "sleep", "100")
    first = Container.create("one", config, root=root, stdin=DEVNULL)
    Container.handle("one", root=root).delete(force=True)
    with Container.create("one", config, root=root, stdin=DEVNULL) as later:
        for refused in (first.start, first.delete):
            with pytest.raises(ContainerNotFound):
                refused()
        first.delete(force=True)
        assert later.status == "created"


@pytest.mark.cgroups
def test_the_cgroup_is_anothers_while_the_hooks_at_the_end_run(
    oci: Oci, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = oci.config("sleep", "1000")
    config["linux"]["cgroupsPath"] = "/cycontainer/shared"
    oci.write(config=config)
    script = f"echo $$ > {tmp_path}/hook; test -e {tmp_path}/go || exec sleep 1000; echo again >> {tmp_path}/went"
    config["hooks"] = {"poststop": [hook(script)]}
    Path(f"{oci.bundle}/hooked.json").write_text(json.dumps(config))
    oci.leaving("create", "--config", "hooked.json", "one")
    with subprocess.Popen([*oci.command, "--root", oci.states, "delete", "one"]) as deleting:
        try:
            until(lambda: os.path.exists(f"{tmp_path}/hook") and (tmp_path / "hook").read_text())
            oci.create("two")
            monkeypatch.setattr(state, "PATIENCE", 0.3)
            with pytest.raises(ContainerBusy):
                Container.handle("one", root=oci.states).delete(force=True)
            assert oci.state("two")["status"] == "created"
        finally:
            deleting.kill()
    os.kill(int((tmp_path / "hook").read_text()), signal.SIGKILL)
    Path(f"{tmp_path}/go").touch()
    oci.done("delete", "--force", "one")
    assert (tmp_path / "went").read_text() == "again\n"
    assert oci.state("two")["status"] == "created"


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
