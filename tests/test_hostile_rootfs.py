"""Hostile images: links, FIFOs, devices, huge files where something else is expected; the host is not touched."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from inject import AVAILABLE, Trial
from launching import document, launched, plan_of

from cycontainer import ConfigError, LaunchError, ProgramError, run
from cycontainer.spec import DEFAULT_MOUNTS

pytestmark = pytest.mark.root

IN_TIME = 10.0
OPENAT2 = 437
REFUSALS = {errno.ELOOP, errno.ENOTDIR, errno.EPERM, errno.ENOENT, errno.EACCES, errno.EEXIST, errno.EXDEV}
TARGETS = sorted({mount["destination"] for mount in DEFAULT_MOUNTS} | {"/tmp", "/run"})


class Image:
    """A root of one's own, and a directory of the host that its links aim at."""

    def __init__(self, top: str, rootfs: str) -> None:
        self.root, self.outside = f"{top}/root", f"{top}/outside"
        subprocess.run(["cp", "-a", rootfs, self.root], check=True)
        os.mkdir(self.outside)

    def inside(self, path: str) -> str:
        """Where a path of the image is, with what stood there removed."""
        where = f"{self.root}/{path.lstrip('/')}"
        os.makedirs(os.path.dirname(where), exist_ok=True)
        if os.path.isdir(where) and not os.path.islink(where):
            subprocess.run(["rm", "-r", where], check=True)
        elif os.path.lexists(where):
            os.unlink(where)
        return where


@pytest.fixture
def image(busybox_rootfs: str, tmp_path: object) -> Iterator[Image]:
    """The host's side must be as it was, and all in time."""
    made = Image(str(tmp_path), busybox_rootfs)
    before = time.monotonic()
    yield made
    assert os.listdir(made.outside) == []
    assert time.monotonic() - before < IN_TIME


class Meanwhile(Trial):
    """Does something to the image when the init has asked for a path that is not there for the `n`-th time."""

    def __init__(self, function: Callable[[], object], path: str, n: int, change: Callable[[], object]) -> None:
        super().__init__(function, 1, 1 << 60, errno.EIO)
        self.path, self.n, self.change = path.encode() + b"\0", n, change
        self.asked = 0  # the process that is asking

    def _at_call(self, pid: int) -> None:
        super()._at_call(pid)
        if self.info.op == 1 and self.info.number == OPENAT2:
            with open(f"/proc/{pid}/mem", "rb") as memory:
                memory.seek(self.info.arguments[1])
                self.asked = pid if memory.read(len(self.path)) == self.path else 0
        elif self.info.op == 2 and self.asked == pid:
            self.asked = 0
            if self.info.number == -errno.ENOENT & 0xFFFFFFFFFFFFFFFF:  # what it returned
                self.n -= 1
                if self.n == 0:
                    self.change()


def status_when(image: Image, path: str, n: int, change: Callable[[], object]) -> object:
    """What a launch returns whose image changes as it looks for `path`, or raises."""
    config = document(image.root)
    config["mounts"].append({"destination": "/made", "type": "tmpfs", "source": "tmpfs"})
    plan = plan_of(config)
    trial = Meanwhile(lambda: launched(plan), path, n, change)
    outcome = trial.run()
    assert trial.n == 0 and not outcome.hung
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


@pytest.mark.skipif(not AVAILABLE, reason="the registers are x86_64's")
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("target", ["/proc", "/sys"])
def test_a_link_that_is_put_where_none_may_be_is_not_followed(target: str, n: int, image: Image) -> None:
    """Whichever look at the path it comes after."""
    where = image.inside(target)
    os.mkdir(f"{image.root}/elsewhere")
    with pytest.raises(LaunchError, match=f"find or make {target}: ELOOP"):
        status_when(image, target, n, lambda: os.symlink("elsewhere", where))


@pytest.mark.skipif(not AVAILABLE, reason="the registers are x86_64's")
@pytest.mark.parametrize(("target", "n"), [("/proc", 1), ("/proc", 2), ("/made", 2), ("/made", 3)])  # 1: its mode
def test_a_directory_that_another_launch_makes_first_is_taken(target: str, n: int, image: Image) -> None:
    where = image.inside(target)
    assert status_when(image, target, n, lambda: os.mkdir(where)) == 0


