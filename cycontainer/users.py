"""User names of an image: read from its passwd, which is untrusted. Lifecycle."""

from __future__ import annotations

import os
import stat

from cycontainer.errors import ConfigError
from cycontainer.node import PATH_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MOST_BYTES: Final = 1 << 20


def _passwd(rootfs: str) -> str:
    """The text of the image's /etc/passwd, a regular file below `rootfs` whatever links the image has."""
    from cycontainer._fd import open_inside

    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_inside(root, b"etc/passwd")
    finally:
        os.close(root)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ConfigError("user", "the image's /etc/passwd is no regular file")
    with open(fd, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ConfigError("user", "the image's /etc/passwd is larger than 1 MiB")
    return data.decode("utf-8", "surrogateescape")


def with_home(env: tuple[str, ...], uid: int, rootfs: str) -> tuple[str, ...]:
    """The environment with a HOME, if it has none, or an empty one: the user's in the image's passwd, else "/"."""
    if any(entry.startswith("HOME=") and entry != "HOME=" for entry in env):
        return env
    return (*[entry for entry in env if entry != "HOME="], f"HOME={_home(uid, rootfs)}")


def _home(uid: int, rootfs: str) -> str:
    """The first that passwd(5) has, where it is one: the image may say anything, or nothing."""
    try:
        lines = _passwd(rootfs).split("\n")
    except (OSError, ConfigError):
        return "/"
    for line in lines:
        fields = line.split(":")
        if len(fields) >= 6 and fields[2] == str(uid):
            home = fields[5]
            return home if home.startswith("/") and "\0" not in home and len(home) <= PATH_MAX else "/"
    return "/"


def look_up(name: str, rootfs: str) -> tuple[int, int]:
    """The uid and gid of a user name in an image.

    Raises:
        ConfigError: there is no such user, or no passwd that can be read.
    """
    try:
        lines = _passwd(rootfs).split("\n")
    except OSError as error:
        raise ConfigError("user", f"{name}: the image's /etc/passwd: {error.strerror}") from None
    for line in lines:
        fields = line.split(":")
        if fields[0] == name and len(fields) >= 4 and all(id_.isdecimal() and len(id_) <= 10 for id_ in fields[2:4]):
            return int(fields[2]), int(fields[3])
    raise ConfigError("user", f"{name}: no such user in the image's /etc/passwd")
