"""Functions in containers: their results and exceptions come back, and nothing that they answer runs here."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
import pickle
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from glob import glob
from pathlib import Path
from typing import Any

import pytest
from conftest import decline
from ordinary import OrdinaryUser

from cycontainer import CgroupError, ConfigError, ContainerExecutor, Limits, Opaque, TaskError, Template, run
from cycontainer._by_value import dumps, own_modules
from cycontainer.executor import MOST_KEPT

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PYTHON = "/usr/bin/python3"
# what lies in /tmp and is seen there: the interpreter's directory, and where a home is hidden
PLACES = (sys.prefix, sys.base_prefix, os.path.expanduser("~"))
IN_TMP = {path.split("/")[2] for path in PLACES if path.startswith("/tmp/")}


@pytest.fixture(autouse=True)
def cloudpickle_is_there() -> None:
    if importlib.util.find_spec("cloudpickle") is None:
        decline("cloudpickle is not installed: pip install .[test]")


@pytest.fixture
def executor() -> Iterator[ContainerExecutor]:
    with ContainerExecutor(2, timeout=60) as made:
        yield made


VALUES = [
    None, True, -5, 1 << 100, -(1 << 100), 1.5, float("inf"), 2 + 3j, "ä\0\n", b"\0\xff", bytearray(b"x"), [1, [2, ()]],
    (1, "a"), {1, 2}, frozenset({(1, 2)}), {"a": 1, "b": {}}, {1: 2, (3, 4): b"5"}, {"!": "int", "v": "0x10"},
]  # fmt: skip


def test_results_are_what_was_returned(executor: ContainerExecutor) -> None:
    result = executor.submit(lambda: VALUES).result()
    assert result == VALUES
    assert [type(value) for value in result] == [type(value) for value in VALUES]


def test_it_runs_in_a_container_of_its_own(executor: ContainerExecutor) -> None:
    def look(mark: str) -> tuple[int, list[str], bool]:
        print("this goes elsewhere")
        seen = os.listdir("/tmp")
        Path("/tmp/left").write_text(mark)
        return os.getpid(), seen, os.path.exists("/proc/3")

    pid, seen, others = executor.submit(look, mark="1").result()
    assert (pid, set(seen) - IN_TMP, others) == (2, {".cycontainer"}, False)
    assert executor.submit(look, "2").result()[1] == seen


def test_what_it_raises_is_raised_with_its_traceback(executor: ContainerExecutor) -> None:
    def fail() -> None:
        raise KeyError("key", 5)

    with pytest.raises(KeyError) as failure:
        executor.submit(fail).result()
    assert failure.value.args == ("key", 5)
    assert "in fail" in str(failure.value.__cause__)


def test_other_peoples_exceptions_are_told(executor: ContainerExecutor) -> None:
    class Own(Exception):
        pass

    def fail() -> None:
        raise Own("it\x1b[31m failed")

    with pytest.raises(TaskError) as failure:
        executor.submit(fail).result()
    assert failure.value.kind.endswith("Own") and failure.value.text == "it\\x1b[31m failed"
    assert "in fail" in failure.value.traceback
    with pytest.raises(TaskError, match="SystemExit"):
        executor.submit(exit, 3).result()
    with pytest.raises(TaskError, match="status 3"):
        executor.submit(os._exit, 3).result()
    with pytest.raises(TaskError, match="signal 6"):
        executor.submit(os.abort).result()


def test_an_ordinary_user_has_them_too(ordinary_user: OrdinaryUser) -> None:
    assert ordinary_user(powers) == [0, 1, 4]


def powers() -> list[int]:
    with ContainerExecutor(2) as executor:
        return list(executor.map(pow, range(3), [2] * 3))


# --- hostile answers


class Evil:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


def alike(form: bytes) -> bytes:
    """Numbers of one hash: to put them all into a set takes minutes."""
    return b",".join(form % b'{"!": "int", "v": "%x"}' % (number * sys.hash_info.modulus) for number in range(100_000))


def an_error(kind: str, args: bytes) -> bytes:
    rest = b'"text": "", "traceback": "", "notes": [], "attributes": {}, "members": []'
    return b'{"error": {"type": "%s", "args": %s, %s}}' % (kind.encode(), args, rest)


ANSWERS = {
    "a pickle": pickle.dumps(Evil("/tmp/mark-of-a-pickle")),
    "nothing": b"",
    "no object": b"[1]",
    "no answers": b"5",
    "too many": b'{"result": 1}\n{"result": 2}',
    "no such tag": b'{"result": {"!": "eval", "v": "1"}}',
    "a tag that is none": b'{"result": {"!": ["x"], "v": "1"}}',
    "half a tag": b'{"result": {"!": "int"}}',
    "no base64": b'{"result": {"!": "bytes", "v": "\xc3\xa4"}}',
    "a deep one": b'{"result": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a deep set": b'{"result": ' + b'{"!":"tuple","v":[' * 600 + b"]}" * 600 + b"}",
    "unhashable": b'{"result": {"!": "set", "v": [[]]}}',
    "many digits": b'{"result": ' + b"9" * 100_000 + b"}",
    "half an error": b'{"error": {"type": 5}}',
    "an error of ours": an_error("os.system", b'["x"]'),
    "a function": an_error("builtins.eval", b'["1"]'),
    "colliding hashes": b'{"result": {"!": "set", "v": [%s]}}' % alike(b"%s"),
    "colliding keys": b'{"result": {"!": "dict", "v": [%s]}}' % alike(b"[%s, 1]"),
    "colliding hashes of an error's": an_error("builtins.KeyError", b'{"!": "frozenset", "v": [%s]}' % alike(b"%s")),
    "an exit": an_error("builtins.SystemExit", b"[1]"),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_hostile_answer_is_an_error_and_runs_nothing(executor: ContainerExecutor, answer: bytes) -> None:
    def hostile() -> None:
        for fd in range(3, 20):
            try:
                left = answer + b"\n"
                while left:
                    left = left[os.write(fd, left) :]
                os._exit(0)
            except OSError:
                continue

    before = time.process_time()
    with pytest.raises(TaskError):
        executor.submit(hostile).result()
    assert time.process_time() - before < 20
    assert not os.path.exists("/tmp/mark-of-a-pickle")


def test_an_object_is_no_result_unless_it_stays_closed(executor: ContainerExecutor, tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    with pytest.raises(TypeError, match="plain data"):
        executor.submit(lambda: Evil(mark)).result()
    with ContainerExecutor(1, opaque=True) as opaque:
        evil = opaque.submit(lambda: Evil(mark)).result()
        copies = copy.deepcopy(evil), copy.copy(evil), pickle.loads(pickle.dumps(evil))
        assert len({one.data for one in (evil, *copies) if isinstance(one, Opaque)}) == 1
        assert not os.path.exists(mark)
        number, path = opaque.submit(lambda: (1, Path("/x"))).result()
        assert number == 1 and isinstance(path, Opaque)
        assert opaque.submit(lambda one: str(one / "y"), path).result() == "/x/y"
    assert not os.path.exists(mark)


class Copied:
    """Its state is a copy."""

    def __init__(self, held: object) -> None:
        self.held = held

    def __getstate__(self) -> Any:
        return copy.deepcopy(self.__dict__)


class Reloaded(Copied):
    def __getstate__(self) -> Any:
        return pickle.loads(pickle.dumps(self.__dict__))


@pytest.mark.parametrize("kind", [Copied, Reloaded])
def test_what_is_closed_is_opened_in_a_container_only(tmp_path: Path, kind: type[Copied]) -> None:
    mark = str(tmp_path / "mark")
    with ContainerExecutor(1, opaque=True) as opaque:
        evil = opaque.submit(lambda: Evil(mark)).result()
        with pytest.raises(FileNotFoundError):  # it runs in the container, which has no such directory
            opaque.submit(lambda holder: None, kind(evil)).result()
        assert not os.path.exists(mark)
        path = opaque.submit(lambda: Path("/x")).result()
        assert opaque.submit(lambda holder: str(holder.held / "y"), kind(path)).result() == "/x/y"
        assert opaque.submit(lambda one, other: one is other, path, path).result()


def test_what_is_closed_goes_into_a_task_as_its_data_too() -> None:
    with ContainerExecutor(1, opaque=True) as executor:
        closed = executor.submit(point).result()
        assert isinstance(closed, Opaque)
        assert executor.submit(lambda data: pickle.loads(data).x, closed.data).result() == 4
        with pytest.raises(ImportError):
            executor.submit(pickle.loads, pickle.dumps(closed)).result()


def point() -> object:
    class Point:
        x = 4

    return Point()


def test_a_flood_is_ended(executor: ContainerExecutor) -> None:
    def flood() -> None:
        while True:
            os.write(3, bytes(1 << 20))

    with pytest.raises(TaskError, match="bytes"):
        executor.submit(flood).result()
    with ContainerExecutor(1, result_limit=1000) as small:
        assert small.submit(bytes, 500).result() == bytes(500)
        with pytest.raises(TaskError, match="result_limit"):
            small.submit(bytes, 1000).result()


def test_large_sets_are_answers(executor: ContainerExecutor) -> None:
    def large() -> tuple[set[int], dict[tuple[int, str], int]]:
        return set(range(0, 1 << 40, 1 << 22)), {(number, str(number)): number for number in range(100_000)}

    numbers, pairs = executor.submit(large).result()
    assert len(numbers) == 1 << 18 and pairs[77, "77"] == 77 and len(pairs) == 100_000


# --- limits


def test_limits_are_the_executors_or_the_calls() -> None:
    def forever() -> None:
        while True:
            pass

    with ContainerExecutor(2, timeout=1) as executor:
        with pytest.raises(TaskError, match="timeout"):
            executor.submit(forever).result()
        with pytest.raises(TaskError, match="timeout"):
            executor.submit_with(Limits(timeout=0.3), forever).result()
        assert executor.submit_with(Limits(timeout=60), pow, 2, 3).result() == 8


@pytest.mark.root
def test_memory_is_limited_for_one_call() -> None:
    with ContainerExecutor(1, memory=1 << 30) as executor:
        assert executor.submit(lambda: len(bytearray(100 << 20))).result() == 100 << 20
        with pytest.raises((TaskError, MemoryError)):
            executor.submit_with(Limits(memory=50 << 20), lambda: len(bytearray(100 << 20))).result()


@pytest.mark.root
def test_a_limit_for_each_call_costs_no_template_for_each() -> None:
    with ContainerExecutor(2) as executor:
        first = executor._sources[()]
        for pids in range(100, 100 + 2 * MOST_KEPT):
            assert executor.submit_with(Limits(pids=pids), pow, 2, 3).result() == 8
        assert len(executor._sources) == MOST_KEPT + 1 and executor._sources[()] is first
        last = executor._sources[(("pids", 100 + 2 * MOST_KEPT - 1),)]
        assert not last.made._closed and not last.users


# --- many


def test_a_map_keeps_its_order_and_tells_its_progress(executor: ContainerExecutor) -> None:
    told: list[tuple[int, int]] = []
    results = executor.map(lambda a, b: a * b, range(20), range(20), chunksize=3, progress=lambda *of: told.append(of))
    assert list(results) == [number * number for number in range(20)]
    assert told[-1] == (20, 20) and len(told) == 7 and told == sorted(told)


@pytest.mark.slow
def test_a_map_over_a_thousand() -> None:
    told: list[int] = []
    with ContainerExecutor(2, warm=2) as executor:
        results = list(executor.map(lambda n: n + 1, range(1000), progress=lambda done, _: told.append(done)))
    assert results == list(range(1, 1001)) and told == list(range(1, 1001))


def test_one_failure_among_many_is_its_own(executor: ContainerExecutor) -> None:
    results = executor.map(lambda n: 1 // n, [1, 0, 1], chunksize=3)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(TimeoutError):
        list(executor.map(pow, [2] * 50, [2] * 50, timeout=0))


def mute(number: int) -> object:
    class Mute(Exception):
        def __str__(self) -> str:
            raise SystemExit(5)

    if number == 1:
        raise Mute
    return number


def endless(number: int) -> object:
    around: list[object] = []
    around.append(around)
    if number == 1:
        raise ValueError(around)
    return around if number == 2 else number


def ended(number: int) -> object:
    if number == 1:
        os._exit(3)
    return number


@pytest.mark.parametrize(
    ("function", "outcomes"),
    [(mute, [0, TaskError, 2]), (endless, [0, ValueError, RecursionError]), (ended, [0, TaskError, TaskError])],
)
def test_whatever_one_call_comes_to_the_others_of_its_container_have_their_own(
    executor: ContainerExecutor, function: Any, outcomes: list[Any]
) -> None:
    calls: list[tuple[object, ...]] = [(function, (number,), {}) for number in range(3)]
    answers = executor._call_all(executor._pickled(calls), 3, Limits())
    assert [value if kind == "result" else type(value) for kind, value in answers] == outcomes
    results = executor.map(function, range(3), chunksize=3)
    assert next(results) == 0
    with pytest.raises(outcomes[1]):
        next(results)


def test_the_timeout_of_a_map_begins_with_the_call(executor: ContainerExecutor) -> None:
    results = executor.map(time.sleep, [0.3, 4], timeout=1)
    time.sleep(1.1)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        list(results)
    assert time.monotonic() - began < 0.5


def test_what_was_cancelled_has_not_been_made() -> None:
    gate, told = threading.Event(), list[tuple[int, int]]()
    with ContainerExecutor(1) as executor:
        executor._threads.submit(gate.wait, 20)
        executor.map(abs, range(3), progress=lambda *of: told.append(of))
        executor.shutdown(wait=False, cancel_futures=True)
        gate.set()
    assert told == []


def test_warm_containers_serve_it() -> None:
    with ContainerExecutor(2, warm=2) as executor:
        assert list(executor.map(abs, range(-5, 0))) == [5, 4, 3, 2, 1]


@pytest.mark.filterwarnings("ignore")
def test_dask_takes_it_as_its_executor() -> None:
    if importlib.util.find_spec("dask") is None:
        decline("dask is not installed: pip install .[test]")
    from dask.delayed import __file__ as place
    from dask.delayed import delayed

    site = os.path.dirname(os.path.dirname(place))
    with ContainerExecutor(2, paths=[site]) as executor:
        add = delayed(lambda a, b: a + b)
        total = add(add(1, 2), add(3, 4))
        assert total.compute(scheduler=executor) == 10
        broken = delayed(lambda: 1 // 0)()
        with pytest.raises(ZeroDivisionError):
            broken.compute(scheduler=executor)


PROGRAM = """
import base64
import helper_of_program

