"""What `run()` promises, asked of the real kernel."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pace import SLOWER

import cycontainer
from cycontainer import STDOUT, ConfigError, LaunchError, Pool, ProgramError, RunError, Template, aio, run, spawn
from cycontainer.spec import default_config


def test_a_program_runs_and_its_output_comes_back() -> None:
    result = run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.returncode, result.stdout, result.stderr) == (3, b"out\n", b"err\n")


def test_a_signal_is_a_negative_returncode() -> None:
    result = run(["sh", "-c", "kill -ABRT $$"])
    assert (result.returncode, result.signal) == (-6, signal.SIGABRT)


def test_input_of_any_size_comes_through() -> None:
    data = os.urandom(3 << 20)
    assert run(["cat"], input=data).stdout == data


def test_text_is_decoded() -> None:
    assert run(["printf", "\\303\\244"], text=True).stdout == "ä"


def test_a_timeout_kills_all_and_keeps_what_was_printed() -> None:
    result = run(["sh", "-c", "echo before; setsid sleep 100 & sleep 100"], timeout=0.5 * SLOWER)
    assert (result.timed_out, result.stdout, result.returncode) == (True, b"before\n", -9)


def test_check_raises_with_the_result() -> None:
    with pytest.raises(RunError) as failure:
        run(["false"], check=True)
    assert failure.value.result.returncode == 1


@pytest.mark.parametrize(
    ("changed", "ended_by", "text"),
    [
        ({"returncode": -9, "timed_out": True, "oom_killed": True}, "timeout", "ran into its timeout"),
        ({"returncode": -9, "output_exceeded": True}, "output_limit", "printed more than its output_limit"),
        ({"returncode": -9, "oom_killed": True}, "memory", "was killed for exceeding its memory limit"),
        ({"returncode": 1, "oom_killed": True}, "memory", "was killed for exceeding its memory limit"),
        ({"returncode": 0, "oom_killed": True}, "exit", ""),
        ({"returncode": -6}, "signal", "died of signal 6"),
        ({"returncode": 3}, "exit", "returned exit status 3"),
    ],
)
def test_one_word_tells_what_ended_it(changed: dict[str, Any], ended_by: str, text: str) -> None:
    result = run(["true"]).replace(**changed)
    assert result.ended_by == ended_by
    if text:
        assert str(RunError(result)) == f"true {text}"


def test_the_program_is_alone_with_its_pid_1() -> None:
    assert run(["sh", "-c", "echo /proc/[0-9]*"]).stdout == b"/proc/1 /proc/2\n"
    assert run(["sh", "-c", "echo $$"], init=False).stdout == b"1\n"


def test_the_default_has_no_network_but_loopback() -> None:
    lines = run(["cat", "/proc/net/dev"], text=True).stdout.splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]


def test_the_default_has_no_capability_and_no_new_privileges() -> None:
    status = run(["cat", "/proc/self/status"], text=True).stdout
    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")


def test_nothing_of_the_callers_environment_or_descriptors_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    with open("/etc/hostname") as file:
        os.set_inheritable(file.fileno(), True)
        result = run(["sh", "-c", "env; ls /proc/self/fd"], text=True)
    assert "SECRET" not in result.stdout
    assert result.stdout.split()[-4:] == ["0", "1", "2", "3"]  # 3 is ls's own


def test_the_program_starts_with_fresh_signals() -> None:
    status = run(["cat", "/proc/self/status"], text=True).stdout
    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert {int(fields[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")} == {0}


def test_the_hosts_root_can_be_read_and_not_written() -> None:
    result = run(["sh", "-c", "test -r /etc/passwd && touch /etc/x /x /usr/x; touch /tmp/x && ls /root /home /sys"])
    assert result.returncode == 0
    assert result.stderr.count(b"Read-only file system") + result.stderr.count(b"Permission denied") == 3


def test_init_cannot_be_looked_into() -> None:
    script = "for f in root cwd exe mem environ; do cat /proc/1/$f > /tmp/out 2>&1 && echo $f; ls /proc/1/fd; done"
    assert run(["sh", "-c", script]).stdout == b""


def test_a_missing_program_could_not_start() -> None:
    with pytest.raises(ProgramError) as failure:
        run(["no-such-program"])
    assert failure.value.status == 127
    assert failure.value.attempt == "look up the program"


def test_a_file_that_is_no_program_could_not_start() -> None:
    with pytest.raises(ProgramError) as failure:
        run(["/etc/passwd"])
    assert failure.value.status == 126


def test_a_missing_directory_is_named() -> None:
    with pytest.raises(LaunchError, match="/no/such: ENOENT"):
        run(["true"], cwd="/no/such")


NEW: dict[str, Any] = {"namespaces": [{"type": "mount"}, {"type": "pid"}]}
CONFIG: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "root": {"path": "/", "readonly": True},
    "process": {"cwd": "/", "args": ["true"], "user": {"uid": 65534, "gid": 65534}},
    "linux": NEW,
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
}
NOTIFYING = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "listenerPath": "/no/such",
    "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
}

TREE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEEP: list[object] = []
for _ in range(3000):
    DEEP = [DEEP]
WRONG = [
    ({"args": []}, "args"),
    ({"args": ["a\0b"]}, r"args\[0\]"),
    ({"args": "true"}, "args"),
    ({"timeout": -1}, "timeout"),
    ({"memory": 1}, "memory"),
    ({"pids": True}, "pids"),
    ({"network": "bridge"}, "network"),
    ({"env": {"A=B": "c"}}, "env"),
    ({"env": {"A": "x" * (1 << 20)}}, "env"),
    ({"env": {"A": "\xe4" * 70000}}, "env"),
    ({"env": {"A": 1}}, "env"),
    ({"env": {"A": "\ud800"}}, "env"),
    ({"env": ["A=1"]}, "env"),
    ({"args": ["\ud800"]}, r"args\[0\]"),
    ({"args": ["true", 1]}, "args"),
    ({"args": ["true", "\xe4" * 70000]}, r"args\[1\]"),
    ({"input": 5}, "input"),
    ({"input": "\xe4", "encoding": "ascii"}, "input"),
    ({"encoding": "no-such"}, "encoding"),
    ({"encoding": "hex"}, "encoding"),
    ({"errors": "no-such"}, "errors"),
    ({"stdout": STDOUT}, "stdout"),
    ({"stdout": 1 << 20}, "stdout"),
    ({"stderr": io.StringIO()}, "stderr"),
    ({"stdin": "x"}, "stdin"),
    ({"cpus": float("inf")}, "cpus"),
    ({"rootfs": ""}, "rootfs"),
    ({"rootfs": 5}, "rootfs"),
    ({"cwd": ""}, "cwd"),
    ({"hostname": ""}, "hostname"),
    ({"mounts": "/tmp"}, "mounts"),
    ({"mounts": [5]}, "mounts"),
    ({"mounts": 5}, "mounts: must be a list"),
    ({"mounts": [{"destination": "/x", "options": DEEP}]}, "mounts: is nested too deep"),
    ({"masked_paths": 5}, "masked_paths: must be a list"),
    ({"output_limit": 1 << 64}, "output_limit: must be an integer from 0 to"),
    ({"timeout": 10**400}, "timeout: must be a number"),
    ({"supervisor": ["mkdir"]}, "supervisor: must be a dict"),
    ({"supervisor": {5: print}}, "supervisor: must be a dict"),
    ({"config": 5}, "config"),
    ({"config": {**CONFIG, "process": 5}}, "process: must be an object"),
    ({"config": {**CONFIG, "linux": {"resources": {"memory": 5}}}, "memory": 1 << 26}, "linux.resources.memory: must"),
    ({"config": {**CONFIG, "mounts": 5}}, "mounts: must be"),
    ({"config": {**CONFIG, "hooks": {"createRuntime": [{"path": "/bin/true"}]}}}, "hooks"),
    ({"config": {**CONFIG, "process": {**CONFIG["process"], "terminal": True}}}, "process.terminal"),
    ({"config": CONFIG, "user_namespace": True}, "user_namespace"),
    ({"config": {**CONFIG, "linux": {**NEW, "seccomp": NOTIFYING}}}, "linux.seccomp"),
    ({"cwd": "relative"}, "cwd"),
    ({"hostname": "h" * 65}, "hostname"),
    ({"user": "nobody-knows-me"}, "user"),
    ({"mounts": [{"type": "tmpfs"}]}, r"mounts\[\d+\].destination"),
]


@pytest.mark.parametrize(("keywords", "where"), WRONG, ids=[where for _, where in WRONG])
def test_a_wrong_argument_is_named(keywords: dict[str, object], where: str) -> None:
    with pytest.raises(ConfigError, match=where):
        run(**{"args": ["true"], **keywords})  # type: ignore[arg-type]  # that is the point


LEAVING = ["sh", "-c", "setsid sleep 1000 & [ $0 = leave ] || sleep 1000"]


def without_pid_namespace(rootfs: str) -> dict[str, Any]:
    config = default_config()
    linux = config["linux"]
    linux["namespaces"] = [namespace for namespace in linux["namespaces"] if namespace["type"] != "pid"]
    return {"config": config, "rootfs": rootfs, "init": False, "memory": 64 << 20}


def spawned_and_left(args: list[str], **keywords: Any) -> None:
    with spawn(args, **keywords) as program:
        if args[-1] == "leave":
            program.wait()


def in_a_template(args: list[str], **keywords: Any) -> None:
    with Template(cgroups=1, **{name: keywords.pop(name) for name in ("config", "rootfs", "init", "memory")}) as made:
        made.run(args, **keywords)


def in_a_pool(args: list[str], **keywords: Any) -> None:
    with Pool(1, **{name: keywords.pop(name) for name in ("config", "rootfs", "init", "memory")}) as made:
        made.run(args, **keywords)


def awaited(args: list[str], **keywords: Any) -> None:
    asyncio.run(aio.run(args, **keywords))


def awaited_and_cancelled(args: list[str], **keywords: Any) -> None:
    async def cancelled() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(aio.run(args, **keywords), 0.3)

    asyncio.run(cancelled())


@pytest.mark.root
@pytest.mark.parametrize("how", ["leave", "stay"])
@pytest.mark.parametrize("call", [run, spawned_and_left, in_a_template, in_a_pool, awaited, awaited_and_cancelled])
def test_without_a_pid_namespace_a_container_ends_with_its_cgroup(
    busybox_rootfs: str, call: Callable[..., object], how: str
) -> None:
    """What it has left holds the output open; the guard sees whether the cgroup is gone."""
    reader, writer = os.pipe()
    timeout = 0.5 if how == "stay" else 60
    with open(reader, "rb") as ours, open(writer, "wb") as theirs:
        call([*LEAVING, how], stdout=theirs, timeout=timeout, **without_pid_namespace(busybox_rootfs))
        theirs.close()
        assert select.select([ours], [], [], 5)[0] and ours.read() == b""


@pytest.mark.root
def test_without_a_pid_namespace_all_its_processes_are_killed(busybox_rootfs: str) -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as ours, open(writer, "wb") as theirs:
        keywords = without_pid_namespace(busybox_rootfs)
        with spawn(["sh", "-c", "setsid sleep 1000 & echo; sleep 1000"], stdout=theirs, **keywords) as program:
            theirs.close()
            assert ours.readline() == b"\n"
            program.kill()
            assert select.select([ours], [], [], 5)[0] and ours.read() == b""
            assert program.wait(60).returncode == -9


@pytest.mark.root
def test_what_is_masked_is_masked_in_ones_own_configuration_too() -> None:
    assert run(["cat", "/etc/passwd"], config=CONFIG, masked_paths=["/etc/passwd"]).stdout == b""


ALARMED = f"""
import cycontainer, signal
def ring(number, frame):
    raise TimeoutError("rings")
