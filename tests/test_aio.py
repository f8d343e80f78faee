"""The asynchronous names, on asyncio's own loop and on uvloop: the same results, and nothing left when cancelled."""

from __future__ import annotations

import asyncio
import codecs
import importlib.util
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import Any

import pytest
from conftest import decline
from guard import left_since, snapshot
from launching import document
from pace import SLOWER
from saved import Obedient, config_of

import cycontainer
from cycontainer import DEVNULL, PIPE, ConfigError, ProgramError, RunError, WaitTimeout, aio
from cycontainer._work import Work
from cycontainer.aio.runs import in_thread
from cycontainer.process import Process

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
Complete = Callable[[Coroutine[Any, Any, Any]], Any]


def new_uvloop() -> asyncio.AbstractEventLoop:
    return importlib.import_module("uvloop").new_event_loop()  # type: ignore[no-any-return]  # of that type


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": new_uvloop}


@pytest.fixture(autouse=True, scope="module")
def kept_by_libuv() -> None:
    """It keeps a pipe for the process's life."""
    if importlib.util.find_spec("uvloop"):
        new_uvloop().close()


@pytest.fixture(params=LOOPS)
def complete(request: pytest.FixtureRequest) -> Iterator[Complete]:
    """Runs a coroutine on a loop of this kind, which has opened what it keeps for life."""
    if request.param == "uvloop" and not importlib.util.find_spec("uvloop"):
        decline("uvloop is not installed: pip install .[test]")
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        runner.run(spawned_once())
        yield runner.run


async def spawned_once() -> None:
    async with await aio.spawn(["true"]) as program:
        await program.wait()


# --- names

NOT_ON_A_LOOP = {
    cycontainer.Container: {"events", "create_from", "execute", "hear_ends"},  # as its docstring says
    cycontainer.Template: {"request"},  # what the faces have in common
    cycontainer.Spawned: {"check_open", "conclude"},  # the same
    Process: {
        "abandon",
        "hear",
        "hear_end",
        "poll",
        "raise_error",
        "started",
        "watch",
        "with_ends",
    },  # wait(0) is poll()
}
FACES: list[tuple[type, type]] = [
    (cycontainer.Container, aio.Container),
    (cycontainer.Template, aio.Template),
    (cycontainer.Pool, aio.Pool),
    (cycontainer.Acquired, aio.Acquired),
    (cycontainer.Spawned, aio.Spawned),
    (cycontainer.Lines, aio.Lines),
    (Process, aio.Process),
]


