"""What launches take ready-made, and leave to be removed: a thread of ours makes and removes it. Lifecycle.

A network namespace is the largest single step of a start, and a cgroup the next; to end either costs as much again.
Only for the machine's root, whose containers have no user namespace: who would own a network is not there yet.
"""

from __future__ import annotations

import os

from cycontainer import _fd, _nsenter
from cycontainer.upkeep import Upkeep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from cycontainer.cgroup_runs import RunCgroup


class Supplies(Upkeep):
    """Network namespaces with their loopback up, and cgroups, each for one container, and for this process alone.

    A fork gets nothing.
    """

    def __init__(self, *, networks: int, cgroups: int, new_cgroup: Callable[[], RunCgroup]) -> None:
        """`networks`, `cgroups`: how many are kept ready. Raises LaunchError: nothing is left."""
        from collections import deque

        super().__init__()
        self._wanted, self._new_cgroup = (networks, cgroups), new_cgroup
        self._networks: deque[int] = deque()
        self._cgroups: deque[RunCgroup] = deque()
        self._begin("cycontainer-supplies")

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
                self._changed.notify_all()

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
        self._remove(remove)

    def fill(self, timeout: float) -> bool:
        """Wait until all are ready; whether they are."""
        return self._is_ours() and self._wait_until_full(timeout)

    def close(self) -> None:
        """End the thread, and remove what is ready. Raises CgroupError: something could not be removed."""
        failure = self._end() if self._is_ours() else None
        _fd.close_all(self._networks)  # a fork's are copies of its own
        self._networks.clear()
        if failure is not None:
            raise failure

    def _levels(self) -> tuple[tuple[int, int], ...]:
        return (len(self._networks), self._wanted[0]), (len(self._cgroups), self._wanted[1])

    def _emptied(self) -> list[Callable[[], object]]:
        removes: list[Callable[[], object]] = [each.cgroup.destroy for each in self._cgroups]
        self._cgroups.clear()
        return removes

    def _make_one(self) -> None:
        """A launch that finds nothing makes its own, and is told why that fails."""
        if len(self._networks) < self._wanted[0]:
            self._networks.append(_nsenter.new_network())
        if len(self._cgroups) < self._wanted[1]:
            self._cgroups.append(self._new_cgroup())
        with self._changed:
            self._changed.notify_all()