def test_what_may_be_behind_no_link_is_not_in_a_new_file_system_behind_one(image: Image) -> None:
    os.symlink("elsewhere", image.inside("/new"))
    os.mkdir(f"{image.root}/elsewhere")
    config = document(image.root)
    config["mounts"] += [
        {"destination": "/new", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/new/proc", "type": "proc", "source": "proc"},
    ]
    with pytest.raises(LaunchError, match="find or make /new/proc: ELOOP"):
        run(["true"], config=config)


LINKS: dict[str, Callable[[Image], str]] = {
    "to the host": lambda image: image.outside,
    "upwards": lambda image: "../" * 20 + image.outside.lstrip("/"),
    "to itself": lambda image: "loop-of-links",
    "through procfs": lambda image: f"/proc/self/root{image.outside}",
    "through another process": lambda image: f"/proc/{os.getpid()}/root{image.outside}",
    "to an exe": lambda image: "/proc/self/exe",
    "through a descriptor": lambda image: "/proc/self/fd/0",
    "to nothing": lambda image: "/no/such/place",
}


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_link_where_a_mount_goes_leads_nowhere_else(target: str, kind: str, image: Image) -> None:
    """Either the mount stands where the link leads inside the root, or the start is refused."""
    where = image.inside(target)
    text = LINKS[kind](image)
    os.symlink(os.path.basename(where) if kind == "to itself" else text, where)
    config = document(image.root)
    config["mounts"] += [{"destination": path, "type": "tmpfs", "source": "tmpfs"} for path in ("/tmp", "/run")]
    try:
        assert run(["true"], config=config).returncode == 0
    except LaunchError as failure:
        assert failure.errno in REFUSALS, failure
    assert os.path.islink(where)


@pytest.mark.parametrize("target", TARGETS)
def test_a_file_where_a_mount_goes_is_refused_or_covered(target: str, image: Image) -> None:
    os.mkfifo(image.inside(target))
    config = document(image.root)
    config["mounts"] += [{"destination": path, "type": "tmpfs", "source": "tmpfs"} for path in ("/tmp", "/run")]
    try:
        assert run(["true"], config=config).returncode == 0
    except LaunchError as failure:
        assert failure.errno in REFUSALS, failure


@pytest.mark.parametrize("target", ["/dev", "/dev/null", "/dev/shm", "/proc", "/proc/self", "/sys"])
def test_a_bound_volume_with_links_is_no_way_out(target: str, image: Image) -> None:
    """The source of a bind is the host's; where it goes is found inside."""
    os.makedirs(f"{image.root}/volumes")
    os.symlink(f"/proc/self/root{image.outside}", f"{image.root}/volumes/link")
    mount = {"destination": f"/volumes/link{target}", "type": "tmpfs", "source": "tmpfs"}
    try:
        run(["true"], rootfs=image.root, mounts=[mount])
    except LaunchError as failure:
        assert failure.errno in REFUSALS, failure


@pytest.mark.parametrize("interpreter", ["/proc/self/exe", "/proc/self/fd/3", "/proc/1/exe"])
def test_a_script_whose_interpreter_is_the_init_gets_nowhere(interpreter: str, image: Image) -> None:
    """CVE-2019-5736: what is executed is no file of the host, is sealed, and does nothing without a plan."""
    script = image.inside("/bin/sh")
    with open(script, "w") as file:
        file.write(f"#!{interpreter}\n")
    os.chmod(script, 0o755)
    for init in (True, False):
        try:
            assert run(["/bin/sh", "-c", "true"], rootfs=image.root, init=init, timeout=5).returncode != 0
        except ProgramError as failure:
            assert failure.errno in {errno.EACCES, errno.ENOENT, errno.ELOOP}
    assert run(["busybox", "true"], rootfs=image.root).returncode == 0


def fifo(path: str) -> None:
    os.mkfifo(path)


def directory(path: str) -> None:
    os.mkdir(path)


def listening(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


def huge(path: str) -> None:
    with open(path, "w") as file:
        file.truncate(10 << 30)


def endless(path: str) -> None:
    os.mknod(path, 0o666 | 0o020000, os.makedev(1, 5))  # /dev/zero


def looping(path: str) -> None:
    os.symlink(os.path.basename(path), path)


ODD = [fifo, directory, listening, huge, endless, looping]


@pytest.mark.parametrize("make", ODD)
def test_an_odd_passwd_is_refused_at_once(make: Callable[[str], None], image: Image) -> None:
    make(image.inside("/etc/passwd"))
    with pytest.raises(ConfigError, match="passwd") as failure:
        run(["true"], rootfs=image.root, user="somebody")
    assert failure.value.path == "user"


def test_a_passwd_of_the_host_is_not_read(image: Image) -> None:
    os.symlink("/proc/self/root/etc/passwd", image.inside("/etc/passwd"))
    with pytest.raises(ConfigError, match="passwd"):
        run(["true"], rootfs=image.root, user="daemon")


@pytest.mark.parametrize("make", ODD)
def test_an_odd_program_could_not_start(make: Callable[[str], None], image: Image) -> None:
    make(image.inside("/bin/odd"))
    with pytest.raises(ProgramError) as failure:
        run(["/bin/odd"], rootfs=image.root)
    assert failure.value.errno in {errno.EACCES, errno.ELOOP}


@pytest.mark.parametrize("make", ODD)
def test_an_odd_working_directory_is_named(make: Callable[[str], None], image: Image) -> None:
    path = image.inside("/odd")
    make(path)
    if make is directory:
        return
    with pytest.raises(LaunchError, match="working directory /odd") as failure:
        run(["true"], rootfs=image.root, cwd="/odd")
    assert failure.value.errno in {errno.ENOTDIR, errno.ELOOP}


@pytest.mark.parametrize("make", [fifo, listening, huge, endless])
def test_whatever_a_masked_path_is_it_reads_as_empty(make: Callable[[str], None], image: Image) -> None:
    make(image.inside("/odd"))
    os.symlink("/proc/self/root/odd", image.inside("/through"))
    result = run(["sh", "-c", "cat /odd"], rootfs=image.root, masked_paths=["/odd"], timeout=5)
    assert (result.returncode, result.stdout, result.timed_out) == (0, b"", False)


def test_a_masked_path_behind_a_link_is_masked_where_it_leads(image: Image) -> None:
    os.symlink("/etc/passwd", image.inside("/link"))
    assert run(["cat", "/etc/passwd"], rootfs=image.root, masked_paths=["/link"]).stdout == b""


def test_a_magic_link_at_a_masked_path_stops_the_start(image: Image) -> None:
    """It could lead anywhere, so nobody knows what would be masked."""
    os.symlink("/proc/self/cwd/etc", image.inside("/link"))
    with pytest.raises(LaunchError, match="mask /link"):
        run(["true"], rootfs=image.root, masked_paths=["/link"])


def test_a_false_null_device_is_not_taken_for_one(image: Image) -> None:
    """In an image whose /dev is its own."""
    with open(image.inside("/dev/null"), "w") as file:
        file.write("not null")
    config = document(image.root)
    config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]
    config["root"]["readonly"] = False
    with pytest.raises(LaunchError) as failure:
        run(["true"], config=config)
    assert (failure.value.attempt, failure.value.errno) == ("make the node /dev/null", errno.EEXIST)


MULTIPLEXERS: dict[
    str, tuple[Callable[[str], None], bool]
] = {  # what an image has at /dev/ptmx, and whether it will do
    "the link": (lambda path: os.symlink("pts/ptmx", path), True),
    "the device": (lambda path: os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(5, 2)), True),
    "a longer link": (lambda path: os.symlink("pts/ptmx/", path), False),
    "a shorter link": (lambda path: os.symlink("pts", path), False),
    "another device": (lambda path: os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3)), False),
    "a disk": (lambda path: os.mknod(path, 0o666 | stat.S_IFBLK, os.makedev(5, 2)), False),
    "a file": (huge, False),
}


