"""The examples do what they say: each is run as a person would, and its words are looked at."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from glob import glob
from importlib.util import find_spec

import pytest
from conftest import decline

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def printed(name: str) -> list[str]:
    """The lines that an example prints; a failure shows its traceback."""
    command = [sys.executable, f"{ROOT}/examples/{name}.py"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": ROOT}, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_first_container() -> None:
    lines = printed("hello")
    assert "cycontainer" in lines
    assert any(line.startswith("--- an endless loop: timed out after 10") for line in lines)
    if os.geteuid() == 0 and os.path.isdir("/sys/fs/cgroup/memory"):
        assert any(line.startswith("--- too much memory, killed: True") for line in lines)


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.cgroups
def test_the_judge_tells_all_verdicts_apart() -> None:
    verdicts = [line.split()[0] for line in printed("code_judge")]
    assert verdicts == ["AC", "WA", "TLE", "MLE", "RE", "OLE", "RE", "CE", "CE"]


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.cgroups
def test_the_map_survives_its_hostile_scripts() -> None:
    *failures, last = printed("parallel_map")
    assert last.startswith("96 answers in ")
    assert failures[1:3] == ["script 42: ran into its timeout", "script 66: took too much memory"]
    assert "Resource temporarily unavailable" in failures[0] and "Network is unreachable" in failures[3]


def test_the_build_leaves_nothing_but_its_result() -> None:
    assert printed("throwaway_build") == [
        "installed: ./bin/greet",
        "beside the sources: nothing",
        "on this machine: nothing",
    ]


def test_an_agents_files_stay_and_its_flood_ends() -> None:
    lines = printed("agent_sandbox")
    assert [line.strip() for line in lines if "status" in line or "talks" in line] == [
        *["exit status 0"] * 2,
        "it talks too much",
        "exit status 0",
    ]
    assert {"  stdout: 45", "  stderr: that was easy"} <= {*lines}
    assert lines[-1] == "files: answer.py, result"


def test_an_agent_that_deletes_its_files_has_none() -> None:
    call = runpy.run_path(os.path.join(ROOT, "examples", "agent_sandbox.py"))["call"]
    assert call("rm a", {"a": b""}) == {}
    assert call("yes", {"a": b""}) == {"a": b""}


def test_what_is_ready_made_is_used_once() -> None:
    lines = printed("ready_made")
    assert [re.sub(r"[\d.]+ ms", "N ms", line) for line in lines] == [
        f"{way}: N ms, HELLO, 0 marks of others, 0 other answers" for way in ("run()", "a template", "a pool")
    ]


def test_dasks_tasks_run_in_containers() -> None:
    for name in ("cloudpickle", "dask"):
        if find_spec(name) is None:
            decline(f"{name} is not installed: pip install .[test]")
    assert printed("dask_in_containers") == [
        "to: 2 is: 2 words: 11",
        "a task is process 2, and sees the homes []",
    ]


def test_many_at_once_and_one_that_is_cancelled() -> None:
    assert printed("many_at_once") == [
        "the last: 2401",
        "number 13: too late",
        "right: 49",
        "and one that is spoken to: hello, hello",
    ]


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.criu
def test_a_container_moves_to_another_host() -> None:
    (line,) = printed("live_migration")
    assert re.fullmatch(r"it counted to 3 here and to 4 there; it stood still for \d+ ms", line)


def test_every_example_is_run() -> None:
    with open(__file__) as file:
        text = file.read()
    names = {os.path.basename(path).removesuffix(".py") for path in glob(f"{ROOT}/examples/*.py")}
    assert names == {name for name in names if f'printed("{name}")' in text}
