"""Whether the memory in an image directory is all there: criu waits forever for pages behind a file's end.

Source: criu's images/pagemap.proto and image.h: two magic numbers, then each message with its length
in front. It reads files.
"""

from __future__ import annotations

import os
import stat

from cycontainer.criu.rpc import BOOLEAN, INTEGER, Malformed, decode
from cycontainer.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

    from cycontainer.criu.images import ImageDirectory
    from cycontainer.criu.rpc import Schema

MAGIC: Final = 0x54564319  # IMG_COMMON_MAGIC
PAGEMAP: Final = 0x56084025
PRESENT: Final = 4  # PE_PRESENT: the pages are in the file, not in a parent's or nowhere
HEAD: Final[Schema] = {"pages_id": (1, INTEGER)}
ENTRY: Final[Schema] = {
    "old_pages": (2, INTEGER),
    "in_parent": (3, BOOLEAN),
    "flags": (4, INTEGER),
    "pages": (5, INTEGER),
}


def check_pages(directory: ImageDirectory) -> None:
    """Compare the sizes of the files of pages with what their maps say. Raises ConfigError."""
    names = os.listdir(directory.fd)
    size = os.sysconf("SC_PAGE_SIZE")
    wanted: dict[int, int] = {}
    for name in sorted(names):
        if name.startswith("pagemap-") and name.endswith(".img"):
            number, pages = _pages_of(directory, name)
            wanted[number] = wanted.get(number, 0) + pages * size
    for number, least in wanted.items():
        name = f"pages-{number}.img"
        found = os.stat(name, dir_fd=directory.fd).st_size if name in names else 0
        if found < least:
            raise ConfigError("image-path", f"{directory.path}/{name} is damaged: {found} bytes of {least}")


def _pages_of(directory: ImageDirectory, name: str) -> tuple[int, int]:
    """Which file of pages a map is of, and how many it has there."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory.fd)
    with open(fd, "rb") as file:
        data = file.read() if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    try:
        messages = _messages(data)
        number = decode(next(messages), HEAD).get("pages_id", 0)
        return number, sum(_present(decode(message, ENTRY)) for message in messages)
    except (Malformed, StopIteration):
        raise ConfigError("image-path", f"{directory.path}/{name} is damaged") from None


def _messages(data: bytes) -> Iterator[bytes]:
    magic = [int.from_bytes(data[place : place + 4], "little") for place in (0, 4)]
    if magic != [MAGIC, PAGEMAP]:
        raise Malformed("no map of pages")
    at = 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        if at + 4 + length > len(data):
            raise Malformed("it ends within a message")
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


def _present(entry: dict[str, Any]) -> int:
    pages: int = entry.get("pages") or entry.get("old_pages", 0)
    if "flags" in entry:
        return pages if entry["flags"] & PRESENT else 0
    return 0 if entry.get("in_parent") else pages
