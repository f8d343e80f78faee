"""Template and Pool on a loop: prepared and closed as ever, run with `await`. Face."""

from __future__ import annotations

import asyncio

from cycontainer._arguments import check_flag, check_number, seconds
from cycontainer.aio.programs import spawned
from cycontainer.aio.runs import finish, in_thread, settled, until_end
from cycontainer.launch import kill, not_launched
from cycontainer.pool import Acquired as SyncAcquired
from cycontainer.pool import Pool as SyncPool
from cycontainer.pool import Turn
from cycontainer.template import Template as SyncTemplate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike
    from typing import Final, Self, Unpack

    from cycontainer._request import CallKeywords, Outline, Request
    from cycontainer._result import Result
    from cycontainer._warm import Warm
    from cycontainer.aio.programs import Spawned

GLANCE: Final = 0.005  # seconds between two looks at what is ready


class _Source:
    """What containers come from, closed in the end of an `async with`."""

    _source: SyncTemplate | SyncPool

    async def fill(self, timeout: float | None = 10.0) -> bool:
        """Wait until all that it keeps ready is made; whether it is. None is as long as it takes."""
        until = asyncio.get_running_loop().time() + seconds("timeout", timeout)
        while not self._source.fill(0):
            if self._source._closed or asyncio.get_running_loop().time() >= until:
                return False
            await asyncio.sleep(GLANCE)
        return True

    async def close(self) -> None:
        """Let go of all that is ready, in one of the loop's threads."""
        await in_thread(self._source.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Template(_Source):
    """`cycontainer.Template`, to be used in an `async with`. Making it takes some milliseconds of the loop's time."""

    _source: SyncTemplate

    @property
    def shared(self) -> bool:
        """Whether the file tree is made already."""
        return self._source.shared

    def __init__(
        self, *, networks: int = 0, cgroups: int = 0, reuse: bool = False, **keywords: Unpack[Outline]
    ) -> None:
        """Args, Raises: as `cycontainer.Template`."""
        self._source = SyncTemplate(networks=networks, cgroups=cgroups, reuse=reuse, **keywords)

    async def run(
        self, args: Sequence[str | PathLike[str]], *, check: bool = False, **keywords: Unpack[CallKeywords]
    ) -> Result:
        """`cycontainer.Template.run`. Cancelled, it kills the container and removes it."""
        check_flag("check", check)
        result = await finish(self._source.request(args, **keywords))
        if check:
            result.check_returncode()
        return result

    async def spawn(self, args: Sequence[str | PathLike[str]], **keywords: Unpack[CallKeywords]) -> Spawned:
        """`cycontainer.Template.spawn`; see `aio.spawn`."""
        return await spawned(self._source.request(args, "spawn", **keywords))


class Pool(_Source):
    """`cycontainer.Pool`, to be used in an `async with`. Making it takes some milliseconds of the loop's time."""

    _source: SyncPool

    def __init__(
        self, size: int, *, networks: int | None = None, reset: bool = False, **keywords: Unpack[Outline]
    ) -> None:
        """Args, Raises: as `cycontainer.Pool`."""
        self._source = SyncPool(size, networks=networks, reset=reset, **keywords)

    async def run(
        self,
        args: Sequence[str | PathLike[str]],
        *,
        check: bool = False,
        acquire_timeout: float | None = None,
        **keywords: Unpack[CallKeywords],
    ) -> Result:
        """`cycontainer.Pool.run`. Cancelled, it kills the container; the pool's thread removes what is left of it."""
        pool = self._source
        pool._check_owner()
        check_flag("check", check)
        check_number("acquire_timeout", acquire_timeout, 0, float("inf"))
        request = pool._template.program(args, **keywords)
        result = await _finish(pool, await self._taken(acquire_timeout), request)
        if check:
            result.check_returncode()
        return result

    async def acquire(self, timeout: float | None = None) -> Acquired:
        """`cycontainer.Pool.acquire`: `async with await pool.acquire() as one: ...`. Cancelled, it takes none."""
        self._source._check_owner()
        check_number("timeout", timeout, 0, float("inf"))
        return Acquired(SyncAcquired(self._source, await self._taken(timeout)))

    async def _taken(self, timeout: float | None) -> Warm:
        """One that waits. No thread waits for it: the pool's wakes the loop."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            loop.call_soon_threadsafe(over.set_result, None)

        with Turn(self._source, wake) as turn:
            await asyncio.wait([over], timeout=timeout)
            return turn.taken(timeout)


class Acquired:
    """`cycontainer.pool.Acquired`: a container taken from a pool, for one program; to be used in an `async with`."""

    def __init__(self, acquired: SyncAcquired) -> None:
        self._acquired = acquired

    @property
    def pid(self) -> int:
        """Its first process's, in our pid namespace."""
        return self._acquired.pid

    async def run(
        self, args: Sequence[str | PathLike[str]], *, check: bool = False, **keywords: Unpack[CallKeywords]
    ) -> Result:
        """Run its program, and wait for it; see `Pool.run`. Raises Error the second time."""
        check_flag("check", check)
        pool, warm, request = self._acquired._for_program(args, **keywords)
        result = await _finish(pool, warm, request)
        if check:
            result.check_returncode()
        return result

    async def close(self) -> None:
        """Throw it away, if it has had no program; the pool's thread removes it."""
        self._acquired.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _finish(pool: SyncPool, warm: Warm, request: Request) -> Result:
    """Run a program in a container that was taken, which is thrown away."""
    try:
        warm.go(request)
        await until_end(warm)
        await settled(warm)
        return warm.result()
    except OSError as error:
        if error.errno is None:
            raise
        raise not_launched(error) from error
    except asyncio.CancelledError:
        assert warm.child is not None
        kill(warm.child)
        raise
    finally:
        pool._throw_away(warm)
