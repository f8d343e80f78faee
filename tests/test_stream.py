"""Output as it comes, and programs that run beside us."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Callable

import pytest

from cycontainer import (
    DEVNULL,
    PIPE,
    ConfigError,
    Error,
    LaunchError,
    Line,
    ProgramError,
    Spawned,
    WaitTimeout,
    aio,
    run,
    spawn,
    stream,
)


def test_lines_come_as_they_are_printed() -> None:
    with stream(["sh", "-c", "echo one; read x; echo $x >&2; printf end"], input=b"two\n", text=True) as lines:
        seen = list(lines)
    assert {(line.source, line.data) for line in seen} == {("stdout", "one\n"), ("stderr", "two\n"), ("stdout", "end")}
    assert (lines.result.returncode, lines.result.stdout) == (0, "")


def test_a_line_is_there_before_the_program_has_ended() -> None:
    reader, writer = os.pipe()
    with (
        open(reader),
        open(writer, "wb") as answer,
        stream(["sh", "-c", "echo one; read x; echo $x"], stdin=reader) as lines,
    ):
        assert next(lines) == Line(source="stdout", data=b"one\n")
        answer.write(b"two\n")
        answer.flush()
        assert next(lines).data == b"two\n"


def test_leaving_early_ends_the_program() -> None:
    with stream(["yes"]) as lines:
        assert next(lines).data == b"y\n"
    with pytest.raises(Error):
        lines.result  # noqa: B018  # that is the test


def test_lines_outside_of_a_block_are_refused() -> None:
    with pytest.raises(Error, match="with"):
        next(stream(["true"]))


def test_a_flood_is_stopped() -> None:
    with stream(["yes"], output_limit=1 << 20) as lines:
        size = sum(len(line.data) for line in lines)
    assert size == 1 << 20
    assert lines.result.output_exceeded and lines.result.returncode == -9


def test_a_line_without_end_comes_in_pieces() -> None:
    with stream(["sh", "-c", "tr '\\0' x < /dev/zero"], output_limit=5 << 20) as lines:
        sizes = [len(line.data) for line in lines]
    assert sum(sizes) == 5 << 20 and max(sizes) < 3 << 20


@pytest.mark.parametrize("limit", range(7, 11))
def test_a_text_may_be_cut_within_a_letter(limit: int) -> None:
    letters = "ä€😀" * 1000
    with stream(["printf", "%s", letters], text=True, output_limit=limit) as lines:
        seen = "".join(line.data for line in lines)
    assert lines.result.output_exceeded and letters.startswith(seen) and limit - 4 < len(seen.encode()) <= limit
    with stream(["sh", "-c", "printf 'a\\303'; sleep 100"], text=True, timeout=0.3) as lines:
        assert [line.data for line in lines] == ["a"]
    assert lines.result.timed_out


def test_letters_are_whole_wherever_lines_and_pieces_are_cut() -> None:
    text = "x" + "€" * 1_500_000 + "\n" + "ā\n" * 10
    with stream(["cat"], input=text, text=True) as lines:
        assert "".join(line.data for line in lines) == text
    with stream(
        ["cat"], input="ਊa\nb", text=True, encoding="utf-16-le"
    ) as lines:  # U+0A0A: two bytes as of a line's end
        assert [line.data for line in lines] == ["ਊa\n", "b"]
    with pytest.raises(UnicodeDecodeError), stream(["printf", "a\\303"], text=True) as lines:
        list(lines)


def test_a_timeout_and_a_failure_are_told() -> None:
    with stream(["sleep", "100"], timeout=0.2) as lines:
        assert list(lines) == []
    assert lines.result.timed_out
    with pytest.raises(ProgramError), stream(["no-such-program"]) as lines:
        list(lines)
    with pytest.raises(ConfigError):
        stream(["true"], stdout=DEVNULL, stderr=DEVNULL)


@pytest.mark.parametrize(("printed", "kept", "exceeded"), [(9, 9, False), (10, 10, False), (11, 10, True)])
def test_output_is_kept_up_to_its_limit(printed: int, kept: int, exceeded: bool) -> None:
    result = run(["printf", "x" * printed], output_limit=10)
    assert (result.stdout, result.output_exceeded) == (b"x" * kept, exceeded)
    assert result.returncode == (-9 if exceeded else 0)


def test_both_outputs_count_and_a_flood_ends_at_once() -> None:
    result = run(["sh", "-c", "yes >&2 & yes"], output_limit=100_000)
    assert len(result.stdout) + len(result.stderr) == 100_000
    assert result.output_exceeded and not result.timed_out


# --- beside us


def test_a_program_runs_beside_us() -> None:
    with spawn(["cat"], stdin=PIPE) as cat:
        assert cat.stdin is not None and cat.stdout is not None
        cat.stdin.write(b"through\n")
        cat.stdin.flush()
        assert cat.stdout.readline() == b"through\n"
        with pytest.raises(WaitTimeout):
            cat.wait(0.05)
        cat.stdin.close()
        assert cat.wait(10).returncode == 0
        assert cat.wait().usage.wall > 0


def test_what_was_closed_before_its_end_has_none_to_tell() -> None:
    with spawn(["sleep", "100"]) as program:
        program.close()
        with pytest.raises(Error, match="was closed"):
            program.wait()
    with spawn(["true"]) as program:
        result = program.wait()
    assert program.wait() is result


def test_in_a_fork_they_are_refused_and_the_parent_has_them() -> None:
    with aio.stream(["sh", "-c", "echo 1; echo 2"]) as lines, spawn(["cat"], stdin=PIPE) as program:
        child = os.fork()
        if not child:
            os._exit(0 if not taken_in_a_fork(lines, program) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [line.data for line in lines] == [b"1\n", b"2\n"]
        assert program.stdin is not None and program.stdout is not None
        program.stdin.write(b"in")
        program.stdin.close()
        assert program.stdout.read() == b"in"
        assert program.wait(60).returncode == 0


def taken_in_a_fork(lines: aio.Lines, program: Spawned) -> list[str]:
    """What is not refused there."""
    calls: dict[str, Callable[[], object]] = {
        "next": lambda: next(lines),
        "wait": lambda: program.wait(1),
        "kill": program.kill,
        "signal": lambda: program.send_signal(15),
        "next on a loop": lambda: asyncio.run(lines.__anext__()),
    }
    taken = []
    for name, call in calls.items():
        try:
            call()
            taken.append(name)
        except Error as error:
            taken += [] if "the process that started it" in str(error) else [str(error)]
    lines.__exit__()
    program.close()
    return taken


def test_its_end_can_be_waited_for_by_its_pidfd() -> None:
    with spawn(["sh", "-c", "exit 7"]) as program:
        assert select.select([program.pidfd], [], [], 20)[0]
        assert program.wait(0).returncode == 7


@pytest.mark.parametrize("init", [True, False])
def test_it_gets_signals_and_is_killed(init: bool) -> None:
    with spawn(
        ["sh", "-c", "trap 'echo got; exit 4' USR1; echo go; while :; do sleep 0.01; done"], init=init
    ) as program:
        assert program.stdout is not None and program.stdout.readline() == b"go\n"
        program.send_signal(signal.SIGUSR1)
        assert program.stdout.readline() == b"got\n"
        assert program.wait(20).returncode == 4
        program.kill()
    with spawn(["sleep", "100"], init=init) as program:
        program.kill()
        assert program.wait(20).returncode == -9


def test_closing_ends_it_and_a_timeout_does() -> None:
    with spawn(["sleep", "100"]) as program:
        pid = program.pid
    assert not os.path.exists(f"/proc/{pid}/exe") and program.pidfd == -1
    with spawn(["sleep", "100"], timeout=0.1) as program:
        assert program.wait(20).timed_out


def test_what_cannot_be_started_is_told_when_one_waits() -> None:
    with spawn(["no-such-program"]) as program, pytest.raises(LaunchError):
        program.wait()
    with pytest.raises(ConfigError):
        spawn(["true"], input=b"x")


def test_an_ordinary_user_has_programs_beside_it(ordinary_user) -> None:  # type: ignore[no-untyped-def]  # of conftest
    assert ordinary_user(beside) == b"in"


def beside() -> bytes:
    with spawn(["cat", "in"], files={"in": b"in"}) as program:
        assert program.stdout is not None
        return program.stdout.read()
