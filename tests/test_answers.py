"""What a task's answers are made into: hostile ones cost what they may, and each call's outcome stands for itself."""

from __future__ import annotations

import builtins
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cycontainer import RemoteTraceback, TaskError
from cycontainer._answers import answers_of
from cycontainer._result import Result, Usage
from cycontainer._task import DEEPEST_GROUP, TAG, told

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HASH = sys.hash_info.modulus


def answered(*lines: object, returncode: int = 0, count: int | None = None) -> list[tuple[str, Any]]:
    """What becomes of a container's answer."""
    text = b"".join([json.dumps(line).encode() + b"\n" for line in lines])
    usage = Usage(wall=0.0, user=0.0, system=0.0, peak_memory=0, processes=None)
    result = Result(
        args=[], returncode=returncode, stdout=text, stderr=b"", timed_out=False, oom_killed=False, usage=usage
    )
    return answers_of(result, len(lines) if count is None else count)


def an_error(kind: str, args: Any, **others: Any) -> dict[str, Any]:
    empty = {"text": "it", "traceback": "there", "notes": [], "attributes": {}, "members": []}
    return {"error": {**empty, "type": kind, "args": args, **others}}


def remade(error: BaseException) -> Any:
    """An exception that a task has raised, as the caller gets it."""
    ((kind, made),) = answered({"error": told(error)})
    assert kind == "error"
    return made


def raised(function: Callable[[], object]) -> Any:
    try:
        function()
    except Exception as error:
        return remade(error)
    raise AssertionError("it raised nothing")


# --- exceptions


def test_what_python_itself_raises_is_made_again_with_what_it_says() -> None:
    missing = raised(lambda: os.rename("/no/such", "/no/other"))
    assert type(missing) is FileNotFoundError and (missing.errno, missing.filename) == (2, "/no/such")
    assert missing.filename2 == "/no/other" and str(missing).endswith("'/no/such' -> '/no/other'")
    assert raised(lambda: os.listdir(b"/no/such")).filename == b"/no/such"
    assert remade(OSError(13, "no")).filename is None and type(remade(OSError(13, "no"))) is PermissionError
    assert remade(BlockingIOError(11, "some", 5)).characters_written == 5
    assert raised(lambda: __import__("no_such_module")).name == "no_such_module"
    assert remade(ImportError("no", name="a", path="/b")).path == "/b"
    assert raised(lambda: eval("no_such_name")).name is None  # newer tracebacks look for it in the caller's own self
    assert raised(lambda: "".no_such).name == "no_such"  # type: ignore[attr-defined]  # that is the matter
    assert raised(lambda: {}[1, "a"]).args == ((1, "a"),)  # type: ignore[index]  # so it is here
    undecodable = raised(lambda: b"a\xff".decode())
    assert (undecodable.object, undecodable.start, undecodable.end) == (b"a\xff", 1, 2)
    assert raised(lambda: "aä".encode("ascii")).start == 1
    assert type(remade(UnicodeTranslateError("ab", 0, 1, "so"))) is UnicodeTranslateError
    syntax = raised(lambda: compile("a b", "f", "exec"))
    assert type(syntax) is SyntaxError and "line 1" in str(syntax) and syntax.text is None


def test_notes_and_groups_come_along() -> None:
    class Own(Exception):
        pass

    inner = KeyError("in")
    inner.add_note("of\x1b the inner")
    group = remade(ExceptionGroup("two", [inner, ExceptionGroup("one", [Own("x")])]))
    assert type(group) is ExceptionGroup and group.message == "two"
    first, second = group.exceptions
    assert first.args == ("in",) and first.__notes__ == ["of\\x1b the inner"]
    assert isinstance(second.exceptions[0], TaskError) and second.exceptions[0].text == "x"
    assert isinstance(group.__cause__, RemoteTraceback) and "of\\x1b the inner" in str(group.__cause__)
    deep: Exception = ValueError("deepest")
    for _ in range(300):
        deep = ExceptionGroup("deep", [deep])
    depth, made = 0, remade(deep)
    while isinstance(made, ExceptionGroup):
        depth, made = depth + 1, made.exceptions[0]
    assert isinstance(made, TaskError) and depth == DEEPEST_GROUP + 1
    assert isinstance(remade(ExceptionGroup("wide", [ValueError()] * 5000)), TaskError)


