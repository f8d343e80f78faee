"""Container on a loop: its verbs in the loop's threads, its processes with streams. Face."""

from __future__ import annotations

import asyncio

from cycontainer._arguments import seconds
from cycontainer.aio.programs import Process
from cycontainer.aio.runs import in_thread
from cycontainer.lifecycle import Container as SyncContainer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike
    from typing import Any, Self, TypeVar

    from cycontainer.config import Config
    from cycontainer.criu.snapshot import Snapshot
    from cycontainer.stats import Stats

    Returned = TypeVar("Returned")


class Container:
    """One container, as `cycontainer.Container`. In an `async with` it is deleted in the end, whatever it does then.

    What asks for its state is a method with `await` here, also where it is a property there. Not here are `events`, to
    be iterated over in a thread, and what the command has for itself: `create_from`, `execute`, `hear_ends`.

    Attributes:
        id, root: as there.
        process: its first process, when this object made it; else None.
    """

    def __init__(self, container: SyncContainer, process: Process | None = None) -> None:
        self._container, self.process = container, process
        self.id, self.root = container.id, container.root

    @classmethod
    async def create(cls, container_id: str, config: Mapping[str, Any], **keywords: Any) -> Self:
        """Set a container up; see `cycontainer.Container.create`. Cancelled, it is deleted."""
        return await cls._made(lambda: SyncContainer.create(container_id, config, **keywords))

    @classmethod
    async def restore(
        cls, container_id: str, config: Mapping[str, Any], image_path: str | PathLike[str], **keywords: Any
    ) -> Self:
        """Make a container of a checkpoint; see `cycontainer.Container.restore`. Cancelled, it is deleted."""
        return await cls._made(lambda: SyncContainer.restore(container_id, config, image_path, **keywords))

    @classmethod
    async def _made(cls, make: Callable[[], SyncContainer]) -> Self:
        def delete(container: SyncContainer) -> None:
            try:
                container.delete(force=True)
            finally:
                if container.process is not None:
                    container.process.abandon()

        container = await in_thread(make, delete)
        try:
            process = await Process.of(container.process) if container.process is not None else None
        except BaseException:
            delete(container)
            raise
        return cls(container, process)

    @classmethod
    def handle(cls, container_id: str, *, root: str | None = None) -> Self:
        """A handle on a container, whether or not there is one; see `cycontainer.Container.handle`."""
        return cls(SyncContainer.handle(container_id, root=root))

    @classmethod
    async def load(cls, container_id: str, *, root: str | None = None) -> Self:
        """A container that exists. Raises ContainerNotFound, StateError."""
        return cls(await in_thread(lambda: SyncContainer.load(container_id, root=root)))

    @classmethod
    async def list(cls, *, root: str | None = None) -> Sequence[Self]:
        """All containers, by id."""
        return [cls(container) for container in await in_thread(lambda: SyncContainer.list(root=root))]

    async def status(self) -> str:
        """ "creating", "created", "running", "paused" or "stopped". Raises ContainerNotFound."""
        return await in_thread(lambda: self._container.status)

    async def state(self) -> dict[str, Any]:
        """See `cycontainer.Container.state`."""
        return await in_thread(self._container.state)

    async def config(self) -> Config:
        """Its configuration, as it was when it was created. Raises ContainerNotFound."""
        return await in_thread(lambda: self._container.config)

    async def pid(self) -> int:
        """Its first process's, in the creator's pid namespace; 0 when it has ended. Raises ContainerNotFound."""
        return await in_thread(lambda: self._container.pid)

    async def processes(self) -> Sequence[Any]:
        """All its processes, as `psutil.Process` objects."""
        return await in_thread(self._container.processes)

    async def pids(self) -> Sequence[int]:
        """All its processes, in the caller's pid namespace."""
        return await in_thread(self._container.pids)

    async def start(self, **keywords: Any) -> None:
        """Let the program go; see `cycontainer.Container.start`."""
        await in_thread(lambda: self._container.start(**keywords))

    async def run(self, timeout: float | None = None, **keywords: Any) -> int:
        """`start` it, and `wait` for its end; see `cycontainer.Container.run`. Cancelled, its program is killed."""
        process, limit = self._own_process(), seconds("timeout", timeout)
        await in_thread(lambda: self._container.start(**keywords), lambda _: process.kill())
        try:
            return await process.wait(limit)
        except asyncio.CancelledError:
            process.kill()
            raise

    def _own_process(self) -> Process:
        if self.process is None:
            self._container.wait(0)  # it says why it cannot
        assert self.process is not None
        if self.process.returncode is None:
            self.process.check_open()
        return self.process

    async def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of a container that this object made; see `Process.wait`."""
        return await self._own_process().wait(timeout)

    async def exec(self, args: Sequence[str], **keywords: Any) -> Process:
        """Start a process beside the container's; see `cycontainer.Container.exec`. Cancelled, it is killed."""
        process = await in_thread(lambda: self._container.exec(args, **keywords), lambda process: process.abandon())
        return await Process.of(process)

    async def signal(self, number: int, *, all: bool = False) -> None:
        """Send a signal to its first process, or to all that it has; see `cycontainer.Container.signal`."""
        await in_thread(lambda: self._container.signal(number, all=all))

    async def kill(self) -> None:
        """SIGKILL to its first process."""
        await in_thread(self._container.kill)

    async def pause(self) -> None:
        """Stop every process where it is, until `resume`."""
        await in_thread(self._container.pause)

    async def resume(self) -> None:
        """Let a paused container go on."""
        await in_thread(self._container.resume)

    async def update(self, resources: Mapping[str, Any], **keywords: Any) -> tuple[str, ...]:
        """Change limits: all of them, or none; see `cycontainer.Container.update`."""
        return await in_thread(lambda: self._container.update(resources, **keywords))

    async def stats(self) -> Stats:
        """What its cgroups count now."""
        return await in_thread(self._container.stats)

    async def checkpoint(self, image_path: str | PathLike[str], **options: Any) -> None:
        """Save its processes to a directory; see `cycontainer.Container.checkpoint`."""
        await in_thread(lambda: self._container.checkpoint(image_path, **options))

    async def pre_dump(self, image_path: str | PathLike[str], **options: Any) -> None:
        """`checkpoint` of the memory alone, while it runs on; see `cycontainer.Container.pre_dump`."""
        await in_thread(lambda: self._container.pre_dump(image_path, **options))

    async def snapshot(self, path: str | PathLike[str] | None = None, **options: Any) -> Snapshot:
        """Save it to be restored many times; see `cycontainer.Container.snapshot`. Cancelled, nothing is kept.

        What the snapshot itself does is without `await`: in a thread, it does not hold the loop up.
        """
        return await in_thread(lambda: self._container.snapshot(path, **options), lambda made: made.delete())

    async def delete(self, *, force: bool = False) -> None:
        """Remove it, also when cancelled, with all that belongs to it; see `cycontainer.Container.delete`."""
        deleted = False

        def delete() -> None:
            nonlocal deleted
            self._container.delete(force=force)
            deleted = True

        try:
            await in_thread(delete)
        finally:
            if deleted:
                await self._close_process()

    async def _close_process(self) -> None:
        if self.process is not None:
            await self.process.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.delete(force=True)
        finally:
            await self._close_process()
