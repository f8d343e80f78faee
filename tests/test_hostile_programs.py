"""Hostile programs inside, and host programs that do unusual things with children, signals and descriptors."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from contextlib import suppress

import pytest

import cycontainer
from cycontainer import DEVNULL, LaunchError, run
from cycontainer.spec import default_config

IN_TIME = 10.0  # seconds: far more than anything here takes, far less than what it would wait for


def in_a_process(script: str, *, close_fds: bool = True) -> str:
    """What a script prints in a Python of its own."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60, close_fds=close_fds
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


# --- inside


@pytest.mark.parametrize("signal", ["KILL", "STOP", "TERM", "INT", "SEGV"])
def test_pid_1_cannot_be_ended_from_inside(signal: str) -> None:
    """It passes on what it may get, and the kernel keeps SIGKILL and SIGSTOP from it."""
    result = run(["sh", "-c", f"trap '' TERM INT SEGV; kill -{signal} 1; exit 7"], timeout=IN_TIME)
    assert (result.returncode, result.timed_out) == (7, False)


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize(
    "script",
    [
        "kill -STOP $$; sleep 100",
        "trap '' TERM INT HUP; while :; do sleep 100; done",
        "setsid sh -c 'trap \"\" TERM; sleep 100' & exec sleep 100",
        "kill -STOP -1; sleep 100",
        "exec 0<&- 1>&- 2>&-; sleep 100",
    ],
)
def test_a_timeout_ends_what_will_not_end(script: str, init: bool) -> None:
    before = time.monotonic()
    result = run(["sh", "-c", script], timeout=0.3, init=init)
    assert (result.timed_out, result.returncode) == (True, -9)
    assert time.monotonic() - before < IN_TIME


@pytest.mark.parametrize("init", [True, False])
def test_what_a_program_leaves_behind_ends_with_it(init: bool) -> None:
    """Though it holds the pipes: nobody waits for their end."""
    before = time.monotonic()
    result = run(["sh", "-c", "setsid sleep 1000 & echo started; exit 3"], init=init, timeout=60)
    assert (result.returncode, result.stdout, result.timed_out) == (3, b"started\n", False)
    assert time.monotonic() - before < IN_TIME


def test_a_program_may_close_what_it_was_given() -> None:
    result = run(["sh", "-c", "echo a; exec 0<&- 1>&- 2>&-; exit 9"], input=b"x" * (1 << 20))
    assert (result.returncode, result.stdout) == (9, b"a\n")


def test_both_outputs_may_be_flooded() -> None:
    result = run(["sh", "-c", "head -c 20m /dev/zero & head -c 20m /dev/zero >&2; wait"])
    assert (len(result.stdout), len(result.stderr)) == (20 << 20, 20 << 20)


def test_pid_1_cannot_be_traced() -> None:
    script = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for request in (16, 0x4206):  # PTRACE_ATTACH, PTRACE_SEIZE
    assert libc.ptrace(request, 1, None, None) == -1
pidfd = libc.syscall(434, 1, 0)
assert all(libc.syscall(438, pidfd, fd, 0) == -1 for fd in range(16))  # pidfd_getfd
print("refused")
"""
    result = run(["/usr/bin/python3", "-c", script], text=True)
    assert (result.stdout, result.stderr) == ("refused\n", "")


# With CAP_SYS_PTRACE it takes the socket of pid 1, and says all that an init can say, with descriptors and without.
SPEAK = """
import ctypes, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
pidfd = libc.syscall(434, 1, 0)
taken = [fd for fd in (libc.syscall(438, pidfd, number, 0) for number in range(16)) if fd >= 0]
(line,) = [fd for fd in taken if os.readlink(f"/proc/self/fd/{fd}").startswith("socket")]
line = socket.socket(fileno=line)
print("speaks", flush=True)
for attempt in range(1000):
    for kind in KINDS:
        for step in (-5, -1, 0, 30, 150, 1 << 20):
            message = struct.pack("<4i3q", kind, step, attempt, 0, 0, 0, 0)
            one = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("<i", pidfd))]
            many = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("<9i", *[0] * 9))]
            for data, rights in ((message, []), (message, one), (message, many), (message[:7], many)):
                line.sendmsg([data], rights)