def test_what_a_traceback_would_look_up_is_not_taken() -> None:
    attributes = {"name": "os", "name_from": "x", "obj": "y", "__traceback__": None, "__class__": "z"}
    ((_, made),) = answered(an_error("builtins.ImportError", ["m"], attributes=attributes))
    assert made.name == "os" and getattr(made, "name_from", None) is None
    ((_, made),) = answered(an_error("builtins.AttributeError", ["m"], attributes=attributes))
    assert made.name == "os" and getattr(made, "obj", None) is None


def test_a_class_that_a_program_put_among_pythons_own_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Exception):
        def __init__(self, *args: object) -> None:
            raise AssertionError("it was made")

    monkeypatch.setattr(builtins, "Own", Own, raising=False)
    assert isinstance(answered(an_error("builtins.Own", []))[0][1], TaskError)


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("UnicodeDecodeError", ["utf-8", {TAG: "bytes", "v": "eA=="}, -(10**13), -(10**13) + 1, "r"]),
        ("UnicodeDecodeError", ["utf-8", {TAG: "bytes", "v": "eA=="}, 0, 2, "r"]),
        ("UnicodeDecodeError", ["utf-8", {TAG: "bytes", "v": "eA=="}, 1, 1, "r"]),
        ("UnicodeEncodeError", ["utf-8", "x", 10**13, 10**13 + 1, "r"]),
        ("UnicodeEncodeError", ["utf-8", "x", -1, 0, "r"]),
        ("UnicodeTranslateError", ["x", 5, 6, "r"]),
        ("ValueError", [{TAG: "int", "v": hex(1 << 200_000)}]),
        ("OSError", [2, "x", {TAG: "int", "v": hex(1 << 200_000)}]),
    ],
)
def test_an_exception_that_cannot_be_shown_is_not_made(kind: str, args: list[Any]) -> None:
    ((_, made),) = answered(an_error(f"builtins.{kind}", args))
    assert isinstance(made, TaskError) and made.kind == f"builtins.{kind}" and made.traceback == "there"


NASTY = r"""
import builtins, itertools, json, resource, sys, time, traceback
sys.path.insert(0, "tests")
from cycontainer._task import encoded
from test_answers import an_error, answered

resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (100, 100))
values = [
    None, True, 0, -1, 2, 10**9, 10**18, -10**13, 2**63, -2**63 - 1, 1 << 20_000, float("nan"), 2j, "", "x", "\x1b[31m",
    "\udc80", "x" * 10_000, b"", b"x" * 1000, bytearray(b"x"), [], [[[]]], (), ("f", 1, 1, "x", 1, 10**9),
    ("/dev/zero", 10**9, -5, "x", -(10**9), 2**62), ("f", 2**70, 1, "x"), {1: (2,)}, {1, 2}, frozenset({3}),
]
lists = [[], *([value] for value in values), *map(list, itertools.product(values, values[::4]))]
more = [["utf-8", what, start, end, "r"] for what in ("xyz", b"xyz") for start in values for end in values[:12]]
more += [[what, start, end, "r"] for what in ("xyz", b"xyz") for start in values for end in values[:12]]
more += [["m", details] for details in itertools.permutations(("f", 1, None, "x", -1, 10**9))]
more += [[2, "x", value, None, other] for value in values for other in (None, "y", 1 << 20_000)]
particular = (UnicodeError, SyntaxError, OSError, ImportError, ExceptionGroup, ValueError)
kinds = [kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, BaseException)]
slowest, made = 0.0, set()
for kind in kinds:
    for args in (*lists, *(more if issubclass(kind, particular) else ())):
        attributes = {name: encoded(args[0], False) for name in ("name", "path", "filename", "filename2") if args}
        told = an_error(f"builtins.{kind.__name__}", encoded(args, False), attributes=attributes)
        ((how, error),) = answered(told)
        assert how == "error" and isinstance(error, Exception), told
        began = time.process_time()
        str(error), repr(error), traceback.format_exception(error)
        slowest = max(slowest, time.process_time() - began)
        made.add(type(error).__name__)
assert slowest < 1, slowest
left = {kind.__name__ for kind in kinds if issubclass(kind, Exception)} - made
print(*sorted(left))
"""


