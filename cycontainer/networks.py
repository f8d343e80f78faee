"""Network namespaces made ahead, with nothing but a loopback that is up. Lifecycle: a thread makes them.

To make one is the largest single step of a start, and to end it costs the kernel as much again, later. Only for the
machine's root, whose containers have no user namespace: who would own one is not there yet.
"""

from __future__ import annotations

import os

from cycontainer import _fd, _nsenter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque


class Networks:
    """A number of network namespaces that are ready, each for one container, and for this process alone."""

    def __init__(self, count: int) -> None:
        """`count`: how many are kept ready."""
        import threading
        from collections import deque

        self._count, self._owner = count, os.getpid()
        self._ready: deque[int] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._make_all, name="cycontainer-networks", daemon=True)
        self._thread.start()

    def take(self) -> int:
        """A descriptor of one, the caller's; -1 when none is ready, or in a fork, which must not have its parent's."""
        if self._owner != os.getpid():
            return -1
        try:
            fd = self._ready.popleft()
        except IndexError:
            fd = -1
        with self._changed:
            self._changed.notify()
        return fd

    def give_back(self, fd: int) -> None:
        """One that was taken, and that nobody is in any more, is ready again."""
        with self._changed:
            kept = not self._closed and self._owner == os.getpid()
            if kept:
                self._ready.append(fd)
        if not kept:
            os.close(fd)

    def fill(self, timeout: float) -> bool:
        """Wait until all are ready; whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._ready) >= self._count, timeout)

    def close(self) -> None:
        """End the thread, and close those that are ready."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._owner == os.getpid():
            self._thread.join()
        _fd.close_all(self._ready)
        self._ready.clear()

    def _make_all(self) -> None:
        """In the thread: what cannot be made now is tried again when one is taken."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._ready) < self._count)
                if self._closed:
                    return
            try:
                made = _nsenter.new_network()
            except OSError:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, 0.1)
                continue
            with self._changed:
                self._ready.append(made)
                self._changed.notify_all()
