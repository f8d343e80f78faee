"""Container engines drive the installed command: podman through conmon, containerd through its shim.

Their images are directories of busybox: nothing is fetched. Only what these tests start is touched.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

import pytest
from conftest import lacks

pytestmark = [pytest.mark.root, pytest.mark.engine]

COMMAND = os.path.join(os.path.dirname(sys.executable), "cycontainer")
PATIENCE = 60  # seconds for one call
LIMITS = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"]  # root here may not raise its own


class Podman:
    """podman with a store of its own, and our command as its runtime."""

    def __init__(self, directory: Path) -> None:
        self.words = [
            "podman", "--root", f"{directory}/store", "--runroot", f"{directory}/run", "--tmpdir", f"{directory}/tmp",
            "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none",
            "--runtime", COMMAND,
        ]  # fmt: skip

    def __call__(self, *words: str, check: bool = True, **keywords: object) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.words, *words], capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self("run", "--network=none", *LIMITS, *words, check=check)

    def state_of(self, name: str, form: str) -> str:
        return self("inspect", "--format", form, name).stdout.strip()


@pytest.fixture(scope="module")
def podman(busybox_rootfs: str) -> Iterator[Podman]:
    if not shutil.which("podman"):
        lacks("podman")
    directory = Path(tempfile.mkdtemp(prefix="podman-", dir="/var/tmp"))  # a run root has at most 50 letters
    with tarfile.open(directory / "image.tar", "w") as archive:
        archive.add(busybox_rootfs, ".")
    engine = Podman(directory)
    engine("import", str(directory / "image.tar"), "busybox")
    yield engine
    engine("rm", "--force", "--all")
    engine("rmi", "--force", "--all")
    shutil.rmtree(directory)
    for parent in glob("/sys/fs/cgroup/*/libpod_parent"):  # conmon's own
        for inner in glob(f"{parent}/*"):
            if os.path.isdir(inner):
                os.rmdir(inner)
        os.rmdir(parent)


def test_podman_runs_a_program(podman: Podman) -> None:
    done = podman.run("--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


@pytest.mark.parametrize(("program", "status", "words"), [("nosuch", 127, "not found"), ("/etc/passwd", 126, "denied")])
def test_podman_understands_why_nothing_was_started(podman: Podman, program: str, status: int, words: str) -> None:
    done = podman.run("--rm", "busybox", program, check=False)
    assert (done.returncode, words in done.stderr) == (status, True), done.stderr


def test_a_container_s_life_with_podman(podman: Podman) -> None:
    script = 'echo started; trap "echo term; exit 3" TERM; while :; do sleep 0.05; done'
    podman.run("--detach", "--name", "life", "busybox", "sh", "-c", script)
    try:
        done = podman("exec", "life", "sh", "-c", "hostname >/dev/null; id -u; exit 5", check=False)
        assert (done.returncode, done.stdout) == (5, "0\n")
        assert podman("exec", "--user", "7:8", "--env", "A=b", "life", "sh", "-c", "id -u; echo $A").stdout == "7\nb\n"
        podman("pause", "life")
        assert podman.state_of("life", "{{.State.Status}}") == "paused"
        podman("unpause", "life")
        podman("stop", "--time", "20", "life")
        assert podman.state_of("life", "{{.State.Status}} {{.State.ExitCode}}") == "exited 3"
        assert podman("logs", "life").stdout == "started\nterm\n"
    finally:
        podman("rm", "--force", "life")


def test_podman_kills_what_ignores_signals(podman: Podman) -> None:
    podman.run("--detach", "--name", "stubborn", "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    podman("kill", "--signal", "TERM", "stubborn")
    assert podman.state_of("stubborn", "{{.State.Running}}") == "true"
    podman("rm", "--force", "--time", "0", "stubborn")
    assert podman("inspect", "stubborn", check=False).returncode != 0


def test_podman_gives_a_terminal(podman: Podman) -> None:
    pid, master = pty.fork()
    if pid == 0:
        script = "tty; stty size; read x; echo got $x"
        os.execvp(
            "podman", [*podman.words, "run", "--rm", "-it", "--network=none", *LIMITS, "busybox", "sh", "-c", script]
        )
    seen = b""
    try:
        os.write(master, b"typed\n")
        while part := os.read(master, 4096):
            seen += part
    except OSError:  # EIO: podman has ended
        seen += b""
    finally:
        os.close(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, seen
    assert b"/dev/pts/0" in seen and b"got typed" in seen


@pytest.mark.parametrize("terminal", [False, True], ids=["no terminal", "terminal"])
def test_podman_runs_what_is_privileged(podman: Podman, terminal: bool) -> None:
    """It lists every device of the host's /dev."""
    script = "readlink /dev/ptmx; grep CapBnd /proc/self/status; touch /sys/ro 2>&1; test -c /dev/full && echo full"
    how = ["--tty"] if terminal else []
    done = podman.run("--rm", "--privileged", *how, "busybox", "sh", "-c", script)
    words = done.stdout.split()
    assert words[0] == "pts/ptmx" and words[-1] == "full" and "Read-only" not in done.stdout
    assert int(words[2], 16) == bounding_set()


@pytest.mark.parametrize("option", ["copy", "nocopy"])
def test_podman_passes_its_own_words_on(podman: Podman, option: str) -> None:
    volume, script = f"volume-{option}", "ls /tmp; touch /tmp/y"
    podman.run("--rm", "-v", f"{volume}:/bin2:{option}", "busybox", "touch", "/bin2/x")
    done = podman.run("--rm", "-v", f"{volume}:/tmp:ro,{option}", "busybox", "sh", "-c", script, check=False)
    assert done.stdout == "x\n" and "Read-only" in done.stderr


