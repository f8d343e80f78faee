"""Limits as an ordinary user, in what systemd has delegated: cgroup v2."""

from __future__ import annotations

import pytest
from in_cgroup import plan_of

from cycontainer import run
from cycontainer.cgroup_runs import run_path, run_paths
from cycontainer.cgroups import Cgroup
from cycontainer.config import Memory, Resources
from cycontainer.host import Hierarchy, current

pytestmark = [pytest.mark.cgroup2]


def delegated() -> Hierarchy:
    v2 = current().cgroups.v2
    if v2 is None or not v2.delegated:
        pytest.skip("needs an ordinary user below a systemd that delegates to it")
    return v2


def test_a_cgroup_is_made_beside_the_caller_s_own() -> None:
    v2 = delegated()
    plan = plan_of(Resources(pids=7, memory=Memory(limit=64 << 20)))
    paths = run_paths(plan, run_path(), current().cgroups)
    assert paths[0].startswith(v2.own.rpartition("/")[0] + "/cycontainer-run-")
    cgroup = Cgroup.create(plan, paths)
    try:
        assert (cgroup.read("pids.max"), cgroup.read("memory.max")) == (b"7\n", b"67108864\n")
    finally:
        cgroup.destroy()


def test_a_program_is_born_in_it_and_held_by_its_limits() -> None:
    delegated()
    result = run(["sh", "-c", "cat /proc/self/cgroup; (true) & (true) & (true) & wait"], pids=3)
    assert result.stdout == b"0::/\n"
    assert b"fork" in result.stderr
