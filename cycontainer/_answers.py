"""What comes back of a task, made values again: it was written by code that may be hostile. Face.

It is JSON, of plain data only, or of objects that stay closed until they are in another container; nothing is
unpickled. What it costs to read is bounded: its size is the executor's `result_limit`, the time that its sets and dicts
take is twice `MOST_SECONDS`: the hashes of numbers are the writer's to choose, and where all are alike, each element of
a million is compared with all others.
"""

from __future__ import annotations

import json
import time

from cycontainer._exceptions import Remaker, TaskError, printable_lines
from cycontainer._task import TAG
from cycontainer.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from cycontainer._result import Result

DEEPEST: Final = 500  # lists in lists
MOST_SECONDS: Final = 3.0  # processor time of this thread, less the last comparison; 16 MiB of honest ones take a tenth
STRIDE: Final = 32  # elements between two looks at the clock


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
        self._left = MOST_SECONDS

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
            made: dict[Any, Any] = {}
            self._fill(made.__setitem__, pairs)
            return made
        items = [self.decoded(item, depth) for item in value]
        if kind == "tuple":
            return tuple(items)
        if kind not in ("set", "frozenset"):
            raise ValueError("a tag of another's")
        members: set[Any] = set()
        self._fill(members.add, [(item,) for item in items])
        return members if kind == "set" else frozenset(members)

    def _fill(self, add: Callable[..., object], entries: list[tuple[Any, ...]]) -> None:
        """Put entries into a set or dict, until it takes too long. Raises ValueError, TypeError.

        After what has parts of its own the time is looked at each time: to compare those takes as long as to make them
        took, for which there was time.
        """
        last = time.thread_time()
        for place, entry in enumerate(entries):
            add(*entry)
            if place % STRIDE == STRIDE - 1 or type(entry[0]) in (tuple, frozenset):
                before, last = last, time.thread_time()
                self._left -= last - before
                if self._left < 0:
                    raise ValueError("sets and dicts whose hashes collide")
        self._left -= time.thread_time() - last


def answers_of(result: Result, count: int) -> list[Any]:
    """What each call of a task came to: ("result", value) or ("error", exception).

    Each stands for itself, also when one could not be answered, or ended the container.
    """
    *lines, rest = result.stdout.split(b"\n", count)
    if result.returncode == 0 and (rest or len(lines) != count):
        lines, failure = [], _no_answer_of_ours("not a line for each call")
    else:
        failure = _no_answer(result)
    reader = Reader()
    return [*(_answer_of(line, reader) for line in lines), *[("error", failure)] * (count - len(lines))]


def _answer_of(line: bytes, reader: Reader) -> tuple[str, Any]:
    try:
        answer = json.loads(line)
        if "error" in answer:
            return "error", Remaker(reader.decoded).remade(answer["error"])
        return "result", reader.decoded(answer["result"])
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError) as error:
        return "error", _no_answer_of_ours(str(error))


def _no_answer_of_ours(why: str) -> TaskError:
    return TaskError("", f"the container's answer is none: {printable(why)[:200]}")


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
