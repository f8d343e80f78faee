"""A container's life through the library: created, started, looked at, joined, ended, deleted."""

from __future__ import annotations

import errno
import os
import select
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from oci_command import COMMAND, IN_PYTHON

from cycontainer import run
from cycontainer import state as state_module
from cycontainer.errors import (
    ConfigError,
    ContainerError,
    ContainerExists,
    ContainerNotFound,
    ContainerNotRunning,
    Error,
    ProgramError,
)
from cycontainer.host import current
from cycontainer.lifecycle import Container
from cycontainer.spec import default_config
from cycontainer.state import Directory
from cycontainer.state_text import CgroupPlace, State
from cycontainer.streams import DEVNULL, PIPE

pytestmark = pytest.mark.root


@pytest.fixture
def root(tmp_path: object) -> Iterator[str]:
    yield f"{tmp_path}/states"


def config_of(rootfs: str, *args: str, **linux: object) -> dict[str, Any]:
    config = default_config()
    config["root"]["path"] = rootfs
    config["process"]["args"] = list(args)
    config["process"]["terminal"] = False
    config["process"]["env"] = ["PATH=/bin"]
    config["linux"].update(linux)
    return config


def test_it_is_created_started_and_deleted(busybox_rootfs: str, root: str) -> None:
    config = config_of(busybox_rootfs, "sh", "-c", "echo hello; exit 3")
    with Container.create("one", config, root=root, stdin=DEVNULL, stdout=PIPE) as container:
        assert container.status == "created"
        container.start()
        assert container.process is not None
        assert container.process.communicate()[0] == b"hello\n"
        assert (container.process.returncode, container.status) == (3, "stopped")
    assert os.listdir(root) == []


def test_a_filter_without_clone3_stops_no_exec_and_no_run(busybox_rootfs: str, root: str) -> None:
    """Docker's is one, and without no_new_privs it is loaded before the program's process is made."""
    rules = [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}]
    config = config_of(busybox_rootfs, "sleep", "100", seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
    config["process"]["noNewPrivileges"] = False
    with Container.create("one", config, root=root, stdin=DEVNULL, stdout=PIPE) as container:
        container.start()
        with container.exec(["echo", "beside it"], stdin=DEVNULL, stdout=PIPE) as process:
            assert process.communicate()[0] == b"beside it\n"
        container.kill()
    assert run(["echo", "under pid 1"], config=config, timeout=60).stdout == b"under pid 1\n"


def test_programs_that_several_threads_start_at_once_are_each_its_own(busybox_rootfs: str, root: str) -> None:
    def told(number: int) -> bytes:
        with container.exec(["echo", str(number % 3)], stdin=DEVNULL, stdout=PIPE) as process:
            out: bytes = process.communicate()[0]
            return out

    with Container.create("one", config_of(busybox_rootfs, "sleep", "100"), root=root, stdin=DEVNULL) as container:
        container.start()
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(told, range(24))) == [b"0\n", b"1\n", b"2\n"] * 8


def test_a_second_process_is_in_the_same_namespaces(busybox_rootfs: str, root: str) -> None:
    with Container.create("one", config_of(busybox_rootfs, "sleep", "100"), root=root, stdin=DEVNULL) as container:
        container.start()
        assert container.status == "running"
        process = container.exec(["sh", "-c", "hostname; cat /proc/1/comm; id -u; cat"], stdin=PIPE, stdout=PIPE)
        assert process.communicate(b"in") == (b"cycontainer\nsleep\n0\nin", b"")
        process.close()
        for kind in os.listdir("/proc/self/ns"):
            with container.exec(["readlink", f"/proc/self/ns/{kind}"], stdin=DEVNULL, stdout=PIPE) as process:
                seen = process.communicate()[0].decode().strip()
            assert seen == os.readlink(f"/proc/{container.pid}/ns/{kind}")


def test_it_is_deleted_with_a_second_process_that_nobody_waits_for(busybox_rootfs: str, root: str) -> None:
    with Container.create("one", config_of(busybox_rootfs, "sleep", "100"), root=root, stdin=DEVNULL) as container:
        container.start()
        process = container.exec(["sleep", "100"], stdin=DEVNULL)
        container.delete(force=True)  # its first process does not end before the second's status is taken
        assert process.poll() == -9
        process.close()


def test_a_process_that_was_closed_has_no_end_to_wait_for(busybox_rootfs: str, root: str) -> None:
    with Container.create("one", config_of(busybox_rootfs, "sleep", "100"), root=root, stdin=DEVNULL) as container:
        container.start()
        ended = container.exec(["true"], stdin=DEVNULL)
        assert ended.wait(20) == 0
        ended.close()
        assert ended.wait() == ended.poll() == 0
        process = container.exec(["sleep", "100"], stdin=DEVNULL)
        process.close()
        for use in (process.wait, process.poll, process.communicate, process.kill):
            with pytest.raises(Error, match="was closed"):
                use()


