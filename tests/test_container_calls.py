"""What a `Container`'s methods take, and what they refuse by name: the calls themselves."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from documented import python_fails
from oci_command import ROOT
from test_lifecycle import config_of

from cycontainer import aio
from cycontainer.errors import ConfigError, ContainerError, ContainerPaused, Error, WaitTimeout
from cycontainer.execution import read_program
from cycontainer.lifecycle import Container
from cycontainer.streams import DEVNULL, PIPE

pytestmark = pytest.mark.root
Made = Callable[..., Container]


@pytest.fixture
def root(tmp_path: object) -> str:
    return f"{tmp_path}/states"


@pytest.fixture
def made(busybox_rootfs: str, root: str) -> Iterator[Made]:
    """Makes the container "one" of a script."""
    containers: list[Container] = []

    def make(script: str, **keywords: Any) -> Container:
        config = config_of(busybox_rootfs, "sh", "-c", script)
        containers.append(Container.create("one", config, root=root, stdin=DEVNULL, **keywords))
        return containers[-1]

    yield make
    for container in containers:
        container.delete(force=True)


# --- run


def test_run_starts_it_and_returns_what_its_program_returned(made: Made) -> None:
    container = made("echo ran; exit 3", stdout=PIPE)
    assert container.run(timeout=20) == 3
    assert container.process is not None and container.process.stdout is not None
    assert (container.process.stdout.read(), container.status) == (b"ran\n", "stopped")
    with pytest.raises(ContainerError, match="cannot start a container in the stopped state"):
        container.run()


def test_run_that_takes_too_long_leaves_it_running_and_it_can_be_waited_for(made: Made) -> None:
    container = made("sleep 100")
    with pytest.raises(WaitTimeout):
        container.run(0.05)
    assert container.status == "running"
    with pytest.raises(ContainerError, match="cannot start a container in the running state"):
        container.run()
    container.kill()
    assert container.wait(20) == -9


def test_run_goes_on_after_a_signal_and_ends_with_what_its_handler_raises(made: Made) -> None:
    container, seen = made("sleep 100"), []

    def hear(number: int, _: object) -> None:
        seen.append(number)
        if len(seen) == 2:
            raise KeyError("heard")

    before = signal.signal(signal.SIGALRM, hear)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        with pytest.raises(KeyError, match="heard"):
            container.run(20)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (len(seen), container.status) == (2, "running")


def test_what_another_program_created_is_not_run_here(made: Made, root: str) -> None:
    """Only its creator hears how it ends: it is not started, and nobody waits in vain."""
    made("exit 4")
    with pytest.raises(ContainerError, match="only who created a container can hear how it ends"):
        Container.load("one", root=root).run()
    assert Container.load("one", root=root).status == "created"


def test_what_was_closed_is_not_run(made: Made) -> None:
    container = made("exit 4")
    assert container.process is not None
    container.process.close()
    with pytest.raises(Error, match="was closed before its end was heard of"):
        container.run()
    assert container.status == "created"
    container.delete()
    os.waitpid(container.process.pid, 0)  # whose end nobody was to hear of


def test_run_on_a_loop(busybox_rootfs: str, root: str) -> None:
    async def life() -> None:
        config = config_of(busybox_rootfs, "sh", "-c", "exit 5")
        async with await aio.Container.create("one", config, root=root, stdin=DEVNULL) as container:
            assert await container.run(timeout=20) == 5
        config = config_of(busybox_rootfs, "sleep", "100")
        async with await aio.Container.create("one", config, root=root, stdin=DEVNULL) as container:
            with pytest.raises(WaitTimeout):
                await container.run(0.05)
            assert await container.status() == "running"
            with pytest.raises(ContainerError, match="only who created"):
                await (await aio.Container.load("one", root=root)).run()

    asyncio.run(life())


def test_run_on_a_loop_that_is_cancelled_kills_its_program(busybox_rootfs: str, root: str) -> None:
    async def life() -> None:
        config = config_of(busybox_rootfs, "sh", "-c", "echo ready; exec sleep 100")
        container = await aio.Container.create("one", config, root=root, stdin=DEVNULL, stdout=PIPE)
        async with container:
            running = asyncio.ensure_future(container.run())
            assert container.process is not None and container.process.stdout is not None
            assert await container.process.stdout.readline() == b"ready\n"
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled() and await container.wait(20) == -9

    asyncio.run(life())


# --- start of one that is paused


def test_a_paused_container_is_not_started_whatever_it_did_before(made: Made) -> None:
    container = made("sleep 100")
    for _ in range(2):
        container.pause()
        with pytest.raises(ContainerPaused):
            container.start()
        container.resume()
        if container.status == "created":
            container.start()


# --- exec of a process as the specification has it


PROCESS: dict[str, Any] = {
    "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}],
    "scheduler": {"policy": "SCHED_BATCH", "nice": 3},
    "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 7},
    "oomScoreAdj": 77,
    "user": {"uid": 5, "gid": 6, "umask": 0o77},
}


def status_of(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def test_a_process_as_a_dict_has_its_own_limits_and_the_rest_is_the_containers(made: Made) -> None:
    container = made("sleep 100")
    container.start()
    process = {**PROCESS, "execCPUAffinity": {"initial": "0", "final": str(max(os.sched_getaffinity(0)))}}
    script = "ulimit -n; ionice; umask; cat"
    with container.exec(["sh", "-c", script], process=process, stdin=PIPE, stdout=PIPE) as found:
        assert found.stdout is not None
        assert [found.stdout.readline() for _ in range(3)] == [b"50\n", b"idle\n", b"0077\n"]
        assert os.sched_getscheduler(found.pid) == os.SCHED_BATCH
        assert os.getpriority(os.PRIO_PROCESS, found.pid) == 3
        assert os.sched_getaffinity(found.pid) == {max(os.sched_getaffinity(0))}
        own, its = status_of(container.pid), status_of(found.pid)
        for name in ("CapBnd", "NoNewPrivs", "Seccomp"):
            assert its[name] == own[name], name
        assert (its["Uid"].split()[0], its["Gid"].split()[0]) == ("5", "6")
        with open(f"/proc/{found.pid}/oom_score_adj") as file:
            assert file.read() == "77\n"


def test_a_process_as_a_dict_names_its_own_program_or_runs_the_one_that_is_given(made: Made) -> None:
    container = made("sleep 100")
    container.start()
    for args, process in (
        (["pwd"], {"cwd": "/bin"}),
        ((), {"cwd": "/bin", "args": ["pwd"], "env": ["PATH=/bin"]}),
        (["pwd"], {"cwd": "/", "args": ["no-such-program"]}),
    ):
        with container.exec(args, process=process, cwd="/bin", stdin=DEVNULL, stdout=PIPE) as found:
            assert found.communicate()[0] == b"/bin\n"
    whole = read_program(b'{"cwd": "/", "args": ["echo", "whole"]}', container.config.process, print)
    with container.exec([], process=whole, stdin=DEVNULL, stdout=PIPE) as found:
        assert found.communicate()[0] == b"whole\n"
    with container.exec(["tty"], process={"terminal": True}) as found:
        assert found.terminal >= 0 and found.wait(20) == 0


def test_the_page_for_who_comes_from_libcontainer_does_what_it_shows(made: Made) -> None:
    container = made("sleep 100")
    container.start()
    assert not (said := python_fails(f"{ROOT}/docs/from-runc.md", {"container": container})), said


# --- what cannot be is refused by name


def test_exec_takes_an_environment_as_a_dict_or_as_entries(made: Made) -> None:
    container = made("sleep 100")
    container.start()
    for env in ({"A": "1"}, ["A=1"], ("A=1",)):
        with container.exec(["sh", "-c", "echo $A"], env=env, stdin=DEVNULL, stdout=PIPE) as found:
            assert found.communicate()[0] == b"1\n"


NOT_TO_EXEC: list[tuple[dict[str, Any], str]] = [  # keywords of exec; where the error stands
    ({"args": []}, "args"),
    ({"args": ()}, "args"),
    ({"args": None}, "args"),
    ({"args": 5}, "args"),
    ({"args": b"true"}, "args"),
    ({"args": [1]}, "args[0]"),
    ({"args": ["true", "a\0"]}, "args[1]"),
    ({"args": [], "process": {"cwd": "/"}}, "process.args"),
    ({"user": "root"}, "user"),
    ({"user": 5}, "user"),
    ({"user": (1, 2, 3)}, "user"),
    ({"size": (1,)}, "size"),
    ({"size": "24x80"}, "size"),
    ({"cgroup": "x"}, "cgroup"),
    ({"cgroup": {"": 5}}, "cgroup"),
    ({"process": "x"}, "process"),
    ({"process": [1]}, "process"),
    ({"process": {"rlimits": [{"type": "RLIMIT_FROB", "soft": 1, "hard": 1}]}}, "process.rlimits[0].type"),
    ({"env": 5}, "env"),
    ({"env": "A=1"}, "env"),
    ({"env": {"A": 1}}, "env['A']"),
    ({"capabilities": "CAP_KILL"}, "capabilities"),
    ({"capabilities": [5]}, "capabilities[0]"),
    ({"additional_gids": 5}, "additional_gids"),
    ({"terminal": "yes"}, "terminal"),
    ({"no_new_privileges": 1}, "no_new_privileges"),
    ({"ignore_paused": "x"}, "ignore_paused"),
    ({"pass_fds": 5}, "pass_fds"),
    ({"pass_fds": [1, "x"]}, "pass_fds[1]"),
    ({"pass_fds": [-1]}, "pass_fds[0]"),
    ({"stdin": "x"}, "stdin"),
]


def refused(call: Callable[[], object], place: str) -> None:
    with pytest.raises(ConfigError) as failure:
        call()
    assert failure.value.path == place


def test_what_cannot_be_executed_is_named_and_nothing_is_started(made: Made) -> None:
    container = made("sleep 100")
    container.start()
    before = container.pids()
    for keywords, place in NOT_TO_EXEC:
        refused(lambda: container.exec(**{"args": ["true"], **keywords}), place)  # noqa: B023  # called at once
    assert container.pids() == before


def test_what_a_running_container_cannot_do_is_named(made: Made) -> None:
    container = made("sleep 100")
    container.start()
    calls: list[tuple[Callable[[Any], object], tuple[object, ...], str]] = [
        (container.signal, (None, "TERM", 1.5, -1, 65, 10**30), "number"),
        (container.update, (None, 5, "x", []), "resources"),
        (lambda value: container.update({}, intel_rdt=value), ("x",), "intel_rdt"),
        (container.events, ("x", -1, float("nan")), "interval"),
        (container.wait, ("x", [], float("nan")), "timeout"),
        (container.checkpoint, (None, 5), "image_path"),
        (container.snapshot, (5,), "path"),
        (lambda value: container.checkpoint("/no/such", parent_path=value), (5,), "parent_path"),
        (lambda value: container.checkpoint("/no/such", leave_running=value), ("x",), "leave_running"),
    ]
    for call, values, place in calls:
        for value in values:
            refused(lambda: call(value), place)  # noqa: B023  # called at once
    with container.exec(["sleep", "100"], stdin=DEVNULL, terminal=True) as process:
        refused(lambda: process.send_signal("TERM"), "number")  # type: ignore[arg-type]  # which is the point
        refused(lambda: process.communicate("text"), "input")  # type: ignore[arg-type]  # the same
        refused(lambda: process.communicate(timeout=float("nan")), "timeout")
        for name, size in {"rows": (-1, 1), "columns": (1, 70_000)}.items():
            refused(lambda: process.resize(*size), name)  # noqa: B023  # called at once
        assert process.poll() is None
    assert container.status == "running"


def test_what_cannot_be_made_or_found_is_named(busybox_rootfs: str, root: str) -> None:
    config = config_of(busybox_rootfs, "true")
    for container_id in (None, 5, b"one"):
        refused(lambda: Container.load(container_id, root=root), "container_id")  # type: ignore[arg-type]  # so it is  # noqa: B023
    refused(lambda: Container.list(root=5), "root")  # type: ignore[arg-type]  # which is the point
    wrong: Any
    for name, wrong in (
        ("bundle", 5),
        ("root", 5),
        ("pivot", None),
        ("new_keyring", "x"),
        ("supervisor", 5),
        ("pass_fds", 5),
    ):
        refused(lambda: Container.create("one", config, **{"root": root, name: wrong}), name)  # noqa: B023
    for wrong in (None, "x", {"hostname": b"x"}):
        refused(lambda: Container.create("one", wrong, root=root), "config")  # noqa: B023  # called at once
    refused(lambda: Container.restore("one", config, wrong, root=root), "image_path")
    assert not os.path.exists(root) or os.listdir(root) == []


def test_an_ordinary_user_without_a_runtime_directory_has_no_containers() -> None:
    program = (
        "import os; os.setuid(65534); os.environ.clear(); from cycontainer import Container; print(Container.list())"
    )
    done = subprocess.run([sys.executable, "-B", "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("[]\n", "")
