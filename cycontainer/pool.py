"""Pool: containers that are set up and wait, each for one program. Face."""

from __future__ import annotations

from cycontainer._arguments import check_count, check_flag, check_keywords, check_number, seconds
from cycontainer._request import OF_AN_OUTLINE
from cycontainer._warm import Warm
from cycontainer.errors import Error, WaitTimeout
from cycontainer.streams import DEVNULL
from cycontainer.template import PLACEHOLDER, Template
from cycontainer.upkeep import Upkeep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import OrderedDict, deque
    from collections.abc import Callable, Sequence
    from os import PathLike
    from typing import Final, Self, Unpack

    from cycontainer._request import CallKeywords, Outline, Request
    from cycontainer._result import Result

MOST_WARM: Final = 10_000
CLOSED: Final = "the pool is closed"


class _WarmTemplate(Template):
    """Its containers wait for their program."""

    _warm = True
    _name = "Pool"

    def waiting(self) -> Warm:
        """One that is to be warmed up."""
        return Warm(self.request(PLACEHOLDER, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL))

    def program(self, args: Sequence[str | PathLike[str]], **keywords: Unpack[CallKeywords]) -> Request:
        """What one is to go on with. Raises ConfigError."""
        return self.request(args, **keywords).replace(plan=self._stock.program)


