"""What launches take ready-made, and leave to be removed: a thread of ours makes and removes it. Lifecycle.

A network namespace is the largest single step of a start, and a cgroup the next; to end either costs as much again.
Only for the machine's root, whose containers have no user namespace: who would own a network is not there yet.
"""

from __future__ import annotations

import errno
import os

from cycontainer import _fd, _nsenter
from cycontainer.errors import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from threading import Thread

    from cycontainer.cgroup_runs import RunCgroup

LULL = 0.003  # seconds in which a short program is over
PATIENCE = 0.1  # seconds until what could not be made is tried again


def started_thread(target: Callable[[], None], name: str) -> Thread:
    """A thread that ends with the process. Raises LaunchError: there can be no more threads."""
    import threading

    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        raise LaunchError(f"start the thread {name}", errno.EAGAIN, 0, 0) from None
    return thread


class Supplies:
    """Network namespaces with their loopback up, and cgroups, each for one container, and for this process alone.

    A fork gets nothing, and asks no lock: another thread of its parent may have held it.
    """

    def __init__(self, *, networks: int, cgroups: int, new_cgroup: Callable[[], RunCgroup]) -> None:
        """`networks`, `cgroups`: how many are kept ready. Raises LaunchError: nothing is left."""
        import threading
        from collections import deque

        self._wanted, self._new_cgroup, self._owner = (networks, cgroups), new_cgroup, os.getpid()
        self._networks: deque[int] = deque()
        self._cgroups: deque[RunCgroup] = deque()
        self._left: deque[Callable[[], object]] = deque()
        self._changed = threading.Condition()
        self._closed, self._failure = False, None
        self._thread = started_thread(self._tend, "cycontainer-supplies")

    _failure: BaseException | None

    def _is_ours(self) -> bool:
        return self._owner == os.getpid()

    def take_network(self) -> int:
        """A descriptor of one, the caller's; -1 when none is ready, or in a fork, which must not have its parent's."""
        if not self._is_ours():
            return -1
        with self._changed:
            return self._networks.popleft() if self._networks else -1

    def take_cgroup(self) -> RunCgroup | None:
        """One that is the caller's; None when none is ready, or in a fork."""
        if not self._is_ours():
            return None
        with self._changed:
            return self._cgroups.popleft() if self._cgroups else None

    def replace(self) -> None:
        """Let the thread make what was taken: called when the launch is on its way."""
        if self._is_ours():
            with self._changed:
                self._changed.notify()

    def give_back(self, network: int) -> None:
        """A network that was taken, and that nobody is in any more, is ready again."""
        if self._is_ours():
            with self._changed:
                if not self._closed:
                    self._networks.append(network)
                    return
        os.close(network)

    def remove(self, remove: Callable[[], object]) -> None:
        """Call this soon, in the thread; at once, when there is none any more. What it raises is raised by `close`."""
        if self._is_ours():
            with self._changed:
                if not self._closed:
                    self._left.append(remove)
                    self._changed.notify()
                    return
        remove()

    def fill(self, timeout: float) -> bool:
        """Wait until all are ready; whether they are."""
        if not self._is_ours():
            return False
        with self._changed:
            return self._changed.wait_for(lambda: not self._missing(), timeout)

    def close(self) -> None:
        """End the thread, and remove what is ready. Raises CgroupError: something could not be removed."""
        if self._is_ours():
            self._end()
        _fd.close_all(self._networks)  # a fork's are copies of its own
        self._networks.clear()
        failure, self._failure = self._failure, None
        if failure is not None and self._is_ours():
            raise failure

    def _end(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        while self._left:
            self._remove_one(self._left.popleft())
        while self._cgroups:
            self._remove_one(self._cgroups.popleft().cgroup.destroy)

    # --- in the thread

    def _missing(self) -> bool:
        return len(self._networks) < self._wanted[0] or len(self._cgroups) < self._wanted[1]

    def _is_behind(self) -> bool:
        """Whether so little is ready that the next may find nothing."""
        return len(self._networks) * 2 < self._wanted[0] or len(self._cgroups) * 2 < self._wanted[1]

    def _tend(self) -> None:
        while not self._closed:
            try:
                self._tend_once()
            except BaseException:  # a launch makes its own, and is told why that fails; here it is tried again
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, PATIENCE)

    def _tend_once(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._left or self._missing())
            if not self._left and not self._is_behind():  # who just took something has the machine to himself
                self._changed.wait_for(lambda: self._closed or self._left or self._is_behind(), LULL)
            if self._closed:
                return
            remove = self._left.popleft() if self._left else None
        if remove is not None:
            self._remove_one(remove)
        else:
            self._make_one()

    def _remove_one(self, remove: Callable[[], object]) -> None:
        try:
            remove()
        except BaseException as error:  # the one who closes this hears of it
            self._failure = error

    def _make_one(self) -> None:
        if len(self._networks) < self._wanted[0]:
            self._networks.append(_nsenter.new_network())
        if len(self._cgroups) < self._wanted[1]:
            self._cgroups.append(self._new_cgroup())
        with self._changed:
            self._changed.notify_all()
