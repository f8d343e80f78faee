"""Times each verb of the command beside runc's and crun's, interleaved: wall-clock, CPU milliseconds, peak memory.

    python bench/commands.py [--rounds N] [--only state,kill,...]

As root. It goes into a mount namespace without /sys/fs/cgroup/unified, which crun refuses beside v1. Each figure is the
least and the median of all rounds; "python3" is the bare interpreter, which no verb in Python can be below. "life" is
create, start, state, kill and delete of one container, one after the other; there are ten for `list`. `delete --force`
is of one that runs. States are kept in memory, as below /run on most machines: on a disk each of ours is synchronized.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import workload

ROOT = os.path.dirname(workload.HERE)
OURS = f"{ROOT}/cycontainer/command/cycontainer"
PYTHON = os.path.realpath(sys.executable)
VERBS = (
    *("state", "list", "kill", "ps", "update", "events --stats", "features", "spec", "checkpoint --help"),
    *("create", "start", "exec", "delete created", "delete stopped", "delete --force", "life", "run"),
)
LACKING = {"crun": {"events --stats", "features", "checkpoint --help"}}  # verbs that there are not in every build of it
LISTED = 10  # containers
MAKING = ("create", "exec", "run")  # a real-time process cannot enter a container's `cpu` cgroup
FIRST = "--first" in sys.argv
QUIET = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]

Figures = dict[str, list[tuple[float, float]]]


def call(words: list[str], *, first: bool = False) -> tuple[float, float]:
    """Wall-clock and CPU milliseconds of one call, that of what it waited for included. It must succeed.

    `first`: with a real-time priority, before all other work of the machine.
    """
    scheduler = (os.SCHED_FIFO, os.sched_param(1)) if first else (os.SCHED_OTHER, os.sched_param(0))
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    pid = os.posix_spawn(words[0], words, os.environ, file_actions=QUIET, scheduler=scheduler)
    status = os.waitpid(pid, 0)[1]
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if status:
        raise SystemExit(f"{' '.join(words)}: {os.waitstatus_to_exitcode(status)}")
    return wall * 1e3, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


class Runtime:
    """One runtime with a root directory of its own, and a container that runs for the verbs that look at one."""

    def __init__(self, name: str, command: list[str], states: str, bundle: str) -> None:
        self.name, self.bundle = name, bundle
        self.bench, self.one, self.two, self.three = (f"{name}-{word}" for word in ("bench", "one", "two", "three"))
        self.empty = os.path.dirname(bundle)  # a directory without a config.json
        self.others = [f"{name}-{number}" for number in range(LISTED - 1)]
        self.command = [*command, "--root", f"{states}/{name}"]
        self.times: Figures = {}

    def __call__(self, *words: str) -> tuple[float, float]:
        return call([*self.command, *words], first=FIRST and words[0] not in MAKING)

    def create(self, container_id: str) -> tuple[float, float]:
        pid_file = f"{os.path.dirname(self.bundle)}/pid"
        return self("create", "--bundle", self.bundle, "--pid-file", pid_file, container_id)

    def keep(self, verb: str, figures: tuple[float, float]) -> None:
        self.times.setdefault(verb, []).append(figures)

    def round(self, wanted: set[str]) -> None:
        """Each verb once."""
        looks: dict[str, tuple[str, ...]] = {
            "state": ("state", self.bench),
            "list": ("list",),
            "kill": ("kill", self.bench, "WINCH"),
            "ps": ("ps", "--format", "json", self.bench),
            "update": ("update", "--pids-limit", "50", self.bench),
            "events --stats": ("events", "--stats", self.bench),
            "features": ("features",),
            "checkpoint --help": ("checkpoint", "--help"),
            "exec": ("exec", self.bench, "/bin/true"),
        }
        for verb, words in looks.items():
            if verb in wanted - LACKING.get(self.name, set()):
                self.keep(verb, self(*words))
        if "spec" in wanted:
            self.keep("spec", self("spec", "--bundle", self.empty))
            os.unlink(f"{self.empty}/config.json")
        if wanted & {"create", "start", "delete --force"}:
            self.keep("create", self.create(self.one))
            self.keep("start", self("start", self.one))
            self.keep("delete --force", self("delete", "--force", self.one))
        if "delete created" in wanted:
            self.create(self.two)
            self.keep("delete created", self("delete", self.two))
        if "delete stopped" in wanted:
            self.create(self.two)
            self("start", self.two)
            self.end(self.two)
            self.keep("delete stopped", self("delete", self.two))
        if "life" in wanted:
            self.keep("life", self.life())

    def life(self) -> tuple[float, float]:
        """A container's whole life."""
        calls = [self.create(self.two), self("start", self.two), self("state", self.two)]
        calls += [self.end(self.two), self("delete", self.two)]
        return sum(wall for wall, _ in calls), sum(cpu for _, cpu in calls)

    def end(self, container_id: str) -> tuple[float, float]:
        """Kill the container that was created last, and wait for its end, which is not counted."""
        with open(f"{os.path.dirname(self.bundle)}/pid") as file:
            pidfd = os.pidfd_open(int(file.read()))
        took = self("kill", container_id, "KILL")
        watch = select.poll()
        watch.register(pidfd, select.POLLIN)
        watch.poll()
        os.close(pidfd)
        return took

    def peak_kb(self, peak: str, *words: str) -> int:
        """The largest resident set of a call."""
        return int(subprocess.run([peak, *self.command, *words], check=True, capture_output=True, text=True).stdout)


