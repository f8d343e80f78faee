"""Values as JSON texts. Ground: it touches nothing.

`import json` costs a hot verb 12 ms, most of it for regular expressions; the interpreter's quoting is there without.
"""

from __future__ import annotations

from _json import encode_basestring_ascii


def quoted(text: str) -> str:
    """A text in double quotes, all that is no ASCII escaped."""
    return encode_basestring_ascii(text)


def to_json(value: object, indent: int | None = None) -> str:
    """The JSON text of what dicts with text keys, lists, tuples, texts, numbers, booleans and None can say.

    Args:
        indent: spaces for each level, on lines of their own; None is one line without spaces.
    """
    return _text(value, indent, 0)


def _text(value: object, indent: int | None, depth: int) -> str:
    if isinstance(value, str):
        return quoted(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        colon = ":" if indent is None else ": "
        items = [f"{quoted(key)}{colon}{_text(inner, indent, depth + 1)}" for key, inner in value.items()]
        return _joined("{", items, "}", indent, depth)
    if isinstance(value, (list, tuple)):
        return _joined("[", [_text(inner, indent, depth + 1) for inner in value], "]", indent, depth)
    raise TypeError(f"JSON has no {type(value).__name__}")


def _joined(opening: str, items: list[str], closing: str, indent: int | None, depth: int) -> str:
    if not items or indent is None:
        return opening + ",".join(items) + closing
    inner, outer = "\n" + " " * (indent * (depth + 1)), "\n" + " " * (indent * depth)
    return opening + inner + f",{inner}".join(items) + outer + closing
