"""What callers pass to `run()`, checked before anything is done. Face."""

from __future__ import annotations

import os

from cycontainer.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from typing import Final

# Of the host's root, when that is the container's: what is private or secret, and so empty.
PRIVATE: Final = (
    "/tmp",
    "/var/tmp",
    "/run",
    "/root",
    "/home",
    "/sys",
    "/boot",
    "/mnt",
    "/media",
    "/srv",
    "/lost+found",
)


def directory(value: str | PathLike[str], name: str) -> str:
    text = os.fspath(value)
    if "\0" in text:
        raise ConfigError(name, "holds a NUL")
    return os.path.abspath(text)


def user_ids(user: int | str | None, rootfs: str | None) -> tuple[int | None, int | None]:
    """Ids of `user`: a number, "uid:gid", or a name in the container's passwd."""
    if user is None:
        return None, None
    if isinstance(user, int) and not isinstance(user, bool):
        return user, user
    if isinstance(user, str):
        uid, colon, gid = user.partition(":")
        if uid.isascii() and uid.isdigit() and (not colon or (gid.isascii() and gid.isdigit())):
            return int(uid), int(gid) if colon else int(uid)
        from cycontainer.users import look_up

        return look_up(user, rootfs or "/")
    raise ConfigError("user", f"must be a number, a name or uid:gid, not {user!r}")


def check_number(name: str, value: object, least: float) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least):
        raise ConfigError(name, f"must be a number from {least:g} up, not {value!r}")


def program_arguments(args: Sequence[str | PathLike[str]]) -> tuple[str, ...]:
    if isinstance(args, (str, bytes)) or not args:
        raise ConfigError("args", "must be a list: the program and its arguments")
    texts = tuple(os.fsdecode(arg) for arg in args)
    for place, text in enumerate(texts):
        if "\0" in text:
            raise ConfigError(f"args[{place}]", "holds a NUL")
        if len(text) >= 131072:
            raise ConfigError(f"args[{place}]", "is longer than execve takes, 131071 bytes")
    if not texts[0]:
        raise ConfigError("args[0]", "is empty: there is no program to look up")
    return texts


def environment_entries(env: Mapping[str, str] | None) -> tuple[str, ...] | None:
    if env is None:
        return None
    entries = tuple(f"{name}={value}" for name, value in env.items())
    for name, entry in zip(env, entries, strict=True):
        if not name or "=" in name or "\0" in entry:
            raise ConfigError(f"env[{name!r}]", "a name is not empty and without =, and nothing holds a NUL")
        if len(entry) >= 131072:
            raise ConfigError(f"env[{name!r}]", "is longer than execve takes, 131071 bytes")
    return entries


def private_directories() -> tuple[str, ...]:
    """Which of them there are: nothing is made on the host."""
    home = os.path.expanduser("~")
    extra = (home,) if home.startswith("/") and home != "/" and not home.startswith(("/root", "/home")) else ()
    return tuple(path for path in (*PRIVATE, *extra) if os.path.isdir(path) and not os.path.islink(path))