@pytest.mark.parametrize(("face", "awaited"), FACES, ids=[face.__name__ for face, _ in FACES])
def test_it_has_the_same_names(face: type, awaited: type) -> None:
    def names(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert names(face) - names(awaited) - NOT_ON_A_LOOP.get(face, set()) == set()
    assert NOT_ON_A_LOOP.get(face, set()) <= names(face)


def test_what_has_a_face_with_await_has_it_by_its_name() -> None:
    assert {"run", "spawn", "stream", *[face.__name__ for face, _ in FACES]} == set(aio_names())


def aio_names() -> list[str]:
    names: dict[str, object] = {}
    exec("from cycontainer.aio import *", names)
    assert {*names} - {"__builtins__"} <= {*dir(aio)}
    return sorted({*names} - {"__builtins__"})


# --- run


def test_a_run_is_the_same_as_without_await(complete: Complete) -> None:
    script = "cat; echo err >&2; exit 3"
    result = complete(aio.run(["sh", "-c", script], input="in", text=True))
    assert (result.returncode, result.stdout, result.stderr) == (3, "in", "err\n")
    assert complete(aio.run(["cat"], input=bytes(3 << 20))).stdout == bytes(3 << 20)


def test_what_fails_fails_in_the_same_way(complete: Complete) -> None:
    with pytest.raises(ConfigError):
        complete(aio.run([]))
    with pytest.raises(ProgramError):
        complete(aio.run(["no-such-program"]))
    with pytest.raises(RunError):
        complete(aio.run(["false"], check=True))
    assert complete(aio.run(["sleep", "100"], timeout=0.2)).timed_out
    assert complete(aio.run(["yes"], output_limit=1000)).output_exceeded
    result = complete(aio.run(["cp", "a", "b"], files={"a": "1"}, collect=["b"], init=False))
    assert result.files == {"b": b"1"}


@pytest.mark.parametrize("cancelled", [False, True])
def test_the_loop_goes_on_while_files_are_collected(
    complete: Complete, monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    gate, collect = threading.Event(), Work.collect

    async def through(run: Coroutine[Any, Any, Any]) -> Any:
        task, loop = asyncio.ensure_future(run), asyncio.get_running_loop()

        def go_on() -> None:
            gate.set()
            if cancelled:
                task.cancel()

        def slowly(work: Work) -> Any:
            gate.clear()
            loop.call_soon_threadsafe(go_on)
            assert gate.wait(20)
            return collect(work)

        monkeypatch.setattr(Work, "collect", slowly)
        if not cancelled:
            return (await task).files
        with pytest.raises(asyncio.CancelledError):
            await task
        return {"b": b"1"}

    async def all_ways() -> None:
        how: Any = {"files": {"a": "1"}, "collect": ["b"]}
        assert await through(aio.run(["cp", "a", "b"], **how)) == {"b": b"1"}
        async with aio.Pool(1, work_size=1 << 20) as pool:
            assert await through(pool.run(["cp", "a", "b"], **how)) == {"b": b"1"}

    complete(all_ways())


def test_an_ordinary_user_awaits_too(ordinary_user) -> None:  # type: ignore[no-untyped-def]  # of conftest
    assert ordinary_user(awaited) == b"1\n"


def awaited() -> bytes:
    async def beside() -> bytes:
        async with await aio.spawn(["echo", "1"]) as program:
            return (await program.communicate())[0]

    output: bytes = asyncio.run(aio.run(["echo", "1"])).stdout
    assert asyncio.run(beside()) == output
    return output


def test_the_loop_goes_on_while_a_program_runs(complete: Complete) -> None:
    async def both() -> list[Any]:
        reader, writer = os.pipe()
        with open(reader, "rb"), open(writer, "wb") as pipe:
            first = asyncio.ensure_future(aio.run(["cat"], stdin=reader))
            await aio.run(["true"])
            pipe.write(b"late")
            pipe.close()
            return [(await first).stdout]

    assert complete(both()) == [b"late"]


# --- cancelled


@contextmanager
def nothing_left() -> Iterator[None]:
    before = snapshot()
    yield
    assert not left_since(before)


def cancelled_after(complete: Complete, call: Callable[[], Awaitable[object]], turns: int) -> bool:
    """Cancel after so many turns of the loop; whether it had not ended before."""

    async def cancel() -> bool:
        task = asyncio.ensure_future(call())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    return bool(complete(cancel()))


TIMES = 20
STREAMS: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": DEVNULL}


def cancelled_in_time(complete: Complete, call: Callable[[list[bool]], Awaitable[None]]) -> list[bool]:
    """Cancel after times up to twice what it takes, and have it end once; what it has noted."""

    async def cancelled_in(seconds: float, noted: list[bool]) -> None:
        try:
            await asyncio.wait_for(call(noted), seconds)
        except TimeoutError:
            return

    noted: list[bool] = []
    began = time.monotonic()
    complete(cancelled_in(60, noted))
    whole = time.monotonic() - began
    for part in range(TIMES - 1):
        complete(cancelled_in(whole * 1.2 * part / TIMES, noted))
    return noted


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
def test_cancelled_at_any_await_a_run_leaves_nothing(complete: Complete, turns: int) -> None:
    async def sleep() -> None:
        await aio.run(["sleep", "100"], files={"a": b""})

    with nothing_left():
        assert cancelled_after(complete, sleep, turns)


def test_a_run_that_is_cancelled_at_any_time_of_its_life_leaves_nothing(complete: Complete) -> None:
    async def cancelled_in(seconds: float) -> None:
        try:
            await asyncio.wait_for(aio.run(["sh", "-c", "yes | head -c 100000; sleep 0.01"]), seconds)
        except TimeoutError:
            return

    with nothing_left():
        for part in range(20):
            complete(cancelled_in(part / 1000))


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4, 5, 6, 8, 12])
def test_cancelled_at_any_await_a_program_beside_us_leaves_nothing(complete: Complete, turns: int) -> None:
    async def program() -> None:
        async with await aio.spawn(["cat"], stdin=PIPE) as cat:
            assert cat.stdin is not None and cat.stdout is not None
            cat.stdin.write(b"1\n")
            await cat.stdout.readline()
            await cat.wait()

    with nothing_left():
        assert cancelled_after(complete, program, turns)