class Point:
    def __init__(self, x):
        self.x = x

def doubled(point):
    return helper_of_program.twice(point.x), isinstance(point, Point), base64.b64encode(b"x")
"""


def test_the_modules_of_the_callers_program_go_along(
    executor: ContainerExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cloudpickle

    (tmp_path / "a_program.py").write_text(PROGRAM)
    (tmp_path / "helper_of_program.py").write_text("def twice(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    program: Any = importlib.import_module("a_program")
    registered = cloudpickle.list_registry_pickle_by_value()
    assert executor.submit(program.doubled, program.Point(4)).result() == (8, True, b"eA==")
    assert cloudpickle.list_registry_pickle_by_value() == registered
    tmp_path.chmod(0o755)
    (tmp_path / "helper_of_program.py").write_text("def twice(x):\n    return x + x + x\n")
    with ContainerExecutor(1, paths=[str(tmp_path)]) as by_name:
        assert by_name.submit(program.doubled, program.Point(4)).result() == (12, True, b"eA==")


@pytest.mark.parametrize("files", [("__init__.py",), ()], ids=["with a file of its own", "without"])
def test_modules_of_a_package_that_name_each_other_go_along(
    executor: ContainerExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...]
) -> None:
    name = f"circle{len(files)}"
    (tmp_path / name).mkdir()
    for file in files:
        (tmp_path / name / file).touch()
    (tmp_path / name / "there.py").write_text(f"import {name}.here\nLEAST = 1\ndef low(x): return x <= LEAST\n")
    factorial = f"def factorial(x): return 1 if {name}.there.low(x) else x * {name}.here.factorial(x - 1)"
    (tmp_path / name / "here.py").write_text(f"import {name}.there\n{factorial}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    program: Any = importlib.import_module(f"{name}.here")
    assert executor.submit(program.factorial, 5).result() == 120


SPREAD = """
import spread_package.inner.other as other
import spread_package.inner.third