def test_whatever_an_exception_is_told_to_be_made_of_it_can_be_shown() -> None:
    run = subprocess.run(
        [sys.executable, "-c", NASTY], cwd=PROJECT, capture_output=True, text=True, timeout=200, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == ["ExceptionGroup", "StopAsyncIteration", "StopIteration"]  # groups are made of members


def test_a_group_of_what_is_none_is_none() -> None:
    none: list[Any] = [[], [5], 5, {}, ["x"], [an_error("builtins.ValueError", 5)], None]
    for members in none:
        ((_, made),) = answered(an_error("builtins.ExceptionGroup", ["m"], members=members))
        assert isinstance(made, TaskError)
    others: list[dict[str, Any]] = [{"notes": 5}, {"attributes": 5}, {"attributes": {"filename": []}}, {"text": 1}]
    for other in others:
        ((_, made),) = answered(an_error("builtins.OSError", [1, "m"], **other))
        assert isinstance(made, TaskError)


# --- what sets cost


def colliding(count: int, beyond: int = 0) -> list[Any]:
    return [{TAG: "int", "v": hex((beyond + number) * HASH)} for number in range(count)]


def sets(count: int, size: int) -> dict[str, Any]:
    """A set of sets that are alike but for one number, all of the same hash: each is compared with all others."""
    alike = colliding(size)
    members = [{TAG: "frozenset", "v": [*alike, *colliding(1, 10**6 + number)]} for number in range(count)]
    return {TAG: "set", "v": members}


@pytest.mark.parametrize(("count", "size"), [(32, 3000), (3, 5000), (300, 800), (5000, 60)])
def test_one_comparison_of_large_sets_takes_no_longer_than_they_took(
    monkeypatch: pytest.MonkeyPatch, count: int, size: int
) -> None:
    monkeypatch.setattr("cycontainer._answers.MOST_SECONDS", 0.5)
    line = {"result": sets(count, size)}
    began = time.thread_time()
    answered(line)
    assert time.thread_time() - began < 3


def test_what_is_large_and_honest_is_not_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cycontainer._answers.MOST_SECONDS", 0.1)
    rows = [*({TAG: "tuple", "v": [number]} for number in range(200_000)), {TAG: "set", "v": list(range(1000))}]
    began = time.thread_time()
    ((kind, made),) = answered({"result": rows})
    assert kind == "result" and len(made) == 200_001
    assert time.thread_time() - began > 0.1  # all in all: it is the set that is counted


# --- each for itself


def test_each_answer_stands_for_itself() -> None:
    good, bad = {"result": 1}, {"result": {TAG: "no", "v": 1}}
    (one, two, three) = answered(good, bad, good)
    assert (one, two[0], three) == (("result", 1), "error", ("result", 1))
    assert isinstance(two[1], TaskError) and "none" in str(two[1])
    one, two = answered(good, returncode=3, count=2)
    assert one == ("result", 1) and "status 3" in str(two[1])
    for lines in ([good], [good, good, good]):
        assert [kind for kind, _ in answered(*lines, count=2)] == ["error", "error"]


@pytest.mark.parametrize("awaited", [True, False])
def test_nothing_is_called_for_whom_nobody_waits(tmp_path: Path, awaited: bool) -> None:
    calls = [pickle.dumps((False, os.mkdir, (str(tmp_path / "called"),), {}))]
    reader, writer = os.pipe()
    if not awaited:
        os.close(reader)
    task = [sys.executable, "-m", "cycontainer._task"]
    subprocess.run(task, input=pickle.dumps(calls), stdout=writer, cwd=PROJECT, check=True)
    os.close(writer)
    assert (tmp_path / "called").exists() == awaited
    if awaited:
        assert os.read(reader, 100) == b'{"result":null}\n'
        os.close(reader)
