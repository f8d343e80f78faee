"""Templates: the same containers as run()'s, launched from what is ready, and none sees anything of another."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from guard import left_since, snapshot
from ordinary import OrdinaryUser

from cycontainer import PIPE, ConfigError, Error, LaunchError, ProgramError, Spawned, Template, run
from cycontainer.spec import default_config

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture
def template(busybox_rootfs: str) -> Iterator[Template]:
    if os.geteuid():
        pytest.skip("needs root")
    with Template(rootfs=busybox_rootfs, networks=2) as made:
        assert made.shared and made.fill()
        yield made


def test_a_launch_is_a_run(template: Template) -> None:
    result = template.run(["sh", "-c", "cat; echo e >&2; exit 3"], input="in", text=True)
    assert (result.returncode, result.stdout, result.stderr) == (3, "in", "e\n")
    assert template.run(["sleep", "100"], timeout=0.1).timed_out
    assert template.run(["env"], env={"A": "1"}).stdout == b"A=1\n"
    with pytest.raises(ProgramError):
        template.run(["no-such-program"])
    with pytest.raises(ConfigError):
        template.run(["true"], files={"a": b""})
    with pytest.raises(TypeError):
        template.run(["true"], memory=1 << 30)  # type: ignore[call-arg]  # that is the test


def test_it_works_on_the_hosts_root_and_for_an_ordinary_user(ordinary_user: OrdinaryUser) -> None:
    assert on_the_hosts_root() == b"1\n"
    assert ordinary_user(on_the_hosts_root) == b"1\n"


def on_the_hosts_root() -> bytes:
    with Template(networks=1) as template:
        assert template.shared == (os.geteuid() == 0)
        output: bytes = template.run(["echo", "1"]).stdout
    return output


# --- the same isolation as run()'s


def mounts_of(text: str) -> dict[str, tuple[str, str, str]]:
    """What is seen at each mount point: the last mount there; its options, type, and root."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        found[words[4]] = (",".join(sorted(words[5].split(","))), words[words.index("-") + 1], words[3])
    return found


@pytest.mark.root
@pytest.mark.parametrize("own_root", [True, False])
@pytest.mark.parametrize("configured", [True, False])
def test_it_has_the_mounts_that_a_run_has(busybox_rootfs: str, own_root: bool, configured: bool) -> None:
    keywords: dict[str, Any] = {"memory": 1 << 28, "pids": 50, "masked_paths": ["/etc/passwd", "/proc/uptime"]}
    if own_root:
        keywords["rootfs"] = busybox_rootfs
    if configured:
        keywords["config"] = default_config()
        keywords["rootfs"] = busybox_rootfs
    plain = mounts_of(run(["cat", "/proc/self/mountinfo"], text=True, **keywords).stdout)
    with Template(networks=1, **keywords) as template:
        assert template.fill()
        for _ in range(2):
            seen = mounts_of(template.run(["cat", "/proc/self/mountinfo"], text=True).stdout)
            assert seen.pop("/dev")[0] == plain["/dev"][0].replace("rw", "ro")
            assert {path: mount for path, mount in plain.items() if path != "/dev"} == seen
        for path in ("/etc/passwd", "/proc/uptime", "/sys/firmware"):
            assert not template.run(["sh", "-c", f"cat {path} {path}/*"]).stdout


@pytest.mark.root
def test_each_has_namespaces_of_its_own(template: Template) -> None:
    kinds = ("mnt", "pid", "ipc", "uts", "net", "cgroup")
    script = f"for kind in {' '.join(kinds)}; do readlink /proc/self/ns/$kind; done"
    seen: list[str] = []
    for _ in range(5):
        with template.spawn(["sh", "-c", f"{script}; read x"], stdin=PIPE) as first:
            seen += template.run(["sh", "-c", script], text=True).stdout.split()
            assert first.stdout is not None
            seen += [first.stdout.readline().decode().strip() for _ in kinds]
    assert not set(seen) & {os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}
    assert all(len(set(seen[at : at + 12])) == 12 for at in range(0, len(seen), 12))


