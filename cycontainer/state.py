"""What is kept of a container on disk, and what its kernel objects say. Lifecycle: files below the root directory.

    ROOT/ID/            0700; locked by flock(2) on the directory itself while a verb changes the container
        state           lines of a key and its values; written whole: a reader never sees half of one
        config.json     the configuration as it was given
        notify/         the socket of sd_notify(3), if the creator had one
        go, outcome     the FIFOs that a waiting init holds (_steps.pxd); who can write `go` knows that it waits

A directory without `state` is of a `create` that was killed before it had made anything, or of a `delete` that was
killed when nothing else was left. One whose state has no pid is of a `create` that is at work, or was killed: the lock
tells. One whose state has no cgroups, with hooks at its end, may be of a `delete` that runs these, or was killed there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from cycontainer.cgroup_place import V1_FROZEN, V2_FROZEN
from cycontainer.errors import (
    LONGEST_SHOWN,
    ConfigError,
    ContainerBusy,
    ContainerExists,
    ContainerNotFound,
    StateError,
    reason_of,
    shown,
)
from cycontainer.process_stat import name_and_state, start_time_of
from cycontainer.state_text import State, from_text, to_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final, Self

    from cycontainer.state_text import CgroupPlace

FILE: Final = "state"  # and the other names above, as far as others need them:
NOTIFY, GO, OUTCOME, CONFIG = "notify", "go", "outcome", "config.json"
MOST_BYTES: Final = 1 << 20
ID_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
MOST_LETTERS: Final = 255
ROOT_LETTERS: Final = 1024  # of the root directory's path, below which more is to fit into PATH_MAX
INIT_NAME: Final = b"cycontainer/new"  # the init's until its execve (init/_init.pyx): no program's, for no file has a /
ROOT: Final = "/run/cycontainer"  # where root's states are kept; an ordinary user's below XDG_RUNTIME_DIR, by that name
READING: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # what nobody else's FIFO blocks
PATIENCE: Final = 10.0  # seconds that another verb gets to be done with a container
NAP: Final = 0.01  # between two looks whether it is
NOBODY_READS: Final = (errno.ENXIO, errno.ENOENT, errno.EISDIR, errno.ELOOP)  # a FIFO, or what stands in its place
STATUSES: Final = ("creating", "created", "running", "paused", "stopped")
_read_before: dict[bytes, State] = {}  # by their texts


def is_id(text: str) -> bool:
    """Whether it is of a closed alphabet, and bounded: an id becomes a name of directories."""
    return 0 < len(text) <= MOST_LETTERS and text not in (".", "..") and not set(text) - ID_LETTERS


def check_id(container_id: str) -> str:
    """An id itself. Raises ConfigError: it is none."""
    if not isinstance(container_id, str):
        raise ConfigError("container_id", f"must be a string, not {shown(container_id)}")
    if not is_id(container_id):
        raise ConfigError("", f"invalid container ID format: {container_id[:MOST_LETTERS]!r}")
    return container_id


def default_root() -> str:
    """Where states are kept: /run/cycontainer, as an ordinary user below XDG_RUNTIME_DIR."""
    if os.geteuid() == 0:
        return ROOT
    directory = os.environ.get("XDG_RUNTIME_DIR", "")
    if not directory.startswith("/"):
        raise ConfigError("", "an ordinary user's states need XDG_RUNTIME_DIR, or a directory of their own: --root")
    return f"{directory}/{os.path.basename(ROOT)}"


def directory_of(root: str | os.PathLike[str] | None) -> str:
    """The directory that states are kept in, absolute. Raises ConfigError."""
    path = default_root() if root is None or root == "" else absolute(root, "root")
    if len(path) > ROOT_LETTERS:
        raise ConfigError("", f"the root directory's path is longer than {ROOT_LETTERS} letters")
    return path


def absolute(path: str | os.PathLike[str], name: str) -> str:
    """A path that a caller has given. Raises ConfigError."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or "\0" in text:
        raise ConfigError(name, f"must be a path, not {shown(path)}")
    return os.path.abspath(text)


# --- the directory


