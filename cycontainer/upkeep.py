"""A thread that keeps things ready, and removes what was used. Lifecycle."""

from __future__ import annotations

import errno
import os

from cycontainer.errors import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterable
    from typing import Final

LULL: Final = 0.003  # seconds in which a short program is over
PATIENCE: Final = 0.1  # seconds until what could not be made is tried again


class Upkeep:
    """Has things ready, some of each kind: its thread makes what is missing, and removes what was used, one at a time.

    Whoever took something has the machine for himself first, unless so little is left that the next may find nothing.
    What a subclass keeps is changed with `_changed` held. All is of the process that made this: a fork has no thread,
    and must ask `_is_ours` before it waits for that lock, which another thread of its parent may have held.
    """

    def __init__(self) -> None:
        import threading
        from collections import deque

        self._owner = os.getpid()
        self._changed = threading.Condition()
        self._left: deque[Callable[[], object]] = deque()  # each removes something that was used
        self._closed = self._idle = False
        self._unremoved: BaseException | None = None  # why something could not be removed: the first
        self._thread = threading.Thread(target=self._tend, daemon=True)  # ends with the process

    # --- what a subclass keeps

    def _levels(self) -> Iterable[tuple[int, int]]:
        """Of each kind: how many are ready, and how many are to be."""
        raise NotImplementedError

    def _make_one(self) -> None:
        """Make one of what is missing. What it raises is told, and it is tried again."""
        raise NotImplementedError

    def _tell(self, error: BaseException) -> None:
        """Something could not be made; `_changed` is held."""

    def _emptied(self) -> Iterable[Callable[[], object]]:
        """Take all away that is ready, `_changed` being held: what removes each."""
        raise NotImplementedError

    def _is_needed(self) -> bool:
        """Whether the thread must not end yet, though this is closed."""
        return False

    # --- for those who use it

    def _begin(self, name: str) -> None:
        """Start the thread. Raises LaunchError: there can be no more."""
        self._thread.name = name
        try:
            self._thread.start()
        except RuntimeError:
            raise LaunchError(f"start the thread {name}", errno.EAGAIN, 0, 0) from None

    def _is_ours(self) -> bool:
        return self._owner == os.getpid()

    def _is_full(self) -> bool:
        return all(ready >= wanted for ready, wanted in self._levels())

    def _is_behind(self) -> bool:
        """Whether so little is ready that the next may find nothing."""
        return any(ready * 2 < wanted for ready, wanted in self._levels())

    def _wait_until_full(self, timeout: float) -> bool:
        from threading import TIMEOUT_MAX

        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._is_full(), min(timeout, TIMEOUT_MAX))
            return self._is_full() and not self._closed

    def _remove(self, remove: Callable[[], object]) -> None:
        """Call this soon, in the thread; at once, when there is none any more. What it raises there, `_end` returns."""
        if self._is_ours():
            with self._changed:
                if not self._closed:
                    self._left.append(remove)
                    self._changed.notify_all()
                    return
        remove()

    def _end(self) -> BaseException | None:
        """End the thread, and remove what was used and what is ready; the first thing that could not be removed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._idle)
            needed = self._is_needed()
            self._left.extend(self._emptied())
        if not needed:
            self._thread.join()
        while (remove := self._next_left()) is not None:
            self._remove_one(remove)
        failure, self._unremoved = self._unremoved, None
        return failure

    # --- in the thread

    def _tend(self) -> None:
        while not self._closed:
            try:
                self._tend_once()
            except BaseException as error:
                with self._changed:
                    self._tell(error)
                    self._changed.wait_for(lambda: self._closed, PATIENCE)
        with self._changed:
            self._idle = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._is_needed())

    def _tend_once(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._left or not self._is_full())
            if not self._left and not self._is_behind():
                self._changed.wait_for(lambda: self._closed or self._left or self._is_behind(), LULL)
            if self._closed:
                return
            remove = self._next_left()
        if remove is not None:
            self._remove_one(remove)
        else:
            self._make_one()

    def _next_left(self) -> Callable[[], object] | None:
        with self._changed:
            return self._left.popleft() if self._left else None

    def _remove_one(self, remove: Callable[[], object]) -> None:
        try:
            remove()
        except BaseException as error:  # whoever ends this hears of it, when all else is removed
            if self._unremoved is None:
                self._unremoved = error