cycontainer.run(["true"])  # an import that is interrupted takes this error for one of files
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, {0.2 * SLOWER})
try:
    cycontainer.run(["sleep", "1000"])
except TimeoutError as error:
    print(error)
"""


def test_what_a_signal_handler_raises_comes_through() -> None:
    assert subprocess.run([sys.executable, "-c", ALARMED], capture_output=True, check=True).stdout == b"rings\n"


ALARMED_BESIDE = """
import cycontainer, signal, threading
def ring(number, frame):
    raise TimeoutError("rings")
threading.Thread(target=threading.Event().wait, daemon=True).start()  # the kernel may choose it to take the signal
cycontainer.run(["true"])
signal.signal(signal.SIGALRM, ring)
rung = 0
for number in range(60):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002 * (1 + number % 20))
        cycontainer.run(["true"], hostname=f"host-{number}")  # compiled anew
        signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeoutError as error:
        rung += str(error) == "rings"
print(rung > 5)
"""


def test_what_it_raises_while_another_thread_takes_the_signal_does_too() -> None:
    done = subprocess.run([sys.executable, "-c", ALARMED_BESIDE], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


CLOSED = """
import cycontainer, fcntl, os
out = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 20)
for fd in range(3):
    os.close(fd)
show = ["sh", "-c", "seen=$(readlink /proc/$$/fd/0 /proc/$$/fd/1); echo \\"$seen\\" >&2"]
for _ in range(2):  # the second time, what is kept for the next run is open
    done = cycontainer.run(show, stdin=None, stdout=None, capture_output=False, stderr=cycontainer.PIPE)
    os.write(out, done.stderr)
