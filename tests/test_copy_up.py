"""tmpcopyup: a tmpfs starts with what the image has in its place."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest
from launching import copy_rootfs

from cycontainer import LaunchError, Result, run

pytestmark = pytest.mark.root

# What lies below a directory, as JSON; a file is known by the first of its names.
DESCRIBE = """
import json, os, sys
top, first, found = sys.argv[1], {}, {}
for directory, below, files in os.walk(top):
    for path in (directory, *(os.path.join(directory, name) for name in below + files)):
        name, status, follow = os.path.relpath(path, top), os.lstat(path), {"follow_symlinks": False}
        found[name] = [status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns,
                       {key: os.getxattr(path, key, **follow).hex() for key in os.listxattr(path, **follow)}]
        if os.path.islink(path):
            found[name].append(os.readlink(path))
        elif os.path.isfile(path) and os.access(path, os.R_OK):
            found[name].append(open(path, "rb").read().hex())
        if not os.path.isdir(path):
            first[status.st_ino] = min(name, first.get(status.st_ino, name))
for name in found:
    found[name].append(first.get(os.lstat(os.path.join(top, name)).st_ino))
print(json.dumps(found))
"""
# acl(5) as the kernel stores it: version 2; user::rw-, user:5:r--, group::---, mask::rw-, other::---
ACCESS_LIST = bytes.fromhex(
    "02000000 01000600ffffffff 0200040005000000 04000000ffffffff 10000600ffffffff 20000000ffffffff"
)
# capability v2, CAP_NET_RAW permitted: linux/capability.h, struct vfs_cap_data
FILE_CAPABILITY = bytes.fromhex("01000002 00200000 00000000 00000000 00000000")


@pytest.fixture
def image(busybox_rootfs: str, tmp_path: str) -> Iterator[str]:
    """A root of the test's own, with an empty /data."""
    root = f"{tmp_path}/image"
    copy_rootfs(busybox_rootfs, root)
    os.mkdir(f"{root}/data")
    yield root
    shutil.rmtree(root)


