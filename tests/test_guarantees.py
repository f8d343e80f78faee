"""The guarantees of docs/guarantees.md that no other file asks about; and that the page names tests that exist."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
import subprocess
import sys
from glob import glob
from pathlib import Path

import pytest
from oci_command import COMMAND, Oci

from cycontainer import run

TESTS = os.path.dirname(os.path.abspath(__file__))
PAGE = os.path.join(os.path.dirname(TESTS), "docs", "guarantees.md")
IN_OPEN = 0x20
DATABASES = {"passwd", "group"}

libc = ctypes.CDLL(None, use_errno=True)


def test_the_page_names_tests_that_exist() -> None:
    there = set()
    for path in glob(f"{TESTS}/test_*.py"):
        with open(path) as file:
            names = re.findall(r"def test_(\w+)", file.read())
        there |= {f"{os.path.basename(path)[5:-3]}.{name}" for name in names}
    with open(PAGE) as page:
        named = set(re.findall(r"`(\w+\.\w+)`", page.read()))
    assert len(named) > 30
    assert named <= there, sorted(named - there)


@pytest.mark.root
def test_nothing_of_the_image_is_opened_but_its_user_database(busybox_rootfs: str, tmp_path: Path) -> None:
    """Libraries, modules, locales, name services and loader settings of an image are code for who opens them."""
    root = f"{tmp_path}/root"
    subprocess.run(["cp", "-a", busybox_rootfs, root], check=True)
    watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    for directory in ("lib", "lib64", "usr/lib", "usr/share/zoneinfo", "usr/lib/locale", "etc"):
        os.makedirs(f"{root}/{directory}", exist_ok=True)
        for name in ("libc.so.6", "libnss_files.so.2", "ld.so.preload", "ld.so.cache", "nsswitch.conf", "localtime"):
            Path(f"{root}/{directory}/{name}").touch()
        assert libc.inotify_add_watch(watch, f"{root}/{directory}".encode(), IN_OPEN) >= 0
    try:
        assert run(["true"], rootfs=root, user="root").returncode == 0  # a static program, that opens nothing
        oci = Oci(str(tmp_path), root)
        oci.write("sleep", "1000")
        oci.start()
        oci.done("exec", "--user", "0", "one", "true")
        oci.done("delete", "--force", "one")
        assert opened(watch) <= DATABASES
    finally:
        os.close(watch)


def opened(watch: int) -> set[str]:
    """The names that inotify(7) tells of."""
    try:
        data = os.read(watch, 65536)
    except BlockingIOError:
        return set()
    names, at = set(), 0
    while at < len(data):
        _, _, _, length = struct.unpack_from("iIII", data, at)
        names.add(data[at + 16 : at + 16 + length].rstrip(b"\0").decode())
        at += 16 + length
    return names - {""}


@pytest.mark.root
def test_a_false_null_device_of_the_host_masks_nothing() -> None:
    """Someone has put a file in the place of /dev/null: what would be masked would read as that."""
    script = """
import cycontainer
try:
    cycontainer.run(["true"], masked_paths=["/etc/passwd"])
except cycontainer.LaunchError as error:
    print(error.attempt, error.errno)
"""
    command = 'mount --bind /etc/hostname /dev/null && exec "$@"'
    result = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", command, "sh", sys.executable, "-c", script],
        capture_output=True, text=True, stdin=subprocess.PIPE,
    )  # fmt: skip
    assert result.stdout == f"keep the null device {errno.EINVAL}\n", result


@pytest.mark.root
@pytest.mark.parametrize("init", [True, False])
def test_the_program_starts_fresh_whatever_the_caller_has_set(init: bool) -> None:
    """Dispositions, mask, umask, limits of dumping, the parent-death signal: of a caller that has changed them all."""
    script = f"""
import ctypes, os, signal
import cycontainer
libc = ctypes.CDLL(None)
for number in range(1, 65):
    if number not in (9, 19, 17, 32, 33):
        signal.signal(number, signal.SIG_IGN)
os.umask(0o077)
libc.prctl(1, 15)  # PR_SET_PDEATHSIG
libc.prctl(4, 0)  # PR_SET_DUMPABLE
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGTERM, signal.SIGUSR1}})
inner = '''
import ctypes
import errno
libc = ctypes.CDLL(None)
death = ctypes.c_int()
libc.prctl(2, ctypes.byref(death))
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(death.value, libc.prctl(3), lines["Umask"].strip(), *[int(lines[key], 16) for key in ("SigBlk", "SigIgn")])
'''
print(cycontainer.run(["/usr/bin/python3", "-I", "-S", "-c", inner], init={init}, text=True).stdout)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    # Python itself ignores SIGPIPE (13) and SIGXFSZ (25)
    assert result.stdout.split() == ["0", "1", "0022", "0", str(1 << 12 | 1 << 24)], result


@pytest.mark.root
def test_a_pid_is_not_believed_alone(busybox_rootfs: str, tmp_path: Path) -> None:
    """The first process has ended, and its pid is another's now: nobody is killed for it, by no verb."""
    oci = Oci(str(tmp_path), busybox_rootfs)
    pid = oci.start()
    oci.end(pid)
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        path = Path(f"{oci.states}/one/state")
        path.write_text(path.read_text().replace(f"pid {pid}\n", f"pid {stranger.pid}\n"))
        assert oci.state()["status"] == "stopped"
        for words in (("kill", "one", "KILL"), ("kill", "--all", "one", "KILL"), ("delete", "--force", "one")):
            oci(*words)
        assert stranger.poll() is None
        stranger.kill()
    assert os.listdir(oci.states) == []


@pytest.mark.root
def test_of_two_that_start_one_container_one_wins(busybox_rootfs: str, tmp_path: Path) -> None:
    oci = Oci(str(tmp_path), busybox_rootfs)
    null = subprocess.DEVNULL
    for _ in range(5):
        oci.create()
        command = [*COMMAND, "--root", oci.states, "start", "one"]
        both = [subprocess.Popen(command, stdin=null, stdout=null, stderr=null) for _ in range(2)]
        assert sorted(process.wait() for process in both) == [0, 1]
        assert oci.state()["status"] == "running"
        oci.done("delete", "--force", "one")
