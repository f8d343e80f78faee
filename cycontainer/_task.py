"""What runs in the container of a task of `ContainerExecutor`: its source goes there, it imports nothing of ours. Face.

It reads a pickled call from its standard input and writes what comes of it to its standard output, as JSON: plain data
as it is or with a tag, an exception as its name, text and traceback. What the function itself prints goes to stderr.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TAG = "!"  # of an object that stands for something else: {TAG: kind, "v": value}


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


def told(error: BaseException) -> dict[str, Any]:
    """An exception: its class's name, its arguments if they are plain data, and its traceback as text."""
    import traceback

    try:
        args = encoded(list(error.args), False)
    except TypeError:
        args = [str(error)]
    kind = type(error)
    text = "".join(traceback.format_exception(error))
    return {"type": f"{kind.__module__}.{kind.__qualname__}", "args": args, "text": str(error), "traceback": text}


def answer_to(payload: bytes) -> dict[str, Any]:
    """Make the calls, one after the other; everything that one raises is its answer."""
    import pickle

    answers = []
    for call in pickle.loads(payload):
        try:
            opaque, function, args, keywords = pickle.loads(call)
            answers.append({"result": encoded(function(*args, **keywords), opaque)})
        except BaseException as error:
            answers.append({"error": told(error)})
    return {"answers": answers}


def main() -> None:
    import json

    payload = sys.stdin.buffer.read()
    answers = os.dup(1)
    os.dup2(2, 1)
    text = json.dumps(answer_to(payload), separators=(",", ":"))
    with open(answers, "w", encoding="ascii") as file:
        file.write(text)


if __name__ == "__main__":
    main()