done = cycontainer.run(["cat"], input=b"x", capture_output=False, timeout=5)
os.write(out, b"ended" if not done.timed_out else b"waits for itself")
"""


def test_what_took_a_closed_streams_number_does_not_get_in() -> None:
    lines = subprocess.run([sys.executable, "-c", CLOSED], capture_output=True, check=True).stdout.splitlines()
    assert lines == [b"/dev/null"] * 4 + [b"ended"]


ENDLESS = """
import os, resource, cycontainer
from cycontainer import _wait, _clone, init_process, sources
from cycontainer._plan import assemble
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
plan = init_process.plan_file(assemble(sources.pad_errand().data, 0, (), (), (), None))
child = _clone.spawn(init_process.init_descriptor(), plan, (), (), 0)
endless = os.open("/dev/zero", os.O_RDONLY)
waiter = _wait.Waiter(child, endless, -1, -1, b"", 0.02)
while waiter.wait() != _wait.DEADLINE:
    child.receive()
init_process.abandon(child)
"""


@pytest.mark.root
def test_output_without_end_does_not_keep_from_the_deadline() -> None:
    subprocess.run([sys.executable, "-c", ENDLESS], check=True)


def test_output_without_end_does_not_keep_from_ctrl_c() -> None:
    script = """
import cycontainer, os, signal, threading
def interrupt():
    os.read(reader, 1)
    os.kill(os.getpid(), signal.SIGINT)