@pytest.mark.parametrize("wait", [Container.wait, lambda container: container.process.communicate()])
def test_its_end_comes_beside_a_second_process_that_nobody_waits_for(
    busybox_rootfs: str, root: str, wait: Callable[[Container], object]
) -> None:
    with Container.create("one", config_of(busybox_rootfs, "sleep", "100"), root=root, stdin=DEVNULL) as container:
        container.start()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(wait, container)
            time.sleep(0.2)
            process = container.exec(["true"], stdin=DEVNULL)
            select.select([process.pidfd], [], [])
            container.kill()
            waiting.result(20)
        assert (container.process and container.process.returncode, process.returncode) == (-9, 0)
        process.close()


def test_what_ends_or_is_deleted_while_its_state_is_read(
    busybox_rootfs: str, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    status_before = state_module.status_of
    with Container.create("one", config_of(busybox_rootfs, "sleep", "100"), root=root, stdin=DEVNULL) as container:

        def end_then_answer(end: Callable[[], object]) -> None:
            def status_of(root: str, state: State) -> str:
                status = status_before(root, state)
                if status == "created":
                    end()
                return status

            monkeypatch.setattr(state_module, "status_of", status_of)

        def end() -> None:
            container.kill()
            assert container.wait(20) == -9

        end_then_answer(end)
        assert container.state()["status"] == "stopped"
        container.delete()
    with Container.create("one", config_of(busybox_rootfs, "sleep", "100"), root=root, stdin=DEVNULL) as container:
        end_then_answer(container.delete)
        with pytest.raises(ContainerNotFound):
            container.state()


def test_its_processes_are_those_that_it_sees(busybox_rootfs: str, root: str) -> None:
    script = "sleep 101 & sleep 102 & echo ready; wait"
    config = config_of(busybox_rootfs, "sh", "-c", script)
    with Container.create("one", config, root=root, stdin=DEVNULL, stdout=PIPE) as container:
        container.start()
        assert container.process and container.process.stdout and container.process.stdout.readline() == b"ready\n"
        found = container.processes()
        with container.exec(["ps", "-o", "args="], stdin=DEVNULL, stdout=PIPE) as process:
            seen = process.communicate()[0].decode().splitlines()
        assert sorted(shlex.join(each.cmdline()) for each in found) == sorted(
            [f"sh -c '{script}'", "sleep 101", "sleep 102"]
        )
        assert sorted(" ".join(each.cmdline()) for each in found) == sorted(
            line.strip() for line in seen if "ps -o" not in line
        )
        assert found[0].pid == container.pid and {each.ppid() for each in found[1:]} == {container.pid}
        container.kill()
        container.wait(20)
        assert container.processes() == []


def test_several_threads_wait_for_one_process(busybox_rootfs: str, root: str) -> None:
    with (
        Container.create("one", config_of(busybox_rootfs, "sleep", "100"), root=root, stdin=DEVNULL) as container,
        ThreadPoolExecutor(4) as pool,
    ):
        container.start()
        with container.exec(["sh", "-c", "read line; exit 7"], stdin=PIPE) as process:
            waiting = [pool.submit(process.wait, 10) for _ in range(4)]
            assert process.stdin is not None
            process.stdin.close()
            assert [each.result() for each in waiting] == [7] * 4


def test_errors_are_told_apart(busybox_rootfs: str, root: str) -> None:
    with pytest.raises(ContainerNotFound):
        Container.load("one", root=root)
    with pytest.raises(ProgramError):
        Container.create("one", config_of(busybox_rootfs, "no-such-program"), root=root)
    with Container.create("one", config_of(busybox_rootfs, "sleep", "100"), root=root, stdin=DEVNULL) as container:
        with pytest.raises(ContainerExists):
            Container.create("one", config_of(busybox_rootfs, "true"), root=root)
        container.start()
        with pytest.raises(ContainerError, match="cannot start a container in the running state"):
            container.start()
        with pytest.raises(ProgramError):
            container.exec(["no-such-program"])
        container.kill()
        assert container.wait(10) == -9
        with pytest.raises(ContainerNotRunning, match="container not running"):
            container.kill()


def test_a_process_that_runs_costs_its_caller_one_descriptor(busybox_rootfs: str, root: str) -> None:
    nothing: dict[str, Any] = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL}
    config = config_of(busybox_rootfs, "sleep", "100")
    with Container.create("first", config, root=root, **nothing):  # what is opened once, is
        before = len(os.listdir("/proc/self/fd"))
        with Container.create("one", config, root=root, **nothing) as container:
            container.start()
            assert len(os.listdir("/proc/self/fd")) == before + 1
            with container.exec(["sleep", "100"], **nothing) as process:
                assert len(os.listdir("/proc/self/fd")) == before + 2
                process.kill()
                assert process.wait(10) == -9
            container.kill()
            assert container.wait(10) == -9