class Pool(Upkeep):
    """A number of containers that are set up and wait, one `execve` short of a program, for one program each.

        with Pool(4, rootfs="/srv/image", memory=256 << 20) as pool:
            results = [pool.run(["/bin/solution"], input=case) for case in cases]

    Each container runs one program and is thrown away; a thread sets others up meanwhile, from a `Template`. Nothing of
    one is seen in another: all namespaces are each container's own and new, and all that it can write.

    With `reset` a container is thrown away all the same: its processes have ended, its pid, mount, ipc, uts and cgroup
    namespaces, all its file systems, its cgroup with what that counts, and its keyring are never used again. What is
    used again is the *network namespace*, which costs most to make, and nothing else. It had but a loopback, and the
    program could not configure it: refused is a configuration that grants CAP_NET_ADMIN or CAP_SYS_ADMIN, and one whose
    program is root, or may become root, and can write /proc/sys or a sysfs; that of `Pool(rootfs=...)` cannot. Refused
    is one without a new pid namespace, too, of which a process could go on. All its sockets were closed with their
    processes. What a later program can see of an earlier one is what the kernel keeps of closed connections over
    that loopback: ports in TIME_WAIT for a minute, counters of packets, learnt round-trip times. Who must not see
    even that leaves `reset` out.

    Who waits for a container gets one in turn, in a thread or on a loop (`aio.Pool`): first come, first served. One
    that dies while it waits is noticed when it would be taken, and another is. When this process ends, however it ends,
    its forks or not, all of them end: the kernel kills their first process (PR_SET_PDEATHSIG). Without a pid 1 of ours
    (`init=False`) that is the program, which could undo this for itself by prctl(2); a configuration without a pid
    namespace of its own goes on until the last fork has ended. In a fork the pool is its parent's, and refused.
    """

    def __init__(
        self, size: int, *, networks: int | None = None, reset: bool = False, **keywords: Unpack[Outline]
    ) -> None:
        """Prepare it, and begin to set containers up.

        Args:
            size: how many wait at most.
            networks: how many network namespaces are kept ready beside these; None is as many as `size`.
            reset: use network namespaces again, as told above: of those that are kept ready, with `networks=0` none.
            keywords: those of `Template`.

        Raises:
            ConfigError: an argument is wrong, or its containers could not wait: without no_new_privileges.
            LaunchError: the file tree could not be made, or no thread started; nothing is left.
        """
        import atexit
        from collections import OrderedDict, deque

        check_keywords("Pool", keywords, OF_AN_OUTLINE | {"cgroups"})
        check_count("size", size, 1, MOST_WARM, needed=True)
        check_flag("reset", reset)
        super().__init__()
        self._size = size
        self._template = _WarmTemplate(networks=size if networks is None else networks, reuse=reset, **keywords)
        self._ready: deque[Warm] = deque()
        self._turns: OrderedDict[Turn, None] = OrderedDict()  # of those who wait for one, first come first
        self._lent = 0  # of those that were taken, not yet thrown away
        self._failure: Error | None = None  # of the last try to set one up
        try:
            self._begin("cycontainer-pool")
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
        check_flag("check", check)
        check_number("acquire_timeout", acquire_timeout, 0, float("inf"))
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
            ConfigError: `timeout` is none.
            WaitTimeout: none was ready in time.
            Error: the pool is closed, or another process's, or what kept one from being set up.
        """
        self._check_owner()
        check_number("timeout", timeout, 0, float("inf"))
        return Acquired(self, self._take(timeout))

    def fill(self, timeout: float = 10.0) -> bool:
        """Wait until all are set up, so many seconds; whether they are.

        Raises:
            ConfigError: `timeout` is none.
            Error: it is another process's.
        """
        self._check_owner()
        return self._wait_until_full(seconds("timeout", timeout))

    def _check_owner(self) -> None:
        """Before any lock: in a fork one may be held for ever."""
        if not self._is_ours():
            raise Error("a pool is that of the process that made it")

    def _take(self, timeout: float | None) -> Warm:
        from threading import TIMEOUT_MAX, Lock

        asleep = Lock()
        asleep.acquire()
        with Turn(self, asleep.release) as turn:
            asleep.acquire(timeout=-1 if timeout is None else min(timeout, TIMEOUT_MAX))
            return turn.taken(timeout)

    def _serve(self) -> None:
        """Hand over what is ready, in turn. `_changed` is held."""
        while self._ready and self._turns:
            if not self._ready[0].is_alive():
                self._left.append(self._ready.popleft().close)
                self._changed.notify_all()
                continue
            turn, _ = self._turns.popitem(last=False)
            if turn.end(self._ready[0], None):
                self._ready.popleft()
                self._lent += 1
                self._changed.notify_all()

    def _refuse(self, failure: Error) -> None:
        """Nobody who waits gets one. `_changed` is held."""
        while self._turns:
            self._turns.popitem(last=False)[0].end(None, failure)

    def _throw_away(self, warm: Warm) -> None:
        try:
            self._remove(warm.close)
        finally:
            with self._changed:
                self._lent -= 1
                self._changed.notify_all()

    # --- in the thread, which outlasts what it has launched: PR_SET_PDEATHSIG is about threads

    def _levels(self) -> tuple[tuple[int, int], ...]:
        return ((len(self._ready), self._size),)

    def _is_needed(self) -> bool:
        return self._lent > 0

    def _tell(self, error: BaseException) -> None:
        """To who asks for a container, and finds none."""
        self._failure = error if isinstance(error, Error) else Error(f"no container could be set up: {error!r}")
        self._refuse(self._failure)

    def _make_one(self) -> None:
        warm = self._template.waiting()
        try:
            warm.warm_up()
        except BaseException:
            warm.close()
            raise
        with self._changed:
            self._ready.append(warm)
            self._failure = None
            self._serve()
            self._changed.notify_all()

    def _emptied(self) -> list[Callable[[], object]]:
        self._refuse(Error(CLOSED))
        removes: list[Callable[[], object]] = [warm.close for warm in self._ready]
        self._ready.clear()
        return removes

    # --- the end

    def close(self) -> None:
        """End those that wait. Programs that run are their callers'. In a fork nothing happens.

        Raises:
            CgroupError, OSError: something that was used could not be removed; all else is.
        """
        import atexit

        atexit.unregister(self.close)
        if not self._is_ours():
            return
        failure = self._end()
        try:
            self._template.close()
        finally:
            if failure is not None:
                raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Turn:
    """Someone's place among those who wait for a container: who enters it stands last, and is woken when it is over.

    Left by an exception, it is given up, and a container that it had is the next one's.
    """

    def __init__(self, pool: Pool, wake: Callable[[], object]) -> None:
        """`wake`: called once, in any thread; RuntimeError: there is nobody any more to be woken."""
        self._pool, self._wake = pool, wake
        self._warm: Warm | None = None
        self._failure: Error | None = None

    def end(self, warm: Warm | None, failure: Error | None) -> bool:
        """It has got a container, or why there is none. Whether there was somebody to hear of it."""
        self._warm, self._failure = warm, failure
        try:
            self._wake()
        except RuntimeError:  # his loop is closed
            self._warm = None
            return False
        return True

    def taken(self, timeout: float | None) -> Warm:
        """What it has got, when it is over or so many seconds have passed. Raises as `Pool.acquire`."""
        with self._pool._changed:
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            if self._warm is None:
                raise WaitTimeout(f"no container was ready within {timeout} seconds")
            return self._warm

    def __enter__(self) -> Self:
        pool = self._pool
        try:
            with pool._changed:
                if pool._closed:
                    raise Error(CLOSED)
                pool._turns[self] = None
                pool._serve()
                if pool._failure is not None:
                    pool._refuse(pool._failure)
                pool._changed.notify_all()
        except BaseException:
            self._give_up()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._give_up()

    def _give_up(self) -> None:
        pool = self._pool
        with pool._changed:
            pool._turns.pop(self, None)
            warm, self._warm = self._warm, None
            if warm is None:
                return
            wanted = not pool._closed and len(pool._ready) < pool._size
            if wanted:
                pool._lent -= 1
                pool._ready.appendleft(warm)
                pool._serve()
                pool._changed.notify_all()
        if not wanted:
            pool._throw_away(warm)


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
        check_flag("check", check)
        _, warm, request = self._for_program(args, **keywords)
        try:
            result = warm.finish(request)
        finally:
            self._pool._throw_away(warm)
        if check:
            result.check_returncode()
        return result

    def _for_program(
        self, args: Sequence[str | PathLike[str]], **keywords: Unpack[CallKeywords]
    ) -> tuple[Pool, Warm, Request]:
        """All that it takes to run its program; the container is the caller's from now on, to be thrown away."""
        self._pool._check_owner()
        request = self._pool._template.program(args, **keywords)
        if not self._take():
            raise Error("this container has had its program, or is closed")
        return self._pool, self._warm, request

    def close(self) -> None:
        """Throw it away, if it has had no program. In a fork nothing happens: it is the parent's."""
        if self._pool._is_ours() and self._take():
            self._pool._throw_away(self._warm)

    def _take(self) -> bool:
        """Whether it is the caller's now, and no other thread's."""
        with self._pool._changed:
            taken, self._taken = self._taken, True
        return not taken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
