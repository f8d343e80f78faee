"""ContainerExecutor: Python functions that run in containers, behind the interface of concurrent.futures. Face.

A call goes into its container pickled, by cloudpickle. What comes back was written by code that may be hostile, so it
is never unpickled here: it is JSON, of plain data only, or of objects that stay closed (`Opaque`) until they are in
another container. An exception comes as text; of Python's own ones the class is made again, of all others a
`TaskError` tells.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor

from cycontainer._arguments import PRIVATE, check_count, check_number, path_list
from cycontainer._by_value import dumps
from cycontainer._task import TAG
from cycontainer.errors import ConfigError, Error, printable
from cycontainer.pool import Pool
from cycontainer.record import Record
from cycontainer.template import Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, Final, TypeVar

    from cycontainer._result import Result

    Returned = TypeVar("Returned")

LIBRARY: Final = "/tmp/.cycontainer"  # where cloudpickle is in the container
MOST_OUTPUT: Final = 64 << 20  # bytes of an answer, and of what a task prints
DEEPEST: Final = 500  # lists in lists
LONGEST_TOLD: Final = 64 << 10  # letters of what went wrong


class TaskError(Error):
    """A task failed: it raised what is none of Python's own exceptions, or its container did not answer.

    Attributes:
        kind: the exception's class: "module.Name"; "" when none was told.
        text: what it says, or why there is no answer.
        traceback: where it was raised, as text; "" when that is not known.
    """

    def __init__(self, kind: str, text: str, traceback: str = "") -> None:
        super().__init__(kind, text, traceback)
        self.kind, self.text, self.traceback = kind, text, traceback

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.kind else self.text


class RemoteTraceback(Error):
    """The cause of an exception that was raised in a container: its traceback there.

    Attributes:
        text: the traceback.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


_to_container = threading.local()  # `now`: what this thread pickles is loaded in a container


class Opaque:
    """A result that is no plain data. It is not unpickled here, nor when it is copied or pickled: passed to another
    task, it is the object there.

    Attributes:
        data: the pickle. To load it runs code of whoever made it: never do so outside of a container.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[object, ...]:
        if not getattr(_to_container, "now", False):
            return Opaque, (self.data,)
        import pickle

        return pickle.loads, (self.data,)

    def __repr__(self) -> str:
        return f"Opaque({len(self.data)} bytes)"


# --- what comes back


def decoded(value: Any, depth: int = 0) -> Any:
    """What a task returned. Raises ValueError, TypeError, LookupError: it is no answer of a task of ours."""
    if depth > DEEPEST:
        raise ValueError("deeper than 500 lists")
    if isinstance(value, list):
        return [decoded(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {key: decoded(item, depth + 1) for key, item in value.items()}
    return _untagged(value[TAG], value["v"], depth + 1)


def _untagged(kind: str, value: Any, depth: int) -> Any:
    if kind in ("bytes", "bytearray", "opaque"):
        import base64

        data = base64.b64decode(value, validate=True)
        return {"bytes": bytes, "bytearray": bytearray, "opaque": Opaque}[kind](data)
    if kind == "int":
        return int(value, 16)
    if kind == "complex":
        real, imaginary = value
        return complex(float(real), float(imaginary))
    if kind == "dict":
        return {decoded(key, depth): decoded(item, depth) for key, item in value}
    return {"tuple": tuple, "set": set, "frozenset": frozenset}[kind](decoded(item, depth) for item in value)


def _exception(told: Mapping[str, Any]) -> BaseException:
    """What a task raised, made again if it is one of Python's own."""
    kind, text, trace = (printable_lines(told[key]) for key in ("type", "text", "traceback"))
    module, _, name = kind.rpartition(".")
    made: BaseException = TaskError(kind, text, trace)
    found = vars(builtins).get(name) if module == "builtins" else None
    ends = (StopIteration, StopAsyncIteration)  # raised from a result, they would end whatever loop is around it
    if isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, ends):
        try:
            made = found(*decoded(told["args"]))
        except (TypeError, ValueError):
            return made  # one that takes other arguments than it has
    made.__cause__ = RemoteTraceback(trace)
    return made


