"""Containers that are set up and wait for their program. Face."""

from __future__ import annotations

import time

from cycontainer import _wait
from cycontainer._clone import SYNC, HeldSignals
from cycontainer._running import Running
from cycontainer.errors import LaunchError
from cycontainer.launch import not_launched, send_program
from cycontainer.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cycontainer._request import Request
    from cycontainer._result import Result


class Warm(Running):
    """A container one step short of a program: first `warm_up`, then `go`. Whoever made this closes it."""

    waits = False

    def warm_up(self) -> None:
        """Launch it, and wait until it waits. Raises what `run()` does; it is still to be closed."""
        try:
            self.begin()
            assert self.waiter is not None
            while not self.waits:
                if self.hear(self.waiter.wait()):
                    raise LaunchError("set a container up: it has ended", 0, 0, 0)
        except OSError as error:
            raise not_launched(error) from error

    def is_alive(self) -> bool:
        """Whether it still waits; not, when that cannot be known."""
        assert self.waiter is not None
        try:
            return self.waiter.step() == _wait.NOTHING
        except OSError:
            return False

    def _attend(self, message: tuple[int, ...]) -> None:
        if message[0] == SYNC and self.plan.syncs.get(message[1]) == "program":
            self.waits = True
        else:
            super()._attend(message)

    def go(self, request: Request) -> None:
        """Let it execute a program. Raises OSError, and what `run()` does."""
        assert self.child is not None and self.waiter is not None
        self.started, self.request, self.plan = time.monotonic(), request, request.plan
        self.waiter.close()
        self.streams = Streams()
        with HeldSignals():
            self._open_streams()
            if self.work is not None and request.exchange is not None:
                self.work.put(request.exchange)
            send_program(self.child, self.plan, tuple(self.streams.program), request.args, request.env)
            self.streams.launched()
            self._make_waiter()

    def finish(self, request: Request) -> Result:
        """Run a program in it to its end. It is still to be closed. Raises what `run()` does."""
        try:
            self.go(request)
            self.wait()
            self.settle()
        except OSError as error:
            raise not_launched(error) from error
        return self.result()