def tripled(x):
    return other.twice(x) + spread_package.inner.third.same(x)
"""


def test_a_package_without_a_file_of_its_own_goes_along(
    executor: ContainerExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, installed = tmp_path / "own" / "spread_package" / "inner", tmp_path / "site-packages" / "spread_package"
    inner.mkdir(parents=True)
    installed.mkdir(parents=True)
    (inner / "program.py").write_text(SPREAD)
    (inner / "other.py").write_text("def twice(x):\n    return 2 * x\n")
    (inner / "third.py").write_text("def same(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    program: Any = importlib.import_module("spread_package.inner.program")
    assert program.__spec__.parent == "spread_package.inner" and sys.modules["spread_package"].__file__ is None
    assert executor.submit(program.tripled, 5).result() == 15
    (installed / "theirs.py").write_text("def four():\n    return 4\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    importlib.import_module("spread_package.theirs")  # a part of the same package that is installed
    names = {module.__name__ for module in own_modules(())}
    assert "spread_package.inner.program" in names
    assert not {"spread_package", "spread_package.theirs"} & names


def test_a_failure_to_pickle_leaves_nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    import cloudpickle

    before, register = cloudpickle.list_registry_pickle_by_value(), cloudpickle.register_pickle_by_value
    assert len(own_modules(())) > 1

    def fail(module: Any) -> None:
        if cloudpickle.list_registry_pickle_by_value() - before:
            raise ValueError("the second")
        register(module)

    monkeypatch.setattr(cloudpickle, "register_pickle_by_value", fail)
    with pytest.raises(ValueError, match="the second"):
        dumps(cloudpickle, 1, ())
    assert cloudpickle.list_registry_pickle_by_value() == before


# --- as an executor


def test_it_is_shut_down(executor: ContainerExecutor) -> None:
    executor.shutdown()
    with pytest.raises(RuntimeError):
        executor.submit(pow, 2, 2)


@pytest.mark.root
@pytest.mark.parametrize("error", [CgroupError("/some", 16), OSError(5, "some")])
def test_what_cannot_be_closed_is_told_when_all_else_is(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    executor, close, closed = ContainerExecutor(1), Template.close, []
    assert executor.submit_with(Limits(timeout=60, pids=50), pow, 2, 2).result() == 4

    def fail(template: Template) -> None:
        close(template)
        closed.append(template)
        raise error

    monkeypatch.setattr(Template, "close", fail)
    with pytest.raises(type(error)):
        executor.shutdown()
    assert len(closed) == 2


def test_it_is_shut_down_without_a_thread_to_wait_in(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "cycontainer-executor-end":
            raise RuntimeError("can't start new thread")
        start(thread)

    executor = ContainerExecutor(1, warm=1)
    future = executor.submit(pow, 2, 5)
    monkeypatch.setattr(threading.Thread, "start", fail)
    executor.shutdown(wait=False)
    assert future.result() == 32 and not executor._sources


def test_what_has_not_begun_can_be_cancelled() -> None:
    gate = threading.Event()
    with ContainerExecutor(1) as executor:
        executor._threads.submit(gate.wait, 20)
        futures: list[Future[int]] = [executor.submit(pow, 2, number) for number in range(3)]
        assert futures[1].cancel()
        executor.shutdown(wait=False, cancel_futures=True)
        gate.set()
        assert all(future.cancelled() for future in futures)


def test_what_cannot_be_pickled_or_meant_is_refused(executor: ContainerExecutor) -> None:
    with pytest.raises(TypeError):
        executor.submit(lambda lock: None, threading.Lock())
    with ContainerExecutor(1, mounts=None) as bare:
        assert bare.submit(abs, -1).result() == 1
    wrong: list[dict[str, Any]] = [
        {"max_workers": 0},
        {"mounts": 5},
        {"result_limit": 0},
        {"result_limit": None},
        {"max_workers": -1},
        {"warm": -1},
        {"timeout": "a"},
        {"paths": "/usr"},
        {"warm": None},
        {"python": -1},
        {"python": b"/usr/bin/python3"},
        {"python": ""},
        {"python": "a\0"},
        {"memory": []},
    ]
    for keywords in wrong:
        with pytest.raises(ConfigError, match=next(iter(keywords))):
            ContainerExecutor(**keywords)
    for path in (b"x", None, 5, "", "a\0"):
        with pytest.raises(ConfigError, match=r"paths\[0\]"):
            ContainerExecutor(paths=[path])  # type: ignore[list-item]  # so it is
    with pytest.raises(ConfigError, match="result_limit: must be an integer from 1 up, not null"):
        ContainerExecutor(result_limit=None)  # type: ignore[arg-type]  # so it is
    with pytest.raises(TypeError):
        ContainerExecutor(no_such_keyword=1)


def test_a_call_that_cannot_be_meant_is_refused_at_once(executor: ContainerExecutor) -> None:
    wrong: list[dict[str, Any]] = [
        {"progress": 5}, {"timeout": "x"}, {"timeout": -1}, {"timeout": float("nan")}, {"chunksize": None},
        {"chunksize": 0}, {"chunksize": 1.0},
    ]  # fmt: skip
    for keywords in wrong:
        with pytest.raises(ConfigError, match=next(iter(keywords))):
            executor.map(abs, [1, 2], **keywords)
    assert list(executor.map(abs, [-1], timeout=float("inf"))) == [1]
    nones: list[Any] = [{"timeout": 1}, None, 5]
    for none in nones:
        with pytest.raises(ConfigError, match="limits"):
            executor.submit_with(none, pow, 2, 2)
    wrong = [{"timeout": -1}, {"timeout": "x"}, {"memory": []}, {"memory": 1 << 70}, {"cpus": "1"}, {"pids": 0}]
    for keywords in wrong:
        with pytest.raises(ConfigError, match=next(iter(keywords))):
            Limits(**keywords)
        with pytest.raises(ConfigError, match=next(iter(keywords))):
            Limits(pids=5).replace(**keywords)
    with pytest.raises(TypeError, match=r"Limits\.__new__\(\)"):
        Limits(1)  # type: ignore[call-arg]  # so it is
    limits = Limits(timeout=1, memory=1 << 30)
    assert pickle.loads(pickle.dumps(limits)) == limits == limits.replace(pids=None)


FORKED = """
import os, sys, threading
from cycontainer import ContainerExecutor, Error
with ContainerExecutor(1, warm=int(sys.argv[1])) as executor:
    assert executor.submit(abs, -1).result() == 1
    with executor._lock, executor._threads._shutdown_lock:  # as when another thread is at work
        pid = os.fork()
        if pid == 0:
            for use in (lambda: executor.submit(abs, -1), lambda: executor.map(abs, [1])):
                try:
                    use()
                    os._exit(1)
                except Error:
                    continue
            executor.shutdown()
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    if os.fork() == 0:
        with ContainerExecutor(1) as own:
            assert own.submit(abs, -1).result() == 1
        os._exit(0)
    assert os.wait()[1] == 0
    assert executor.submit(abs, -1).result() == 1