def printable_lines(text: Any) -> str:
    """A hostile text, with control characters escaped but line ends. Raises TypeError."""
    if not isinstance(text, str):
        raise TypeError("no text")
    return "\n".join(printable(line) for line in text[:LONGEST_TOLD].split("\n"))


def _answers(result: Result, count: int) -> list[Any]:
    """What each call of a task came to: ("result", value) or ("error", exception)."""
    if result.returncode != 0 or result.timed_out or result.output_exceeded:
        return [("error", _no_answer(result))] * count
    try:
        answers = json.loads(result.stdout)["answers"]
        found = [
            ("error", _exception(answer["error"])) if "error" in answer else ("result", decoded(answer["result"]))
            for answer in answers
        ]
        if len(found) != count:
            raise ValueError(f"{len(found)} answers to {count} calls")
        return found
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError) as error:
        failure = TaskError("", f"the container's answer is none: {printable(str(error))[:200]}")
        return [("error", failure)] * count


def _no_answer(result: Result) -> TaskError:
    if result.timed_out:
        why = "took longer than its timeout"
    elif result.output_exceeded:
        why = f"gave more than {MOST_OUTPUT} bytes"
    elif result.oom_killed:
        why = "needed more memory than it may have"
    elif result.signal:
        why = f"was ended by signal {result.signal}"
    else:
        why = f"ended with status {result.returncode}"
    printed = printable_lines(result.stderr.decode("utf-8", "replace")[-4000:])
    return TaskError("", f"the task {why}", printed)


# --- the executor