@pytest.mark.cgroups
@pytest.mark.parametrize("command", [COMMAND, IN_PYTHON], ids=["compiled", "python"])
def test_a_start_for_which_memory_is_too_short_says_so(
    busybox_rootfs: str, root: str, command: tuple[str, ...]
) -> None:
    config = config_of(busybox_rootfs, "true", *["x" * 100_000] * 15)  # which execve copies
    with Container.create("one", config, root=root, stdin=DEVNULL) as container:
        used = container.stats().memory
        assert used is not None
        container.update({"memory": {"limit": used.memory.usage + 200_000, "swap": used.memory.usage + 200_000}})
        done = subprocess.run([*command, "--root", root, "start", "one"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        1,
        "cycontainer: unable to start container process: start the container: its init has died; "
        "container init was OOM-killed (memory limit too low?)\n",
    )


WRONG: list[tuple[dict[str, Any], str]] = [  # keywords of exec; where the error stands
    ({"args": "true"}, "args"),
    ({"args": ["true", "a\0b"]}, "args[1]"),
    ({"args": ["true", 1]}, "args[1]"),
    ({"args": [""]}, "args[0]"),
    ({"env": ("A",)}, "process.env[0]"),
    ({"env": ("A=\0",)}, "process.env[0]"),
    ({"cwd": "tmp"}, "process.cwd"),
    ({"cwd": ""}, "process.cwd"),
    ({"user": (0, -1)}, "process.user.gid"),
    ({"user": (1 << 32, 0)}, "process.user.uid"),
    ({"additional_gids": (-1,)}, "process.user.additionalGids[0]"),
    ({"terminal": True, "size": (1 << 16, 1)}, "process.consoleSize.height"),
    ({"apparmor_profile": "a\nb"}, "process.apparmorProfile"),
    ({"capabilities": ("CAP_FROB",)}, "capabilities"),
    ({"cgroup": {"": ".."}}, "cgroup"),
]


def test_what_exec_cannot_do_is_named(busybox_rootfs: str, root: str) -> None:
    with Container.create("one", config_of(busybox_rootfs, "sleep", "100"), root=root, stdin=DEVNULL) as container:
        for keywords, place in WRONG:
            with pytest.raises(ConfigError) as failure:
                container.exec(**{"args": ["true"], **keywords})
            assert failure.value.path == place


def test_a_paused_container_is_killed_and_deleted(busybox_rootfs: str, root: str) -> None:
    with Container.create("one", config_of(busybox_rootfs, "sleep", "100"), root=root, stdin=DEVNULL) as container:
        container.start()
        container.pause()
        assert container.status == "paused"
        container.resume()
        assert container.status == "running"
        container.pause()


def intended(root: str, path: str) -> Directory:
    """A container whose creator was killed after it had written down what it would make."""
    directory = Directory.reserve(root, "half")
    mount = next(each.mount for each in current().cgroups.all if "pids" in each.controllers)
    place = CgroupPlace(mount=mount, controllers=("pids",), path=path)
    directory.save(State(id="half", bundle="/", version="1.3.0", created="", owner=0, cgroups=(place,)))
    return directory


@pytest.mark.cgroups
def test_half_a_container_is_deleted_and_a_stranger_s_cgroup_left(root: str) -> None:
    """A configuration may name any cgroup: what was only meant to be made there is not ours to kill."""
    with subprocess.Popen(["sleep", "100"]) as stranger:
        with intended(root, "/cycontainer-stranger") as directory:
            loaded = directory.load()
            assert loaded is not None
            place = loaded.cgroups[0]
            os.mkdir(place.mount + place.path)
        with open(f"{place.mount}{place.path}/cgroup.procs", "w") as file:
            file.write(str(stranger.pid))
        Container("half", root).delete(force=True)
        assert (stranger.poll(), os.listdir(root)) == (None, [])
        stranger.kill()
        stranger.wait()
        os.rmdir(place.mount + place.path)


def test_without_a_process_it_is_created_and_cannot_be_started(busybox_rootfs: str, root: str) -> None:
    config = config_of(busybox_rootfs)
    del config["process"]
    with Container.create("one", config, root=root, stdin=DEVNULL) as container:
        assert container.status == "created"
        with pytest.raises(ContainerError, match="cannot start a container without a process"):
            container.start()
        with container.exec(["/bin/hostname"], stdin=DEVNULL, stdout=PIPE) as process:
            assert process.communicate()[0] == b"cycontainer\n"


def test_a_paused_container_cannot_be_started_before_it_is_resumed(busybox_rootfs: str, root: str) -> None:
    with Container.create("one", config_of(busybox_rootfs, "true"), root=root, stdin=DEVNULL) as container:
        container.pause()
        with pytest.raises(ContainerError, match="paused"):
            container.start()
        container.resume()
        with pytest.raises(ContainerError, match="not paused"):
            container.resume()
        container.start()
        assert container.process is not None and container.process.wait(20) == 0


@pytest.mark.parametrize("config", [{"process": "a"}, {"process": [1]}, []])
def test_a_configuration_that_is_none_is_told_by_its_field(config: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Container.create("one", config, root=f"{tmp_path}/states")
