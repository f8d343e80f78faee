"""Programs and processes that run beside us, with streams, on a loop. Face."""

from __future__ import annotations

import asyncio
import os
from io import FileIO

from cycontainer._arguments import seconds
from cycontainer._request import asked
from cycontainer._running import Running
from cycontainer._spawned import Spawned as SyncSpawned
from cycontainer._spawned import check_piped
from cycontainer.aio.runs import FOREVER, heard, outlast, until_end
from cycontainer.beside import LISTENING, NEWCOMERS
from cycontainer.errors import WaitTimeout
from cycontainer.launch import not_launched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike
    from typing import IO, Self, Unpack

    from cycontainer._request import Keywords, Request
    from cycontainer._result import Result
    from cycontainer.process import Process as SyncProcess


async def spawn(args: Sequence[str | PathLike[str]], **keywords: Unpack[Keywords]) -> Spawned:
    """`cycontainer.spawn()`: a program that runs beside us, with streams: `async with await aio.spawn([...]) as p`.

    Args:
        args, keywords: as `cycontainer.spawn` has them.

    Raises:
        ConfigError, LaunchError, CgroupError: as `cycontainer.spawn`.
    """
    return await spawned(asked("aio.spawn", args, keywords))


async def spawned(request: Request) -> Spawned:
    """`spawn` of what has been checked."""
    running = Running(check_piped(request), piped=True)
    try:
        running.begin()
        waiter = running.waiter
        if waiter is not None and not running.is_set_up:
            await heard(waiter, lambda event: running.hear(event) or running.is_set_up)
        program = Spawned(SyncSpawned(running))
    except BaseException as error:
        running.close()
        if isinstance(error, OSError):
            raise not_launched(error) from error
        raise
    try:
        await program.connect()
    except BaseException:
        await program.close()
        raise
    return program


# --- pipes as streams


class _Protocol(asyncio.StreamReaderProtocol):
    """Says whether a transport has its pipe, and when that is closed."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()
        super().__init__(self.reader)
        self.gone = asyncio.Event()
        self.taken = False

    def take(self) -> _Protocol:
        """The loop asks for it when it makes the transport."""
        self.taken = True
        return self

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.gone.set()


def _pipe(file: IO[bytes], loop: asyncio.AbstractEventLoop) -> FileIO:
    """What is left of a file when the loop is to close its pipe: once.

    asyncio's closes this object. uvloop closes the descriptor, and then the object, too: that number may be another
    thread's by then (uvloop, handles/handle.pyx, `UVSocketHandle._close`). So there it owns nothing.
    """
    raw: FileIO = file.detach()  # type: ignore[attr-defined]  # a buffered one
    if isinstance(loop, asyncio.BaseEventLoop):
        return raw
    with raw:
        return FileIO(os.dup(raw.fileno()), raw.mode, closefd=False)


def _give_up(pipe: FileIO, protocol: _Protocol) -> None:
    """It could not be connected: a transport closes it, a little later, if one was made."""
    if protocol.taken:
        return
    if pipe.closefd:
        pipe.close()
    else:
        os.close(pipe.fileno())


class Piped:
    """What a program with pipes has, container's own or beside it.

    Attributes:
        stdin: a StreamWriter; None where there is no pipe.
        stdout, stderr: StreamReaders; the same.
    """

    def __init__(self, process: SyncSpawned | SyncProcess) -> None:
        self._process = process
        self._pipes: list[tuple[asyncio.BaseTransport, _Protocol]] = []
        self._watch: asyncio.Task[None] | None = None
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None

    async def connect(self) -> None:
        """Make streams of its pipes. When that fails or is cancelled, `close` closes them all."""
        for name in ("stdin", "stdout", "stderr"):
            file = getattr(self._process, name)
            if file is not None:
                await self._connect_one(name, file)

    async def _connect_one(self, name: str, file: IO[bytes]) -> None:
        loop, protocol = asyncio.get_running_loop(), _Protocol()
        os.set_blocking(file.fileno(), False)
        setattr(self._process, name, None)
        pipe = _pipe(file, loop)
        connect = loop.connect_write_pipe if name == "stdin" else loop.connect_read_pipe
        connected = asyncio.ensure_future(connect(protocol.take, pipe))
        try:
            await outlast(connected)  # a loop that is cancelled in this leaves it open whose the pipe is
        finally:
            if connected.cancelled() or connected.exception() is not None:
                _give_up(pipe, protocol)
            else:
                self._pipes.append((connected.result()[0], protocol))
        transport, _ = connected.result()
        if name == "stdin":
            self.stdin = asyncio.StreamWriter(transport, protocol, None, loop)  # type: ignore[arg-type]  # one that writes
        else:
            setattr(self, name, protocol.reader)

    def _shut(self) -> None:
        for transport, _ in self._pipes:
            transport.close()

    async def _gone(self) -> None:
        """The loop closes pipes a little later."""
        self._shut()
        for _, protocol in self._pipes:
            await protocol.gone.wait()

    async def _until(self, watch: Callable[[], asyncio.Task[None]], timeout: float | None) -> None:
        """Wait for its end, together with all others who do: who is cancelled does not take it from them."""
        limit = seconds("timeout", timeout)
        if self._watch is None:
            self._watch = watch()
        done, _ = await asyncio.wait([self._watch], timeout=None if limit == FOREVER else limit)
        if not done:
            raise WaitTimeout(
                f"{self._process.args[0]} (pid {self._process.pid}) has not ended within {timeout} seconds"
            )
        self._watch.result()

    async def _unwatch(self) -> None:
        """Before its descriptors are closed: the loop must have forgotten them."""
        if self._watch is not None:
            self._watch.cancel()
            await outlast(self._watch)

    async def _feed(self, data: bytes) -> None:
        """Write to the program, and close the pipe. A reader that has gone had enough."""
        if self.stdin is None:
            return
        try:
            self.stdin.write(data)
            await self.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            self.stdin.close()

    async def _let_go(self) -> None:
        """Close what is ours of it."""
        try:
            await self._unwatch()
        finally:
            self._process.close()
            await self._gone()

    async def wait(self, timeout: float | None = None) -> object:
        """Its end, as each kind of program tells it."""
        raise NotImplementedError

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens when it has ended. Raises OSError."""
        self._process.send_signal(number)

    async def communicate(self, input: bytes = b"") -> tuple[bytes, bytes]:
        """Write `input`, read both pipes to their ends, wait for the end; what came from each."""

        async def all_of(reader: asyncio.StreamReader | None) -> bytes:
            return await reader.read() if reader is not None else b""

        _, output, errors = await asyncio.gather(self._feed(input), all_of(self.stdout), all_of(self.stderr))
        await self.wait()
        return output, errors

    async def __aenter__(self) -> Self:
        return self