def copied(image: str, script: str, *options: str) -> Result:
    """Run a shell script where /data is a tmpfs that was copied up."""
    data = {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=1m", *options]}
    return run(["sh", "-c", script], rootfs=image, mounts=[data])


def described_inside(image: str) -> object:
    """DESCRIBE of /data, in a container that has the host's interpreter."""
    hosts = [path for path in ("/usr", "/lib", "/lib64", sys.base_prefix) if os.path.isdir(path)]
    binds = [{"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]} for path in hosts]
    data = {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=1m"]}
    python = os.path.realpath(sys.executable)
    result = run([python, "-I", "-S", "-c", DESCRIBE, "/data"], rootfs=image, mounts=[*binds, data])
    assert (result.returncode, result.stderr) == (0, b"")
    return json.loads(result.stdout)


def described(path: str) -> object:
    return json.loads(subprocess.run([sys.executable, "-c", DESCRIBE, path], check=True, capture_output=True).stdout)


def write(path: str, text: str = "") -> str:
    with open(path, "w") as file:
        file.write(text)
    return path


def test_owner_mode_times_and_content_are_the_images(image: str) -> None:
    data = f"{image}/data"
    os.makedirs(f"{data}/deep/er")
    os.chown(write(f"{data}/deep/er/tool", "x" * 200_000), 1000, 1001)
    os.chmod(f"{data}/deep/er/tool", 0o6755)
    os.symlink("/etc/passwd", f"{data}/link")
    os.chown(f"{data}/link", 5, 6, follow_symlinks=False)
    for name, mode, when in (("deep/er/tool", 0o6755, 1), ("deep/er", 0o3777, 2), ("deep", 0o700, 3), (".", 0o1777, 4)):
        os.chown(f"{data}/{name}", 0 if name == "deep" else 7, 8)
        os.chmod(f"{data}/{name}", mode)
        os.utime(f"{data}/{name}", ns=(when, when * 10**9 + when))
    assert described_inside(image) == described(data)


def test_extended_attributes_and_access_lists_are_kept(image: str) -> None:
    data = f"{image}/data"
    os.mkdir(f"{data}/directory")
    os.mkfifo(f"{data}/fifo")
    os.setxattr(f"{data}/directory", "system.posix_acl_default", ACCESS_LIST)
    os.setxattr(write(f"{data}/file"), "security.capability", FILE_CAPABILITY)
    os.setxattr(f"{data}/file", "system.posix_acl_access", ACCESS_LIST)
    os.setxattr(f"{data}/fifo", "system.posix_acl_access", ACCESS_LIST)
    write(f"{data}/directory/inherits")
    os.removexattr(f"{data}/directory/inherits", "system.posix_acl_access")
    assert described_inside(image) == described(data)


def test_several_names_of_a_file_stay_names_of_one_file(image: str) -> None:
    os.mkdir(f"{image}/data/below")
    os.link(write(f"{image}/data/one", "1"), f"{image}/data/below/two")
    os.link(f"{image}/data/one", f"{image}/elsewhere")
    result = copied(image, "stat -c %h /data/one; echo more >> /data/one; cat /data/below/two")
    assert result.stdout == b"2\n1more\n"


def test_links_fifos_and_sockets_are_made_again(image: str) -> None:
    os.symlink("/etc/passwd", f"{image}/data/link")
    os.mkfifo(f"{image}/data/fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{image}/data/socket")
        result = copied(image, "cd /data && stat -c '%n %F' * && readlink link")
    assert result.stdout == b"fifo fifo\nlink symbolic link\nsocket socket\n/etc/passwd\n"


def test_the_image_stays_as_it_was(image: str) -> None:
    os.utime(write(f"{image}/data/file", "image"), ns=(10**9, 2 * 10**9))
    os.utime(f"{image}/data", ns=(10**9, 2 * 10**9))
    before = [os.stat(path) for path in (f"{image}/data", f"{image}/data/file")]
    assert copied(image, "echo changed > /data/file; touch /data/new; cat /data/file").stdout == b"changed\n"
    assert [os.stat(path) for path in (f"{image}/data", f"{image}/data/file")] == before  # not even the access time
    assert os.listdir(f"{image}/data") == ["file"]


def test_nothing_in_its_place_is_nothing_to_copy(image: str) -> None:
    os.rmdir(f"{image}/data")
    assert copied(image, "ls -A /data").stdout == b""


def test_a_hole_larger_than_the_tmpfs_stays_a_hole(image: str) -> None:
    with open(f"{image}/data/sparse", "wb") as file:
        file.seek(1 << 40)
        file.write(b"end")
    result = copied(image, "stat -c %s /data/sparse; dd if=/data/sparse bs=1M skip=1M 2>/dev/null")
    assert result.stdout == b"1099511627779\nend"


@pytest.mark.parametrize(
    ("obstacle", "code"),
    [
        (lambda data: os.mknod(f"{data}/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3)), errno.EPERM),
        (lambda data: write(f"{data}/large", "x" * 2_000_000), errno.ENOSPC),
        (lambda data: write(shutil.move(data, data + "-before")[:-7]), errno.ENOTDIR),
        (lambda data: os.makedirs(data + "/d" * 64), errno.ENAMETOOLONG),
    ],
    ids=["a device", "more than fits", "a file", "65 levels"],
)
def test_what_cannot_be_copied_stops_the_start(image: str, obstacle: object, code: int) -> None:
    assert callable(obstacle)
    obstacle(f"{image}/data")
    with pytest.raises(LaunchError) as failure:
        copied(image, "true")
    assert (failure.value.attempt, failure.value.errno) == ("copy the image's /data to the tmpfs", code)


@pytest.mark.parametrize("up", ["", "/etc/../../../.."])
def test_a_link_in_its_place_leads_nowhere_but_into_the_image(image: str, tmp_path: str, up: str) -> None:
    secret = f"{tmp_path}/secret"
    os.mkdir(secret)
    write(f"{secret}/secret")
    os.rmdir(f"{image}/data")
    os.symlink(up + secret, f"{image}/data")
    result = copied(image, "ls -A /data/ && touch /data/here")
    assert (result.returncode, result.stdout, os.listdir(secret)) == (0, b"", ["secret"])


def test_what_is_swapped_meanwhile_never_leads_out(image: str, tmp_path: str) -> None:
    """A directory and a file take turns with links out of the image, and with a FIFO that would hold its reader."""
    os.mkdir(f"{tmp_path}/host")
    write(f"{tmp_path}/host/file", "secret")
    os.mkdir(f"{image}/data/a")
    write(f"{image}/data/a/file", "image")
    os.symlink(f"{tmp_path}/host", f"{image}/data/b")
    write(f"{image}/data/c", "image")
    os.symlink(f"{tmp_path}/host/file", f"{image}/data/d")
    os.mkfifo(f"{image}/data/e")
    swap = (
        "import ctypes; exchange = ctypes.CDLL(None).renameat2; print(flush=True)\n"
        "while True: [exchange(-100, a, -100, b, 2) for a, b in ((b'a', b'b'), (b'c', b'd'), (b'c', b'e'))]"
    )
    with subprocess.Popen([sys.executable, "-c", swap], cwd=f"{image}/data", stdout=subprocess.PIPE) as swapping:
        assert swapping.stdout
        swapping.stdout.readline()
        try:
            for _ in range(30):
                try:
                    result = copied(image, "find /data -type f | xargs cat")
                except LaunchError as failure:
                    assert failure.errno in (errno.ESTALE, errno.ELOOP)
                else:
                    assert b"secret" not in result.stdout
        finally:
            swapping.kill()
