"""The names of runs' cgroups."""

from __future__ import annotations

import subprocess
import sys


def test_threads_that_begin_together_get_names_of_their_own() -> None:
    script = """
import sys, threading
from cycontainer.cgroup_runs import run_name
sys.setswitchinterval(1e-6)
names, gate = [], threading.Barrier(20)
def work():
    gate.wait()
    names.append(run_name())
threads = [threading.Thread(target=work) for _ in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(set(names)) == 20, sorted(names)
"""
    for _ in range(3):
        subprocess.run([sys.executable, "-c", script], check=True)
