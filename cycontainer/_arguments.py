"""What callers pass to `run()` and to a `Container`, checked before anything is done. Lifecycle."""

from __future__ import annotations

import codecs
import os
import stat

from cycontainer.errors import ConfigError, LaunchError, errno_of, shown
from cycontainer.tables import MAX_ARG_STRLEN, MAX_STRINGS, MOST_ID, MOST_NUMBER, MOST_PIDS, SIGRTMAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence
    from os import PathLike
    from typing import Any, Final, TypeVar

    Entry = TypeVar("Entry")

LEAST_WORK, MOST_WORK = 4096, (1 << 48) - 1  # bytes of a working directory
MOST_INTEGER: Final = 2**63 - 1
# Of the host's root, when that is the container's: what is private or secret, and so empty.
WRITABLE: Final = ("/tmp", "/var/tmp", "/run")
HIDDEN: Final = ("/root", "/home", "/sys", "/boot", "/mnt", "/media", "/srv", "/lost+found")
PRIVATE: Final = (*WRITABLE, *HIDDEN)


def directory(value: str | PathLike[str], name: str) -> str:
    text = _text(name, value)
    check_given(name, text)  # "" would be the working directory
    return os.path.abspath(text)


def check_given(name: str, value: str | None) -> None:
    """Refuse "": what stands for the default is None."""
    if value == "":
        raise ConfigError(name, "is empty")


def user_ids(user: int | str | None, rootfs: str | None) -> tuple[int | None, int | None]:
    """Ids of `user`: a number, "uid:gid", or a name in the container's passwd."""
    if user is None:
        return None, None
    if type(user) is int and 0 <= user <= MOST_ID:
        return user, user
    if isinstance(user, str) and user:
        uid, colon, gid = user.partition(":")
        if not uid.isdigit() and not colon:
            from cycontainer.users import look_up

            return look_up(user, rootfs or "/")
        ids = [_id(uid), _id(gid if colon else uid)]
        if None not in ids:
            return ids[0], ids[1]
    raise ConfigError("user", f"must be a uid, a name or uid:gid, not {shown(user)}")


def _id(digits: str) -> int | None:
    fits = digits.isascii() and digits.isdigit() and len(digits) <= 10 and int(digits) <= MOST_ID
    return int(digits) if fits else None


def check_keywords(function: str, given: Iterable[str], known: Container[str]) -> None:
    """Refuse what a public function does not take. Raises TypeError, as a call of it would."""
    for name in given:
        if name not in known:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")


def check_flag(name: str, value: object) -> None:
    """Refuse what is only as good as true or false: None is not "the default" for `read_only`."""
    if type(value) is not bool:
        raise ConfigError(name, f"must be True or False, not {shown(value)}")


def check_number(name: str, value: object, least: float, most: float) -> None:
    fits = type(value) is float or (type(value) is int and value <= MOST_INTEGER)
    if value is not None and not (fits and least <= value <= most):  # type: ignore[operator]  # a number
        raise ConfigError(name, f"must be a number from {least:g} to {most:g}, not {shown(value)}")


def check_count(name: str, value: object, least: int, most: int = MOST_INTEGER, *, needed: bool = False) -> None:
    """`needed`: None is refused, too."""
    if (needed or value is not None) and (type(value) is not int or not least <= value <= most):
        up = "up" if type(value) is not int or value < least else f"to {most}"
        raise ConfigError(name, f"must be an integer from {least} {up}, not {shown(value)}")


def seconds(name: str, value: float | None) -> float:
    """A time to wait, which may be over already; None is infinity."""
    try:
        number = float("inf") if value is None else float(value)
    except (OverflowError, TypeError, ValueError):
        number = float("nan")
    if number != number or isinstance(value, (str, bytes)):
        raise ConfigError(name, f"must be a number of seconds or None, not {shown(value)}")
    return number