@pytest.mark.parametrize("turns", [1, 2, 3, 4, 5, 6, 7, 8])
def test_a_program_beside_us_leaves_nothing_when_all_tasks_of_the_loop_are_cancelled(
    complete: Complete, turns: int
) -> None:
    async def program() -> None:
        async with await aio.spawn(["cat"], stdin=PIPE) as cat:
            await cat.wait()

    async def cancel_all() -> None:
        task = asyncio.ensure_future(program())
        for _ in range(turns):
            await asyncio.sleep(0)
        for each in asyncio.all_tasks() - {asyncio.current_task()}:
            each.cancel()
        await asyncio.wait([task])

    with nothing_left():
        complete(cancel_all())


def test_no_descriptor_of_another_thread_is_closed(complete: Complete) -> None:
    """uvloop closes an object after its descriptor: the number is somebody else's by then."""
    lost, over = [], threading.Event()

    def bystander() -> None:
        while not over.is_set():
            mine = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
            time.sleep(0)
            for fd in mine:
                try:
                    os.close(fd)
                except OSError as error:
                    lost.append(error)

    async def one() -> None:
        async with await aio.spawn(["cat"], stdin=PIPE) as cat:
            await cat.communicate(b"x")

    async def many() -> None:
        for _ in range(60):
            await asyncio.gather(*[one() for _ in range(4)])

    thread = threading.Thread(target=bystander)
    thread.start()
    try:
        complete(many())
    finally:
        over.set()
        thread.join()
    assert not lost


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4, 5, 6, 8, 12])
def test_cancelled_at_any_await_a_stream_leaves_nothing(complete: Complete, turns: int) -> None:
    async def lines() -> None:
        async with aio.stream(["sh", "-c", "echo 1; echo 2 >&2; sleep 100"]) as found:
            async for line in found:
                assert line.data in (b"1\n", b"2\n")

    with nothing_left():
        assert cancelled_after(complete, lines, turns)


def test_a_stream_that_is_cancelled_at_any_time_of_its_life_leaves_nothing(complete: Complete) -> None:
    async def lines(ended: list[bool]) -> None:
        async with aio.stream(["sh", "-c", "yes | head -c 20000; sleep 0.01"]) as found:
            async for _ in found:
                await asyncio.sleep(0)
        ended.append(True)

    with nothing_left():
        ended = cancelled_in_time(complete, lines)
    assert 0 < len(ended) < TIMES


def test_a_template_and_a_pool_are_run_on_a_loop(complete: Complete) -> None:
    async def both() -> list[Any]:
        async with aio.Template(networks=1) as template, aio.Pool(2) as pool:
            assert await template.fill() or os.geteuid()
            assert template.shared == (not os.geteuid())
            assert await pool.fill()
            ways = [template.run(["echo", "1"]), *(pool.run(["cat"], input=b"%d" % number) for number in range(5))]
            outputs = [result.stdout for result in await asyncio.gather(*ways)]
            async with await template.spawn(["echo", "2"]) as program:
                outputs.append((await program.communicate())[0])
            with pytest.raises(ProgramError):
                await pool.run(["no-such-program"])
            with pytest.raises(RunError):
                await pool.run(["false"], check=True)
            with pytest.raises(RunError):
                await template.run(["false"], check=True)
            taken = [pool._source.acquire() for _ in range(2)]
            pool._source._size = 0
            with pytest.raises(WaitTimeout):
                while True:
                    taken.append(pool._source.acquire(0.5))  # one may be half made
            with pytest.raises(WaitTimeout):
                await pool.run(["true"], acquire_timeout=0.3)
            for one in taken:
                one.close()
            pool._source._size = 2
            async with await pool.acquire(60) as acquired:
                assert acquired.pid
                outputs.append((await acquired.run(["echo", "3"])).stdout)
                with pytest.raises(cycontainer.Error):
                    await acquired.run(["true"])
            await (await pool.acquire()).close()
            with pytest.raises(ConfigError):
                await pool.acquire(-1)
        with pytest.raises(cycontainer.Error):
            await pool.run(["true"])
        return outputs

    with nothing_left():
        assert complete(both()) == [b"1\n", b"0", b"1", b"2", b"3", b"4", b"2\n", b"3\n"]


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
def test_cancelled_at_any_await_what_a_template_or_a_pool_runs_is_gone(complete: Complete, turns: int) -> None:
    async def template() -> None:
        async with aio.Template() as made:
            await made.run(["sleep", "100"])

    async def pool() -> None:
        async with aio.Pool(1) as made:
            await made.run(["sleep", "100"])

    with nothing_left():
        assert cancelled_after(complete, template, turns)
        assert cancelled_after(complete, pool, turns)


