"""What runs in the container of a task of `ContainerExecutor`: its source goes there, it imports nothing of ours. Face.

It reads pickled calls from its standard input and writes what comes of each to its standard output when it has been
made, a line of JSON: plain data as it is or with a tag, an exception as its name, arguments, text and traceback. What
the functions themselves print goes to stderr.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

TAG = "!"  # of an object that stands for something else: {TAG: kind, "v": value}
LONGEST_TOLD = 64 << 10  # letters of a text about what went wrong
MOST_NOTES = 100
DEEPEST_GROUP = 20  # groups in groups
ATTRIBUTES: dict[type[Exception], tuple[str, ...]] = {  # what an exception's arguments do not say
    OSError: ("filename", "filename2"),
    ImportError: ("name", "path"),
    AttributeError: ("name",),
}


def encoded(value: Any, opaque: bool) -> Any:
    """A value as JSON has it. Raises TypeError: it is no plain data, and none may come back as it is."""
    import base64

    kind = type(value)
    if value is None or kind in (bool, str, float):
        return value
    if kind is int:
        return value if abs(value) < 1 << 62 else {TAG: "int", "v": hex(value)}
    if kind is list:
        return [encoded(item, opaque) for item in value]
    if kind in (tuple, set, frozenset):
        return {TAG: kind.__name__, "v": [encoded(item, opaque) for item in value]}
    if kind is dict and TAG not in value and all(type(key) is str for key in value):
        return {key: encoded(item, opaque) for key, item in value.items()}
    if kind is dict:
        return {TAG: "dict", "v": [[encoded(key, opaque), encoded(item, opaque)] for key, item in value.items()]}
    if kind in (bytes, bytearray):
        return {TAG: kind.__name__, "v": base64.b64encode(value).decode()}
    if kind is complex:
        return {TAG: "complex", "v": [value.real, value.imag]}
    if opaque:
        import cloudpickle

        return {TAG: "opaque", "v": base64.b64encode(cloudpickle.dumps(value)).decode()}
    raise TypeError(f"a result must be plain data, or the executor take opaque ones; it is {kind.__qualname__}")


def told(error: BaseException, depth: int = 0) -> dict[str, Any]:
    """An exception: its class's name, its arguments if they are plain data, and its traceback as text.

    Whatever it fails to say of itself is left out. What is in a group is told, too, but for its traceback: that is in
    the group's.
    """
    import traceback

    kind = type(error)
    whole = kind is ExceptionGroup and depth <= DEEPEST_GROUP
    members = error.exceptions if isinstance(error, ExceptionGroup) and whole else ()
    text = asked(lambda: str(error)[:LONGEST_TOLD], "")
    return {
        "type": asked(lambda: f"{kind.__module__}.{kind.__qualname__}", ""),
        "args": asked(lambda: encoded(list(error.args[: 1 if members else None]), False), [text]),
        "text": text,
        "traceback": asked(lambda: "".join(traceback.format_exception(error))[:LONGEST_TOLD], "") if not depth else "",
        "notes": asked(lambda: [str(note)[:LONGEST_TOLD] for note in error.__notes__[:MOST_NOTES]], []),
        "attributes": asked(lambda: attributes_of(error), {}),
        "members": [told(each, depth + 1) for each in members],
    }


def asked(question: Callable[[], Any], instead: Any) -> Any:
    """What is answered; `instead` when that fails: it may be the function's own code, and raise anything."""
    try:
        return question()
    except BaseException:
        return instead


def attributes_of(error: BaseException) -> dict[str, Any]:
    names = [name for kind, names in ATTRIBUTES.items() if isinstance(error, kind) for name in names]
    values = {name: getattr(error, name) for name in names}
    return {name: encoded(value, False) for name, value in values.items() if type(value) in (str, bytes, int)}


def answer_to(call: bytes) -> str:
    """Make a call; what it raises, or what cannot be told, is its answer, too."""
    import pickle

    try:
        opaque, function, args, keywords = pickle.loads(call)
        return line({"result": encoded(function(*args, **keywords), opaque)})
    except BaseException as error:
        full = told(error)
        bare = {**full, "args": None, "members": []}  # what JSON finds too deep
        return asked(lambda: line({"error": full}), None) or line({"error": bare})


def line(answer: dict[str, Any]) -> str:
    import json

    return f"{json.dumps(answer, separators=(',', ':'))}\n"


def is_awaited(answers: int) -> bool:
    """Whether there is someone yet to read them: whoever launched this may have been killed before it would tell us."""
    import select

    poll = select.poll()
    poll.register(answers, 0)
    return not poll.poll(0)  # POLLERR is told unasked: a pipe's other end is closed


def main() -> None:
    import pickle

    calls = pickle.loads(sys.stdin.buffer.read())
    answers = os.dup(1)
    os.dup2(2, 1)
    with open(answers, "w", encoding="ascii") as file:
        for call in calls:
            if not is_awaited(answers):
                return
            file.write(answer_to(call))
            file.flush()


if __name__ == "__main__":
    main()