reader, writer = os.pipe()
threading.Thread(target=interrupt).start()
try:
    cycontainer.run(["sh", "-c", "echo x >&2; cat /dev/zero"], stderr=writer, memory=None)
except KeyboardInterrupt:
    print("interrupted")
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.stdout == "interrupted\n", result.stderr


HOMES = """
import cycontainer, os, tempfile
def seen():
    return cycontainer.run(["ls", "-A", "/opt", os.environ["HOME"]]).stdout
os.environ["HOME"] = "/opt"
assert b"usr" not in seen()
os.environ["HOME"] = "/etc"
print(b"passwd" in seen())
"""


def test_a_home_that_has_changed_is_empty_too() -> None:
    assert subprocess.run([sys.executable, "-c", HOMES], capture_output=True, check=True).stdout == b"False\n"


def test_what_is_mounted_below_a_hidden_home_is_all_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home/project/data").mkdir(parents=True)
    (tmp_path / "home/secret").touch()
    (tmp_path / "home/project/data/file").write_text("given")
    for directory in (tmp_path, *tmp_path.rglob("*")):
        directory.chmod(0o755)
    monkeypatch.setenv("HOME", f"{tmp_path}/home")
    place = f"{tmp_path}/home/project/data"
    script = 'ls -A "$0" "$0/project"; cat "$0/project/data/file"; touch "$0/new" "$0/project/new"'
    mount = {"destination": place, "type": "bind", "source": place, "options": ["bind", "ro"]}
    result = run(["sh", "-c", script, f"{tmp_path}/home"], mounts=[mount], text=True)
    assert result.stdout.split() == [f"{tmp_path}/home:", "project", f"{tmp_path}/home/project:", "data", "given"]
    assert result.stderr.count("Read-only file system") == 2


