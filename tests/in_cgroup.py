"""Cgroups for tests: made by plans, with processes in them, and gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cycontainer.cgroups import Cgroup
from cycontainer.config import Resources
from cycontainer.host import Hierarchy, current
from cycontainer.resources import CgroupPlan, HierarchyPlan, compile_resources

TOP = f"/cycontainer-{os.getpid()}"  # not the product's own: others may be running
PATH = f"{TOP}/test"
SLEEP = "import signal; signal.pause()"
needs_v2_alone = pytest.mark.skipif(current().cgroups.mode != "v2", reason="needs a machine with cgroup v2 alone")


def plan_of(resources: Resources) -> CgroupPlan:
    """Only where there is something to write."""
    return compile_resources(resources, current().cgroups, all_controllers=False)


def everywhere(resources: Resources) -> CgroupPlan:
    """In every hierarchy, as for a container."""
    return compile_resources(resources, current().cgroups, all_controllers=True)


def v2() -> Hierarchy:
    found = current().cgroups.v2
    if found is None:
        pytest.skip("needs a cgroup v2 mount")
    return found


def unified_plan(**parts: object) -> CgroupPlan:
    """A plan for the v2 hierarchy alone, also where v1 has the controllers."""
    plan = HierarchyPlan(mount=v2().mount, controllers=(), unified=True)
    return CgroupPlan(hierarchies=(plan.replace(**parts),))


def paths_in(plan: CgroupPlan, path: str) -> tuple[str, ...]:
    """The same path in each of its hierarchies."""
    return (path,) * len(plan.hierarchies)


@contextmanager
def cgroup_of(plan: CgroupPlan, path: str = PATH) -> Iterator[Cgroup]:
    cgroup = Cgroup.create(plan, paths_in(plan, path))
    try:
        yield cgroup
    finally:
        cgroup.kill()
        cgroup.destroy()


@contextmanager
def process_in(cgroup: Cgroup, code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program which enters the cgroup before it does anything; it prints a line when it is ready."""
    entries = [*cgroup.tasks]
    if cgroup.birthplace >= 0:
        entries.append(os.open("cgroup.procs", os.O_WRONLY, dir_fd=cgroup.birthplace))
    enter = "".join(f"import os; os.write({fd}, b'0'); " for fd in entries)
    program = [sys.executable, "-I", "-S", "-c", f"{enter}\nprint(flush=True)\n{code}"]
    with subprocess.Popen(program, pass_fds=entries, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for fd in entries[len(cgroup.tasks) :]:
            os.close(fd)
        try:
            assert process.stdout and process.stdout.readline()
            yield process
        finally:
            cgroup.kill()  # the frozen, too, whom a signal alone does not end
