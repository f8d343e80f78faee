"""The guard around every test, what tests are given, and which of them this machine can run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from glob import glob
from pathlib import Path
from typing import NoReturn

import pytest
from elf import PT_INTERP, program_headers
from guard import SHARED, left_since, snapshot
from launching import copy_rootfs
from oci_command import Oci
from ordinary import OrdinaryUser

from cycontainer.host import current
from cycontainer.init_process import init_descriptor
from cycontainer.launch_pad import pad_descriptor
from cycontainer.state import default_root

CRIU_SECONDS = 300.0  # under emulation criu is ten times slower


def go_on_in_a_child() -> None:
    """The first process of a container is given the orphans of all others, which it has to reap: for tests they would
    be left behind."""
    child = os.fork()
    ended = 0
    while child and ended != child:
        ended, status = os.wait()
    if child:
        os._exit(os.waitstatus_to_exitcode(status) & 255)


if os.getpid() == 1:
    go_on_in_a_child()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-call", action="store_true", help="let every system call of a launch fail, not a sample")


@pytest.fixture(autouse=True, scope="session")
def kept_for_life() -> Iterator[None]:
    """What is kept as long as a process lives is opened before the first look, and the root directory made."""
    current()
    init_descriptor()
    if current().privileged:
        pad_descriptor()
    made = os.geteuid() == 0 and not os.path.exists(default_root())
    if made:
        os.mkdir(default_root(), 0o700)
    yield
    if made:
        os.rmdir(default_root())


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fails the test that leaves the machine other than it found it, and says what is left."""
    before = snapshot()
    yield
    left = left_since(before)
    if left:
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def ends(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test of criu that waits for what never comes. It fails again and again: undoing may wait, too."""
    if request.node.get_closest_marker("criu") is None:
        yield
        return
    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, CRIU_SECONDS, CRIU_SECONDS / 10)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def give_up(*_: object) -> None:
    pytest.fail(f"the test has not ended after {CRIU_SECONDS:.0f} s")


@pytest.fixture(scope="session")
def busybox_rootfs() -> Iterator[str]:
    """A root file system that any user may read: a static busybox with its links, and empty directories.

    All tests share it, and none may change it: `own_rootfs` is for those.
    """
    places = ("/bin/busybox", "/usr/bin/busybox", "/bin/busybox-static", "/usr/sbin/busybox", "/sbin/busybox")
    static = [path for path in places if os.path.exists(path) and not has_interpreter(path)]
    if not static:
        pytest.fail("no static busybox: install busybox-static (Debian, Ubuntu) or busybox (Fedora)", pytrace=False)
    root = tempfile.mkdtemp(prefix="rootfs-")
    os.chmod(root, 0o755)
    for name in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp"):
        os.mkdir(f"{root}/{name}")
    os.chmod(f"{root}/tmp", 0o1777)
    shutil.copy(static[0], f"{root}/bin/busybox")
    os.chmod(f"{root}/bin/busybox", 0o755)
    listed = subprocess.run([static[0], "--list"], check=True, capture_output=True, text=True)
    for applet in set(listed.stdout.split()) - {"busybox"}:
        os.symlink("busybox", f"{root}/bin/{applet}")
    for name, text in (("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("group", "root:x:0:\n")):
        with open(f"{root}/etc/{name}", "w") as file:
            file.write(text)
    SHARED.append(root)
    yield root
    SHARED.remove(root)
    shutil.rmtree(root)


@pytest.fixture
def own_rootfs(busybox_rootfs: str) -> Iterator[str]:
    """A copy for a test that changes it: that writes there, or mounts where nothing is. It has an empty /data."""
    top = tempfile.mkdtemp(prefix="own-")
    os.chmod(top, 0o755)
    copy_rootfs(busybox_rootfs, f"{top}/rootfs")
    os.mkdir(f"{top}/rootfs/data")
    yield f"{top}/rootfs"
    shutil.rmtree(top)


@pytest.fixture
def oci(tmp_path: Path, busybox_rootfs: str) -> Iterator[Oci]:
    """The real command, with a bundle and a root directory of the test's own; its containers are deleted."""
    command = Oci(str(tmp_path), busybox_rootfs)
    yield command
    command.clean()


def has_interpreter(path: str) -> bool:
    return any(kind == PT_INTERP for kind, _ in program_headers(path))


@pytest.fixture
def ordinary_user() -> OrdinaryUser:
    """Calls a function as an ordinary user; where such a user can have no namespace, it skips, and in CI fails."""
    user = OrdinaryUser()
    problem = user(why_no_user_namespace)
    if problem:
        decline(f"an ordinary user may not make a user namespace here: {problem}")
    return user


def why_no_user_namespace() -> str:
    """Try it, with what takes a capability in it: AppArmor allows the namespace alone. Empty when it works."""
    command = ["unshare", "--map-root-user", "--mount", "true"]
    return subprocess.run(command, capture_output=True, text=True).stderr.strip()


def decline(reason: str) -> None:
    """Skip; but a machine that tests changes must be able to run this."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def has_limits() -> bool:
    """Whether cgroups limit anything, whatever their version."""
    return any(each.controllers for each in current().cgroups.all)


def lacks(program: str) -> NoReturn:
    """Skip: it is not here. But where changes are tested, `./bootstrap test` has installed it if apt-get is there."""
    if os.environ.get("CI") == "true" and shutil.which("apt-get") and os.uname().machine == "x86_64":
        pytest.fail(f"needs {program}", pytrace=False)
    pytest.skip(f"needs {program}")


def has_controllers() -> bool:
    """Whether a cgroup v2 hierarchy governs anything, and can hand that on: where the mount shows but a part of it,
    no process may be in the cgroup at its top."""
    for top in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (top / "cgroup.controllers").exists():
            is_whole = not (top / "cgroup.type").exists()
            hands_on = is_whole or not (top / "cgroup.procs").read_text()
            return hands_on and bool((top / "cgroup.controllers").read_text().strip())
    return False


def has_engine() -> bool:
    return any(shutil.which(name) for name in ("podman", "docker", "containerd", "crio"))


CRIU = "/opt/criu-4/bin"  # where tests/install-criu puts one
if os.path.exists(f"{CRIU}/criu"):
    os.environ["PATH"] = f"{CRIU}:{os.environ['PATH']}"


def has_criu() -> bool:
    """Whether a criu is there that can save an inet socket on this kernel: since Linux 6.16 that takes criu 4.2."""
    if shutil.which("criu") is None:
        return False
    words = subprocess.run(["criu", "--version"], capture_output=True, text=True).stdout.split()
    kernel = tuple(map(int, os.uname().release.split("-")[0].split(".")[:2]))
    oldest = (4, 2) if kernel >= (6, 16) else (3, 15)
    return len(words) > 1 and tuple(map(int, words[1].split(".")[:2])) >= oldest


NEEDS: dict[str, tuple[Callable[[], bool], str]] = {  # marker: whether this machine has it, what it is
    "root": (lambda: os.geteuid() == 0, "root"),
    "cgroups": (has_limits, "cgroups with controllers"),
    "cgroup1": (lambda: bool(glob("/sys/fs/cgroup/*/tasks")), "cgroup v1 hierarchies"),
    "cgroup2": (has_controllers, "a cgroup v2 hierarchy with controllers"),
    "systemd": (lambda: os.path.isdir("/run/systemd/system"), "systemd as the first process"),
    "criu": (cache(has_criu), "criu, 4.2 or newer since Linux 6.16: tests/install-criu"),
    "apparmor": (lambda: "apparmor" in current().lsms, "AppArmor"),
    "engine": (has_engine, "a container engine"),
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine or user cannot run, and say what is missing."""
    for marker, (there, what) in NEEDS.items():
        if item.get_closest_marker(marker) and not there():
            pytest.skip(f"needs {what}")