def test_a_pool_that_is_cancelled_at_any_time_of_its_life_leaves_nothing(complete: Complete) -> None:
    async def run(ended: list[bool]) -> None:
        async with aio.Pool(1) as pool:
            assert (await pool.run(["echo", "1"])).stdout == b"1\n"
        ended.append(True)

    with nothing_left():
        assert 0 < len(cancelled_in_time(complete, run)) < TIMES


def test_what_fails_while_it_is_cancelled_is_told_by_the_cancellation(complete: Complete) -> None:
    gate = threading.Event()

    def fail() -> None:
        gate.wait(20 * SLOWER)
        raise cycontainer.CgroupError("/some", 16)

    async def cancelled() -> BaseException | None:
        task = asyncio.ensure_future(in_thread(fail))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        gate.set()
        try:
            await task
        except asyncio.CancelledError as error:
            return error.__cause__ or (error.__context__ and error.__context__.__cause__)
        return None

    assert isinstance(complete(cancelled()), cycontainer.CgroupError)


def test_two_hundred_wait_for_one_container_and_take_no_thread(complete: Complete) -> None:
    async def crowd() -> None:
        async with aio.Pool(1) as pool:
            source = pool._source
            assert await pool.fill()
            busy = source.acquire()
            with source._changed:
                source._size = 0
            taken = [busy, *(source.acquire() for _ in list(source._ready))]
            runs = [asyncio.ensure_future(pool.run(["echo", str(number)])) for number in range(200)]
            await asyncio.sleep(0)
            threads = threading.active_count()
            assert len(source._turns) == 200
            assert await asyncio.wait_for(asyncio.to_thread(int, "7"), SLOWER) == 7
            assert threading.active_count() <= threads + 1
            for one in taken:
                one.close()
            for run in runs[:150]:
                run.cancel()
            with source._changed:
                source._size = 1
                source._changed.notify_all()
            ended = await asyncio.gather(*runs, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in ended[:150])
            assert [one.stdout for one in ended[150:]] == [b"%d\n" % number for number in range(150, 200)]  # type: ignore[union-attr]  # a Result
            assert not source._lent and not source._turns

    with nothing_left():
        complete(crowd())


def test_cancelled_after_it_was_handed_a_container_it_leaves_it_to_the_next(complete: Complete) -> None:
    async def handed() -> None:
        async with aio.Pool(1) as pool:
            source = pool._source
            taken = [source.acquire(), source.acquire()]
            run = asyncio.ensure_future(pool.run(["true"]))
            await asyncio.sleep(0)
            with source._changed:  # the loop stands still until the run has one, and does not know
                assert source._changed.wait_for(lambda: not source._turns, 20 * SLOWER)
            run.cancel()
            await asyncio.wait([run])
            assert run.cancelled() and source._lent == len(taken)
            assert (await pool.run(["echo", "1"])).stdout == b"1\n"
            for one in taken:
                one.close()

    with nothing_left():
        complete(handed())


def test_who_waits_until_a_pool_is_full_is_cancelled_at_once(complete: Complete) -> None:
    async def fill() -> float:
        async with aio.Pool(1) as pool:
            assert await pool.fill()
            pool._source._size = 2
            with pool._source._changed:  # nothing is set up meanwhile
                began = time.monotonic()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(pool.fill(60), 0.1)
                assert not await pool.fill(0.1)
                return time.monotonic() - began

    assert complete(fill()) < 20