class Directory:
    """A container's directory, open and, but between `unlock` and `lock`, locked. It is the caller's to close.

    Attributes:
        path: ROOT/ID.
        container_id: its name.
    """

    def __init__(self, root: str, container_id: str, fd: int) -> None:
        self.path, self.container_id = f"{root}/{container_id}", container_id
        self._fd = fd

    @classmethod
    def reserve(cls, root: str, container_id: str) -> Self:
        """Make it, for a new container.

        Raises:
            ContainerExists, ContainerBusy: the id is taken.
            ConfigError: the root directory cannot be used.
        """
        check_id(container_id)
        while True:
            _make_directory(root, container_id)
            try:
                return cls._open_empty(root, container_id)
            except ContainerNotFound:  # until we had locked it, a `delete --force` took it for half a container
                continue
            except (OSError, StateError):
                os.rmdir(f"{root}/{container_id}")
                raise

    @classmethod
    def _open_empty(cls, root: str, container_id: str) -> Self:
        """Open it, unless another creator has come when ours had been removed. Raises as `reserve` and `open`."""
        directory = cls.open(root, container_id)
        try:
            if os.listdir(directory._fd):
                raise ContainerExists(container_id)
        except BaseException:
            directory.close()
            raise
        return directory

    @classmethod
    def open(cls, root: str, container_id: str, *, idle: Callable[[Self], object] | None = None) -> Self:
        """Lock what exists; another verb that holds it is waited for.

        Args:
            idle: called with it, open and not yet locked, now and then meanwhile.

        Raises:
            ContainerNotFound: there is none, or it was deleted meanwhile.
            ContainerBusy: the other was not done within PATIENCE: one whose hook hangs, or whose hook we are.
        """
        directory = cls(root, container_id, _open_directory(root, container_id))
        try:
            directory.lock(idle)
        except BaseException:
            directory.close()
            raise
        return directory

    def lock(self, idle: Callable[[Self], object] | None = None) -> None:
        """Have it for oneself again, after `unlock`; arguments and errors as of `open`."""
        deadline = time.monotonic() + PATIENCE
        while not _try_lock(self._fd, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise ContainerBusy(self.container_id, f"the container is being changed by {_holder(self._fd)}")
            if idle is not None:
                idle(self)
            time.sleep(NAP)
        if os.fstat(self._fd).st_nlink == 0:
            raise ContainerNotFound(self.container_id)

    def unlock(self) -> None:
        """Let others change it, or remove it; it stays open."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close it, which unlocks it."""
        if self._fd >= 0:
            os.closerange(self._fd, self._fd + 1)  # unlike close, it is gone without a word
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, name: str, data: bytes) -> None:
        """Write a file of it whole, so that it outlasts a crash of the machine. Raises OSError."""
        write_whole(name, data, 0o600, directory=self._fd, lasting=True)

    def read(self, name: str) -> bytes:
        """A regular file of it. Raises OSError."""
        return _read(self._fd, name, 16 * MOST_BYTES)

    def save(self, state: State) -> None:
        """Write the state."""
        self.write(FILE, to_text(state).encode("utf-8", "surrogateescape"))

    def load(self) -> State | None:
        """The state; None when it was never written. Raises StateError."""
        return _load(self._fd, self.container_id)

    def make_fifos(self) -> tuple[int, int]:
        """The two FIFOs of an init that waits for start: descriptors for its GO_SLOT and OUTCOME_SLOT, the caller's."""
        for name in (GO, OUTCOME):
            os.mkfifo(name, 0o600, dir_fd=self._fd)
        go = os.open(GO, os.O_RDWR | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            both = os.open(OUTCOME, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._fd)
            try:  # a writer's end alone, which cannot be opened before there is a reader
                return go, os.open(OUTCOME, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._fd)
            finally:
                os.closerange(both, both + 1)
        except BaseException:
            os.closerange(go, go + 1)
            raise

    def make_subdirectory(self, name: str) -> str:
        """Make a directory in it that the container may look into; its path."""
        os.mkdir(name, 0o755, dir_fd=self._fd)
        return f"{self.path}/{name}"

    def open_file(self, name: str, flags: int) -> int:
        """A descriptor of a file or FIFO in it. Raises OSError."""
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)

    def remove(self) -> None:
        """Remove it with all that is in it: first what readers find it by."""
        for name in sorted(os.listdir(self._fd), key=lambda name: name != FILE):
            if name == NOTIFY:
                self._remove_below(name)
                continue
            try:
                os.unlink(name, dir_fd=self._fd)
            except IsADirectoryError:  # not ours, and nothing below it is
                os.rmdir(name, dir_fd=self._fd)
        os.rmdir(self.path)

    def _remove_below(self, name: str) -> None:
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            for entry in os.listdir(inner):
                os.unlink(entry, dir_fd=inner)
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=self._fd)


