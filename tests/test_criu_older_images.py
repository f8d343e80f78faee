"""Images that go on from older ones, by criu's link `parent`: what is wrong there is told, and nothing waits for it.

criu makes such images where the kernel tracks changes of memory; here whole ones are taken apart.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest
from saved import Obedient, config_of

from cycontainer.criu.images import ImageDirectory
from cycontainer.criu.pages import ENTRY, MAGIC, PAGEMAP, PRESENT, check_pages
from cycontainer.criu.rpc import INTEGER, decode, encode
from cycontainer.errors import ConfigError

pytestmark = [pytest.mark.root, pytest.mark.criu]

IN_PARENT = 1  # PE_PARENT
WHOLE = {"vaddr": (1, INTEGER), **ENTRY}


def number(value: int) -> bytes:
    return value.to_bytes(4, "little")


def messages(data: bytes) -> list[bytes]:
    found, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        found.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def as_in_parent(entry: bytes) -> bytes:
    fields = decode(entry, WHOLE)
    return encode({**fields, "flags": IN_PARENT} if fields["flags"] & PRESENT else fields, WHOLE)


@pytest.fixture
def top(busybox_rootfs: str, tmp_path: object) -> str:
    """A directory with the images `old`, and `new`, which have no memory but that of `old`."""
    config = config_of(busybox_rootfs)
    with Obedient.start("one", config, f"{tmp_path}/states") as subject:
        subject.container.checkpoint(f"{tmp_path}/old")
    shutil.copytree(f"{tmp_path}/old", f"{tmp_path}/new")
    os.symlink("../old", f"{tmp_path}/new/parent")
    os.truncate(f"{tmp_path}/new/pages-1.img", 0)
    with open(f"{tmp_path}/new/pagemap-1.img", "r+b") as file:
        head, *entries = messages(file.read())
        file.seek(8)
        for message in (head, *map(as_in_parent, entries)):
            file.write(number(len(message)) + message)
        file.truncate()
    return str(tmp_path)


def test_memory_comes_from_the_older_ones(busybox_rootfs: str, top: str) -> None:
    with Obedient.restore("two", config_of(busybox_rootfs), f"{top}/new", f"{top}/states") as again:
        assert again.do("echo here") == "here\n"


def cut(top: str) -> None:
    os.truncate(f"{top}/old/pages-1.img", 4096)


def put_a_fifo_there(top: str) -> None:
    os.unlink(f"{top}/old/pages-1.img")
    os.mkfifo(f"{top}/old/pages-1.img")


def relink(top: str, target: str | None) -> None:
    os.unlink(f"{top}/new/parent")
    if target is None:
        os.mkfifo(f"{top}/new/parent")
    else:
        os.symlink(target, f"{top}/new/parent")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (cut, r"parent/pages-1\.img is damaged: 4096 bytes of"),
        (put_a_fifo_there, r"parent/pages-1\.img is no regular file"),
        (lambda top: relink(top, None), "new/parent: ENOTDIR"),
        (lambda top: relink(top, "../none"), "new/parent: ENOENT"),
        (lambda top: relink(top, f"{top}/old"), "new/parent must lead to a relative path"),
        (lambda top: relink(top, "."), "new/parent is older than itself"),
    ],
)
def test_what_is_wrong_with_them_is_told(
    busybox_rootfs: str, top: str, change: Callable[[str], None], match: str
) -> None:
    change(top)
    with pytest.raises(ConfigError, match=match):
        Obedient.restore("two", config_of(busybox_rootfs), f"{top}/new", f"{top}/states")
    assert os.listdir(f"{top}/states") == []


@pytest.mark.parametrize(
    "rest",
    [
        b"",  # and a terabyte of zeros
        number(2**32 - 1),
        number(12) + encode({"vaddr": 0, "pages": -(2**40)}, WHOLE),
    ],
)
def test_a_map_of_any_size_is_read_in_little_memory(tmp_path: object, rest: bytes) -> None:
    head = encode({"pages_id": 1}, {"pages_id": (1, INTEGER)})
    with open(f"{tmp_path}/pagemap-1.img", "wb") as file:
        file.write(number(MAGIC) + number(PAGEMAP) + number(len(head)) + head + rest)
        file.truncate(1 << 40)
    with (
        ImageDirectory.open(str(tmp_path), "image-path") as directory,
        pytest.raises(ConfigError, match=r"pagemap-1\.img is damaged"),
    ):
        check_pages(directory)
