"""The tasks of docs/howto/dask-ray.md in a worker of Celery's, which forks its children as daemons."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from glob import glob
from pathlib import Path

import pytest
from conftest import decline
from documented import blocks
from guard import read
from pace import SLOWER

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = f"{ROOT}/docs/howto/dask-ray.md"
WAIT = 60.0 * SLOWER
BROKER = """
app.conf.update(broker_url="filesystem://", result_backend="file://{place}/results")
app.conf.broker_transport_options = {{name: "{place}/queue" for name in ("data_folder_in", "data_folder_out")}}
app.conf.broker_transport_options["control_folder"] = "{place}/control"
"""
LIMITED = """

@app.task(time_limit=1)
def too_long():
    from cycontainer import run

    return run(["sleep", "4711"]).returncode
"""
CLIENT = """
import json, sys
import contained

safely, powers, at_once = contained.tasks
calls = [safely.delay("echo in a worker"), powers.delay(3, 4), *(at_once.delay("echo warm") for _ in range(3))]
print(json.dumps([call.get(timeout=float(sys.argv[1])) for call in calls]))
"""
LATE = """
import sys
import contained

try:
    contained.too_long.delay().get(timeout=float(sys.argv[1]))
except Exception as error:
    print(type(error).__name__)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the page's tasks as a module, and a broker of files."""
    if importlib.util.find_spec("celery") is None:
        decline("celery is not installed: pip install .[test]")
    parts = [block.text for block in blocks(PAGE, "python") if not block.text.startswith(">>>")]
    (tmp_path / "contained.py").write_text("".join(parts) + BROKER.format(place=tmp_path) + LIMITED)
    for name in ("queue", "results", "control"):
        (tmp_path / name).mkdir()
    return tmp_path


def assert_no_sleeper() -> None:
    """That what `too_long` runs is gone: the kernel ends a container when its launcher has ended, not before."""
    deadline = time.monotonic() + WAIT
    while found := [path for path in glob("/proc/[0-9]*/cmdline") if read(path) == "sleep\0004711\0"]:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_tasks_of_celery_run_in_containers(place: Path, pool: str) -> None:
    env = {**os.environ, "PYTHONPATH": ROOT, "HOME": str(place)}
    words = [sys.executable, "-W", "ignore", "-m", "celery", "-q", "-A", "contained", "worker"]
    words += ["--pool", pool, "--concurrency", "2", "--without-gossip", "--without-mingle", "--without-heartbeat"]

    def ask(script: str) -> str:
        command = [sys.executable, "-W", "ignore", "-c", script, str(WAIT)]
        done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=2 * WAIT)
        assert done.returncode == 0, done.stderr + (place / "log").read_text()
        return done.stdout

    with open(place / "log", "w") as log:
        worker = subprocess.Popen(words, cwd=place, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        assert json.loads(ask(CLIENT)) == ["in a worker\n", [1, 3, 9, 27], *["warm\n"] * 3]
        if pool == "prefork":  # where a task is a process that can be killed
            assert ask(LATE) == "TimeLimitExceeded\n"
            assert_no_sleeper()
    finally:
        os.killpg(worker.pid, 9)  # it is asked for nothing more: Celery's own end after a killed child may hang
        worker.wait()
