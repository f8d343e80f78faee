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
    from typing import Final

    from cycontainer._clone import Child
    from cycontainer.plan import Errand

WHAT: Final = "the launch pad"
_kept: dict[str, tuple[int, int, int]] = {}  # "pad": descriptor, device, inode


def pad_descriptor() -> int:
    """The pad's mount namespace. No process of ours lives in it; containers are launched from copies.

    A fork may use it too, it is the same; it is made again when someone has closed it (daemons close all descriptors).

    Raises:
        LaunchError: it could not be made; nothing is left.
        OSError: a descriptor could not be looked at; the same.
    """
    there = _kept_pad()
    return _keep(_make()) if there is None else there


def _kept_pad() -> int | None:
    """The descriptor, if there is one and it still is the pad's."""
    kept = _kept.get("pad")
    if kept is not None and _is_open(kept):
        return kept[0]
    _kept.pop("pad", None)
    return None


def _keep(fd: int) -> int:
    """The pad's descriptor from now on; `fd`, or that of another thread that was faster."""
    try:
        status = os.fstat(fd)
    except OSError:
        os.close(fd)
        raise
    ours = (fd, status.st_dev, status.st_ino)
    first = _kept.setdefault("pad", ours)
    if first != ours:
        os.close(fd)
    return first[0]


class MadeMeanwhile:
    """A block beside which the pad is made, when there is none: it takes as long as the first plan's compilation.

    After the block it is there; when the block fails, nothing is left. It is the thread's own work to hold its signals.
    Raises what `pad_descriptor` does.
    """

    _child: Child | None = None

    def __enter__(self) -> None:
        if _kept_pad() is None:
            from cycontainer.sources import pad_errand

            self._errand = pad_errand()
            self._child = _started(self._errand, ())

    def __exit__(self, failure: object, *_: object) -> None:
        if self._child is None:
            return
        if failure is not None:
            abandon(self._child)
            self._child.close()
            return
        _keep(_finished(self._errand, self._child, WHAT))


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

    return mount_namespace_of(pad_errand(), (), WHAT)


def mount_namespace_of(errand: Errand, slots: tuple[int, ...], what: str) -> int:
    """The mount namespace that an errand makes, and lets us open in its last step; a descriptor that is the caller's.

    Raises:
        LaunchError: a step failed; nothing is left.
    """
    return _finished(errand, _started(errand, slots), what)


def _started(errand: Errand, slots: tuple[int, ...]) -> Child:
    file = plan_file(assemble(errand.data, 0, (), (), (), None))
    try:
        return _clone.spawn(init_descriptor(), file, (), slots, 0)
    finally:
        os.close(file)


def _finished(errand: Errand, child: Child, what: str) -> int:
    """The namespace that a started errand has made; its process ends."""
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
