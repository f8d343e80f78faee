"""Files that go into a container and come out of it, through a file system of the run's own. Face.

No directory of the host is writable for the container: its working directory is a tmpfs with a size, which only it and
this process ever see. We write before the program exists, and read when all its processes have ended. What it leaves is
hostile: names are resolved below that directory by openat2(2), through no link and into no other mount; what is no
regular file is not opened for reading, and what is read is bounded.
"""

from __future__ import annotations

import os
import stat

from cycontainer import _fd
from cycontainer.errors import ConfigError, reason_of, shown
from cycontainer.plan import MOST_FILES
from cycontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Final

    from cycontainer.plan import Workplace

PLACE: Final = "/tmp/work"  # where it is, if no one says otherwise
PAGE: Final = 4096
LONGEST_NAME: Final = 255
MOST_NAMES: Final = 4 << 20  # bytes of the paths that are told, of files and of what is refused


class Exchange(Record):
    """What goes in and what is to come out, checked.

    Attributes:
        files: by their paths below the working directory.
        collect: patterns, each as its components.
        size: bytes that the working directory can hold, and that are collected at most.
    """

    files: tuple[tuple[tuple[str, ...], bytes], ...]
    collect: tuple[tuple[str, ...], ...]
    size: int


def exchange(files: Mapping[str, bytes | str] | None, collect: Sequence[str], size: int) -> Exchange | None:
    """What `run()` was given; None when it is nothing. Raises ConfigError."""
    if isinstance(collect, (str, bytes)) or not hasattr(collect, "__iter__"):
        raise ConfigError("collect", f"must be a list of patterns, not {shown(collect)}")
    if files is not None and not hasattr(files, "items"):
        raise ConfigError("files", f"must be a dict, not {shown(files)}")
    patterns = tuple([_components(f"collect[{place}]", pattern) for place, pattern in enumerate(collect)])
    for place, pattern in enumerate(patterns):
        if pattern.count("**") > 1:
            raise ConfigError(f"collect[{place}]", "has more than one **")
    if not files and not patterns:
        return None
    contents = tuple([(_components(f"files[{shown(n)}]", n), _bytes(n, data)) for n, data in (files or {}).items()])
    _check_fits(contents, size)
    return Exchange(files=contents, collect=patterns, size=size)


def _components(path: str, name: object) -> tuple[str, ...]:
    """A path or pattern below the working directory."""
    if not isinstance(name, str) or not name:
        raise ConfigError(path, f"must be a path below the working directory, not {shown(name)}")
    parts = tuple(name.split("/"))
    if "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise ConfigError(path, "must be a path below the working directory, without empty components, . and ..")
    try:
        too_long = any(len(os.fsencode(part)) > LONGEST_NAME for part in parts) or len(os.fsencode(name)) >= PAGE
    except UnicodeEncodeError:
        raise ConfigError(path, "holds half of a surrogate pair") from None
    if too_long:
        raise ConfigError(path, "is longer than a path can be")
    return parts


def _bytes(name: str, data: object) -> bytes:
    try:
        return data.encode() if isinstance(data, str) else bytes(memoryview(data))  # type: ignore[arg-type]  # what it is shows itself
    except (TypeError, UnicodeEncodeError):
        raise ConfigError(f"files[{shown(name)}]", f"must be bytes or text, not {shown(data)}") from None


def _check_fits(contents: Sequence[tuple[tuple[str, ...], bytes]], size: int) -> None:
    names = {parts for parts, _ in contents}
    directories = {parts[:end] for parts in names for end in range(1, len(parts))}
    both = names & directories
    if both:
        raise ConfigError(f"files[{shown('/'.join(min(both)))}]", "is a file, and a directory of another one")
    if sum(_pages(len(data)) for _, data in contents) > _pages(size) or len(names) + len(directories) >= MOST_FILES:
        raise ConfigError("files", f"are more than fits into work_size, {size} bytes, and {MOST_FILES} files")


