"""Pool: containers that are set up and wait, each for one program. Face."""

from __future__ import annotations

import os

from cycontainer._arguments import check_count
from cycontainer._warm import Warm
from cycontainer.errors import ConfigError, Error, WaitTimeout
from cycontainer.streams import DEVNULL
from cycontainer.supplies import started_thread
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
    program could not configure it: refused is a configuration that grants CAP_NET_ADMIN or CAP_SYS_ADMIN, and one whose
    program is root, or may become root, and can write /proc/sys or a sysfs; that of `Pool(rootfs=...)` cannot.
    All its sockets were closed with their processes. What a later program can see of an earlier one is what the kernel
    keeps of closed connections over that loopback: ports in TIME_WAIT for a minute, counters of packets, learnt
    round-trip times. Who must not see even that leaves `reset` out.

    A container that dies while it waits is noticed when it would be taken, and another is. When this process ends,
    however it ends, its forks or not, all of them end: the kernel kills their first process (PR_SET_PDEATHSIG). Without
    a pid 1 of ours (`init=False`) that is the program, which could undo this for itself by prctl(2); a configuration
    without a pid namespace of its own goes on until the last fork has ended. In a fork the pool is its parent's, and
    refused.
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
            LaunchError: the file tree could not be made, or no thread started; nothing is left.
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
        self._lent = 0  # of those that were taken, not yet thrown away
        self._closed = self._emptied = False
        self._failure: Error | None = None  # of the last try to set one up
        self._left: Error | None = None  # what could not be removed
        try:
            self._thread = started_thread(self._tend, "cycontainer-pool")
        except BaseException:
            self._template.close()
            raise
        atexit.register(self.close)

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
        self._check_owner()
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
            Error: the pool is closed, or another process's, or what kept one from being set up.
        """
        self._check_owner()
        return Acquired(self, self._take(timeout))

    def fill(self, timeout: float = 10.0) -> bool:
        """Wait until all are set up; whether they are. Raises Error: it is another process's."""
        self._check_owner()
        with self._changed:
            return self._changed.wait_for(lambda: len(self._ready) >= self._size, timeout)

    def _is_ours(self) -> bool:
        return self._owner == os.getpid()

    def _check_owner(self) -> None:
        """Before any lock: in a fork one may be held for ever."""
        if not self._is_ours():
            raise Error("a pool is that of the process that made it")

    def _take(self, timeout: float | None) -> Warm:
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._ready or self._failure or self._closed, timeout):
                    raise WaitTimeout(f"no container was ready within {timeout} seconds")
                if self._closed:
                    raise Error("the pool is closed")
                if not self._ready:
                    assert self._failure is not None
                    raise self._failure.with_traceback(None)
                warm = self._ready.popleft()
                self._lent += 1
                self._changed.notify_all()
            if warm.is_alive():
                return warm
            self._throw_away(warm)

    def _throw_away(self, warm: Warm) -> None:
        with self._changed:
            kept = not self._closed
            if kept:
                self._used.append(warm)
                self._given_back()
        if not kept:
            try:
                warm.close()
            finally:
                with self._changed:
                    self._given_back()

    def _given_back(self) -> None:
        self._lent -= 1
        self._changed.notify_all()

    # --- in the thread

    def _tend(self) -> None:
        """Remove what was used, and set up what is missing, until the pool is closed.

        The thread outlasts what it has launched, which would be killed with it: PR_SET_PDEATHSIG is about threads.
        """
        while not self._closed:
            try:
                self._tend_once()
            except BaseException as error:  # who asks for a container hears of it, and here it is tried again
                self._tell(error)
        with self._changed:
            self._emptied = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._lent)

    def _tend_once(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._used or len(self._ready) < self._size)
            if not self._used and not self._is_behind():  # who just took one has the machine to himself
                self._changed.wait_for(lambda: self._closed or self._used or self._is_behind(), LULL)
            if self._closed:
                return
            used = self._used.popleft() if self._used else None
        if used is not None:
            self._remove(used)
        else:
            self._set_one_up()

    def _tell(self, error: BaseException) -> None:
        failure = error if isinstance(error, Error) else Error(f"no container could be set up: {error!r}")
        with self._changed:
            self._failure = failure
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed, PATIENCE)

    def _remove(self, warm: Warm) -> None:
        try:
            warm.close()
        except Error as error:
            self._left = error

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
            self._failure = None
            self._changed.notify_all()

    # --- the end

    def close(self) -> None:
        """End those that wait. Programs that run are their callers'. In a fork nothing happens.

        Raises:
            CgroupError: something that was used could not be removed; all else is.
        """
        import atexit

        atexit.unregister(self.close)
        if not self._is_ours():
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._emptied)
            running = bool(self._lent)
        if not running:
            self._thread.join()
        for left in (self._ready, self._used):
            while left:
                self._remove(left.popleft())
        self._template.close()
        failure, self._left = self._left, None
        if failure is not None:
            raise failure

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
        self._pool._check_owner()
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
        """Throw it away, if it has had no program. In a fork nothing happens: it is the parent's."""
        if not self._taken and self._pool._is_ours():
            self._taken = True
            self._pool._throw_away(self._warm)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
