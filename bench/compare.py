"""Compares, in one run and interleaved in random order, what a container of /bin/true costs by different ways.

    python bench/compare.py [--rounds N] [--rest MS] [--only spawn,rest,...] [--json FILE] [--plot FILE.svg]

As root. It prints Markdown tables; bench/README.md says how to read them. A way that is not there is named, and the
rest goes on.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import plot
import workload

ROOT = os.path.dirname(workload.HERE)
WHOLE = ["--ns", "all", "--mounts", "spec", "--nofail", "--clone", "vfork", "--hop", "tiny"]
WHOLE += ["--caps", "--seccomp", "tree", "--stdio", "pipe"]
OF_HOST = "mnt,pid,ipc,uts,cgroup"  # all kinds but the network, which is the host's
PAUSE_MS = 5
MOST_RUNS = 1_000_000  # of a part that ends by the clock
WHEN = ("before", "after")
FLOOR, FLOOR_TASKS, ZERO = "C floor", "C floor, entering by tasks", "C floor, no isolation"
RUN, RUN_DIRECT, COMMAND = "cycontainer.run()", "cycontainer.run(init=False)", "cycontainer run"
LADDER = {
    "no isolation": [],
    "six namespaces": ["--ns", "all"],
    "and pivot_root": ["--ns", "all", "--mounts", "pivot"],
    "and proc, dev, sys": ["--ns", "all", "--mounts", "default"],
    "and masked, read-only paths": ["--ns", "all", "--mounts", "full", "--nofail"],
    "and cgroup mounts": ["--ns", "all", "--mounts", "spec", "--nofail"],
    "and capabilities, seccomp, an init": WHOLE,
    "and cgroups": [*WHOLE, "--cgroup", "v1"],
}

Figures = dict[str, float]  # of one round: {"ms": ...} of a command, or percentiles of a loop
Case = Callable[[], Figures]


class Failed(Exception):
    """A way could not be measured; the text is the end of what it said."""


def _lines_end(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1][-200:]


class Stopwatch:
    """A process of stopwatch.py."""

    def __init__(self, *options: str) -> None:
        argv = [sys.executable, os.path.join(workload.HERE, "stopwatch.py"), *options]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def took_ms(self, argv: list[str], rest_ms: float) -> float:
        """Milliseconds of one command, after a rest. Raises Failed when it fails."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin and stdout
        stdin.write(json.dumps({"argv": argv, "rest_ms": rest_ms}) + "\n")
        stdin.flush()
        answer = json.loads(stdout.readline() or '{"status": -1, "stderr": "the stopwatch ended"}')
        if answer["status"]:
            raise Failed(f"status {answer['status']}: {_lines_end(answer['stderr'])}")
        return float(answer["ms"])

    def close(self) -> None:
        self._process.communicate()