"""


@pytest.mark.root
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("kinds", [*((kind,) for kind in range(12)), (8, 10), tuple(range(12))], ids=str)
def test_who_speaks_in_pid_1s_place_is_not_believed(kinds: tuple[int, ...], processes: int) -> None:
    config = default_config()
    config["linux"]["namespaces"] += [{"type": "time"}] * (processes - 1)  # its init goes on in a second
    config["root"]["path"] = "/"
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] == "/proc"]
    config["process"]["args"] = ["/usr/bin/python3", "-I", "-S", "-c", SPEAK.replace("KINDS", repr(kinds))]
    sets = ("bounding", "effective", "permitted")
    config["process"]["capabilities"] = {kind: ["CAP_SYS_PTRACE"] for kind in sets}
    reader, writer = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    with suppress(LaunchError):  # it may be refused, or only say that the program has ended
        run(config["process"]["args"], config=config, stdout=writer, stderr=DEVNULL, timeout=IN_TIME)
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(writer)
    with open(reader) as said:
        assert said.read() == "speaks\n"


@pytest.mark.root
@pytest.mark.cgroups
@pytest.mark.parametrize("init", [True, False])
def test_a_fork_bomb_is_ended_by_its_timeout(init: bool) -> None:
    before = time.monotonic()
    result = run(["sh", "-c", "f() { while :; do f & done; }; f"], pids=40, timeout=0.5, init=init)
    assert b"fork" in result.stderr
    assert time.monotonic() - before < IN_TIME


@pytest.mark.root
@pytest.mark.cgroups
@pytest.mark.parametrize("init", [True, False])
def test_filled_memory_ends_the_program_and_is_told(init: bool) -> None:
    result = run(["sh", "-c", "exec tail /dev/zero"], memory=32 << 20, init=init, timeout=60)
    assert (result.oom_killed, result.timed_out, result.returncode) == (True, False, -9)


@pytest.mark.root
@pytest.mark.parametrize("init", [True, False])
def test_a_filter_that_kills_the_execve_is_no_end_of_a_program(init: bool, busybox_rootfs: str) -> None:
    """Nothing was executed: it could not start."""
    config = default_config()
    config["root"]["path"] = busybox_rootfs
    config["process"]["env"] = ["PATH=/bin"]
    rules = [{"names": ["execve"], "action": "SCMP_ACT_KILL_PROCESS"}]
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    with pytest.raises(LaunchError, match="execute true: its init ended with signal 31, as its seccomp filter asks"):
        run(["true"], config=config, init=init)


@pytest.mark.root
def test_a_program_that_its_filter_kills_at_once_has_run(busybox_rootfs: str) -> None:
    config = default_config()
    config["root"]["path"] = busybox_rootfs
    config["process"]["env"] = ["PATH=/bin"]
    rules = [{"names": ["exit_group"], "action": "SCMP_ACT_KILL_PROCESS"}]
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    assert run(["true"], config=config).returncode == -31


# --- the host program


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize("how", ["ignores SIGCHLD", "waits for any child"])
def test_a_foreign_reaper_never_makes_a_failure_a_success(how: str, init: bool) -> None:
    script = f"""
import os, signal, threading
import cycontainer
if {how!r} == "ignores SIGCHLD":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
else:
    def reap():
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                pass
    threading.Thread(target=reap, daemon=True).start()
for _ in range(20):
    try:
        print(cycontainer.run(["sh", "-c", "exit 5"], init={init}).returncode)
    except cycontainer.errors.StatusUnknown:
        print("unknown")
"""
    seen = in_a_process(script).split()
    assert len(seen) == 20 and set(seen) <= ({"5"} if init else {"5", "unknown"}), seen


def test_it_works_after_a_fork() -> None:
    script = """
import os, cycontainer
assert cycontainer.run(["true"]).returncode == 0
pid = os.fork()
code = cycontainer.run(["sh", "-c", "exit 4"]).returncode
if pid == 0:
    os._exit(code)