def write_whole(path: str, data: bytes, mode: int, *, directory: int | None = None, lasting: bool = False) -> None:
    """Write a file whole: to a new one beside it, which is then renamed. No link is followed; a failure leaves nothing.

    Args:
        directory: a descriptor that `path` begins at; None is the working directory.
        lasting: it is on the disk before it has its name.

    Raises OSError.
    """
    where, name = os.path.split(path)
    temporary = os.path.join(where, f".{name}.cycontainer")  # nobody else's: it is removed when it is there
    flags, made = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, False
    try:
        try:
            fd = os.open(temporary, flags, mode, dir_fd=directory)
        except FileExistsError:  # of one that was killed
            os.unlink(temporary, dir_fd=directory)
            fd = os.open(temporary, flags, mode, dir_fd=directory)
        made = True
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            if lasting:
                os.fsync(fd)
        os.rename(temporary, path, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        if made:
            os.unlink(temporary, dir_fd=directory)
        raise


def _make_directory(root: str, container_id: str) -> None:
    try:
        os.makedirs(root, 0o700, exist_ok=True)
        os.mkdir(f"{root}/{container_id}", 0o700)
    except OSError as error:
        if isinstance(error, FileExistsError) and error.filename != root:
            raise ContainerExists(container_id) from None
        raise ConfigError("", f"{root}: {reason_of(error)}") from None


def _open_directory(root: str, container_id: str) -> int:
    check_id(container_id)
    try:
        return os.open(f"{root}/{container_id}", os.O_DIRECTORY | os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise ContainerNotFound(container_id) from None
        raise StateError(container_id, f"{root}: {error.strerror}") from None


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(fd: int) -> str:
    """Who has locked a file, for a person to find it: its pid, and the end of its command line. proc_locks(5)."""
    found = os.fstat(fd)
    place = b"%02x:%02x:%d" % (os.major(found.st_dev), os.minor(found.st_dev), found.st_ino)
    try:
        with open("/proc/locks", "rb") as locks:
            held = [line.split() for line in locks if b" FLOCK " in line and b"->" not in line]
        pids = [words[4].decode() for words in held if words[5] == place]
        with open(f"/proc/{pids[0]}/cmdline", "rb") as file:
            words = os.fsdecode(file.read()).rstrip("\0").replace("\0", " ")
    except (OSError, IndexError):  # of another pid namespace or user, done just now, or on what locks call otherwise
        return "another program"
    return f"pid {pids[0]} ({words if len(words) <= LONGEST_SHOWN else f'...{words[-LONGEST_SHOWN:]}'})"


def _read(fd: int, name: str, most: int = MOST_BYTES) -> bytes:
    """A regular file in a directory, or its first `most` bytes and one. Raises OSError."""
    with open(os.open(name, READING, dir_fd=fd), "rb", buffering=0) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return file.read(min(found.st_size, most) + 1)


def _load(fd: int, container_id: str) -> State | None:
    try:
        data = _read(fd, FILE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(container_id, f"the state file cannot be read: {error.strerror}") from None
    state = _read_before.get(data)
    if state is None:
        if len(data) > MOST_BYTES:
            raise StateError(container_id, "the state file is damaged")
        if len(_read_before) == 64:
            _read_before.clear()
        state = _read_before[data] = from_text(data.decode("utf-8", "surrogateescape"), container_id)
    if state.id != container_id:
        raise StateError(container_id, "the state file is another container's")
    return state


def load(root: str, container_id: str) -> State:
    """The state of a container, without a lock: the file is replaced whole.

    Raises:
        ContainerNotFound: there is none, or it is about to be made or is left half made.
        StateError: its state cannot be read.
    """
    fd = _open_directory(root, container_id)
    try:
        state = _load(fd, container_id)
    finally:
        os.close(fd)
    if state is None:
        raise ContainerNotFound(container_id)
    return state


def load_config(root: str, container_id: str) -> bytes:
    """The configuration that a container was made from. Raises ContainerNotFound, StateError."""
    fd = _open_directory(root, container_id)
    try:
        return _read(fd, CONFIG, 16 * MOST_BYTES)  # as much as read_config.py takes
    except OSError as error:
        raise StateError(container_id, f"its config.json cannot be read: {error.strerror}") from None
    finally:
        os.close(fd)


def container_ids(root: str) -> Iterator[str]:
    """The names below the root directory that are ids, in order. Raises OSError when there is no such directory."""
    yield from filter(is_id, sorted(os.listdir(root)))


def is_later(state: State, made: str) -> bool:
    """Whether it is of a container that has got its id from one that was made then: `State.created`; "" is unknown."""
    return bool(made and state.created) and state.created != made


# --- what the kernel says


def is_alive(state: State) -> bool:
    """Whether its first process is there, and no other has got its pid."""
    return state.pid > 0 and start_time_of(state.pid) == state.start_time


def is_waiting(root: str, container_id: str) -> bool:
    """Whether its init waits for start: then, and only then, the FIFO has a reader."""
    try:
        os.close(os.open(f"{root}/{container_id}/{GO}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in NOBODY_READS:
            return False
        raise
    return True


def is_frozen(state: State) -> bool:
    """Whether its freezer has it, or is about to."""
    for place in state.cgroups:
        if "freezer" in place.controllers:
            return _says(place, *V1_FROZEN)
    return any(_says(place, *V2_FROZEN) for place in state.cgroups)


def _says(place: CgroupPlace, name: str, *words: str) -> bool:
    """Whether a cgroup's file has one of these words."""
    try:
        with open(f"{place.mount}{place.path}/{name}", "rb", buffering=0) as file:
            return file.read(64).strip().decode() in words
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):  # ENODEV: removed while it was open
            raise
        return False


def status_of(root: str, state: State) -> str:
    """One of STATUSES. Source: runtime-spec runtime.md, "State"."""
    if state.pid == 0:
        return "creating" if _is_locked(root, state.id) else "stopped"
    if not is_alive(state):
        return "stopped"
    if is_waiting(root, state.id) and name_and_state(state.pid)[0] == INIT_NAME:  # execve closes the FIFO a moment late
        return "created"
    return "paused" if is_frozen(state) else "running"


def oci_state(state: State, status: str) -> dict[str, object]:
    """The state as the specification has it. Source: runtime-spec runtime.md, "State"."""
    pid = {"pid": state.pid} if status != "stopped" and state.pid else {}
    annotations = {"annotations": dict(state.annotations)} if state.annotations else {}
    return {"ociVersion": state.version, "id": state.id, "status": status, **pid, "bundle": state.bundle, **annotations}


def described(root: str, state: State) -> dict[str, object]:
    """The state as the specification has it, and ours beside it; see `Container.state`."""
    status = status_of(root, state)
    own = {
        "created": state.created,
        "owner": state.owner,
        "rootless": state.rootless,
        "startTime": state.start_time,
        "cgroupPaths": {",".join(place.controllers): place.mount + place.path for place in state.cgroups},
    }
    if status not in ("stopped", "creating"):
        namespaces = f"/proc/{state.pid}/ns"
        try:
            own["namespacePaths"] = {name: f"{namespaces}/{name}" for name in os.listdir(namespaces)}
        except (FileNotFoundError, ProcessLookupError):  # it has just ended, and may be deleted
            return described(root, load(root, state.id))
    return {**oci_state(state, status), **own}


def _is_locked(root: str, container_id: str) -> bool:
    fd = _open_directory(root, container_id)
    try:
        return not _try_lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)