# In a mount namespace of its own, as it changes the root: a home, what it is, what else is done.
ELSEWHERE = [
    ("/home2/me", "mkdir -p /home2/me"),
    ("/root2", "mkdir /root2"),
    ("/home/../opt/me", "mkdir -p /opt/me"),
    ("/srv/me", "mkdir -p /srv/me"),
    ("/var/real/me", "mkdir -p /var/real/me; rmdir /home; ln -s var/real /home"),
]
IN_ANOTHER_ROOT = """
up=$(mktemp -d); mount -t tmpfs none $up; mkdir $up/upper $up/work $up/root
mount -t overlay -o lowerdir=/,upperdir=$up/upper,workdir=$up/work overlay $up/root
for place in proc sys dev tmp "${3#/}"; do mkdir -p $up/root/$place; mount --rbind /$place $up/root/$place; done
cd $up/root; mkdir old; pivot_root . old; cd /; umount -l /old
find /home -mindepth 1 -delete; eval "$1"; echo secret > "$HOME/key"
exec "$2" -c "$4"
"""
KEY = """
import cycontainer, os
print(cycontainer.run(["cat", os.environ["HOME"] + "/key"]))
"""


@pytest.mark.root
@pytest.mark.parametrize(("home", "change"), ELSEWHERE)
def test_a_home_is_hidden_wherever_it_lies(home: str, change: str) -> None:
    done = in_another_root(home, change, KEY)
    assert "returncode=1" in done.stdout and "secret" not in done.stdout, done


def in_another_root(home: str, change: str, program: str) -> subprocess.CompletedProcess[str]:
    argv = ["unshare", "--mount", "sh", "-ec", IN_ANOTHER_ROOT, "sh", change, sys.executable, TREE, program]
    return subprocess.run(argv, env={**os.environ, "HOME": home}, capture_output=True, text=True)


BELOW_A_LINKED_HOME = """
import cycontainer, os
def seen(*, at, below):
    mount = {"destination": at, "type": "bind", "source": "/var/real/me/shown", "options": ["bind"]}
    script = 'cat "$0"/shown/data /tmp/work/f; ls -A "$0"; touch "$0/x" "$0"/shown/y && rm "$0"/shown/y'
    run = cycontainer.run(["sh", "-c", script, below], mounts=[mount], user=0, text=True, files={"f": "put\\n"})
    assert run.stderr == f"touch: cannot touch '{below}/x': Read-only file system\\n", run
    return run.stdout.split()
for at in "/var/real/me/shown", "/home/me/shown":
    for below in "/var/real/me", "/home/me":
        assert seen(at=at, below=below) == ["given", "put", "shown"]
for cwd in "/var/real/me/job", "/home/me/job":
    made = cycontainer.run(["cp", "f", "g"], cwd=cwd, files={"f": "put"}, collect=["g"])
    assert made.files == {"g": b"put"}, made
print("all")
"""