class ContainerExecutor(Executor):
    """Runs Python functions in containers of their own, as `concurrent.futures` has it.

        with ContainerExecutor(memory=256 << 20, timeout=10) as executor:
            print(executor.submit(pow, 2, 10).result())

    Each call runs in a new container, with the Python that runs here. Functions are pickled by cloudpickle (the extra
    `executor`): those of your program's own modules by value, those of installed ones by name, so `paths` must have
    them. A result must be plain data: None, bool, int, float, complex, str, bytes, bytearray, list, tuple, set,
    frozenset, dict; exact types, no subclasses. With `opaque` other objects come back as `Opaque`, which may be passed
    to another call.

    Nothing of a result is unpickled in this process: a hostile function can answer with wrong data, and with an
    exception of Python's own kinds, and no more.

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
            keywords: those of `Template`: rootfs, memory, cpus, pids, network, mounts, ...

        Raises:
            ConfigError: an argument is wrong, or cloudpickle is missing.
            LaunchError: the file tree could not be made; nothing is left.
        """
        import threading

        self._max_workers = max_workers or len(os.sched_getaffinity(0))
        check_count("max_workers", self._max_workers, 1)
        check_count("warm", warm, 0)
        check_number("timeout", timeout, 0, float("inf"))
        self._cloudpickle = _import_cloudpickle()
        self._timeout, self._opaque = timeout, bool(opaque)
        program, mounts = _program(python, paths, self._cloudpickle, own_root=keywords.get("rootfs") is not None)
        self._paths = [os.path.abspath(path) for path in paths]
        self._args = (program, "-I", "-c", _begin(paths))
        self._outline = {**keywords, "mounts": [*mounts, *keywords.get("mounts", ())]}
        self._warm = warm
        self._limited: dict[tuple[tuple[str, object], ...], Template | Pool] = {}
        self._lock = threading.Lock()
        self._source_of({})
        self._threads = ThreadPoolExecutor(self._max_workers, thread_name_prefix="cycontainer-executor")

    # --- as concurrent.futures has it

    def submit(self, fn: Callable[..., Returned], /, *args: Any, **kwargs: Any) -> Future[Returned]:
        """Call it in a container; the future has what it returns or raises.

        Raises:
            RuntimeError: the executor was shut down.
            pickle.PicklingError, TypeError: the call cannot be pickled.
        """
        return self.submit_with(Limits(), fn, *args, **kwargs)

    def submit_with(
        self, limits: Limits, fn: Callable[..., Returned], /, *args: Any, **kwargs: Any
    ) -> Future[Returned]:
        """`submit` with limits of this call's own."""
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
            chunksize: how many calls one container makes, one after the other: they see each other.
            progress: called with how many calls have been made and how many there are, whenever a container has
                ended, in whatever thread that is.
        """
        check_count("chunksize", chunksize, 1)
        calls: list[tuple[object, ...]] = [(fn, args, {}) for args in zip(*iterables)]
        chunks = [calls[at : at + chunksize] for at in range(0, len(calls), chunksize)]
        futures = [self._threads.submit(self._call_all, self._pickled(chunk), len(chunk), Limits()) for chunk in chunks]
        if progress is not None:
            _tell_progress(futures, [len(chunk) for chunk in chunks], progress)
        return _results_of(futures, timeout)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more calls. With `wait` those that were submitted have ended, and nothing is left, when this returns."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            self._close()
            return
        import threading

        def end() -> None:
            self._threads.shutdown()
            self._close()

        threading.Thread(target=end, name="cycontainer-executor-end").start()

    # --- details

    def _close(self) -> None:
        with self._lock:
            sources, self._limited = list(self._limited.values()), {}
        for source in sources:
            source.close()

    def _pickled(self, calls: Sequence[tuple[object, ...]]) -> bytes:
        """Each call by itself, so that one that cannot be unpickled is the only one to fail."""
        _to_container.now = True
        try:
            pickled = [dumps(self._cloudpickle, (self._opaque, *call), self._paths) for call in calls]
        finally:
            _to_container.now = False
        return dumps(self._cloudpickle, pickled, ())

    def _source_of(self, limits: Mapping[str, object]) -> Template | Pool:
        """What has containers with these limits, made when it is first asked for."""
        key = tuple(sorted(limits.items()))
        with self._lock:
            if key not in self._limited:
                outline: Any = {**self._outline, **limits}
                self._limited[key] = Pool(self._warm, **outline) if self._warm else Template(**outline)
            return self._limited[key]

    def _call_one(self, payload: bytes, limits: Limits) -> Any:
        return _outcome(self._call_all(payload, 1, limits)[0])

    def _call_all(self, payload: bytes, count: int, limits: Limits) -> list[Any]:
        source = self._source_of(limits.of_container())
        timeout = self._timeout if limits.timeout is None else limits.timeout
        result = source.run(self._args, input=payload, timeout=timeout, output_limit=MOST_OUTPUT)
        return _answers(result, count)


class Limits(Record):
    """Limits of one call, where they are others than the executor's; None is the executor's.

    Attributes:
        timeout: seconds.
        memory, cpus, pids: as `run()` has them.
    """

    timeout: float | None = None
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None

    def of_container(self) -> dict[str, object]:
        given = {"memory": self.memory, "cpus": self.cpus, "pids": self.pids}
        return {name: value for name, value in given.items() if value is not None}


def _tell_progress(
    futures: Sequence[Future[Any]], sizes: Sequence[int], progress: Callable[[int, int], object]
) -> None:
    import threading

    lock, done, total = threading.Lock(), [0], sum(sizes)

    def tell(size: int) -> None:
        with lock:
            done[0] += size
            progress(done[0], total)

    for future, size in zip(futures, sizes):
        future.add_done_callback(lambda _, size=size: tell(size))  # type: ignore[misc]  # a default is no argument


def _outcome(answer: tuple[str, Any]) -> Any:
    """What a call returned; or it is raised."""
    kind, value = answer
    if kind == "error":
        raise value
    return value


def _results_of(futures: list[Future[list[Any]]], timeout: float | None) -> Iterator[Any]:
    import time

    until = None if timeout is None else time.monotonic() + timeout
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

    places = [LIBRARY, *(os.path.abspath(path) for path in path_list(paths, "paths"))]
    source = files("cycontainer").joinpath("_task.py").read_text()
    future = "from __future__ import annotations\n"
    body = source.partition(future)[2]
    return f"{future}import sys\nsys.path[:0] = {places!r}\n{body}"


def _program(
    python: str | None, paths: Sequence[str], cloudpickle: Any, *, own_root: bool
) -> tuple[str, list[dict[str, Any]]]:
    """The interpreter, and the mounts that show in the container what it needs."""
    program = python or os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    needed = [*([] if python else [sys.base_prefix]), *(os.path.abspath(path) for path in path_list(paths, "paths"))]
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