def check_signal(number: object) -> None:
    """Refuse what is no number of a signal; 0 is none, and asks whether one could be sent."""
    if not isinstance(number, int) or not 0 <= number <= SIGRTMAX:
        raise ConfigError("number", f"must be a signal's number, from 0 to {SIGRTMAX}, not {shown(number)}")


def check_pair(name: str, value: object, what: str) -> None:
    if value is not None and not (isinstance(value, tuple | list) and len(value) == 2):
        raise ConfigError(name, f"must be a pair, {what}, not {shown(value)}")


def check_dict(name: str, value: object) -> None:
    if value is not None and not hasattr(value, "keys"):
        raise ConfigError(name, f"must be a dict, not {shown(value)}")


def json_of(value: object, name: str) -> bytes:
    """An object's JSON text."""
    from cycontainer.json_text import to_json

    if not isinstance(value, dict):
        raise ConfigError(name, f"must be a dict, not {shown(value)}")
    try:
        return to_json(value).encode("utf-8", "surrogateescape")
    except (RecursionError, TypeError, UnicodeEncodeError) as error:
        raise ConfigError(name, f"is nothing that JSON can say: {error}") from None


def check_limits(memory: object, cpus: object, pids: object) -> None:
    check_number("cpus", cpus, 0.01, MOST_NUMBER)
    check_count("memory", memory, 4096)
    check_count("pids", pids, 1, MOST_PIDS - 1)  # with our pid 1


def check_work_size(size: object) -> None:
    check_count("work_size", size, LEAST_WORK, MOST_WORK, needed=True)


def check_supervisor(answers: Mapping[str, object] | None) -> None:
    if answers is None:
        return
    if not hasattr(answers, "keys") or not all([type(name) is str for name in answers]):
        raise ConfigError("supervisor", "must be a dict with names of system calls")
    for name in answers:
        if not callable(answers[name]):
            raise ConfigError(f"supervisor[{name!r}]", f"must be callable, not {shown(answers[name])}")


def check_path(name: str, value: str | None) -> None:
    """Refuse what is no absolute path in the container."""
    if value is not None:
        from cycontainer.node import Node

        Node(value, name).path_text()


def program_arguments(args: Sequence[str | PathLike[str]]) -> tuple[str, ...]:
    texts = tuple([_text(f"args[{place}]", arg) for place, arg in enumerate(entries(args, "args"))])
    if not texts:
        raise ConfigError("args", "is empty: the program and its arguments")
    if not texts[0]:
        raise ConfigError("args[0]", "is empty: there is no program to look up")
    return texts


def environment_entries(env: Mapping[str, str] | None) -> tuple[str, ...] | None:
    if env is None:
        return None
    if not hasattr(env, "items"):
        raise ConfigError("env", f"must be a dict, not {shown(env)}")
    for name, value in env.items():
        if not isinstance(name, str) or not isinstance(value, str) or not name or "=" in name:
            raise ConfigError(f"env[{shown(name)}]", "a name is text, not empty and without =, and a value is text")
    texts = tuple([_text(f"env[{shown(name)}]", f"{name}={value}") for name, value in env.items()])
    if sum([len(os.fsencode(entry)) + 9 for entry in texts]) > MAX_STRINGS:  # 9: a NUL and a pointer
        raise ConfigError("env", f"is larger than execve takes, {MAX_STRINGS} bytes")
    return texts


def _text(path: str, value: object) -> str:
    """A string or path as execve takes it."""
    try:
        text = os.fsdecode(value)  # type: ignore[arg-type]  # what it is shows itself
        size = len(os.fsencode(text))
    except TypeError:
        raise ConfigError(path, f"must be text, not {shown(value)}") from None
    except UnicodeEncodeError:
        raise ConfigError(path, "holds half of a surrogate pair") from None
    if "\0" in text:
        raise ConfigError(path, "holds a NUL")
    if size >= MAX_ARG_STRLEN:
        raise ConfigError(path, f"is longer than execve takes, {MAX_ARG_STRLEN - 1} bytes")
    return text