@pytest.mark.root
def test_what_is_mounted_below_a_linked_home_is_there_by_both_its_names() -> None:
    change = "mkdir -p /var/real/me/shown; rmdir /home; ln -s var/real /home; echo given > /var/real/me/shown/data"
    done = in_another_root("/var/real/me", change, BELOW_A_LINKED_HOME)
    assert done.stdout == "all\n", done


def test_what_is_mounted_over_a_hidden_directory_is_as_it_was_asked_for() -> None:
    over = {"destination": "/home", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}
    below = {**over, "destination": "/home/below"}
    assert run(["touch", "/home/x"], mounts=[below, over]).returncode == 0
    assert run(["touch", "/home/x"], mounts=[{**over, "options": ["mode=1777", "ro"]}]).returncode == 1


# In a mount namespace of its own, as the links are in the root.
LINKED = """
mount -t tmpfs -o mode=755 tmpfs /opt && mkdir -m 755 /opt/real && echo secret > /opt/real/file && ln -s real /opt/home
HOME=/opt/home exec "$@"
"""
LOOK = "import cycontainer; print(cycontainer.run(['ls', '-A', '/opt/real', '/opt/home/']).stdout)"


@pytest.mark.root
def test_a_home_behind_a_link_is_empty_too() -> None:
    command = ["unshare", "--mount", "sh", "-ec", LINKED, "sh", sys.executable, "-c", LOOK]
    seen = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "/opt/real" in seen and "file" not in seen


def test_the_callers_memory_is_not_the_programs() -> None:
    held = bytearray(b"x") * (256 << 20)
    assert run(["true"]).usage.peak_memory < 64 << 20 < len(held)
    stopped = run(["sleep", "1000"], timeout=0.2)
    assert (stopped.timed_out, stopped.usage.processes) == (True, 1)
    assert 0 < stopped.usage.peak_memory < 64 << 20


def test_twenty_threads_at_once() -> None:
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(run(["true"]).returncode)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 20


def test_a_program_that_ignores_sigchld_gets_the_true_status() -> None:
    script = """
import signal, cycontainer
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
assert cycontainer.run(["sh", "-c", "exit 5"]).returncode == 5
"""
    subprocess.run([sys.executable, "-c", script], check=True)


DROPPED = """
import gc, os, select, sys, cycontainer
program = cycontainer.spawn(["sleep", "1000"])
end = os.pidfd_open(program.pid)
del program
gc.collect()
sys.exit(0 if select.select([end], [], [], 20)[0] else "it runs on")
"""


def test_what_is_dropped_ends() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", DROPPED], check=True)


FORKING = """
import os, sys, threading, cycontainer
over = threading.Event()
def launch():
    while not over.is_set():
        cycontainer.run(["true"])
threads = [threading.Thread(target=launch) for _ in range(2)]
for thread in threads:
    thread.start()
held = 0
for _ in range(300):
    pid = os.fork()
    if pid == 0:
        links = (os.readlink(f"/proc/self/fd/{fd}") for fd in range(3, 60) if os.path.exists(f"/proc/self/fd/{fd}"))
        os._exit(any(link.startswith("socket:") for link in links))
    held += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
over.set()
for thread in threads:
    thread.join()
sys.exit(f"{held} forks held a socket" if held > 2 else 0)
"""


def test_a_fork_while_others_launch_holds_no_socket_of_theirs() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKING], check=True)


KILLED = """
import os, sys, threading, cycontainer
program = ["sh", "-c", "echo $$; sleep 1000"]
running = threading.Thread(target=lambda: cycontainer.run(program, stdout=1, capture_output=False), daemon=True)
running.start()
sys.stdin.readline()
if len(sys.argv) > 1 and os.fork() == 0:  # which has copies of all descriptors
    os.close(1)
    sys.stdin.read()
    os._exit(0)
os.write(2, b"ready")
running.join()
"""


