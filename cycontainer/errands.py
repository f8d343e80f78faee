"""Errands: small plans that an init of their own carries out for the launcher, to make a mount. Lifecycle."""

from __future__ import annotations

import errno
import os

from cycontainer import _clone, _wait
from cycontainer._plan import PlanWriter, assemble
from cycontainer.errors import LaunchError
from cycontainer.init_process import abandon, adopt_second, init_descriptor, plan_file
from cycontainer.mount_options import ATTR_NOSUID, ATTR_RDONLY, OPEN_TREE_CLONE
from cycontainer.plan import Errand
from cycontainer.tables import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer._clone import Child

FOREVER: Final = float("inf")
PATIENCE: Final = 10.0  # seconds: in a namespace where others live, they may stop our process


def carry_out(errand: Errand, namespaces: tuple[int, ...]) -> int:
    """The mount that comes of it, a descriptor that is the caller's; `namespaces` are its slots.

    Raises:
        LaunchError: a step failed, or it took longer than `PATIENCE`; its process is gone.
    """
    return _carry_out(errand, init_descriptor(), namespaces)


def read_only_file(path: str) -> int:
    """A detached, read-only mount of the installed init, as an ordinary user, in a user namespace that is then gone.

    The init does it that stands there, with no container near.
    """
    plan = PlanWriter()
    plan.take_tree(path, OPEN_TREE_CLONE)
    plan.set_attributes("make it read-only", ATTR_RDONLY | ATTR_NOSUID, 0, 0, 0)
    plan.hand_over()
    flags = NAMESPACES["user"][0] | NAMESPACES["mount"][0]
    errand = Errand(data=plan.finish(), attempts=tuple(plan.attempts), namespaces=())
    init = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _carry_out(errand, init, (), flags)
    finally:
        os.close(init)


def _carry_out(errand: Errand, init: int, namespaces: tuple[int, ...], flags: int = 0) -> int:
    file = plan_file(assemble(errand.data, 0, (), (), (), None))
    try:
        child = _clone.spawn(init, file, (), namespaces, flags, -1, bool(flags))
    finally:
        os.close(file)
    try:
        return _mount_of(errand, child)
    finally:
        abandon(child)
        child.close()


def _mount_of(errand: Errand, child: Child) -> int:
    steps = len(errand.attempts)
    # the first process is out of the reach of others: it says in any case that there is a second, which we have to end
    waiter = _wait.Waiter(child, -1, -1, -1, b"", FOREVER)
    while True:
        event = waiter.wait()
        message = child.receive() if event != _wait.DEADLINE else ()
        if message is None:
            continue
        if not message:
            code = errno.ETIMEDOUT if event == _wait.DEADLINE else errno.ESRCH
            raise LaunchError("make a mount in another namespace", code, 0, steps)
        kind, step, code, *_ = message
        if kind == _clone.MOUNT and (mount := child.take_descriptor()) >= 0:
            return mount
        if kind == _clone.FAILED:
            attempt = errand.attempts[step] if step >= 0 else "execute the init"
            raise LaunchError(f"{attempt} (for a mount)", code, step + 1, steps)
        if kind == _clone.CLONED:
            adopt_second(child)
            waiter = _wait.Waiter(child, -1, -1, -1, b"", PATIENCE)
