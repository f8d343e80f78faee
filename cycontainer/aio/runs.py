"""run() and stream() on a loop. Face."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401  # a loop imports it when it needs one: no descriptor may be free then
from concurrent.futures import Future

from cycontainer import _wait
from cycontainer._arguments import check_flag
from cycontainer._request import asked
from cycontainer._running import Running
from cycontainer._stream import Lines as SyncLines
from cycontainer.launch import not_launched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike
    from typing import Any, Final, Self, TypeVar, Unpack

    from cycontainer._request import Keywords, Request
    from cycontainer._result import Result
    from cycontainer._stream import Line

    Returned = TypeVar("Returned")

FOREVER: Final = float("inf")


async def run(args: Sequence[str | PathLike[str]], *, check: bool = False, **keywords: Unpack[Keywords]) -> Result:
    """`cycontainer.run()`. Cancelled, it kills the container and removes it before the CancelledError goes on.

    Args:
        args, keywords: as `cycontainer.run` has them.
        check: raise RunError when it fails.

    Returns:
        What became of it.

    Raises:
        ConfigError, LaunchError, ProgramError, CgroupError, HostError, StatusUnknown, RunError: as `cycontainer.run`.
    """
    check_flag("check", check)
    result = await finish(asked("aio.run", args, keywords))
    if check:
        result.check_returncode()
    return result


async def finish(request: Request) -> Result:
    """`run` of what has been checked."""
    running = Running(request)
    try:
        running.begin()
        await until_end(running)
        await settled(running)
    except OSError as error:
        raise not_launched(error) from error
    finally:
        running.close()
    return running.result()


async def settled(running: Running) -> None:
    """`settle`, and what it leaves is collected in a thread: 60,000 files are a second."""
    running.settle(collect=False)
    if running.work is not None and running.work.collects:
        await in_thread(running.collect)


async def until_end(running: Running) -> None:
    assert running.waiter is not None
    await heard(running.waiter, running.hear)


async def heard(waiter: _wait.Waiter, hear: Callable[[int], bool]) -> None:
    """Until `hear` has said so of one of the waiter's events."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        if done.done():
            return  # a timer of the same turn
        try:
            event = waiter.step()
            while event != _wait.NOTHING and not done.done():
                if hear(event):
                    done.set_result(None)
                    return
                event = waiter.step()
            set_timer()  # again: the deadline may be another now, pid 1's time to end all, or not quite here yet
        except Exception as error:  # whatever it is, also of a decoder of the caller's: nobody else hears of it
            done.set_exception(error)

    def set_timer() -> None:
        nonlocal timer
        if timer is not None:
            timer.cancel()
        due = waiter.due()
        timer = loop.call_later(max(0, due) + 0.001, look) if due != FOREVER else None

    descriptor = waiter.descriptor()
    loop.add_reader(descriptor, look)
    set_timer()
    try:
        await done
    finally:
        loop.remove_reader(descriptor)
        if timer is not None:
            timer.cancel()


def stream(args: Sequence[str | PathLike[str]], **keywords: Unpack[Keywords]) -> Lines:
    """`cycontainer.stream()`: `async with aio.stream([...]) as lines: async for line in lines: ...`.

    Raises ConfigError; the rest comes with the first line.
    """
    return Lines(asked("aio.stream", args, keywords))


class Lines(SyncLines):
    """The lines of one run; an asynchronous iterator, to be used in an `async with`."""

    async def __aenter__(self) -> Self:
        self.__enter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Line:
        self._running.check_owner()
        while not self._ready and not self._over:
            try:
                await heard(self.waiter, self._tell)
            except BaseException as error:
                self._give_up(error)
                raise
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.pop()

    def _tell(self, event: int) -> bool:
        self._deal_with(event)
        return bool(self._ready or self._over)


async def in_thread(call: Callable[[], Returned], undo: Callable[[Returned], object] | None = None) -> Returned:
    """Call in one of the loop's threads, or on the loop when no more can be started. Cancelled, it waits for the call,
    which cannot be cut short, and takes back what that has made."""
    called: Future[Returned] = Future()

    def work() -> None:
        if called.set_running_or_notify_cancel():
            try:
                called.set_result(call())
            except BaseException as error:  # the one who awaits hears of it
                called.set_exception(error)

    try:
        asyncio.get_running_loop().run_in_executor(None, work)
    except RuntimeError:
        if called.cancel():  # else a thread has found it all the same
            return call()
    future = asyncio.wrap_future(called)
    try:
        await outlast(future)
    except asyncio.CancelledError as cancelled:
        failure = future.exception()
        if failure is None and undo is not None:
            made = future.result()
            await in_thread(lambda: undo(made))
        raise cancelled from failure
    return future.result()


async def outlast(future: asyncio.Future[Any]) -> None:
    """Wait until it is done, also when we are cancelled; that comes through then."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
