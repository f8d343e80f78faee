"""An image directory: opened, checked, and what stands there beside criu's images. Lifecycle: it writes files.

    *.img              criu's, of any runtime
    descriptors.json   what the first process's 0, 1 and 2 were: runc's and crun's format, so that images are exchanged
    cycontainer.json   what else a restore has to know (`Note`); without it, an image is another runtime's

Images hold all that the container's processes had in memory: the directory is 0700. What is read from one is untrusted.
"""

from __future__ import annotations

import errno
import os
import stat

from cycontainer.errors import ConfigError, reason_of
from cycontainer.json_text import to_json
from cycontainer.read_config import parse
from cycontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final, Self

VERSION: Final = 1
NOTE: Final = "cycontainer.json"
DESCRIPTORS: Final = "descriptors.json"
PARENT: Final = "parent"  # criu's link to older images
YARD: Final = ".criu."  # directories on which criu mounts; one that died leaves them
OTHERS: Final = (NOTE, DESCRIPTORS, PARENT)  # of a checkpoint, beside *.img
MOST_BYTES: Final = 1 << 20
NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Note(Record):
    """What our checkpoints say of their images.

    Attributes:
        machine: the architecture, "x86_64".
        criu: the version that wrote them.
        network_lock: the one that was taken.
        mounts: the names of the mounts that come from outside.
        traits: what the configuration had that one for a restore has to have, too (`externals.traits_of`).
        descriptors: criu's keys of the first process's 0, 1 and 2, where these are the host's; "" where not.
        pre_dump: there is nothing but memory.
        cgroups: it had cgroups of its own, which criu saved.
        pid: the first process's, then: before 4.1 criu names its nftables table after it, and does not find it again.
    """

    machine: str
    criu: str
    network_lock: str
    mounts: tuple[str, ...] = ()
    traits: dict[str, tuple[str, ...]] = {}  # noqa: RUF012  # nobody changes it
    descriptors: tuple[str, ...] = ("", "", "")
    pre_dump: bool = False
    cgroups: bool = True
    pid: int = 0


