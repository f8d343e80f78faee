"""Whatever system call fails, and whenever a process is killed: an error with its cause, in time, and nothing left."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator

import pytest
from guard import left_since, snapshot
from inject import AVAILABLE, INTERRUPTED, KILLED, Outcome, Trial
from ordinary import UID, become

from cycontainer import _plans, launch_pad, run
from cycontainer.cgroup_runs import sweep
from cycontainer.errors import Error, LaunchError
from cycontainer.host import current
from cycontainer.spec import default_config

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not AVAILABLE, reason="the tracer knows the registers of x86_64 only"),
]

FAULTS = (errno.ENOMEM, KILLED, errno.EINTR, errno.ENOSPC)
INTERRUPTIBLE = {0, 1, 7, 45, 46, 47, 61, 247, 271}  # read to ppoll: what a signal's handler makes return EINTR
REMOVES = {84, 263}  # rmdir, unlinkat: what was made may be left, for the next run to sweep
SAMPLE = 31  # of so many calls one is tried, unless all are asked for

PROGRAM = ["sh", "-c", "exit 7"]


class Launches:
    """The ways to launch, each with what all others lack."""

    def __init__(self, rootfs: str, holder: int) -> None:
        self.rootfs, self.holder = rootfs, holder

    def by_name(self, way: str) -> Callable[[], int]:
        """One of the ways; what is imported when needed, is, and kept what is kept."""
        launch: Callable[[], int] = getattr(self, way)
        assert (self.limited if way == "first" else launch)() == 7
        return launch

    def limited(self) -> int:
        return run(PROGRAM, memory=64 << 20).returncode

    def without_init(self) -> int:
        return run(PROGRAM, init=False).returncode

    def user_namespace(self) -> int:
        return run(PROGRAM, rootfs=self.rootfs, user_namespace=True).returncode

    def ordinary(self) -> int:
        return run(PROGRAM).returncode

    def stopped(self) -> int:
        result = run(["sleep", "1000"], timeout=0.05)
        return 7 if result.timed_out else result.returncode

    def exchange(self) -> int:
        result = run(["sh", "-c", "read x < in; printf x > out; exit 7"], files={"in": b"x"}, collect=["out"])
        assert result.returncode != 7 or result.files == {"out": b"x"} or result.refused
        return result.returncode

    def time_namespace(self) -> int:
        return run(PROGRAM, config=self._document("time")).returncode

    def first(self) -> int:
        """A process's first: the plan is compiled, and the launch pad made beside that."""
        try:
            return run(PROGRAM).returncode
        finally:
            forget()

    def joined(self) -> int:
        return run(PROGRAM, init=False, config=self._document("joined")).returncode

    def _document(self, what: str) -> dict[str, object]:
        config = default_config()
        config["root"]["path"] = self.rootfs
        config["process"]["env"] = ["PATH=/bin"]
        if what == "time":
            config["linux"]["namespaces"].append({"type": "time"})
            config["linux"]["timeOffsets"] = {"boottime": {"secs": 1000}}
        else:
            for namespace in config["linux"]["namespaces"]:
                if namespace["type"] == "pid":
                    namespace["path"] = f"/proc/{self.holder}/ns/pid"
        return config


@pytest.fixture(scope="module")
def launches(busybox_rootfs: str) -> Iterator[Launches]:
    """With a process in a pid namespace of its own, for who joins one."""
    with subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as unshare:
        assert unshare.stdin and unshare.stdout
        unshare.stdin.write(b"\n")
        unshare.stdin.flush()
        unshare.stdout.read(1)  # it runs
        with open(f"/proc/{unshare.pid}/task/{unshare.pid}/children") as children:
            yield Launches(busybox_rootfs, int(children.read()))


def forget() -> None:
    """As if nothing had been launched yet."""
    _plans._prepared.clear()
    for descriptor, *_ in launch_pad._kept.values():
        os.closerange(descriptor, descriptor + 1)
        os.closerange(descriptor, descriptor + 1)  # the first may have been made to fail
    launch_pad._kept.clear()


def become_ordinary() -> None:
    become(UID, "/")
    current()  # looks names up, in a libc that aborts when that fails


WAYS = (
    "limited",
    "without_init",
    "user_namespace",
    "ordinary",
    "stopped",
    "exchange",
    "time_namespace",
    "joined",
    "first",
)
PREPARE = {"ordinary": become_ordinary, "first": forget}


@pytest.mark.parametrize("role", range(4))
@pytest.mark.parametrize("way", WAYS)
def test_every_system_call_may_fail(way: str, role: int, launches: Launches, request: pytest.FixtureRequest) -> None:
    launch = launches.by_name(way)
    every = request.config.getoption("--every-call")
    before, tried, problems = snapshot(), 0, []
    n = 1 if every else 1 + role
    while True:
        for fault in FAULTS if every else (FAULTS[n % len(FAULTS)],):
            outcome = Trial(launch, role, n, fault, PREPARE.get(way)).run()
            if outcome.call < 0:
                break
            tried += 1
            problem = problem_of(outcome, role, fault) or still_there(before, outcome)
            if problem:
                problems.append(f"call {n} of process {role}, {fault}: {problem}; {outcome}")
        if outcome.call < 0:
            break
        n += 1 if every else SAMPLE
    assert not problems, "\n".join(problems)
    assert tried or role > 1, "no system call was seen"


@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_at_any_system_call_leaves_nothing(way: str, launches: Launches, request: pytest.FixtureRequest) -> None:
    launch = launches.by_name(way)
    before, problems, n = snapshot(), [], 1
    while (outcome := Trial(launch, 0, n, INTERRUPTED, PREPARE.get(way)).run()).call >= 0:
        problem = "it hangs" if outcome.hung else "" if not outcome.left else "left behind"
        if not isinstance(outcome.error, KeyboardInterrupt) and outcome.value != 7:
            problem = problem or "it went on"
        problem = problem or still_there(before, outcome)
        if problem:
            problems.append(f"call {n}: {problem}; {outcome}")
        n += 1 if request.config.getoption("--every-call") else SAMPLE
    assert not problems, "\n".join(problems)


def problem_of(outcome: Outcome, role: int, fault: int) -> str:
    """What is wrong with an outcome; empty when nothing is."""
    killed = fault == KILLED
    if outcome.hung:
        return "it hangs"
    if killed and role == 0:
        return "" if outcome.value is outcome.error is None else "it was not killed"
    if outcome.left:
        return "descriptors are left"
    if outcome.error is None:
        right = (7, KILLED) if killed else (7,)
        return "" if outcome.value in right else "a wrong result"
    if fault == errno.EINTR and role == 0 and outcome.call in INTERRUPTIBLE:
        return "a signal is no failure"
    if not isinstance(outcome.error, (Error, MemoryError)):
        return "no error of ours"
    if isinstance(outcome.error, LaunchError) and not killed and outcome.error.errno != fault:
        return "another cause"
    return ""


def still_there(before: set[str], outcome: Outcome) -> str:
    """What is left on the machine; the next run sweeps the cgroups of a run that was killed, or could not remove it."""
    if outcome.error is outcome.value is None or outcome.call in REMOVES:
        sweep(current().cgroups)
    left = left_since(before)
    return f"left behind: {left}" if left else ""
