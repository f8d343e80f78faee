"""What comes back of a task, made values again: it was written by code that may be hostile. Face.

It is JSON, of plain data only, or of objects that stay closed until they are in another container; nothing is
unpickled. What it costs to read is bounded: its size is the executor's `result_limit`, the time that its sets and dicts
take is `MOST_SECONDS`: the hashes of numbers are the writer's to choose, and where all are alike, each element of a
million is compared with all others.
"""

from __future__ import annotations

import builtins
import json
import time

from cycontainer._task import TAG
from cycontainer.errors import Error, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from cycontainer._result import Result

DEEPEST: Final = 500  # lists in lists
LONGEST_TOLD: Final = 64 << 10  # letters of what went wrong
MOST_SECONDS: Final = 3.0  # of this thread's processor time; what is honest takes a tenth for 16 MiB
STRIDE: Final = 32  # elements between two looks at the clock


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


class Opaque:
    """A result that is no plain data. It is not unpickled here, nor when it is copied or pickled: passed to another
    task, it is the object there. In bytes that you have pickled yourself it cannot be: the task has no cycontainer to
    read them. Pass it `data`, which `pickle.loads` makes the object there.

    Attributes:
        data: the pickle. To load it runs code of whoever made it: never do so outside of a container.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[object, ...]:
        return Opaque, (self.data,)

    def __repr__(self) -> str:
        return f"Opaque({len(self.data)} bytes)"


# --- reading


class Reader:
    """Of one answer; it counts what its sets and dicts cost."""

    def __init__(self) -> None:
        self._until = time.thread_time() + MOST_SECONDS

    def decoded(self, value: Any, depth: int = 0) -> Any:
        """What a task returned; lists and dicts are used again.

        Raises:
            ValueError, TypeError, LookupError: it is no answer of a task of ours, or costs too much.
        """
        if depth > DEEPEST:
            raise ValueError("deeper than 500 lists")
        if isinstance(value, list):
            for place, item in enumerate(value):
                if isinstance(item, (list, dict)):
                    value[place] = self.decoded(item, depth + 1)
            return value
        if not isinstance(value, dict):
            return value
        if TAG in value:
            return self._untagged(value[TAG], value["v"], depth + 1)
        for key, item in value.items():
            if isinstance(item, (list, dict)):
                value[key] = self.decoded(item, depth + 1)
        return value

    def _untagged(self, kind: str, value: Any, depth: int) -> Any:
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
            pairs = [(self.decoded(key, depth), self.decoded(item, depth)) for key, item in value]
            return self._gathered({}, pairs)
        items = [self.decoded(item, depth) for item in value]
        if kind == "tuple":
            return tuple(items)
        return {"set": set, "frozenset": frozenset}[kind](self._gathered(set(), items))

    def _gathered(self, made: Any, items: list[Any]) -> Any:
        """A set or dict with these."""
        for start in range(0, len(items), STRIDE):
            made.update(items[start : start + STRIDE])
            if time.thread_time() > self._until:
                raise ValueError("sets and dicts whose hashes collide")
        return made


def _exception(told: Mapping[str, Any], reader: Reader) -> BaseException:
    """What a task raised, made again if it is one of Python's own."""
    kind, text, trace = (printable_lines(told[key]) for key in ("type", "text", "traceback"))
    module, _, name = kind.rpartition(".")
    made: BaseException = TaskError(kind, text, trace)
    found = vars(builtins).get(name) if module == "builtins" else None
    ends = (StopIteration, StopAsyncIteration)  # raised from a result, they would end whatever loop is around it
    if isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, ends):
        try:
            made = found(*reader.decoded(told["args"]))
        except (TypeError, ValueError):
            return made  # one that takes other arguments than it has
    made.__cause__ = RemoteTraceback(trace)
    return made


def printable_lines(text: Any) -> str:
    """A hostile text, with control characters escaped but line ends. Raises TypeError."""
    if not isinstance(text, str):
        raise TypeError("no text")
    return "\n".join(printable(line) for line in text[:LONGEST_TOLD].split("\n"))


def answers_of(result: Result, count: int) -> list[Any]:
    """What each call of a task came to: ("result", value) or ("error", exception)."""
    if result.returncode != 0:
        return [("error", _no_answer(result))] * count
    reader = Reader()
    try:
        answers = json.loads(result.stdout)["answers"]
        if len(answers) != count:
            raise ValueError(f"{len(answers)} answers to {count} calls")
        return [
            ("error", _exception(answer["error"], reader))
            if "error" in answer
            else ("result", reader.decoded(answer["result"]))
            for answer in answers
        ]
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError) as error:
        failure = TaskError("", f"the container's answer is none: {printable(str(error))[:200]}")
        return [("error", failure)] * count


ENDS: Final = {  # by Result.ended_by
    "timeout": "took longer than its timeout",
    "output_limit": "gave and printed more bytes than its result_limit",
    "memory": "needed more memory than it may have",
    "signal": "was ended by signal {0.signal}",
    "exit": "ended with status {0.returncode}",
}


def _no_answer(result: Result) -> TaskError:
    printed = printable_lines(result.stderr.decode("utf-8", "replace")[-4000:])
    return TaskError("", f"the task {ENDS[result.ended_by].format(result)}", printed)