print(code, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert in_a_process(script) == "4 4\n"


def test_it_works_in_a_daemon_that_has_closed_all_and_opened_others() -> None:
    """What has our old descriptors' numbers is neither used nor closed."""
    script = """
import os, cycontainer
assert cycontainer.run(["true"]).returncode == 0
os.closerange(3, 256)
mine = [os.open("/etc/passwd", os.O_RDONLY) for _ in range(40)]
print(cycontainer.run(["sh", "-c", "exit 6"]).returncode, len(cycontainer.run(["ls", "/proc/self/fd"]).stdout.split()))
assert all(os.readlink(f"/proc/self/fd/{fd}") == os.path.realpath("/etc/passwd") for fd in mine)
"""
    assert in_a_process(script) == "6 4\n"


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_it_works_with_standard_streams_closed(closed: tuple[int, ...]) -> None:
    script = f"""
import os, cycontainer
out = os.dup(1)
for fd in {closed}:
    os.close(fd)
result = cycontainer.run(["sh", "-c", "echo x; echo y >&2; exit 8"])
other = cycontainer.run(["sh", "-c", "echo x; exit 8"], capture_output=False, stdin=None)
os.write(out, f"{{result.returncode}} {{result.stdout}} {{result.stderr}} {{other.returncode}}".encode())
os._exit(0)
"""
    printed = in_a_process(script)
    assert printed.removeprefix("x\n") == "8 b'x\\n' b'y\\n' 8"


def test_it_works_with_two_gigabytes() -> None:
    """A part of them is there, the rest is only mapped: this asks whether it works, bench/ what it costs."""
    script = """
import mmap, cycontainer
cycontainer.run(["true"])
private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
kept = mmap.mmap(-1, 2 << 30, flags=private), mmap.mmap(-1, 256 << 20, flags=private | mmap.MAP_POPULATE)
print(cycontainer.run(["sh", "-c", "exit 3"]).returncode)
"""
    assert in_a_process(script) == "3\n"


def test_a_directory_that_is_gone_is_no_hindrance(tmp_path: object) -> None:
    script = f"""
import os, cycontainer
os.mkdir("{tmp_path}/gone"); os.chdir("{tmp_path}/gone"); os.rmdir("{tmp_path}/gone")
print(cycontainer.run(["sh", "-c", "pwd; exit 2"]).returncode)
"""
    assert in_a_process(script) == "2\n"


@pytest.mark.root
def test_a_relative_root_is_that_of_now(busybox_rootfs: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan is kept, and the directory that a configuration's paths start from may change."""
    config = default_config()
    config["process"]["env"] = ["PATH=/bin"]
    for name in ("one", "two"):
        os.mkdir(f"{tmp_path}/{name}")
        subprocess.run(["cp", "-a", busybox_rootfs, f"{tmp_path}/{name}/rootfs"], check=True)
        with open(f"{tmp_path}/{name}/rootfs/name", "w") as file:
            file.write(name)
    for name in ("one", "two"):
        monkeypatch.chdir(f"{tmp_path}/{name}")
        assert run(["cat", "/name"], config=config).stdout == name.encode()


@pytest.mark.root
def test_a_configuration_in_a_directory_that_is_gone_is_an_error_of_ours(busybox_rootfs: str, tmp_path: object) -> None:
    script = f"""
import os, cycontainer
from cycontainer.spec import default_config
os.mkdir("{tmp_path}/gone"); os.chdir("{tmp_path}/gone"); os.rmdir("{tmp_path}/gone")
config = default_config()
try:
    cycontainer.run(["true"], config=config)
except cycontainer.LaunchError as error:
    print(error.errno)
config["root"]["path"] = "{busybox_rootfs}"
config["process"]["env"] = ["PATH=/bin"]
print(cycontainer.run(["sh", "-c", "exit 2"], config=config).returncode)
"""
    assert in_a_process(script) == f"{errno.ENOENT}\n2\n"


@pytest.mark.root
def test_a_thread_that_ends_does_not_end_its_container(busybox_rootfs: str, tmp_path: object) -> None:
    script = f"""
import threading
from cycontainer.lifecycle import Container
from cycontainer.spec import default_config
config = default_config()
config["root"]["path"] = "{busybox_rootfs}"
config["process"].update(args=["sleep", "1000"], env=["PATH=/bin"])
made = []
def make():
    container = Container.create("of-a-thread", config, root="{tmp_path}/state")
    container.start()
    made.append(container)
thread = threading.Thread(target=make)
thread.start()
thread.join()
print(made[0].status)
made[0].delete(force=True)
"""
    assert in_a_process(script).split()[-1].rpartition(".")[2].lower() == "running"


def test_errors_are_public() -> None:
    assert issubclass(cycontainer.errors.StatusUnknown, cycontainer.errors.Error)