class Bench:
    """The place where everything is measured: a rootfs, bundles, the floor, stopwatches, and what was missing."""

    def __init__(self, asked: argparse.Namespace, directory: str) -> None:
        self.asked, self.directory = asked, directory
        self.missing: dict[str, str] = {}
        self.cgroups: list[str] = []  # how the names begin of those that a runtime may leave
        self.random = random.Random(asked.seed)
        self.rootfs = os.path.join(directory, "rootfs")
        workload.make_rootfs(self.rootfs)
        self.config = os.path.join(workload.make_bundle(self.path("bundle"), self.rootfs, "/bench"), "config.json")
        self.floor_program = workload.build_floor()
        self.installed = workload.install(self.path("installed"))
        self.stopwatch, self.without_unified = Stopwatch(), Stopwatch("--without-unified")
        self._runs = 0

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def close(self) -> None:
        self.stopwatch.close()
        self.without_unified.close()
        # crun and gVisor leave them where they cannot enter them all: a real-time process may not be in cpu's
        for name in self.cgroups:
            for path in glob.glob(f"/sys/fs/cgroup/*/{name}*"):
                os.rmdir(path)

    def report_of(self, argv: list[str]) -> dict[str, float]:
        """What a program prints as its last line, which is JSON."""
        path = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
        ended = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
        if ended.returncode:
            raise Failed(_lines_end(ended.stderr))
        report: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
        return report

    def floor(self, *options: str, n: int = 0) -> Case:
        argv = [self.floor_program, "--rootfs", self.rootfs, "--n", str(n or self.asked.n), "--warm", "3"]
        return lambda: self.report_of([*argv, *options])

    def loop(self, call: str, *options: str, n: int = 0) -> Case:
        script = os.path.join(workload.HERE, "spawn_loop.py")
        argv = [sys.executable, script, "--rootfs", self.rootfs, "--config", self.config, "--call", call]
        return lambda: self.report_of([*argv, "--n", str(n or self.asked.n), *options])

    def command(self, argv: list[str], rest_ms: float, watch: Stopwatch | None = None) -> Case:
        return lambda: {"ms": (watch or self.stopwatch).took_ms(argv, rest_ms)}

    def oci(self, program: list[str], rest_ms: float, watch: Stopwatch | None = None) -> Case:
        """An OCI runtime's `run`, with a bundle, a cgroup and a state directory of its own."""
        name = os.path.basename(program[-1])
        bundle = self.path("bundle-" + name)
        if not os.path.exists(bundle):
            workload.make_bundle(bundle, self.rootfs, "/bench-" + name)
            self.cgroups.append("bench-" + name)

        def case() -> Figures:
            self._runs += 1
            ident = f"bench{os.getpid()}-{self._runs}"
            argv = [*program, "--root", self.path("state-" + name), "run", "--bundle", bundle, ident]
            return {"ms": (watch or self.stopwatch).took_ms(argv, rest_ms)}

        return case

    def rounds(self, cases: dict[str, Case], rounds: int) -> dict[str, list[Figures]]:
        """Every case once a round, in random order; one that fails is left out and its reason kept."""
        seen: dict[str, list[Figures]] = {name: [] for name in cases}
        for number in range(-1, rounds):  # the first round warms up
            for name in self.random.sample(list(seen), len(seen)):
                try:
                    figures = cases[name]()
                except (Failed, OSError, ValueError) as error:
                    self.missing[name] = str(error)
                    del seen[name]
                    continue
                if number >= 0:
                    seen[name].append(figures)
            print(f"\rround {number + 1} of {rounds} ", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        return seen


def low(samples: list[Figures]) -> float:
    """The 10th percentile over all rounds: of a command's times, or of the p10 that a loop's round saw."""
    values = sorted(sample["ms"] if "ms" in sample else sample["p10"] for sample in samples)
    return values[(len(values) - 1) // 10]


def median(samples: list[Figures]) -> float:
    return statistics.median(sample["ms"] if "ms" in sample else sample["p50"] for sample in samples)


def table(header: str, rows: list[list[str]]) -> str:
    """Markdown; the first column is text, the others numbers."""
    names = header.split("|")
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def against(seen: dict[str, list[Figures]], floor: str, peer: str) -> str:
    """The rows by their median, with their ratio to the floor (p10 and median) and to a peer (median)."""

    def ratio(figure: Callable[[list[Figures]], float], name: str, other: str) -> str:
        return f"{figure(seen[name]) / figure(seen[other]):.2f}" if other in seen else "-"

    rows = [
        [
            name,
            f"{low(seen[name]):.3f}",
            f"{median(seen[name]):.3f}",
            ratio(low, name, floor),
            ratio(median, name, floor),
            ratio(median, name, peer),
        ]
        for name in sorted(seen, key=lambda name: median(seen[name]))
    ]
    return table(f"way|p10, ms|median, ms|p10 : floor|median : floor|median : {peer}", rows)


def cases_of_spawn(bench: Bench, rest_ms: int, n: int) -> dict[str, Case]:
    rest = ["--rest", str(rest_ms)]
    cases = {
        ZERO: bench.floor("--stdio", "pipe", *rest, n=n),
        FLOOR: bench.floor(*WHOLE, "--cgroup", "v1", *rest, n=n),
        FLOOR_TASKS: bench.floor(*WHOLE, "--cgroup", "v1tasks", *rest, n=n),
        "subprocess.run(), no isolation": bench.loop("subprocess", *rest, n=n),
        RUN: bench.loop("run", *rest, n=n),
        RUN_DIRECT: bench.loop("run-direct", *rest, n=n),
    }
    found = {name: shutil.which(name) for name in ("bwrap", "crun", "runc")}
    bench.missing.update({name: "not found in PATH" for name, path in found.items() if path is None})
    cases[COMMAND] = bench.oci([os.path.join(bench.installed, "cycontainer")], rest_ms)
    if found["bwrap"]:
        cases["bwrap"] = bench.command([found["bwrap"], *bubblewrap_options(bench.rootfs)], rest_ms)
    if found["crun"]:
        cases["crun run"] = bench.oci([found["crun"]], rest_ms, bench.without_unified)
    if found["runc"]:
        cases["runc run"] = bench.oci([found["runc"]], rest_ms)
    return cases


def bubblewrap_options(rootfs: str) -> list[str]:
    """The nearest that bubblewrap has; it knows no cgroup limits, and is given no seccomp filter."""
    options = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup"]
    options += ["--ro-bind", rootfs, "/", "--proc", "/proc", "--dev", "/dev", "--mqueue", "/dev/mqueue"]
    options += ["--hostname", "floor", "--ro-bind", "/sys", "/sys", "--cap-drop", "ALL", "--new-session"]
    for path in filter(os.path.exists, workload.MASKED):
        options += ["--tmpfs", path] if os.path.isdir(path) else ["--ro-bind", "/dev/null", path]
    for path in filter(os.path.exists, workload.READ_ONLY):
        options += ["--ro-bind", path, path]
    return [*options, "/bin/true"]


# ---- the parts: each returns its heading, its table, and its figures ----

Part = tuple[str, str, object]


def spawn(bench: Bench) -> Part:
    seen = bench.rounds(cases_of_spawn(bench, 0, bench.asked.n), bench.asked.rounds)
    if bench.asked.plot:
        with open(bench.asked.plot, "w") as file:
            file.write(plot.bars("One container of /bin/true", [(name, median(s), low(s)) for name, s in seen.items()]))
    return "One container of /bin/true, back to back", against(seen, FLOOR, "runc run"), seen


def rest(bench: Bench) -> Part:
    milliseconds = bench.asked.rest
    seen = bench.rounds(cases_of_spawn(bench, milliseconds, 4), bench.asked.rounds)
    title = f"After {milliseconds} ms of rest; the floor is the one that enters its cgroups by `tasks`"
    return title, against(seen, FLOOR_TASKS, "runc run"), seen


READY = {  # spawn_loop.py's names
    "Template.run(init=False)": "template-direct",
    "Template.run()": "template",
    "Template.run(init=False), networks ready": "template-net-direct",
    "Template.run(), networks ready": "template-net",
    "Pool.run()": "pool",
    "Pool.run(), reset": "pool-reset",
}


def ready(bench: Bench) -> Part:
    """With a pause, in which the threads that keep things ready catch up: this is about latency."""
    pause = ["--rest", str(PAUSE_MS)]
    cases = {
        ZERO: bench.floor("--stdio", "pipe", *pause),
        FLOOR: bench.floor(*WHOLE, "--cgroup", "v1", *pause),
        "C floor, from a template": bench.floor(*WHOLE, "--cgroup", "v1", "--template", *pause),
        "the same, without a network": bench.floor(*WHOLE, "--ns", OF_HOST, "--cgroup", "v1", "--template", *pause),
        RUN_DIRECT: bench.loop("run-direct", *pause),
        **{name: bench.loop(call, *pause) for name, call in READY.items()},
    }
    seen = bench.rounds(cases, bench.asked.rounds)
    return f"From what is ready, with {PAUSE_MS} ms between two", against(seen, FLOOR, RUN_DIRECT), seen


def sustained(bench: Bench) -> Part:
    """The floor before and after it, for half as long each: it does the same work from a template of its own."""
    seconds = bench.asked.seconds
    half = ["--threads", "2", "--seconds", str(max(1, round(seconds / 2)))]
    floor = bench.floor(*WHOLE, "--cgroup", "v1", "--template", *half, n=MOST_RUNS)
    try:
        floors = [floor()]
        report = bench.loop("template-net", "--threads", "2", "--seconds", str(seconds))()
        floors.append(floor())
    except Failed as error:
        bench.missing["sustained"] = str(error)
        return "Sustained", "", None
    blocks: list[Figures] = report["blocks"]  # type: ignore[assignment]  # the one report that has a list
    rows = [[str(at), *(f"{value:.2f}" for value in block.values())] for at, block in enumerate(blocks, 1)]
    columns = ("per_s", "p10", "p50", "p99")
    rows += [[f"floor, {when}", *(f"{each[key]:.2f}" for key in columns), "-"] for when, each in zip(WHEN, floors)]
    ours, theirs = (statistics.mean(each["per_s"] for each in those) for those in (blocks, floors))
    title = f"Two threads for {seconds:g} s, by tenths: Template.run(), {ours / theirs:.2f} of the floor"
    return title, table("|".join(["tenth", *blocks[0]]), rows), {"blocks": blocks, "floor": floors}


def memory(bench: Bench) -> Part:
    floor, n = [*WHOLE, "--cgroup", "v1"], bench.asked.n * 4
    cases = {
        f"{FLOOR}, 10 MB": bench.floor(*floor, "--ballast", "10", n=n),
        f"{FLOOR}, 2 GB": bench.floor(*floor, "--ballast", "2048", n=n),
        f"{RUN}, 10 MB": bench.loop("run", n=n),  # that is what an interpreter has
        f"{RUN}, 2 GB": bench.loop("run", "--ballast", "2048", n=n),
    }
    seen = bench.rounds(cases, bench.asked.rounds)
    rows = [
        [name, *(f"{figure(seen[f'{name}, {size}']):.3f}" for figure in (low, median) for size in ("10 MB", "2 GB"))]
        + [f"{figure(seen[f'{name}, 2 GB']) / figure(seen[f'{name}, 10 MB']):.3f}" for figure in (low, median)]
        for name in (FLOOR, RUN)
        if f"{name}, 10 MB" in seen and f"{name}, 2 GB" in seen
    ]
    header = "way|p10, 10 MB|p10, 2 GB|median, 10 MB|median, 2 GB|p10, ratio|median, ratio"
    return "By the parent's resident memory", table(header, rows), seen


def threads(bench: Bench) -> Part:
    floor, n = [*WHOLE, "--cgroup", "v1"], bench.asked.n * 4
    cases = {}
    for count in (1, 2):
        cases[f"{FLOOR}, {count}"] = bench.floor(*floor, "--threads", str(count), n=n)
        cases[f"{RUN}, {count}"] = bench.loop("run", "--threads", str(count), n=n)
    seen = bench.rounds(cases, bench.asked.rounds)
    rows = []
    for name in (FLOOR, RUN):
        if f"{name}, 1" in seen and f"{name}, 2" in seen:
            one, two = (statistics.median(s["per_s"] for s in seen[f"{name}, {count}"]) for count in (1, 2))
            rows.append([name, f"{one:.0f}", f"{two:.0f}", f"{two / one:.2f}"])
    return "Containers a second", table("way|1 thread|2 threads|ratio", rows), seen


def imports(bench: Bench) -> Part:
    python = os.path.join(bench.installed, "python")
    argv = [python, "-I", os.path.join(workload.HERE, "first_run.py"), bench.rootfs]
    seen = bench.rounds({"first_run.py": lambda: bench.report_of(argv)}, bench.asked.rounds)
    got = seen.get("first_run.py")
    rows = [[key, f"{statistics.median(sample[key] for sample in got):.2f}"] for key in got[0]] if got else []
    return "A fresh interpreter's first run", table("figure|median", rows), seen


def soak(bench: Bench) -> Part:
    try:
        report = bench.loop("run", "--soak", n=bench.asked.soak_runs)()
    except Failed as error:
        bench.missing["soak"] = str(error)
        return "Many runs in a row", "", None
    blocks: list[Figures] = report["blocks"]  # type: ignore[assignment]  # the one report that has a list
    first, last = blocks[1], blocks[-1]  # the first block still fills caches
    rows = [[key, f"{first[key]:.3f}", f"{last[key]:.3f}", f"{last[key] - first[key]:+.3f}"] for key in first]
    return f"{bench.asked.soak_runs} runs in a row, by twentieths", table("held|second|last|growth", rows), blocks


def ladder(bench: Bench) -> Part:
    cases = {name: bench.floor(*options) for name, options in LADDER.items()}
    cases.update({RUN_DIRECT: bench.loop("run-direct", n=bench.asked.n), RUN: bench.loop("run", n=bench.asked.n)})
    seen = bench.rounds(cases, bench.asked.rounds)
    rows = [[name, f"{low(seen[name]):.3f}", f"{median(seen[name]):.3f}"] for name in cases if name in seen]
    return "What the kernel charges, step by step", table("C floor, and run()|p10, ms|median, ms", rows), seen


PARTS = {
    "spawn": spawn,
    "rest": rest,
    "ready": ready,
    "sustained": sustained,
    "memory": memory,
    "threads": threads,
    "import": imports,
    "soak": soak,
    "ladder": ladder,
}


def machine() -> dict[str, object]:
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")
    return {
        "kernel": os.uname().release,
        "cpu": model,
        "cpus": os.cpu_count(),
        "python": sys.version.split()[0],
        "load": os.getloadavg(),
        "when": time.strftime("%F %T"),
    }


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rest", type=int, default=100, metavar="MS", help="idle time before each spawn of part rest")
    parser.add_argument("--n", type=int, default=25, help="spawns of a loop in a round")
    parser.add_argument("--soak-runs", type=int, default=10000)
    parser.add_argument("--seconds", type=float, default=60, help="of part sustained")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas: %(default)s")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6, help="of the random order")
    parser.add_argument("--json", metavar="FILE", help="all figures of all rounds")
    parser.add_argument("--plot", metavar="FILE.svg", help="a picture of part spawn")
    asked = parser.parse_args()
    unknown = set(asked.only.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"--only knows {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    if asked.rounds < 1 or asked.n < 1 or asked.soak_runs < 40:
        parser.error("--rounds and --n are at least 1, --soak-runs at least 40")
    if asked.plot and "spawn" not in asked.only.split(","):
        parser.error("--plot draws part spawn, which --only leaves out")
    return asked


def main() -> None:
    asked = read_options()
    if os.geteuid():
        raise SystemExit("the comparison needs root: the floor and the peers make cgroups")
    here = machine()
    print(f"Linux {here['kernel']}, {here['cpus']} x {here['cpu']}, Python {here['python']}, load {here['load']}")
    results: dict[str, object] = {"machine": here, "seed": asked.seed, "rounds": asked.rounds, "n": asked.n}
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        bench = Bench(asked, directory)
        try:
            for name in asked.only.split(","):
                title, text, results[name] = PARTS[name](bench)
                print(f"\n### {title}\n\n{text}", flush=True)
        finally:
            bench.close()
    if bench.missing:
        print("\nNot measured:\n")
        print("\n".join(f"- {name}: {reason}" for name, reason in bench.missing.items()))
    results["missing"] = bench.missing
    if asked.json:
        with open(asked.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