@pytest.mark.parametrize("words", [[], ["fork"]])
def test_a_parent_that_is_killed_leaves_no_process(words: list[str]) -> None:
    parent = subprocess.Popen([sys.executable, "-W", "ignore", "-c", KILLED, *words],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    with parent:
        assert parent.stdin and parent.stdout and parent.stderr
        parent.stdout.readline()  # the program runs
        parent.stdin.write(b"\n")
        parent.stdin.flush()
        assert parent.stderr.read(5) == b"ready"
        parent.kill()
        assert (
            select.select([parent.stdout], [], [], 20)[0] and parent.stdout.read() == b""
        )  # ends when the program's copy of the pipe is closed


def test_ctrl_c_kills_the_container() -> None:
    script = """
import cycontainer, os, signal, threading
reader, writer = os.pipe()
def interrupt():
    os.read(reader, 1)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    cycontainer.run(["sh", "-c", "echo x; sleep 1000"], stdout=writer)
except KeyboardInterrupt:
    print("interrupted")
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.stdout == "interrupted\n", result.stderr


@pytest.mark.root
def test_root_runs_nobody_on_the_hosts_root() -> None:
    result = run(["sh", "-c", "id -u; cat /etc/shadow"])
    assert (result.stdout, result.returncode) == (b"65534\n", 1)


@pytest.mark.root
@pytest.mark.cgroups
def test_memory_that_is_exceeded_is_an_oom_kill() -> None:
    result = run(["sh", "-c", "head -c 200m /dev/zero | tail"], memory=64 << 20)
    assert result.oom_killed
    assert result.usage.peak_memory <= 64 << 20


@pytest.mark.root
@pytest.mark.cgroups
def test_a_fork_bomb_stays_in_its_limit() -> None:
    result = run(["sh", "-c", "f() { f | f & }; f; sleep 1"], pids=20, timeout=5)
    assert b"fork" in result.stderr.lower()


@pytest.mark.root
def test_a_rootfs_runs_as_its_root(busybox_rootfs: str) -> None:
    result = run(["sh", "-c", "id -u; hostname; touch /x"], rootfs=busybox_rootfs, hostname="inside")
    assert (result.stdout, result.returncode) == (b"0\ninside\n", 1)


@pytest.mark.root
def test_a_user_namespace_maps_root_away(busybox_rootfs: str) -> None:
    result = run(["cat", "/proc/self/uid_map"], rootfs=busybox_rootfs, user_namespace=True)
    assert result.stdout.split() == [b"0", b"100000", b"65536"]


@pytest.mark.root
def test_a_masked_file_reads_as_empty(busybox_rootfs: str) -> None:
    result = run(["cat", "/etc/passwd"], rootfs=busybox_rootfs, masked_paths=["/etc/passwd"])
    assert (result.returncode, result.stdout) == (0, b"")


@pytest.mark.root
@pytest.mark.parametrize(
    ("user", "ids"), [(1234, "1234 1234"), ("1234", "1234 1234"), ("12:34", "12 34"), ("0:34", "0 34"), (0, "0 0")]
)
def test_a_user_is_its_numbers(user: int | str, ids: str, busybox_rootfs: str) -> None:
    result = run(["sh", "-c", "echo $(id -u) $(id -g) $(id -G)"], rootfs=busybox_rootfs, user=user, text=True)
    assert result.stdout == f"{ids} {ids.split()[1]}\n"


@pytest.mark.root
def test_an_ordinary_number_may_do_nothing_more_than_it(busybox_rootfs: str) -> None:
    status = run(["cat", "/proc/self/status"], rootfs=busybox_rootfs, user="12:34", text=True).stdout
    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert (fields["Uid"], fields["Gid"]) == ("12\t12\t12\t12", "34\t34\t34\t34")
    assert {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {0}


def interfaces(text: str) -> set[str]:
    return {line.split(":")[0].strip() for line in text.splitlines()[2:]}


def test_with_the_hosts_network_one_sees_the_hosts_interfaces() -> None:
    seen = run(["sh", "-c", "readlink /proc/self/ns/net; cat /proc/net/dev"], network="host", text=True)
    namespace, _, devices = seen.stdout.partition("\n")
    assert namespace == os.readlink("/proc/self/ns/net")
    assert interfaces(devices) == {name for _, name in socket.if_nameindex()}


def test_mounts_are_there_as_they_were_asked_for(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("of the host\n")
    mounts = [
        {"destination": "/tmp/in", "source": str(tmp_path / "in"), "type": "bind", "options": ["bind", "ro"]},
        {"destination": "/tmp/small", "source": "tmpfs", "type": "tmpfs", "options": ["size=64k", "nosuid"]},
    ]
    script = """cat /tmp/in/file; echo x > /tmp/in/new && echo written
head -c 1m /dev/zero > /tmp/small/big || wc -c < /tmp/small/big"""
    result = run(["sh", "-c", script], mounts=mounts, text=True)
    assert result.stdout.split("\n") == ["of the host", "65536", ""]
    assert os.listdir(tmp_path / "in") == ["file"]


def test_what_is_mounted_writable_is_written_through(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    os.chmod(tmp_path.parent, 0o755)
    bind = {"destination": "/tmp/out", "source": str(tmp_path), "type": "bind", "options": ["bind"]}
    assert run(["sh", "-c", "echo made > /tmp/out/new"], mounts=[bind]).returncode == 0
    assert (tmp_path / "new").read_text() == "made\n"


# --- limits, and what was used


@pytest.mark.root
@pytest.mark.parametrize("cpus", [0.2, 0.5])
def test_a_share_of_a_processor_is_kept_to(cpus: float) -> None:
    used = run(["sh", "-c", "while :; do :; done & while :; do :; done"], cpus=cpus, timeout=1).usage
    assert 0 < used.user + used.system < 1.5 * cpus < used.wall


def test_what_was_used_is_counted() -> None:
    script = """i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done
(exit) & (exit) & wait
head -c 30m /dev/zero | tail -c 30m > /dev/null"""
    used = run(["sh", "-c", script]).usage
    assert used.processes == 1 + 2 + 2
    assert 0 < used.user < used.wall * (os.cpu_count() or 1)
    assert 30 << 20 <= used.peak_memory < 80 << 20
    assert run(["true"], init=False).usage.processes is None


FULL_OF_FILES = """
import os, resource, cycontainer
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
cycontainer.run(["true"])
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
said = set()
while not said or "EMFILE" in max(said):
    try:
        cycontainer.run(["true"])
        break
    except cycontainer.LaunchError as error:
        said.add(str(error))
    os.close(held.pop())
assert all(text.endswith("EMFILE (Too many open files in this process: raise its limit, ulimit -n)") for text in said)
print(len(said) > 3)
"""


def test_without_descriptors_the_limit_is_named() -> None:
    assert subprocess.run([sys.executable, "-c", FULL_OF_FILES], capture_output=True, check=True).stdout == b"True\n"


@pytest.mark.root
def test_a_user_is_looked_up_in_the_image(busybox_rootfs: str) -> None:
    assert run(["id", "-u"], rootfs=busybox_rootfs, user="root").stdout == b"0\n"


def run_alone() -> tuple[int, bytes]:
    result = cycontainer.run(["sh", "-c", "id -u; cat /proc/self/uid_map; ls /proc | grep -c '^[0-9]'"])
    return result.returncode, result.stdout


def test_an_ordinary_user_has_containers(ordinary_user) -> None:  # type: ignore[no-untyped-def]  # of conftest
    code, output = ordinary_user(run_alone)
    words = output.split()
    assert (code, words[0], words[1:4]) == (0, words[1], [words[0], str(ordinary_user.uid).encode(), b"1"])
