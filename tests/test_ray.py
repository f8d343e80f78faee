"""The tasks and actors of docs/howto/dask-ray.md in Ray, where it is installed; it takes 240 MB, so no extra has it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from glob import glob
from typing import Any

import pytest
from documented import blocks
from guard import read
from pace import SLOWER

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = f"{ROOT}/docs/howto/dask-ray.md"
WAIT = 60.0 * SLOWER
BEGIN = """
import glob, json, os, signal, sys, time
import ray

ray.init(num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False, _temp_dir=sys.argv[1])
"""
WORK = """
calculator, shell = ray.remote(Calculator).remote(), ray.remote(Shell).remote()
once = [ray.remote(at_once).remote("echo warm") for _ in range(3)]
tasks = [ray.remote(safely).remote("echo in a worker"), ray.remote(powers).remote(3, 4), *once]
calls = [calculator.powers.remote(2, 4), calculator.powers.remote(3, 2), shell.run.remote("echo on a loop")]
with open("answers", "w") as file:
    json.dump(ray.get(tasks + calls, timeout=float(sys.argv[2])), file)
"""
ENDS = """
from ray.exceptions import ActorDiedError, RayTaskError, TaskCancelledError


def until(what, condition):
    deadline = time.monotonic() + float(sys.argv[2])
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(what)
        time.sleep(0.01)


def text_of(path):
    try:
        return open(path).read()
    except OSError:
        return ""


def sleeps():
    return any(text_of(path) == "sleep\\0" + "4712\\0" for path in glob.glob("/proc/[0-9]*/cmdline"))


def ended_by(what, call, end, failure):
    until(f"{what} does not begin", sleeps)
    end()
    until(f"{what} leaves its container", lambda: not sleeps())
    try:
        ray.get(call, timeout=float(sys.argv[2]))
        sys.exit(f"{what} goes on")
    except failure:
        return


class Warm:
    def __init__(self):
        self.pool = Pool(2)
        self.pool.fill()

    def pids(self):
        return os.getpid(), [warm.child.pid for warm in self.pool._ready]

    def sleep(self):
        self.pool.run(["sleep", "4712"])


call = ray.remote(safely).options(max_retries=0).remote("exec sleep 4712")
failures = TaskCancelledError, RayTaskError  # Ray kills first what a worker has started: it may tell of that
ended_by("a task that is cancelled by force", call, lambda: ray.cancel(call, force=True), failures)
shell = ray.remote(Shell).remote()
call = shell.run.remote("exec sleep 4712")
ended_by("a call on a loop that is cancelled", call, lambda: ray.cancel(call), TaskCancelledError)
for kill in (lambda actor, worker: os.kill(worker, signal.SIGKILL), lambda actor, worker: ray.kill(actor)):
    actor = ray.remote(Warm).remote()
    worker, warm = ray.get(actor.pids.remote())
    assert len(warm) == 2
    call = actor.sleep.remote()
    ended_by("an actor whose worker is killed", call, lambda: kill(actor, worker), ActorDiedError)
    until("those that wait are left", lambda: not any(os.path.exists(f"/proc/{pid}") for pid in warm))
"""


def processes(place: str) -> list[int]:
    """Those of Ray that are told to use this directory."""
    return [int(path.split("/")[2]) for path in glob("/proc/[0-9]*/cmdline") if f"{place}/" in read(path)]


@pytest.fixture
def place() -> Iterator[str]:
    """Ray's directory: its path is short, as sockets lie in it. In the end nothing of Ray's is left."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install ray")
    shared = set(os.listdir("/dev/shm"))
    path = tempfile.mkdtemp(prefix="ray-")
    try:
        yield path
        deadline = time.monotonic() + WAIT
        while processes(path) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not processes(path)
        assert set(os.listdir("/dev/shm")) == shared
    finally:
        for pid in processes(path):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(path)


def drive(script: str, place: str) -> None:
    """Run a program with the page's functions and classes as its own, on two processors of Ray's, to its end."""
    parts = [block.text for block in blocks(PAGE, "python") if not block.text.startswith(">>>")]
    program = "".join(part for part in parts if "celery" not in part) + BEGIN + script + "ray.shutdown()\n"
    env: dict[str, str] = {**os.environ, "PYTHONPATH": ROOT, "HOME": place}
    env |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    words = [sys.executable, "-W", "ignore", "-c", program, f"{place}/ray", str(WAIT)]
    done = subprocess.run(words, cwd=place, env=env, capture_output=True, text=True, timeout=4 * WAIT)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_tasks_and_actors_of_ray_run_in_containers(place: str) -> None:
    tasks: list[Any] = ["in a worker\n", [1, 3, 9, 27], *["warm\n"] * 3]
    drive(WORK, place)
    assert json.loads(read(f"{place}/answers")) == [*tasks, [1, 2, 4, 8], [1, 3], "on a loop\n"]


@pytest.mark.slow
def test_whoever_ends_a_worker_of_ray_ends_its_containers(place: str) -> None:
    drive(ENDS, place)