@pytest.fixture
def first(template: Template) -> Iterator[Spawned]:
    """A running container that has left something in every place that can be written."""
    script = """
        for place in /tmp /dev/shm /dev/mqueue /run; do echo secret > $place/left 2>/dev/null || touch $place/left; done
        touch /dev/left 2>/dev/null && echo wrote to /dev
        chmod 0 /dev/null 2>/dev/null && echo changed /dev/null
        exec 3<> /dev/pts/ptmx
        ls /dev/pts/0 > /dev/null && echo ready
        read x
    """
    with template.spawn(["sh", "-c", script], stdin=PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline().split() == [b"ready"], "it could write to /dev"
        yield running


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm", "/dev/mqueue", "/run", "/dev"])
def test_what_one_writes_no_other_sees(template: Template, first: Spawned, place: str) -> None:
    assert "left" not in template.run(["ls", place], text=True).stdout.split()


def test_no_other_sees_its_terminals_and_processes(template: Template, first: Spawned) -> None:
    assert template.run(["ls", "/dev/pts"], text=True).stdout.split() == ["ptmx"]
    assert template.run(["sh", "-c", "echo /proc/[0-9]*"], text=True).stdout.split() == ["/proc/1", "/proc/2"]


@pytest.mark.root
def test_nothing_that_is_over_is_seen_by_the_next(template: Template) -> None:
    for _ in range(3):
        result = template.run(
            ["sh", "-c", "ls /tmp /dev/shm /dev/mqueue; for p in /tmp /dev/shm; do echo 1 > $p/x; done"]
        )
        assert (
            not result.stdout.replace(b"/tmp:\n", b"")
            .replace(b"/dev/shm:\n", b"")
            .replace(b"/dev/mqueue:\n", b"")
            .strip()
        )


@pytest.mark.root
def test_the_system_v_objects_and_the_network_are_its_own() -> None:
    make = "import ctypes; print(ctypes.CDLL(None).shmget(7, 4096, 0o1666))"
    find = "import ctypes; print(ctypes.CDLL(None).shmget(7, 4096, 0o666))"
    listen = "import socket; s = socket.create_server(('127.0.0.1', 7777)); print('on', flush=True); input()"
    connect = "import socket; socket.create_connection(('127.0.0.1', 7777))"
    python = "/usr/bin/python3"
    if not os.path.exists(python):
        pytest.skip("needs the system's Python")
    with Template(networks=2, init=False) as template:
        assert int(template.run([python, "-c", make]).stdout) >= 0
        assert int(template.run([python, "-c", find]).stdout) == -1
        with template.spawn([python, "-c", listen], stdin=PIPE) as listening:
            assert listening.stdout is not None and listening.stdout.readline() == b"on\n"
            assert b"ConnectionRefused" in template.run([python, "-c", connect]).stderr


# --- files, threads, forks


@pytest.mark.root
@pytest.mark.parametrize("cwd", [None, "/tmp", "/data"])
def test_files_go_in_and_out(busybox_rootfs: str, cwd: str | None) -> None:
    with Template(rootfs=busybox_rootfs, work_size=1 << 20, cwd=cwd) as template:
        for data in (b"1", b"2"):
            result = template.run(["cp", "in", "out"], files={"in": data}, collect=["*"])
            assert result.files == {"in": data, "out": data}
        assert template.run(["ls"]).stdout == b""
    if cwd == "/data":
        os.rmdir(f"{busybox_rootfs}/data")


def test_threads_share_one(template: Template) -> None:
    outputs: list[bytes] = []

    def launch(number: int) -> None:
        outputs.extend(template.run(["echo", str(number)]).stdout for _ in range(5))

    threads = [threading.Thread(target=launch, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs) == sorted(b"%d\n" % number for number in range(8) for _ in range(5))


FORKED = """
import os, sys
from cycontainer import Template
with Template(rootfs=sys.argv[1], networks=2) as template:
    assert template.fill()
    read = lambda: template.run(["readlink", "/proc/self/ns/net"]).stdout
    pid = os.fork()
    if pid == 0:
        seen = {read() for _ in range(4)}
        os._exit(0 if len(seen) == 4 and template._stock.take()[0] == -1 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert template.fill() and template._stock.take()[0] >= 0
"""


@pytest.mark.root
def test_a_fork_has_none_of_its_parents_networks(busybox_rootfs: str) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED, busybox_rootfs], check=True, cwd=PROJECT, timeout=60)


# --- faults


@pytest.mark.root
def test_whichever_step_fails_it_is_named_and_nothing_is_left(busybox_rootfs: str) -> None:
    with Template(rootfs=busybox_rootfs, work_size=1 << 20) as template:
        plan = template._stock.plan
        before = snapshot()
        for step, attempt in enumerate(plan.attempts):
            template._stock.plan = template._stock._plan_inside = plan.broken_at(step)
            with pytest.raises(LaunchError) as failure:
                template.run(["true"], timeout=20)
            assert failure.value.attempt == attempt
        assert not left_since(before)


@pytest.mark.root
def test_a_root_that_is_not_there_is_told_and_nothing_is_left(tmp_path: Any) -> None:
    with pytest.raises(LaunchError):
        Template(rootfs=str(tmp_path / "gone"), networks=2)
    with pytest.raises(ConfigError):
        Template(networks=-1)


def test_a_closed_one_is_refused_and_what_it_launched_goes_on(template: Template) -> None:
    with template.spawn(["cat"], stdin=PIPE) as running:
        template.close()
        with pytest.raises(Error):
            template.run(["true"])
        assert running.stdin is not None
        running.stdin.close()
        assert running.wait(20).returncode == 0


def test_without_descriptors_it_fails_and_leaves_nothing(template: Template) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    template.run(["true"])
    assert template.fill()
    used = max(int(number) for number in os.listdir("/proc/self/fd"))
    before = snapshot()
    for spare in range(8):
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
        try:
            template.run(["true"])
        except LaunchError as error:
            assert "EMFILE" in str(error)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert template.fill()
    assert not [left for left in left_since(before) if not left.startswith(("descriptor", "namespace"))]
    assert template.run(["echo", "1"]).stdout == b"1\n"


@pytest.mark.root
def test_one_that_cannot_be_made_for_want_of_descriptors_says_so(busybox_rootfs: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    Template(rootfs=busybox_rootfs, networks=1).close()
    before = snapshot()
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    refused = 0
    for spare in range(20):
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + spare, hard))
        try:
            Template(rootfs=busybox_rootfs, networks=1).close()
        except LaunchError as error:
            refused += 1
            assert "EMFILE" in str(error)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not left_since(before)
    assert 1 < refused < 20
