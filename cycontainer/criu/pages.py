"""Whether the memory in an image directory is all there: criu waits forever for pages behind a file's end.

Source: criu's images/pagemap.proto and image.h: two magic numbers, then each message with its length
in front. It reads files.
"""

from __future__ import annotations

import os
import stat

from cycontainer.criu.images import older_images
from cycontainer.criu.rpc import BOOLEAN, INTEGER, Malformed, decode
from cycontainer.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO, Final

    from cycontainer.criu.images import ImageDirectory
    from cycontainer.criu.rpc import Schema

MAGIC: Final = 0x54564319  # IMG_COMMON_MAGIC
PAGEMAP: Final = 0x56084025
LONGEST: Final = 1 << 12  # bytes of a message: three numbers
PRESENT: Final = 4  # PE_PRESENT: the pages are in the file, not in a parent's or nowhere
HEAD: Final[Schema] = {"pages_id": (1, INTEGER)}
ENTRY: Final[Schema] = {
    "old_pages": (2, INTEGER),
    "in_parent": (3, BOOLEAN),
    "flags": (4, INTEGER),
    "pages": (5, INTEGER),
}


def check_pages(directory: ImageDirectory) -> None:
    """Compare the sizes of the files of pages with what their maps say, in older images, too. Raises ConfigError."""
    _check_sizes(directory)
    for older in older_images(directory):
        _check_sizes(older)


def _check_sizes(directory: ImageDirectory) -> None:
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
        try:
            messages = _messages(file)
            number = decode(next(messages), HEAD).get("pages_id", 0)
            return number, sum(_present(decode(message, ENTRY)) for message in messages)
        except (Malformed, StopIteration):
            raise ConfigError("image-path", f"{directory.path}/{name} is damaged") from None


def _messages(file: BinaryIO) -> Iterator[bytes]:
    """One after the other, however large the file says that it is. None is empty: each has a required field."""
    magic = [int.from_bytes(file.read(4), "little") for _ in range(2)]
    if magic != [MAGIC, PAGEMAP] or not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise Malformed("no map of pages")
    while head := file.read(4):
        length = int.from_bytes(head, "little")
        message = file.read(length) if length <= LONGEST else b""
        if not message or len(message) < length:
            raise Malformed("it ends within a message")
        yield message


def _present(entry: dict[str, Any]) -> int:
    pages: int = entry.get("pages") or entry.get("old_pages", 0)
    if pages < 0:
        raise Malformed("pages of a number that is none")
    if "flags" in entry:
        return pages if entry["flags"] & PRESENT else 0
    return 0 if entry.get("in_parent") else pages
