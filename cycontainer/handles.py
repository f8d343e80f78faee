"""A container's first process and its cgroup, opened by what its state says. Lifecycle."""

from __future__ import annotations

import errno
import os

from cycontainer.errors import ContainerNotRunning
from cycontainer.process_stat import DEAD, name_and_state, start_time_of
from cycontainer.state import INIT_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cycontainer.cgroups import Cgroup
    from cycontainer.state_text import State


def open_first(state: State) -> int:
    """A pidfd of a container's first process, verified to be it; the caller's.

    Raises:
        ContainerNotRunning: it has ended.
    """
    try:
        pidfd = os.pidfd_open(state.pid) if state.pid > 0 else -1
    except ProcessLookupError:
        pidfd = -1
    try:
        if pidfd < 0 or start_time_of(state.pid) != state.start_time:
            raise ContainerNotRunning(state.id)
    except BaseException:
        if pidfd >= 0:
            os.close(pidfd)
        raise
    return pidfd


def died_as_init(pid: int) -> bool:
    """Whether a process is dead, not yet waited for, and had not executed a program when it died: its name tells."""
    name, letter = name_and_state(pid)
    if name != INIT_NAME or letter in DEAD:
        return name == INIT_NAME
    try:
        os.readlink(f"/proc/{pid}/exe")
    except OSError as error:  # it is ending: its memory goes before its descriptors, whose end brought us here
        return error.errno in (errno.ENOENT, errno.ESRCH)
    return False


def open_cgroup(state: State) -> Cgroup:
    """The container's cgroup, in all its hierarchies."""
    from cycontainer.cgroups import Cgroup

    return Cgroup.open(state.cgroups, tuple(place.path for place in state.cgroups))
