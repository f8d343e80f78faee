"""What to take back when a later step fails. Ground: it touches only what it is given."""

from __future__ import annotations

from cycontainer.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


class Undo:
    """What to take back, last first, when the block is left by an exception.

    An undo that fails becomes a note on that exception: the first error is the one to read, and
    no failure is lost. (`contextlib.ExitStack` would raise the last one, and takes 3 ms to import.)
    """

    def __init__(self) -> None:
        self._actions: list[tuple[str, Callable[[], object]]] = []

    def later(self, what: str, action: Callable[[], object]) -> None:
        """Remember to `action()`; `what` names it in the infinitive, "remove the cgroup"."""
        self._actions.append((what, action))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        for what, action in reversed(self._actions):
            try:
                action()
            except (OSError, Error) as failure:
                error.add_note(f"could not {what}: {failure}")