def bounding_set() -> int:
    """Ours: no engine can give more."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith("CapBnd:"))


def test_podman_has_twenty_at_once(podman: Podman) -> None:
    with ThreadPoolExecutor(4) as callers:
        outputs = callers.map(lambda number: podman.run("--rm", "busybox", "echo", str(number)).stdout, range(20))
        assert list(outputs) == [f"{number}\n" for number in range(20)]


COUNT = "i=0; while echo $i >/tmp/m && mv /tmp/m /tmp/n; do i=$((i+1)); sleep 0.01; done"


@pytest.mark.criu
@pytest.mark.slow
def test_podman_moves_a_container_in_an_archive(podman: Podman, tmp_path: Path) -> None:
    def counted(name: str) -> int:
        return int(podman("exec", name, "cat", "/tmp/n").stdout or 0)

    podman.run("--detach", "--name", "here", "busybox", "sh", "-c", COUNT)
    try:
        before = counted("here")
        podman("container", "checkpoint", "--export", f"{tmp_path}/saved.tar.gz", "here")
        podman("rm", "--force", "here")
        podman("container", "restore", "--import", f"{tmp_path}/saved.tar.gz", "--name", "there")
        assert counted("there") >= before
        podman("container", "checkpoint", "there")
        assert podman.state_of("there", "{{.State.Running}}") == "false"
        podman("container", "restore", "there")
        assert podman.state_of("there", "{{.State.Running}}") == "true"
    finally:
        podman("rm", "--force", "--ignore", "--time", "0", "here", "there")


# --- containerd


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The words that call ctr on a containerd of ours."""
    if not shutil.which("containerd"):
        lacks("containerd")
    directory = tmp_path_factory.mktemp("containerd")
    left_out = (
        "grpc.v1.cri",
        "internal.v1.opt",
        *(f"snapshotter.v1.{name}" for name in ("btrfs", "zfs", "aufs", "devmapper")),
    )
    disabled = json.dumps([f"io.containerd.{name}" for name in left_out])
    (directory / "config.toml").write_text(
        f'version = 2\nroot = "{directory}/root"\nstate = "{directory}/state"\ndisabled_plugins = {disabled}\n'
        f'[grpc]\n  address = "{directory}/socket"\n'
    )
    with open(directory / "log", "w") as log:
        daemon = subprocess.Popen(["containerd", "--config", f"{directory}/config.toml"], stdout=log, stderr=log)
    words = ["ctr", "--address", f"{directory}/socket"]
    deadline = time.monotonic() + PATIENCE
    while subprocess.run([*words, "version"], capture_output=True).returncode:
        assert daemon.poll() is None and time.monotonic() < deadline, (directory / "log").read_text()
    yield words
    daemon.send_signal(signal.SIGTERM)
    daemon.wait(PATIENCE)
    for path in (
        *glob("/run/containerd/runc/*"),
        "/run/containerd/runc",
        *glob("/run/containerd/s/*"),
        "/run/containerd/s",
    ):
        if os.path.isdir(path):
            os.rmdir(path)


def ctr(words: list[str], *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*words, *more], capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)


def ctr_run(
    words: list[str], rootfs: str, name: str, *more: str, detach: bool = False, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    how = ["--detach"] if detach else ["--rm"]
    return ctr(words, "run", *how, *options, "--rootfs", "--runc-binary", COMMAND, rootfs, name, *more)


def test_containerd_runs_a_program(containerd: list[str], busybox_rootfs: str) -> None:
    done = ctr_run(containerd, busybox_rootfs, "one", "/bin/sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_containerd_tells_why_nothing_was_started(containerd: list[str], busybox_rootfs: str) -> None:
    done = ctr_run(containerd, busybox_rootfs, "none", "/no/such")
    assert done.returncode != 0 and "no such file or directory" in done.stderr


def test_a_container_s_life_with_containerd(containerd: list[str], busybox_rootfs: str) -> None:
    assert ctr_run(containerd, busybox_rootfs, "life", "/bin/sleep", "100", detach=True).returncode == 0
    try:
        done = ctr(containerd, "task", "exec", "--exec-id", "e1", "life", "/bin/sh", "-c", "echo in; exit 5")
        assert (done.returncode, done.stdout) == (5, "in\n")
        assert ctr(containerd, "task", "pause", "life").returncode == 0
        assert "PAUSED" in ctr(containerd, "task", "ls").stdout
        assert ctr(containerd, "task", "resume", "life").returncode == 0
        assert "RUNNING" in ctr(containerd, "task", "ls").stdout
        assert len(ctr(containerd, "task", "ps", "life").stdout.splitlines()) == 2
        assert ctr(containerd, "task", "metrics", "life").returncode == 0
    finally:
        ctr(containerd, "task", "kill", "--signal", "SIGKILL", "life")
        ctr(containerd, "task", "rm", "--force", "life")
        ctr(containerd, "container", "rm", "life")
    assert "life" not in ctr(containerd, "container", "ls").stdout


def test_containerd_runs_what_is_privileged(containerd: list[str], busybox_rootfs: str) -> None:
    """It lists every device of the host's /dev."""
    script = "readlink /dev/ptmx; grep CapBnd /proc/self/status; test -c /dev/full && echo full"
    done = ctr_run(containerd, busybox_rootfs, "all", "/bin/sh", "-c", script, options=("--privileged",))
    words = done.stdout.split()
    assert (words[:1], words[-1:]) == (["pts/ptmx"], ["full"]), done
    assert int(words[2], 16) == bounding_set()


def test_containerd_s_containers_begin_where_the_image_has_nothing(containerd: list[str], own_rootfs: str) -> None:
    done = ctr_run(containerd, own_rootfs, "cwd", "/bin/pwd", options=("--cwd", "/new/deep"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "/new/deep\n", "")
