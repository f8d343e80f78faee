"""Pool: containers that are set up and wait, each for one program. Face."""

from __future__ import annotations

import os

from cycontainer._arguments import check_count
from cycontainer._warm import Warm
from cycontainer.errors import ConfigError, Error, WaitTimeout
from cycontainer.streams import DEVNULL
from cycontainer.template import PLACEHOLDER, Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence
    from os import PathLike
    from typing import Final, Self, Unpack

    from cycontainer._request import CallKeywords, Outline, Request
    from cycontainer._result import Result

LULL: Final = 0.003  # seconds in which a short program is over
PATIENCE: Final = 0.1  # seconds until what could not be set up is tried again
MOST_WARM: Final = 10_000


class _WarmTemplate(Template):
    """Its containers wait for their program."""

    _warm = True

    def waiting(self) -> Warm:
        """One that is to be warmed up."""
        return Warm(self.request(PLACEHOLDER, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL))

    def program(self, args: Sequence[str | PathLike[str]], **keywords: Unpack[CallKeywords]) -> Request:
        """What one is to go on with. Raises ConfigError."""
        return self.request(args, **keywords).replace(plan=self._stock.program)


class Pool:
    """A number of containers that are set up and wait, one `execve` short of a program, for one program each.

        with Pool(4, rootfs="/srv/image", memory=256 << 20) as pool:
            results = [pool.run(["/bin/solution"], input=case) for case in cases]

    Each container runs one program and is thrown away; a thread sets others up meanwhile, from a `Template`. Nothing of
    one is seen in another: all namespaces are each container's own and new, and all that it can write.

    With `reset` a container is thrown away all the same: its processes have ended, its pid, mount, ipc, uts and cgroup
    namespaces, all its file systems, its cgroup with what that counts, and its keyring are never used again. What is
    used again is the *network namespace*, which costs most to make, and nothing else. It had but a loopback, and the
    program had no capability to configure it: a configuration that grants CAP_NET_ADMIN or CAP_SYS_ADMIN is refused.
    All its sockets were closed with their processes. What a later program can see of an earlier one is what the kernel
    keeps of closed connections over that loopback: ports in TIME_WAIT for a minute, counters of packets, learnt
    round-trip times. Who must not see even that leaves `reset` out.

    A container that dies while it waits is noticed when it would be taken, and another is. When this process ends,
    however it ends, those that wait end, and with a pid 1 of ours (`init=True`) those that run a program, too. In a
    fork the pool is its parent's, and refused.
    """

    def __init__(
        self, size: int, *, networks: int | None = None, reset: bool = False, **keywords: Unpack[Outline]
    ) -> None:
        """Prepare it, and begin to set containers up.

        Args:
            size: how many wait at most.
            networks: how many network namespaces are kept ready beside these; None is as many as `size`.
            reset: use network namespaces again, as told above.
            keywords: those of `Template`.

        Raises:
            ConfigError: an argument is wrong, or its containers could not wait: without no_new_privileges.
            LaunchError: the file tree could not be made; nothing is left.
        """
        import atexit
        import threading
        from collections import deque

        check_count("size", size, 1)
        if size > MOST_WARM:
            raise ConfigError("size", f"must be at most {MOST_WARM}")
        self._size, self._owner = size, os.getpid()
        self._template = _WarmTemplate(networks=size if networks is None else networks, reuse=bool(reset), **keywords)
        self._ready: deque[Warm] = deque()
        self._used: deque[Warm] = deque()
        self._changed = threading.Condition()
        self._closed, self._failure = False, None
        self._thread = threading.Thread(target=self._tend, name="cycontainer-pool", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    _failure: Error | None

    def run(
        self,
        args: Sequence[str | PathLike[str]],
        *,
        check: bool = False,
        acquire_timeout: float | None = None,
        **keywords: Unpack[CallKeywords],
    ) -> Result:
        """Run a program in one of its containers, and wait for it. What is left of that is removed meanwhile.

        Args:
            args: the program and its arguments.
            check: raise RunError when it fails.
            acquire_timeout: seconds to wait for a container, when none is ready; None is as long as it takes.
            keywords: as `Template.run` has them.

        Raises:
            As `Template.run`; WaitTimeout: none was ready in time; what kept one from being set up.
        """
        request = self._template.program(args, **keywords)
        warm = self._take(acquire_timeout)
        try:
            result = warm.finish(request)
        finally:
            self._throw_away(warm)
        if check:
            result.check_returncode()
        return result

    def acquire(self, timeout: float | None = None) -> Acquired:
        """Take a container, for one program.

        Args:
            timeout: seconds to wait for one, when none is ready; None is as long as it takes.

        Raises:
            WaitTimeout: none was ready in time.
            Error: the pool is closed, or what kept one from being set up.
        """
        return Acquired(self, self._take(timeout))

    def fill(self, timeout: float = 10.0) -> bool:
        """Wait until all are set up; whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._ready) >= self._size, timeout)

    def _take(self, timeout: float | None) -> Warm:
        if self._owner != os.getpid():
            raise Error("a pool is that of the process that made it")
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._ready or self._failure or self._closed, timeout):
                    raise WaitTimeout(f"no container was ready within {timeout} seconds")
                failure, self._failure = self._failure, None
                if self._closed:
                    raise Error("the pool is closed")
                if not self._ready:
                    assert failure is not None
                    raise failure
                warm = self._ready.popleft()
                self._changed.notify_all()
            if warm.is_alive():
                return warm
            self._throw_away(warm)

    def _throw_away(self, warm: Warm) -> None:
        with self._changed:
            kept = not self._closed
            if kept:
                self._used.append(warm)
                self._changed.notify_all()
        if not kept:
            warm.close()

    # --- in the thread

    def _tend(self) -> None:
        """Remove what was used, and set up what is missing, until the pool is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._used or len(self._ready) < self._size)
                if not self._used and not self._is_behind():  # who just took one has the machine to himself
                    self._changed.wait_for(lambda: self._closed or self._used or self._is_behind(), LULL)
                if self._closed:
                    return
                used = self._used.popleft() if self._used else None
            try:
                if used is not None:
                    used.close()
                else:
                    self._set_one_up()
            except Error as error:
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._closed, PATIENCE)

    def _is_behind(self) -> bool:
        """Whether so few wait that the next may find none."""
        return len(self._ready) * 2 < self._size

    def _set_one_up(self) -> None:
        warm = self._template.waiting()
        try:
            warm.warm_up()
        except BaseException:
            warm.close()
            raise
        with self._changed:
            self._ready.append(warm)
            self._changed.notify_all()

    # --- the end

    def close(self) -> None:
        """End those that wait. Programs that run are their callers'."""
        import atexit

        with self._changed:
            self._closed = True
            self._changed.notify_all()
        atexit.unregister(self.close)
        if self._owner != os.getpid():
            return
        self._thread.join()
        for left in (self._ready, self._used):
            while left:
                left.popleft().close()
        self._template.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Acquired:
    """A container taken from a pool, for one program; to be used in a `with`, or closed."""

    def __init__(self, pool: Pool, warm: Warm) -> None:
        self._pool, self._warm = pool, warm
        self._taken = False

    @property
    def pid(self) -> int:
        """Its first process's, in our pid namespace."""
        return self._warm.child.pid if self._warm.child is not None else 0

    def run(
        self, args: Sequence[str | PathLike[str]], *, check: bool = False, **keywords: Unpack[CallKeywords]
    ) -> Result:
        """Run its program, and wait for it; see `Pool.run`. Raises Error the second time."""
        if self._taken:
            raise Error("this container has had its program")
        request = self._pool._template.program(args, **keywords)
        self._taken = True
        try:
            result = self._warm.finish(request)
        finally:
            self._pool._throw_away(self._warm)
        if check:
            result.check_returncode()
        return result

    def close(self) -> None:
        """Throw it away, if it has had no program."""
        if not self._taken:
            self._taken = True
            self._pool._throw_away(self._warm)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
