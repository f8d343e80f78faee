"""The examples do what they say: each is run as a person would, and its words are looked at."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from glob import glob

import pytest

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