@pytest.mark.parametrize("kind", MULTIPLEXERS)
def test_a_false_terminal_multiplexer_is_not_taken_for_one(kind: str, image: Image) -> None:
    make, good = MULTIPLEXERS[kind]
    make(image.inside("/dev/ptmx"))
    config = document(image.root, devices=[{"type": "c", "path": "/dev/ptmx", "major": 5, "minor": 2}])
    config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]
    config["root"]["readonly"] = False
    if good:
        assert run(["true"], config=config).returncode == 0
        return
    with pytest.raises(LaunchError) as failure:
        run(["true"], config=config)
    assert (failure.value.attempt, failure.value.errno) == ("link /dev/ptmx to pts/ptmx", errno.EEXIST)


@pytest.mark.parametrize("make", [make for make in ODD if make is not directory])
def test_an_odd_root_is_named(make: Callable[[str], None], tmp_path: object) -> None:
    path = f"{tmp_path}/odd"
    make(path)
    with pytest.raises((LaunchError, ConfigError)) as failure:
        run(["true"], rootfs=path)
    if isinstance(failure.value, LaunchError):
        assert failure.value.errno in {errno.EINVAL, errno.ENOTDIR, errno.ELOOP, errno.ENOENT}
        assert path in failure.value.attempt


@pytest.mark.parametrize("make", ODD)
def test_an_odd_bundle_is_one_line_at_once(make: Callable[[str], None], tmp_path: object) -> None:
    make(f"{tmp_path}/config.json")
    command = [sys.executable, "-m", "cycontainer", "run", "--bundle", str(tmp_path), "odd"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=IN_TIME)
    assert (result.returncode, result.stdout) == (1, "")
    assert "config" in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_no_link_of_the_image_writes_to_a_read_only_file_system_of_others(image: Image, tmp_path: object) -> None:
    """Only what the configuration itself puts below one makes that writable until all is mounted."""
    for name in ("lower", "upper", "work", "source"):
        os.mkdir(f"{tmp_path}/{name}")
    os.symlink("/data", image.inside("/opt"))
    data = ",".join(f"{key}dir={tmp_path}/{key}" for key in ("lower", "upper", "work"))
    overlay = {"destination": "/data", "type": "overlay", "source": "overlay", "options": ["ro", *data.split(",")]}
    bind = {"destination": "/opt/evil/x", "type": "bind", "source": f"{tmp_path}/source", "options": ["bind"]}
    with pytest.raises(LaunchError) as failure:
        run(["true"], rootfs=image.root, mounts=[overlay, bind])
    assert failure.value.errno == errno.EROFS
    assert os.listdir(f"{tmp_path}/upper") == []
    assert run(["true"], rootfs=image.root, mounts=[overlay, {**bind, "destination": "/data/x"}]).returncode == 0
    assert os.listdir(f"{tmp_path}/upper") == ["x"]