@pytest.mark.root
def test_without_threads_a_container_and_a_pool_are_closed_on_the_loop(
    complete: Complete, busybox_rootfs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, root = threading.Thread.start, str(tmp_path)

    def fail(thread: threading.Thread) -> None:
        if thread.name.startswith("asyncio_"):
            raise RuntimeError("can't start new thread")
        start(thread)

    async def lives() -> str:
        config = document(busybox_rootfs, "sleep 1000")
        async with aio.Pool(1) as pool:
            await pool.run(["true"])
        async with await aio.Container.create("one", config, root=root) as container:
            await container.start()
            return await container.status()

    monkeypatch.setattr(threading.Thread, "start", fail)
    with nothing_left():
        assert complete(lives()) == "running"
    assert os.listdir(root) == []


WITHOUT_DESCRIPTORS = """
import asyncio, os, resource, sys
from cycontainer import aio

async def pooled():
    async with aio.Pool(1) as pool:
        pool._source.fill()
        waiting = [warm.child.pid for warm in pool._source._ready]
        first = os.open("/dev/null", os.O_RDONLY)
        os.close(first)
        resource.setrlimit(resource.RLIMIT_NOFILE, (first, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return waiting

print([pid for pid in asyncio.run(pooled()) if os.path.exists(f"/proc/{pid}")])
"""


def test_a_pool_is_closed_without_a_descriptor() -> None:
    command = [sys.executable, "-c", WITHOUT_DESCRIPTORS]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60 * SLOWER)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_group_whose_one_member_fails_kills_the_others(complete: Complete) -> None:
    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(5):
                tasks.create_task(aio.run(["sleep", "100"]))
            tasks.create_task(aio.run(["no-such-program"]))

    with pytest.raises(ExceptionGroup):
        complete(group())


# --- many