def make_bundle(path: str, rootfs: str, *args: str) -> str:
    """A bundle of the benchmark's container with another program, and a cgroup by its id."""
    config = workload.config(rootfs, "")
    del config["linux"]["cgroupsPath"]
    config["process"]["args"] = list(args)
    os.mkdir(path)
    with open(f"{path}/config.json", "w") as file:
        json.dump(config, file)
    return path


def commands() -> dict[str, list[str]]:
    found = {"cycontainer": [OURS]}
    for name in ("runc", "crun"):
        path = shutil.which(name)
        if path:
            found[name] = [path]
    return found


def table(runtimes: list[Runtime], bare: list[tuple[float, float]]) -> str:
    lines = ["| verb | " + " | ".join(f"{each.name}: min, median, CPU" for each in runtimes) + " |"]
    lines.append("|---" * (len(runtimes) + 1) + "|")
    shown: Callable[[list[tuple[float, float]]], str] = lambda times: (  # noqa: E731  # one line, used twice
        f"{min(wall for wall, _ in times):.1f}, {statistics.median(wall for wall, _ in times):.1f}, "
        f"{min(cpu for _, cpu in times):.1f}"
    )
    for verb in VERBS:
        if verb in runtimes[0].times:
            cells = [shown(each.times[verb]) if verb in each.times else "" for each in runtimes]
            lines.append(f"| {verb} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, f"| python3 -I -S -c pass | {shown(bare)} |" + " |" * (len(runtimes) - 1)])


def memory_table(runtimes: list[Runtime], directory: str) -> str:
    """Peak memory in KB."""
    peak = f"{directory}/peak"
    subprocess.run(["cc", "-O2", "-o", peak, f"{workload.HERE}/peak.c"], check=True)
    lines = ["| peak KB | " + " | ".join(each.name for each in runtimes) + " |", "|---" + "|---:" * len(runtimes) + "|"]
    calls = {
        "state": ("state", "bench"), "list": ("list",), "kill": ("kill", "bench", "WINCH"), "start": ("start", "one"),
        "delete --force": ("delete", "--force", "one"),
    }  # fmt: skip
    for each in runtimes:
        each.create(each.one)
    for verb, (first, *rest) in calls.items():
        found = [
            each.peak_kb(
                peak, first, *[getattr(each, word, word) if word in ("bench", "one") else word for word in rest]
            )
            for each in runtimes
        ]
        lines.append(f"| {verb} | " + " | ".join(map(str, found)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default=",".join(VERBS))
    parser.add_argument("--first", action="store_true", help="a real-time priority for verbs that make no process")
    options = parser.parse_args()
    wanted = set(options.only.split(","))
    if "CYCONTAINER_BENCH" not in os.environ:
        alone = 'while umount /sys/fs/cgroup/unified 2> /dev/null; do :; done; exec "$@"'
        environment = {**os.environ, "CYCONTAINER_BENCH": "inside"}
        os.execvpe("unshare", ["unshare", "-m", "sh", "-c", alone, "sh", sys.executable, *sys.argv], environment)
    directory, states = tempfile.mkdtemp(prefix="commands-"), tempfile.mkdtemp(prefix="commands-", dir="/dev/shm")
    runtimes: list[Runtime] = []
    try:
        rootfs = f"{directory}/rootfs"
        workload.make_rootfs(rootfs)
        sleeping = make_bundle(f"{directory}/sleeping", rootfs, "/bin/busybox", "sleep", "1000")
        done = make_bundle(f"{directory}/done", rootfs, "/bin/true")
        runtimes = [Runtime(name, command, states, sleeping) for name, command in commands().items()]
        for runtime in runtimes:
            for container_id in (runtime.bench, *runtime.others):
                runtime.create(container_id)
            runtime("start", runtime.bench)
        bare = []
        for _ in range(options.rounds):
            bare.append(call([PYTHON, "-I", "-S", "-c", "pass"]))
            for runtime in runtimes:
                runtime.round(wanted)
                if "run" in wanted:
                    runtime.keep("run", runtime("run", "--bundle", done, runtime.three))
        print(table(runtimes, bare))
        print(memory_table(runtimes, directory))
    finally:
        for runtime in runtimes:
            for container_id in (runtime.bench, runtime.one, runtime.two, runtime.three, *runtime.others):
                call(["/bin/sh", "-c", '"$@" || true', "sh", *runtime.command, "delete", "--force", container_id])
        shutil.rmtree(directory)
        shutil.rmtree(states)


if __name__ == "__main__":
    main()