def _pages(size: int) -> int:
    return -(-size // PAGE)


class Work:
    """The working directory of one run: what is made, given to the init, written to and read."""

    def __init__(self, place: Workplace, exchange: Exchange) -> None:
        self._place, self._exchange = place, exchange
        self._owned = True  # it was made here, where files do not belong to the program
        self._mount = -1  # until it is attached in the container
        self._root = -1  # its top directory, opened to be read

    def take(self, mount: int) -> None:
        """The init has made it; the descriptor is this object's."""
        before, self._mount = self._mount, mount
        _fd.close_all((before,) if before >= 0 else ())

    def fill(self) -> int | None:
        """Write the files. Returns a mount for the init, a descriptor that is the caller's, unless the init made it.

        Raises OSError: the files are still this object's to close.
        """
        place, made = self._place, self._mount < 0
        if made:
            options = {"size": place.size, "nr_inodes": MOST_FILES, "uid": place.uid, "gid": place.gid}
            texts = {name.encode(): str(value).encode() for name, value in options.items()}
            self._mount = _fd.new_tmpfs({**texts, b"mode": b"700"})
        self._root = _fd.open_beneath(self._mount, b".", os.O_RDONLY | os.O_DIRECTORY)
        self._owned = made
        self.put(self._exchange)
        mount, self._mount = self._mount, -1
        if made:
            return mount
        os.close(mount)
        return None

    def put(self, exchange: Exchange) -> None:
        """Write the files of this, and collect what this says. Raises OSError."""
        self._exchange = exchange
        for parts, data in exchange.files:
            self._write(parts, data, owned=self._owned)

    def _write(self, parts: tuple[str, ...], data: bytes, *, owned: bool) -> None:
        """No one else is in there yet."""
        for end in range(1, len(parts)):
            directory = "/".join(parts[:end])
            try:
                os.mkdir(directory, 0o700, dir_fd=self._root)
            except FileExistsError:
                continue
            if owned:
                os.chown(directory, self._place.uid, self._place.gid, dir_fd=self._root)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        fd = _fd.open_beneath(self._root, os.fsencode("/".join(parts)), flags)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
            if owned:
                os.fchown(fd, self._place.uid, self._place.gid)
        finally:
            os.close(fd)

    # --- when all has ended

    @property
    def collects(self) -> bool:
        return bool(self._exchange.collect)

    def collect(self) -> tuple[dict[str, bytes], dict[str, str]]:
        """The files that the patterns match, and what they match but is refused: why, by its name.

        What comes back fits into such a directory again; holes and hard links take room there. (A link is an inode.)
        Names are bounded, too: one may have 4 KiB, and links to nothing take no room. What is left then is told of "".
        """
        files: dict[str, bytes] = {}
        refused: dict[str, str] = {}
        left, pages, names = self._exchange.size, _pages(self._exchange.size), MOST_NAMES
        for parts, mode, problem in self._walk() if self._exchange.collect and self._root >= 0 else ():
            if not problem and not any(_matches(parts, pattern) for pattern in self._exchange.collect):
                continue
            name = "/".join(parts)
            names -= len(os.fsencode(name))
            if names < 0:
                refused[""] = f"more names than {MOST_NAMES} bytes hold: the rest was not looked at"
                break
            try:
                data = self._read(name, left) if stat.S_ISREG(mode) else None
            except OSError as error:
                refused[name] = reason_of(error)
                continue
            if data is None:
                refused[name] = problem or _no_file(mode)
            elif len(data) > left or _pages(len(data)) > pages:
                refused[name] = f"more than work_size, {self._exchange.size} bytes, with those before it"
            else:
                files[name] = data
                left -= len(data)
                pages -= _pages(len(data))
        return files, refused

    def _walk(self) -> Iterator[tuple[tuple[str, ...], int, str]]:
        """All that is there: its path and mode; of directories those that cannot be read, and why. They are as hostile
        as files."""
        patterns = self._exchange.collect
        deepest = max(float("inf") if "**" in pattern else len(pattern) for pattern in patterns)
        waiting: list[tuple[str, ...]] = [()]
        while waiting:
            above = waiting.pop()
            try:
                found = self._entries("/".join(above) or ".")
            except OSError as error:
                yield above, 0, reason_of(error)
                continue
            for name, mode in found:
                if not stat.S_ISDIR(mode):
                    yield (*above, name), mode, ""
                elif len(above) + 1 < deepest:  # below may be what a pattern matches
                    waiting.append((*above, name))

    def _entries(self, path: str) -> list[tuple[str, int]]:
        fd = _fd.open_beneath(self._root, os.fsencode(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(fd) as entries:
                return [(entry.name, entry.stat(follow_symlinks=False).st_mode) for entry in entries]
        finally:
            os.close(fd)

    def _read(self, path: str, left: int) -> bytes | None:
        """A file's content, at most one byte more than `left`; None when it is no file any more. Raises OSError."""
        fd = _fd.open_beneath(self._root, os.fsencode(path), os.O_RDONLY)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return None
            parts, wanted = [], min(status.st_size, left + 1)
            while wanted and (data := os.read(fd, min(wanted, 1 << 20))):
                parts.append(data)
                wanted -= len(data)
            return b"".join(parts)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Let go of it: with the container's end it is gone."""
        mine, self._mount, self._root = (self._mount, self._root), -1, -1
        _fd.close_all(fd for fd in mine if fd >= 0)


def _no_file(mode: int) -> str:
    return "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether a path's components are those of a pattern; ** is any number of directories."""
    from fnmatch import fnmatchcase

    if "**" not in pattern:
        return len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern))
    before, after = pattern[: pattern.index("**")], pattern[pattern.index("**") + 1 :]
    if len(parts) < len(before) + len(after):
        return False
    rest = parts[len(parts) - len(after) :]
    return all(map(fnmatchcase, parts, before)) and all(map(fnmatchcase, rest, after))