class Spawned(Piped):
    """A program in a container of its own that runs beside us; closing it ends it.

    Attributes:
        args: the program and its arguments.
        pid: the container's first process, in our pid namespace.
        stdin: a StreamWriter; None where there is no pipe.
        stdout, stderr: StreamReaders; the same.
    """

    _process: SyncSpawned

    @property
    def args(self) -> tuple[str, ...]:
        return self._process.args

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def pidfd(self) -> int:
        """Readable when the container has ended; see `cycontainer.Spawned.pidfd`."""
        return self._process.pidfd

    async def wait(self, timeout: float | None = None) -> Result:
        """Wait for the end: what became of it. Cancelled, it does nothing to the program.

        Raises:
            WaitTimeout, LaunchError, ProgramError, StatusUnknown, Error: as `cycontainer.Spawned.wait`.
        """
        if self._process._result is None:
            self._process.check_open()
            await self._until(lambda: asyncio.ensure_future(self._end()), timeout)
        assert self._process._result is not None
        return self._process._result

    async def _end(self) -> None:
        running = self._process._running
        try:
            await until_end(running)
            self._process.conclude()
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._process.close()
            raise

    def kill(self) -> None:
        """End all its processes."""
        self._process.kill()

    async def close(self) -> None:
        """End it, if it has not ended, and close its pipes."""
        await self._let_go()

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Process(Piped):
    """A process of a container: `cycontainer.process.Process` with streams and `await`; `wait(0)` is its `poll`.

    Attributes:
        args, pid, terminal: as there.
        stdin: a StreamWriter; None where there is no pipe.
        stdout, stderr: StreamReaders; the same.
    """

    _process: SyncProcess

    @classmethod
    async def of(cls, process: SyncProcess) -> Self:
        """Take over a process. When that fails, the process is killed."""
        made = cls(process)
        try:
            await made.connect()
        except BaseException:
            process.abandon()
            await made.close()
            raise
        return made

    @property
    def args(self) -> tuple[str, ...]:
        return self._process.args

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def pidfd(self) -> int:
        """Readable when it has ended; -1 once it is closed. This object's."""
        return self._process.pidfd

    @property
    def terminal(self) -> int:
        return self._process.terminal

    def check_open(self) -> None:
        """Raises Error: it was closed before its end was heard of."""
        self._process.check_open()

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return the returncode. Cancelled, it does nothing to the process.

        Raises:
            WaitTimeout: it is still there.
            StatusUnknown: it has ended, and someone else took its status.
        """
        if self._process.returncode is None:
            await self._until(lambda: asyncio.ensure_future(self._end()), timeout)
        return self._process.wait()

    async def _end(self) -> None:
        waiter = self._process.watch(FOREVER)
        listening = asyncio.ensure_future(self._listen()) if self._process.beside is not None else None
        try:
            await heard(waiter, self._process.hear)
        finally:
            if listening is not None:
                listening.cancel()
            waiter.close()

    async def _listen(self) -> None:
        """Hear the ends of others, for which a container's first process waits in its."""
        while (beside := self._process.beside) is not None:
            await asyncio.sleep(LISTENING if beside.hear() else NEWCOMERS)

    def resize(self, rows: int, columns: int) -> None:
        """Set its terminal's size; see `cycontainer.process.Process.resize`."""
        self._process.resize(rows, columns)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    async def close(self) -> None:
        """Close our descriptors. The process goes on."""
        await self._let_go()

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._unwatch()
        finally:
            if self._process.returncode is None:
                self._process.abandon()
            await self.close()
