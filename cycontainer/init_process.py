"""The init as a process: its program and its plan, which live in memory, and its end when it has failed. Lifecycle."""

from __future__ import annotations

import errno
import os

from cycontainer import _fd
from cycontainer.errors import LaunchError, errno_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer._clone import Child

SIGKILL: Final = 9

_init: tuple[int, int, int] | None = None  # descriptor, device, inode


INSTALLED: Final = os.path.join(os.path.dirname(__file__), "init", "init")


def init_descriptor() -> int:
    """The init's program, sealed in memory: the container cannot change it, and it is no file of the host.

    Where files in memory may not be executed (vm.memfd_noexec), it is the installed one, on a read-only mount.

    Kept for the process's life; made again when someone has closed it (daemons close all descriptors).
    """
    global _init
    if _init:
        try:
            status = os.fstat(_init[0])
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            status = None
        if status and (status.st_dev, status.st_ino) == _init[1:]:
            return _init[0]
    _init = None
    try:
        fd = _fd.executable_file(b"cycontainer-init")
    except PermissionError:
        readable = _read_only_init()
    else:
        readable = _sealed_init(fd)
    try:
        status = os.fstat(readable)
    except OSError:
        os.close(readable)
        raise
    if _init:  # another thread was quicker
        os.close(readable)
        return _init[0]
    _init = (readable, status.st_dev, status.st_ino)
    return readable


def _sealed_init(fd: int) -> int:
    """A descriptor to execute, of a file in memory that takes the init; `fd`, which can write it, is closed."""
    try:
        with open(INSTALLED, "rb") as file:
            os.write(fd, file.read())
        _fd.seal(fd)
        return _reopened(fd)  # writable files do not execute: ETXTBSY
    finally:
        os.close(fd)


def _reopened(fd: int) -> int:
    return _fd.above_streams(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC))


def _read_only_init() -> int:
    """The installed init, through a mount that is attached nowhere and gone when it is open: none can change that."""
    try:
        mount = _fd.take_read_only(os.fsencode(INSTALLED))
    except PermissionError:  # an ordinary user makes mounts in a user namespace only
        from cycontainer.errands import read_only_file

        mount = read_only_file(INSTALLED)
    try:
        return _reopened(mount)
    finally:
        os.close(mount)


def plan_file(data: bytes) -> int:
    """A complete plan, in a file of its own; the descriptor is the caller's. Raises OSError."""
    fd = _fd.data_file(b"cycontainer-plan")
    try:
        left = memoryview(data)
        while left:
            left = left[os.pwrite(fd, left, len(data) - len(left)) :]
    except OSError:
        os.close(fd)
        raise
    return fd


def adopt_second(child: Child) -> None:
    """The init went on in a second process, which waits until somebody knows of it; the first has ended.

    Raises:
        LaunchError: it cannot be found.
    """
    try:
        child.adopt()
    except BrokenPipeError:
        return  # it has ended: why is told next
    except OSError as error:
        raise LaunchError("find the init's second process", errno_of(error), 0, 0) from None


def kill(child: Child) -> None:
    """End it, unless it has ended by itself."""
    try:
        child.send_signal(SIGKILL)
    except ProcessLookupError:
        return


def abandon(child: Child) -> None:
    """Kill what a failure has left, and reap it."""
    child.abandon()
