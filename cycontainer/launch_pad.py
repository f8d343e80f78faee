"""The launch pad (sources.py): made once, and kept for the process's life as a descriptor. Lifecycle."""

from __future__ import annotations

import errno
import os

from cycontainer import _clone, _nsenter, _wait
from cycontainer._plan import assemble
from cycontainer.errors import LaunchError
from cycontainer.init_process import abandon, init_descriptor, plan_file
from cycontainer.tables import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cycontainer._clone import Child
    from cycontainer.plan import Errand

_kept: dict[str, tuple[int, int, int]] = {}  # "pad": descriptor, device, inode


def pad_descriptor() -> int:
    """The pad's mount namespace. No process of ours lives in it; containers are launched from copies.

    A fork may use it too, it is the same; it is made again when someone has closed it (daemons close all descriptors).

    Raises:
        LaunchError: it could not be made; nothing is left.
        OSError: a descriptor could not be looked at; the same.
    """
    kept = _kept.get("pad")
    if kept is not None and _is_open(kept):
        return kept[0]
    _kept.pop("pad", None)
    fd = _make()
    try:
        status = os.fstat(fd)
    except OSError:
        os.close(fd)
        raise
    ours = (fd, status.st_dev, status.st_ino)
    first = _kept.setdefault("pad", ours)
    if first != ours:  # another thread was faster
        os.close(fd)
    return first[0]


def _is_open(kept: tuple[int, int, int]) -> bool:
    try:
        status = os.fstat(kept[0])
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return False
    return (status.st_dev, status.st_ino) == kept[1:]


def _make() -> int:
    from cycontainer.sources import pad_errand

    return mount_namespace_of(pad_errand(), (), "the launch pad")


def mount_namespace_of(errand: Errand, slots: tuple[int, ...], what: str) -> int:
    """The mount namespace that an errand makes, and lets us open in its last step; a descriptor that is the caller's.

    Raises:
        LaunchError: a step failed; nothing is left.
    """
    file = plan_file(assemble(errand.data, 0, (), (), (), None))
    try:
        child = _clone.spawn(init_descriptor(), file, (), slots, 0)
    finally:
        os.close(file)
    try:
        _await_request(errand, child, what)
        return _nsenter.open_namespace(f"/proc/{child.pid}/ns/mnt".encode(), NAMESPACES["mount"][0])
    finally:
        abandon(child)
        child.close()


def _await_request(errand: Errand, child: Child, what: str) -> None:
    """Until all is done but our part. Then it waits, so that its pid stays its own."""
    steps = len(errand.attempts)
    waiter = _wait.Waiter(child, -1, -1, -1, b"", float("inf"))
    message = child.receive() if waiter.wait() == _wait.MESSAGE else None
    if not message:
        raise LaunchError(f"make {what}", errno.ESRCH, 0, steps)
    kind, step, code, *_ = message
    if kind != _clone.SYNC:
        attempt = errand.attempts[step] if step >= 0 else "execute the init"
        raise LaunchError(f"{attempt} (for {what})", code, step + 1, steps)