def test_five_hundred_are_in_flight_in_one_loop(busybox_rootfs: str) -> None:
    if os.geteuid():
        busybox_rootfs = ""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 8192:
        pytest.skip("needs more descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 8192), hard))
    reader, writer = os.pipe()

    async def all_of_them() -> list[bytes]:
        async def one(number: int) -> bytes:
            result = await aio.run(["sh", "-c", f"read x; echo {number}"], stdin=reader, rootfs=busybox_rootfs or None)
            output: bytes = result.stdout
            return output

        tasks = [asyncio.ensure_future(one(number)) for number in range(500)]
        await asyncio.sleep(0)  # each is launched in its first turn; all wait for their input
        os.close(reader)
        os.close(writer)
        return await asyncio.gather(*tasks)

    try:
        assert asyncio.run(all_of_them()) == [f"{number}\n".encode() for number in range(500)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_it_fails_and_leaves_nothing(complete: Complete) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def many() -> list[object]:
        runs = [aio.run(["sleep", "0.2"]) for _ in range(60)]
        return await asyncio.gather(*runs, return_exceptions=True)

    complete(aio.run(["true"]))
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        found = complete(many())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    failed = [one for one in found if isinstance(one, BaseException)]
    assert failed and len(failed) < 60
    assert all(isinstance(one, cycontainer.LaunchError) for one in failed), failed


# --- streams


def test_lines_are_iterated_over(complete: Complete) -> None:
    async def lines() -> list[Any]:
        async with aio.stream(["sh", "-c", "echo 1; echo 2"], text=True) as found:
            seen = [line.data async for line in found]
        return [*seen, found.result.returncode]

    assert complete(lines()) == ["1\n", "2\n", 0]


def test_a_program_beside_us_has_streams(complete: Complete) -> None:
    async def talk() -> Any:
        async with await aio.spawn(["sh", "-c", "read x; echo $x; sleep 100"], stdin=PIPE) as program:
            assert program.stdin is not None and program.stdout is not None
            program.stdin.write(b"one\n")
            assert await program.stdout.readline() == b"one\n"
            with pytest.raises(WaitTimeout):
                await program.wait(0.05)
            waits = [asyncio.ensure_future(program.wait()) for _ in range(3)]
            await asyncio.sleep(0)
            waits[0].cancel()
            program.send_signal(signal.SIGTERM)
            program.kill()
            return (await waits[1]).returncode, (await waits[2]).returncode, waits[0].cancelled()

    assert complete(talk()) in [(-9, -9, True), (-15, -15, True)]


def test_communicating_with_a_program(complete: Complete) -> None:
    async def communicate() -> Any:
        async with await aio.spawn(["sh", "-c", "cat; echo e >&2"], stdin=PIPE) as program:
            return await program.communicate(bytes(1 << 20)), (await program.wait()).returncode

    assert complete(communicate()) == ((bytes(1 << 20), b"e\n"), 0)


def test_what_is_printed_before_a_wait_is_not_lost(complete: Complete) -> None:
    async def spawned() -> Any:
        async with await aio.spawn(["sh", "-c", "echo 1; exit 5"]) as program:
            assert program.stdout is not None
            code = (await program.wait()).returncode
            return code, await program.stdout.read()

    assert complete(spawned()) == (5, b"1\n")


# --- containers


@pytest.mark.root
def test_a_container_lives_on_a_loop(complete: Complete, busybox_rootfs: str, tmp_path: Path) -> None:
    config = document(busybox_rootfs, "read x; exit 4")

    async def life() -> Any:
        async with await aio.Container.create("aio", config, root=str(tmp_path), stdin=PIPE, stdout=PIPE) as container:
            assert await container.status() == "created"
            await container.start()
            again = aio.Container.handle("aio", root=str(tmp_path))
            assert container.process is not None and container.process.pid == await again.pid()
            assert select.select([container.process.pidfd], [], [], 0)[0] == []
            assert [each.pid for each in await again.processes()] == await again.pids()
            assert (await again.config()).root.path == busybox_rootfs
            process = await container.exec(["sh", "-c", "cat; exit 6"], stdin=PIPE, stdout=PIPE)
            async with process:
                output, _ = await process.communicate(b"in")
                code = await process.wait()
            assert [other.id for other in await aio.Container.list(root=str(tmp_path))] == ["aio"]
            assert container.process is not None and container.process.stdin is not None
            container.process.stdin.write(b"\n")
            return output, code, await container.wait(20), await container.status()

    assert complete(life()) == (b"in", 6, 4, "stopped")
    assert os.listdir(tmp_path) == []


@pytest.mark.root
def test_a_container_ends_on_a_loop_beside_a_process_that_nobody_waits_for(
    complete: Complete, busybox_rootfs: str, tmp_path: Path
) -> None:
    async def life() -> Any:
        async with await aio.Container.create("aio", document(busybox_rootfs, "sleep 100"), root=str(tmp_path)) as made:
            await made.start()
            process = await made.exec(["true"])
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert made.process is not None
            made.process.kill()
            return await asyncio.wait_for(made.wait(), 20)

    assert complete(life()) == -9
    assert os.listdir(tmp_path) == []


@pytest.mark.root
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
def test_a_cancelled_creation_leaves_nothing(
    complete: Complete, busybox_rootfs: str, tmp_path: Path, turns: int
) -> None:
    config = document(busybox_rootfs, "sleep 100")

    async def create() -> None:
        async with await aio.Container.create("aio", config, root=str(tmp_path)) as container:
            await container.start()
            await container.wait()

    with nothing_left():
        cancelled_after(complete, create, turns)
    assert os.listdir(tmp_path) == []


@pytest.mark.root
def test_a_cancelled_creation_closes_its_pipes(
    complete: Complete, busybox_rootfs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[cycontainer.Container] = []
    create = cycontainer.Container.create

    def noted(*args: Any, **keywords: Any) -> cycontainer.Container:
        made.append(create(*args, **keywords))
        return made[0]

    async def cancelled() -> None:
        task = asyncio.ensure_future(
            aio.Container.create("aio", document(busybox_rootfs, "sleep 100"), root=str(tmp_path), **STREAMS)
        )
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    monkeypatch.setattr(cycontainer.Container, "create", noted)
    complete(cancelled())
    process = made[0].process
    assert process is not None and process.stdin is not None and process.stdout is not None
    assert process.stdin.closed and process.stdout.closed
    assert os.listdir(tmp_path) == []


@pytest.mark.root
@pytest.mark.parametrize("turns", [0, 1, 2])
def test_a_container_that_is_left_while_it_is_cancelled_leaves_no_pipe(
    complete: Complete, busybox_rootfs: str, tmp_path: Path, turns: int
) -> None:
    config, pipes = document(busybox_rootfs, "sleep 100"), []

    async def cancel() -> None:
        leaving = asyncio.Event()

        async def leave() -> None:
            async with await aio.Container.create("aio", config, root=str(tmp_path), **STREAMS) as container:
                assert container.process is not None
                pipes.extend(container.process._pipes)
                leaving.set()

        task = asyncio.ensure_future(leave())
        await leaving.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    with nothing_left():
        complete(cancel())
        assert len(pipes) == 2 and all(transport.is_closing() for transport, _ in pipes)
    assert os.listdir(tmp_path) == []


@pytest.mark.root
def test_an_exec_that_is_cancelled_at_any_time_leaves_no_process(
    complete: Complete, busybox_rootfs: str, tmp_path: Path
) -> None:
    config = document(busybox_rootfs, "sleep 100")
    with cycontainer.Container.create("aio", config, root=str(tmp_path)) as container:
        container.start()
        beside = aio.Container(container)

        async def exec_() -> None:
            async with await beside.exec(["cat"], stdin=PIPE, stdout=PIPE) as cat:
                assert cat.stdin is not None and cat.stdout is not None
                cat.stdin.write(b"1\n")
                await cat.stdout.readline()
                await cat.wait()

        async def exec_to_its_end(ended: list[bool]) -> None:
            async with await beside.exec(["cat"], stdin=PIPE, stdout=PIPE) as cat:
                await cat.communicate(b"1")
            ended.append(True)

        complete(exec_to_its_end([]))
        with nothing_left():
            for turns in range(9):
                assert cancelled_after(complete, exec_, turns)
                assert container.pids() == [container.pid]
            assert 0 < len(cancelled_in_time(complete, exec_to_its_end)) < TIMES
            assert container.pids() == [container.pid]
        container.delete(force=True)


@pytest.mark.root
@pytest.mark.criu
def test_a_restore_that_is_cancelled_at_any_time_leaves_nothing(
    complete: Complete, busybox_rootfs: str, tmp_path: Path
) -> None:
    config, root, images = config_of(busybox_rootfs), f"{tmp_path}/states", f"{tmp_path}/images"
    with Obedient.start("aio", config, root) as first:
        first.container.checkpoint(images)

    async def restore(ended: list[bool]) -> None:
        async with await aio.Container.restore("aio", config, images, root=root, **STREAMS) as container:
            process = container.process
            assert process is not None and process.stdin is not None and process.stdout is not None
            process.stdin.write(b"echo 1\n")
            assert await process.stdout.readline() == b"1\n"
        ended.append(True)

    with nothing_left():
        for turns in (0, 1, 2, 5):
            assert cancelled_after(complete, lambda: restore([]), turns)
            assert os.listdir(root) == []
        assert 0 < len(cancelled_in_time(complete, restore)) < TIMES
    assert os.listdir(root) == []


async def run_with_a_stopped_init() -> cycontainer.Result:
    """Its pid 1 cannot hear that its time is over."""
    reader, writer = os.pipe()
    running = asyncio.create_task(aio.run(["sh", "-c", "echo x; sleep 1000"], stdout=writer, timeout=0.5))
    await asyncio.to_thread(os.read, reader, 1)
    pids = [pid for task in glob("/proc/self/task/*/children") for pid in Path(task).read_text().split()]
    for pid in pids:
        os.kill(int(pid), signal.SIGSTOP)
    result = await running
    os.close(reader)
    os.close(writer)
    return result


def test_a_pid_1_that_does_not_end_its_container_in_time_is_killed(complete: Complete) -> None:
    result = complete(run_with_a_stopped_init())
    assert (result.timed_out, result.returncode) == (True, -9)


def fail_to_decode(error: UnicodeError) -> tuple[str, int]:
    raise KeyError(error.args[0])


@pytest.mark.parametrize(("errors", "failure"), [(None, UnicodeDecodeError), ("fails", KeyError)])
def test_a_stream_that_is_no_text_ends(errors: str | None, failure: type[Exception]) -> None:
    codecs.register_error("fails", fail_to_decode)

    async def read() -> None:
        async with aio.stream(["printf", r"\377"], text=True, errors=errors) as lines:
            async for _ in lines:
                continue

    with nothing_left(), pytest.raises(failure):
        asyncio.run(asyncio.wait_for(read(), 20))
