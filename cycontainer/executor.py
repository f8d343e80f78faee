"""ContainerExecutor: Python functions that run in containers, behind the interface of concurrent.futures. Face.

A call goes into its container pickled, by cloudpickle. What comes back was written by code that may be hostile, so it
is never unpickled here: it is JSON, of plain data only, or of objects that stay closed (`Opaque`) until they are in
another container. An exception comes as text; of Python's own ones the class is made again, of all others a
`TaskError` tells.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor

from cycontainer._answers import answers_of
from cycontainer._arguments import (
    PRIVATE,
    check_count,
    check_limits,
    check_number,
    check_text,
    host_directories,
    mount_entries,
)
from cycontainer._by_value import dumps
from cycontainer.errors import ConfigError, Error, shown
from cycontainer.pool import Pool
from cycontainer.record import Record
from cycontainer.template import Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, Final, TypeVar

    Returned = TypeVar("Returned")
    _Key = tuple[tuple[str, object], ...]

LIBRARY: Final = "/tmp/.cycontainer"  # where cloudpickle is in the container
MOST_OUTPUT: Final = 16 << 20  # bytes, when `result_limit` is not given
MOST_KEPT: Final = 16  # templates or pools of calls with limits of their own


class ContainerExecutor(Executor):
    """Runs Python functions in containers of their own, as `concurrent.futures` has it.

        with ContainerExecutor(memory=256 << 20, timeout=10) as executor:
            print(executor.submit(pow, 2, 10).result())

    Each call runs in a new container, with the Python that runs here. Functions are pickled by cloudpickle (the extra
    `executor`): those of your program's own modules by value, those of installed ones by name, so `paths` must have
    them. A result must be plain data: None, bool, int, float, complex, str, bytes, bytearray, list, tuple, set,
    frozenset, dict; exact types, no subclasses. With `opaque` other objects come back as `Opaque`, which may be passed
    to another call.

    What a function raises is raised: one of Python's own exceptions with its arguments, file or module names and notes
    (a SyntaxError with its text alone), an ExceptionGroup with what is in it; all others, and what could not be shown,
    are a `TaskError`. An exception's arguments are the function's own words, as a result is: before they go to a
    terminal, `repr` them. A `TaskError`, notes and tracebacks have control characters escaped.

    Nothing of a result is unpickled in this process: a hostile function can answer with wrong data, and with an
    exception of Python's own kinds, and no more. What it costs to read is bounded: `result_limit` bytes, which as many
    small lists can take thirty times that in memory, and three seconds of processor time for sets and dicts, at worst
    six.

    It is what Dask takes as a scheduler: `dask.compute(graph, scheduler=executor)`. In a process that Celery or Ray has
    forked, make it there: a fork has no threads.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        warm: int = 0,
        timeout: float | None = None,
        paths: Sequence[str] = (),
        python: str | None = None,
        opaque: bool = False,
        result_limit: int = MOST_OUTPUT,
        **keywords: Any,
    ) -> None:
        """
        Args:
            max_workers: how many containers run at once; None is as many as processors.
            warm: how many containers are set up and wait; 0 sets each up when it is called for.
            timeout: seconds that a task may take; None is as long as it takes.
            paths: directories whose modules tasks may import; they are shown in the container read-only.
            python: the interpreter in the container, of this one's version; None is this one.
            opaque: results may be other than plain data.
            result_limit: bytes that a container may answer, as JSON, and print, together; one that gives more is ended.
            keywords: those of `Template`: rootfs, memory, cpus, pids, network, mounts, init, ... With `init=False` a
                task ends with this process, too, unless it undoes that by prctl(2) or has no pid namespace of its own.

        Raises:
            ConfigError: an argument is wrong, or cloudpickle is missing.
            LaunchError: the file tree could not be made; nothing is left.
        """
        import threading

        check_count("max_workers", max_workers, 1)
        check_count("warm", warm, 0, needed=True)
        check_count("result_limit", result_limit, 1, needed=True)
        check_number("timeout", timeout, 0, float("inf"))
        self._cloudpickle = _import_cloudpickle()
        self._max_workers, self._owner = max_workers or len(os.sched_getaffinity(0)), os.getpid()
        self._timeout, self._opaque, self._result_limit = timeout, bool(opaque), result_limit
        self._paths = host_directories(paths, "paths")
        own_root = keywords.get("rootfs") is not None
        program, mounts = _program(python, self._paths, self._cloudpickle, own_root=own_root)
        self._args = (program, "-I", "-c", _begin(self._paths))
        given = keywords.get("mounts")
        self._outline = {**keywords, "mounts": [*mounts, *mount_entries(() if given is None else given)]}
        self._warm = warm
        self._sources: dict[_Key, _Source] = {}  # who was used last is last
        self._failure: Error | OSError | None = None  # of one that could not be closed
        self._lock = threading.Lock()
        self._let_go(self._taken({}))
        self._threads = ThreadPoolExecutor(self._max_workers, thread_name_prefix="cycontainer-executor")

    # --- as concurrent.futures has it

    def submit(self, fn: Callable[..., Returned], /, *args: Any, **kwargs: Any) -> Future[Returned]:
        """Call it in a container; the future has what it returns or raises.

        Raises:
            RuntimeError: the executor was shut down, or no thread can be started.
            Error: it is another process's: this one was forked since.
            pickle.PicklingError, TypeError: the call cannot be pickled.
        """
        return self.submit_with(Limits(), fn, *args, **kwargs)

    def submit_with(
        self, limits: Limits, fn: Callable[..., Returned], /, *args: Any, **kwargs: Any
    ) -> Future[Returned]:
        """`submit` with limits of this call's own. Raises as that does, and ConfigError: `limits` are none."""
        self._check_owner()
        if not isinstance(limits, Limits):
            raise ConfigError("limits", f"must be Limits, not {shown(limits)}")
        payload = self._pickled([(fn, args, kwargs)])
        return self._threads.submit(self._call_one, payload, limits)

    def map(
        self,
        fn: Callable[..., Returned],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        progress: Callable[[int, int], object] | None = None,
    ) -> Iterator[Returned]:
        """The results of the calls, in their order.

        Args:
            timeout: seconds for all of them, from now on; then TimeoutError.
            chunksize: how many calls one container makes, one after the other: they see each other, and share
                `result_limit`. Each has its own outcome; what ends the container is that of all that had none yet.
            progress: called with how many calls have been made and how many there are, whenever a container has
                ended, in whatever thread that is. What was cancelled has not been made.

        Raises:
            ConfigError: an argument is wrong; else as `submit`.
        """
        check_number("timeout", timeout, 0, float("inf"))
        until = None if timeout in (None, float("inf")) else time.monotonic() + timeout
        self._check_owner()
        check_count("chunksize", chunksize, 1, needed=True)
        if progress is not None and not callable(progress):
            raise ConfigError("progress", f"must be callable, not {shown(progress)}")
        calls: list[tuple[object, ...]] = [(fn, args, {}) for args in zip(*iterables)]
        chunks = [calls[at : at + chunksize] for at in range(0, len(calls), chunksize)]
        futures = [self._threads.submit(self._call_all, self._pickled(chunk), len(chunk), Limits()) for chunk in chunks]
        if progress is not None:
            _tell_progress(futures, [len(chunk) for chunk in chunks], progress)
        return _results_of(futures, until)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more calls. With `wait` those that were submitted have ended, and nothing is left, when this returns; else
        a thread waits for them, or, when none can be started, this does.

        In a fork nothing happens: all is its parent's.

        Raises:
            CgroupError, OSError: something that was used could not be removed; all else is.
        """
        if self._owner != os.getpid():
            return
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            self._close()
            return
        import threading

        def end() -> None:
            self._threads.shutdown()
            self._close()

        try:
            threading.Thread(target=end, name="cycontainer-executor-end").start()
        except RuntimeError:
            end()

    # --- details

    def _check_owner(self) -> None:
        """Before any lock, and before anything waits for a thread: a fork has none of them."""
        if self._owner != os.getpid():
            raise Error("an executor is that of the process that made it")

    def _close(self) -> None:
        with self._lock:
            sources, self._sources = list(self._sources.values()), {}
        for source in sources:
            self._close_one(source)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _close_one(self, source: _Source) -> None:
        try:
            source.made.close()
        except (Error, OSError) as error:
            self._failure = error

    def _pickled(self, calls: Sequence[tuple[object, ...]]) -> bytes:
        """Each call by itself, so that one that cannot be unpickled is the only one to fail."""
        pickled = [dumps(self._cloudpickle, (self._opaque, *call), self._paths) for call in calls]
        return dumps(self._cloudpickle, pickled, ())

    def _taken(self, limits: Mapping[str, object]) -> _Source:
        """What has containers with these limits, made when it is first asked for; to be let go."""
        key = tuple(sorted(limits.items()))
        with self._lock:
            source = self._sources.pop(key, None)
            if source is None:
                outline: Any = {**self._outline, **limits}
                source = _Source(Pool(self._warm, **outline) if self._warm else _TaskTemplate(**outline))
            self._sources[key] = source
            source.users += 1
        return source

    def _let_go(self, source: _Source) -> None:
        """It is used no more; of too many, those that were not used for longest are closed."""
        with self._lock:
            source.users -= 1
            idle = [key for key, each in self._sources.items() if key and not each.users]
            surplus = [self._sources.pop(key) for key in idle[: max(0, len(self._sources) - 1 - MOST_KEPT)]]
        for each in surplus:
            self._close_one(each)

    def _call_one(self, payload: bytes, limits: Limits) -> Any:
        return _outcome(self._call_all(payload, 1, limits)[0])

    def _call_all(self, payload: bytes, count: int, limits: Limits) -> list[Any]:
        timeout = self._timeout if limits.timeout is None else limits.timeout
        source = self._taken(limits.of_container())
        try:
            result = source.made.run(self._args, input=payload, timeout=timeout, output_limit=self._result_limit)
        finally:
            self._let_go(source)
        return answers_of(result, count)


class _TaskTemplate(Template):
    """Its launcher's thread waits for each container's end; with that thread, so with this process, it ends."""

    _tied = True
    _name = "ContainerExecutor"


class _Source:
    """What has containers with certain limits, and how many calls use it."""

    def __init__(self, made: Template | Pool) -> None:
        self.made, self.users = made, 0


class Limits(Record):
    """Limits of one call, where they are others than the executor's; None is the executor's.

    Attributes:
        timeout: seconds.
        memory, cpus, pids: as `run()` has them.

    Raises:
        ConfigError: one is wrong; it names which.
    """

    timeout: float | None = None
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None

    def __new__(
        cls,
        *,
        timeout: float | None = None,
        memory: int | None = None,
        cpus: float | None = None,
        pids: int | None = None,
    ) -> Limits:
        check_number("timeout", timeout, 0, float("inf"))
        check_limits(memory, cpus, pids)
        return super().__new__(cls, timeout=timeout, memory=memory, cpus=cpus, pids=pids)

    def of_container(self) -> dict[str, object]:
        given = {"memory": self.memory, "cpus": self.cpus, "pids": self.pids}
        return {name: value for name, value in given.items() if value is not None}


def _tell_progress(
    futures: Sequence[Future[Any]], sizes: Sequence[int], progress: Callable[[int, int], object]
) -> None:
    import threading

    lock, done, total = threading.Lock(), [0], sum(sizes)

    def tell(future: Future[Any], size: int) -> None:
        if future.cancelled():
            return
        with lock:
            done[0] += size
            progress(done[0], total)

    for future, size in zip(futures, sizes):
        future.add_done_callback(lambda done, size=size: tell(done, size))  # type: ignore[misc]  # a default is no argument


def _outcome(answer: tuple[str, Any]) -> Any:
    """What a call returned; or it is raised."""
    kind, value = answer
    if kind == "error":
        raise value
    return value


def _results_of(futures: list[Future[list[Any]]], until: float | None) -> Iterator[Any]:
    try:
        for future in futures:
            left = None if until is None else until - time.monotonic()
            for answer in future.result(left):
                yield _outcome(answer)
    finally:
        for future in futures:
            future.cancel()


# --- the interpreter in the container


def _import_cloudpickle() -> Any:
    try:
        import cloudpickle
    except ImportError:
        raise ConfigError("cloudpickle", "is not installed: pip install cycontainer[executor]") from None
    return cloudpickle


def _begin(paths: Sequence[str]) -> str:
    """What the interpreter is given: where modules are, and our part of a task."""
    from importlib.resources import files

    places = [LIBRARY, *paths]
    source = files("cycontainer").joinpath("_task.py").read_text()
    future = "from __future__ import annotations\n"
    body = source.partition(future)[2]
    return f"{future}import sys\nsys.path[:0] = {places!r}\n{body}"


def _program(
    python: str | None, paths: Sequence[str], cloudpickle: Any, *, own_root: bool
) -> tuple[str, list[dict[str, Any]]]:
    """The interpreter, and the mounts that show in the container what it needs."""
    if python is not None:
        check_text("python", python)
    program = python or os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    needed = [*([] if python else [sys.base_prefix]), *paths]
    mounts = []
    for path in needed:
        hidden = any(f"{path}/".startswith(f"{place}/") for place in (*PRIVATE, os.path.expanduser("~")))
        if hidden or own_root:
            mounts.append(_shown(path, path))
    library = os.path.dirname(os.path.abspath(cloudpickle.__file__))
    return program, [*mounts, _shown(f"{LIBRARY}/cloudpickle", library)]


def _shown(destination: str, source: str) -> dict[str, Any]:
    options = ["nosuid", "nodev", "rbind", "ro"]
    return {"destination": destination, "type": "bind", "source": source, "options": options}
