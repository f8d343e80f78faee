"""The same names as the synchronous ones, with `await`, on the running loop: asyncio's own or uvloop. Face.

    from cycontainer import aio
    result = await aio.run(["make"], rootfs="/srv/image", timeout=60)

A run is driven by one descriptor that is readable when something has happened to it (`Waiter.descriptor`): no
thread, no child watcher, no signal. It takes some six descriptors: for hundreds at once, raise RLIMIT_NOFILE. What a
`Container` does to the kernel is a matter of milliseconds that cannot be cut into pieces, so its verbs run in the
loop's threads, and so do files that a run is asked to `collect`; how a process ends is heard by its pidfd.

Whoever cancels an `await` of `run`, a template's too, or of `Container.create`, or leaves the block of `spawn`, of
`stream` or of a container, finds the container killed, reaped and removed when the CancelledError has come through.
"""

from __future__ import annotations

from cycontainer.aio.containers import Container as Container
from cycontainer.aio.programs import Process as Process
from cycontainer.aio.programs import Spawned as Spawned
from cycontainer.aio.programs import spawn as spawn
from cycontainer.aio.runs import Lines as Lines
from cycontainer.aio.runs import run as run
from cycontainer.aio.runs import stream as stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cycontainer.aio.templates import Acquired as Acquired
    from cycontainer.aio.templates import Pool as Pool
    from cycontainer.aio.templates import Template as Template

_LATER = ("Acquired", "Pool", "Template")
# of whom type checkers know from above
globals()["__all__"] = ["Container", "Lines", "Process", "Spawned", "run", "spawn", "stream", *_LATER]


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


def __getattr__(name: str) -> object:
    """Import the pools when they are first used (PEP 562): who runs one program does not pay for them."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cycontainer.aio import templates

    value: object = getattr(templates, name)
    globals()[name] = value
    return value