class ImageDirectory:
    """A directory for images or logs, open."""

    def __init__(self, path: str, fd: int, *, made: bool) -> None:
        self.path, self.fd, self._made = path, fd, made
        self._reserved = False

    @classmethod
    def open(cls, path: str, option: str, *, make: bool = False) -> Self:
        """Open it; `make` makes it when it is missing, for us alone.

        Raises:
            ConfigError: it cannot be used; `option` names it.
        """
        path = os.path.abspath(path)
        made = make and not os.path.isdir(path)
        try:
            if made:
                os.makedirs(path, 0o700, exist_ok=True)
            return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), made=made)
        except OSError as error:
            raise ConfigError(option, f"{path}: {reason_of(error)}") from None

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def seen_by(self, pid: int) -> ImageDirectory:
        """The same directory in a process's mount namespace: criu goes there, and mounts. Raises ConfigError."""
        return type(self).open(f"/proc/{pid}/root{os.path.realpath(self.path)}", "work-path")

    def older(self) -> ImageDirectory:
        """The directory that the link to older images leads to. Raises ConfigError.

        criu follows it when it has the container's root: what an absolute one leads to is another thing there.
        """
        path = f"{self.path}/{PARENT}"
        try:
            fd = os.open(PARENT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError as error:
            raise ConfigError("image-path", f"{path}: {reason_of(error)}") from None
        found = type(self)(path, fd, made=False)
        if os.path.islink(path) and os.readlink(path).startswith("/"):
            found.close()
            raise ConfigError("image-path", f"{path} must lead to a relative path")
        return found

    def reserve(self) -> None:
        """Take it for a new checkpoint, by an empty note; of two that would write here, one does.

        Raises:
            ConfigError: it cannot be written, or has images: mixed, they could not be restored.
        """
        found = sorted(filter(_is_image, os.listdir(self.fd)))
        if not found:
            try:
                os.close(os.open(NOTE, NEW | os.O_EXCL, 0o600, dir_fd=self.fd))
            except FileExistsError:
                found = [NOTE]
            except OSError as error:
                raise ConfigError("image-path", f"{self.path}/{NOTE}: {reason_of(error)}") from None
        if found:
            raise ConfigError("image-path", f"{self.path} is not empty: it has {found[0]} of another checkpoint")
        self._reserved = True

    def clear(self, *names: str) -> None:
        """Remove what criu is to write anew: of a link, it would overwrite what that leads to. Raises ConfigError."""
        for name in names:
            try:
                os.unlink(name, dir_fd=self.fd)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ConfigError("work-path", f"{self.path}/{name}: {reason_of(error)}") from None

    def write(self, name: str, value: Any) -> None:
        """Write JSON to a file, readable by its owner. Raises ConfigError."""
        data = to_json(value).encode("utf-8", "surrogateescape")
        try:
            fd = os.open(name, NEW | os.O_TRUNC, 0o600, dir_fd=self.fd)
            with open(fd, "wb") as file:
                file.write(data)
        except OSError as error:
            raise ConfigError("image-path", f"{self.path}/{name}: {reason_of(error)}") from None

    def read(self, name: str) -> Any:
        """The JSON of a file; None when there is no such file.

        Raises:
            ConfigError: it is not a small regular file with JSON.
        """
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
            with open(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise OSError(errno.EINVAL, "not a regular file")
                return parse(file.read(MOST_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, ConfigError):
            raise ConfigError("image-path", f"{self.path}/{name} is damaged") from None

    def remove_new(self) -> None:
        """Remove the images of the checkpoint that it is reserved for, and itself, if made then. Raises OSError."""
        if self._reserved:
            for name in filter(_is_image, os.listdir(self.fd)):
                os.unlink(name, dir_fd=self.fd)
            self.remove_yards()
        if self._made and not os.listdir(self.fd):
            os.rmdir(self.path)

    def remove_yards(self) -> None:
        """Remove the directories of a criu that failed: its mounts went with it. Raises OSError."""
        for name in os.listdir(self.fd):
            if name.startswith(YARD):
                os.rmdir(name, dir_fd=self.fd)

    def let_read(self, gid: int) -> None:
        """Let a group read the images: criu opens some with its own user, some as the container's root. Raises OSError.

        Owned by that root, the former could not, for it has no capabilities then.
        """
        for name in [name for name in os.listdir(self.fd) if name.endswith(".img")]:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
            try:
                status = os.fstat(fd)
                own = stat.S_ISREG(status.st_mode) and status.st_nlink == 1  # no other name for a file of the host
                if own and status.st_gid != gid:
                    os.fchown(fd, -1, gid)
                    os.fchmod(fd, 0o640)
            finally:
                os.close(fd)
        if os.fstat(self.fd).st_gid != gid:
            os.fchown(self.fd, -1, gid)
            os.fchmod(self.fd, 0o710)


def _is_image(name: str) -> bool:
    return name.endswith(".img") or name in OTHERS


def write_note(directory: ImageDirectory, note: Note, files: tuple[str, ...]) -> None:
    """Write both files; `files` is where the first process's 0, 1 and 2 lead. Raises ConfigError."""
    directory.write(DESCRIPTORS, list(files))
    names = {name: getattr(note, name) for name in type(note).fields}
    directory.write(NOTE, {"version": VERSION, **names})


def _texts(value: Any, count: int | None = None) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) and "\0" not in each for each in value):
        raise TypeError
    if count is not None and len(value) != count:
        raise TypeError
    return tuple(value)


def _places(value: Any) -> tuple[str, ...]:
    """Paths that lead where they say."""
    found = _texts(value)
    if any(os.path.normpath(each) != each or not each.startswith("/") for each in found):
        raise TypeError
    return found


def _traits(value: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise TypeError
    return {path: _texts(traits) for path, traits in value.items()}


def _number(value: Any) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def read_note(directory: ImageDirectory) -> Note | None:
    """The note; None when the images are another runtime's.

    Raises:
        ConfigError: it is damaged, or of a later version.
    """
    found = directory.read(NOTE)
    if found is None:
        return None
    try:
        if found["version"] != VERSION:
            raise ConfigError("image-path", f"{directory.path} was written by a later version of cycontainer")
        machine, criu, lock = _texts([found[name] for name in ("machine", "criu", "network_lock")])
        return Note(
            machine=machine,
            criu=criu,
            network_lock=lock,
            mounts=_places(found["mounts"]),
            traits=_traits(found["traits"]),
            descriptors=_texts(found["descriptors"], 3),
            pre_dump=found["pre_dump"] is True,
            cgroups=found.get("cgroups", True) is True,  # 0.1 did not say
            pid=_number(found["pid"]),
        )
    except (KeyError, TypeError):
        raise ConfigError("image-path", f"{directory.path}/{NOTE} is damaged") from None


def read_descriptors(directory: ImageDirectory) -> tuple[str, ...]:
    """What the first process's 0, 1 and 2 were, as any runtime says it. Raises ConfigError."""
    found = directory.read(DESCRIPTORS)
    if found is None:
        return ("", "", "")
    try:
        return _texts(found)[:3]
    except TypeError:
        raise ConfigError("image-path", f"{directory.path}/{DESCRIPTORS} is damaged") from None


def older_images(directory: ImageDirectory) -> Iterator[ImageDirectory]:
    """Those whose memory it builds on, the next first; each is closed when another one is asked for.

    Raises:
        ConfigError: a link leads to no directory, or in a circle.
    """
    found, known = directory, set()
    try:
        while PARENT in os.listdir(found.fd):
            status = os.fstat(found.fd)
            if (status.st_dev, status.st_ino) in known:
                raise ConfigError("image-path", f"{found.path} is older than itself")
            known.add((status.st_dev, status.st_ino))
            older = found.older()
            if found is not directory:
                found.close()
            found = older
            yield found
    finally:
        if found is not directory:
            found.close()


def _check_files(directory: ImageDirectory) -> None:
    """Refuse what criu would wait at. Raises ConfigError."""
    for name in os.listdir(directory.fd):
        mode = os.stat(name, dir_fd=directory.fd, follow_symlinks=False).st_mode if name.endswith(".img") else 0
        if mode and not stat.S_ISREG(mode):
            raise ConfigError("image-path", f"{directory.path}/{name} is no regular file")


def check_complete(directory: ImageDirectory) -> None:
    """Refuse a directory without images, with a pre-dump's, or with what criu would wait at. Raises ConfigError."""
    if "inventory.img" not in os.listdir(directory.fd):
        raise ConfigError("image-path", f"{directory.path} has no checkpoint: inventory.img is missing")
    _check_files(directory)
    for older in older_images(directory):
        _check_files(older)
    note = read_note(directory)
    if note is None:
        return
    if note.pre_dump:
        raise ConfigError("image-path", f"{directory.path} is of a pre-dump: it has the memory only")
    machine = os.uname().machine
    if note.machine != machine:
        raise ConfigError("image-path", f"{directory.path} was made on {note.machine}, and this is {machine}")