def input_bytes(value: object, encoding: str | None, errors: str | None) -> bytes:
    """What the program is to read; and whether there is such an encoding, before anything is printed in it."""
    for path, name, look_up in (("encoding", encoding, "a".encode), ("errors", errors, codecs.lookup_error)):
        try:
            look_up(name) if name is not None else None
        except (LookupError, TypeError, ValueError):  # "hex" is there, and encodes no text
            raise ConfigError(path, f"there is none that is called {name!r}") from None
    try:
        if isinstance(value, str):
            return value.encode(encoding or "utf-8", errors or "strict")
        return b"" if value is None else bytes(memoryview(value))  # type: ignore[arg-type]  # what it is shows itself
    except UnicodeEncodeError as error:
        raise ConfigError("input", f"cannot be encoded: {error}") from None
    except TypeError:
        raise ConfigError("input", f"must be bytes or text, not {shown(value)}") from None


def mount_entries(mounts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(mounts, (str, bytes)) or hasattr(mounts, "keys") or not hasattr(mounts, "__iter__"):
        raise ConfigError("mounts", "must be a list of dicts")
    found = []
    for place, mount in enumerate(mounts):
        if not hasattr(mount, "keys"):
            raise ConfigError(f"mounts[{place}]", f"must be a dict, not {shown(mount)}")
        found.append(dict(mount))
    return found


def entries(values: Iterable[Entry], name: str) -> tuple[Entry, ...]:
    """What stands in a list, or in what else has entries but a text."""
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise ConfigError(name, f"must be a list, not {shown(values)}")
    return tuple(values)


def open_descriptors(values: Iterable[int], name: str) -> tuple[int, ...]:
    found = entries(values, name)
    for place, fd in enumerate(found):
        try:
            os.fstat(fd)
        except (OSError, OverflowError, TypeError):
            raise ConfigError(f"{name}[{place}]", f"must be an open descriptor, not {shown(fd)}") from None
    return found


def host_directories(paths: Sequence[str], name: str) -> tuple[str, ...]:
    found = entries(paths, name)
    for place, path in enumerate(found):
        check_text(f"{name}[{place}]", path)
    return tuple([directory(path, f"{name}[{place}]") for place, path in enumerate(found)])


def check_text(name: str, value: object) -> None:
    """Refuse what is neither text, as execve takes it, nor a path."""
    if not isinstance(value, (str, os.PathLike)):
        raise ConfigError(name, f"must be text, not {shown(value)}")
    check_given(name, _text(name, value))


def absolute_paths(paths: Sequence[str], name: str) -> tuple[str, ...]:
    found = entries(paths, name)
    for place, path in enumerate(found):
        check_path(f"{name}[{place}]", path)
    return found


def private_directories() -> tuple[str, ...]:
    """Which of them there are: nothing is made on the host."""
    return tuple(path for path in (*PRIVATE, *_own_home()) if _is_directory(path))


def _own_home() -> tuple[str, ...]:
    """The caller's home, unless it lies, also behind links, where all is hidden anyway."""
    home = os.path.normpath(os.path.expanduser("~"))
    if not home.startswith("/") or not home.strip("/") or _is_below(home, HIDDEN):
        return ()
    return () if _is_below(os.path.realpath(home), [os.path.realpath(path) for path in HIDDEN]) else (home,)


def _is_below(path: str, directories: Sequence[str]) -> bool:
    return any([path == directory or path.startswith(f"{directory}/") for directory in directories])


def _is_directory(path: str) -> bool:
    """Also behind a link. Not whether it could be found out (os.path.isdir): what was not seen is not thereby public.

    What may not be looked at may not be by the program either. Raises LaunchError.
    """
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    except OSError as error:
        raise LaunchError(f"look for {path}, which is to be empty", errno_of(error), 0, 0) from None