"""


@pytest.mark.parametrize("warm", ["0", "1"])
def test_a_fork_is_told_and_may_have_one_of_its_own(warm: str) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED, warm], check=True, cwd=PROJECT, timeout=60)


KILLED = """
import sys, time
from cycontainer import ContainerExecutor
executor = ContainerExecutor(1, init=sys.argv[1] == "init", warm=int(sys.argv[2]))
executor.submit(time.sleep, 1000)
print(flush=True)
sys.stdin.read()
"""


def below(pid: int) -> list[int]:
    """The processes that it has started, and those that they have."""
    children = [int(child) for path in glob(f"/proc/{pid}/task/*/children") for child in seen(path).split()]
    return [*children, *(other for child in children for other in below(child))]


def seen(path: str) -> bytes:
    """Nothing when it is gone."""
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.mark.parametrize("warm", ["0", "1"])
@pytest.mark.parametrize("init", ["init", "alone"])
def test_a_killed_parent_leaves_no_function_running(init: str, warm: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", KILLED, init, warm]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT) as parent:
        assert parent.stdout is not None and parent.stdout.readline()
        pids, until = below(parent.pid), time.monotonic() + 20
        while not any(b"def answer_to" in seen(f"/proc/{pid}/cmdline") for pid in pids) and time.monotonic() < until:
            pids = below(parent.pid)  # until the program is there
        ends = [os.pidfd_open(pid) for pid in pids]
        parent.kill()
        parent.wait()
        for end in ends:
            assert select.select([end], [], [], 20)[0], "it runs on"
            os.close(end)
    run(["true"])  # it takes away what cgroups are left


def stop(number: int) -> int:
    if number == 1:
        raise StopIteration
    return number


def test_a_task_that_stops_an_iteration_ends_no_loop_of_the_callers(executor: ContainerExecutor) -> None:
    with pytest.raises(TaskError, match="StopIteration"):
        list(executor.map(stop, range(3), chunksize=3))
