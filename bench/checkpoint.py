"""What a checkpoint, a restore and a snapshot's clone cost, against runc and a cold start, interleaved in one run.

    python bench/checkpoint.py [--rounds N] [--clones N]

As root, with criu in PATH (tests/install-criu puts one in place; runc needs iptables beside it). Prints two tables in
Markdown: dump and restore of a sleeping busybox in the default configuration, by each way; and a Python with a loaded
data set, and a Java that does the same where there is a JDK, started cold and spawned from a snapshot.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import workload

from cycontainer import Container
from cycontainer.streams import DEVNULL, PIPE

WARM = (  # half of it is imports, half a data set: what a service does before its first request
    "import sys, json, decimal, asyncio, email.message, xml.dom.minidom, sqlite3, unittest.mock, http.server, ssl\n"
    "table = {str(n): [n, str(n * n)] for n in range(600_000)}\n"
    "print('ready', flush=True)\n"
    "for line in sys.stdin: print(table[line.strip()][1], flush=True)\n"
)
WARM_JAVA = """
public class Warm {
    public static void main(String[] words) {
        var table = new java.util.HashMap<String, Long>();
        for (long n = 0; n < 2_000_000; n++) table.put(Long.toString(n), n * n);
        System.out.println("ready");
        for (var in = new java.util.Scanner(System.in); in.hasNextLine();)
            System.out.println(table.get(in.nextLine().strip()));
    }
}
"""
Times = dict[str, list[float]]


def took_ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def quiet(*words: str) -> None:
    null = subprocess.DEVNULL
    subprocess.run(words, stdin=null, stdout=null, stderr=null, check=True)


class Commands:
    """A runtime's command, on a bundle of its own."""

    def __init__(self, top: str, name: str, program: list[str], rootfs: str) -> None:
        self.name, self.top = name, f"{top}/{name.replace(' ', '-')}"
        self.program = [*program, "--root", f"{self.top}/states"]
        config = workload.config(rootfs, f"/bench-{name.replace(' ', '-')}")
        config["process"]["args"] = ["/bin/busybox", "sleep", "1000000"]
        self.config: dict[str, Any] = config
        os.mkdir(self.top)
        workload.write_bundle(f"{self.top}/bundle", config)

    def round(self, number: int) -> tuple[float, float]:
        """Milliseconds of one checkpoint and one restore."""
        bundle, images = ["--bundle", f"{self.top}/bundle"], ["--image-path", f"{self.top}/images-{number}"]
        quiet(*self.program, "run", "--detach", *bundle, "one")
        saving = took_ms(lambda: quiet(*self.program, "checkpoint", *images, "one"))
        restoring = took_ms(lambda: quiet(*self.program, "restore", "--detach", *bundle, *images, "one"))
        quiet(*self.program, "delete", "--force", "one")
        shutil.rmtree(images[1])
        return saving, restoring


class Library(Commands):
    """The same by Container, in this process."""

    def round(self, number: int) -> tuple[float, float]:
        root, images = f"{self.top}/states", f"{self.top}/images-{number}"
        streams: dict[str, Any] = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL}
        container = Container.create("one", self.config, root=root, **streams)
        container.start()
        saving = took_ms(lambda: container.checkpoint(images))
        container.delete()
        start = time.perf_counter()
        container = Container.restore("one", self.config, images, root=root, **streams)
        restoring = 1000 * (time.perf_counter() - start)
        container.delete(force=True)
        shutil.rmtree(images)
        return saving, restoring


def ways(top: str, rootfs: str) -> list[Commands]:
    installed = workload.install(f"{top}/installed")
    found = [
        Library(top, "Container", [], rootfs),
        Commands(top, "cycontainer", [f"{installed}/cycontainer"], rootfs),
    ]
    return found + [Commands(top, name, [name], rootfs) for name in ("runc",) if shutil.which(name)]


def compare(top: str, rootfs: str, rounds: int) -> None:
    entries = ways(top, rootfs)
    times: dict[str, tuple[list[float], list[float]]] = {entry.name: ([], []) for entry in entries}
    for number in range(rounds + 1):
        for entry in random.sample(entries, len(entries)):
            for figures, figure in zip(times[entry.name], entry.round(number), strict=True):
                figures += [figure] if number else []  # the first warms up
    print("| way | checkpoint, least | median | restore, least | median |\n|---|---|---|---|---|")
    for name, (saving, restoring) in times.items():
        cells = [f"{pick(figures):.0f} ms" for figures in (saving, restoring) for pick in (min, statistics.median)]
        print(f"| {name} | {' | '.join(cells)} |")


# --- clones of a warm program


def config_of(rootfs: str, words: list[str], paths: dict[str, str]) -> dict[str, Any]:
    """This machine's programs on a root of its own; `paths` are further ones that it has, and what lies there."""
    config = workload.config(rootfs, "/bench-warm")
    config["process"].update(args=words, env=["PATH=/usr/bin"])
    config["linux"]["resources"] = {}
    del config["linux"]["cgroupsPath"]
    for path, source in {**{path: path for path in ("/usr", "/lib", "/lib64", "/etc")}, **paths}.items():
        if os.path.isdir(source):
            os.makedirs(f"{rootfs}{path}", exist_ok=True)
            options = ["rbind", "ro"]
            config["mounts"].append({"destination": path, "type": "bind", "source": source, "options": options})
    return config


def programs(top: str) -> dict[str, dict[str, Any]]:
    """Configurations by name."""
    found = {"Python": config_of(f"{top}/python", [os.path.realpath(sys.executable), "-c", WARM], {})}
    compiler = shutil.which("javac")
    if compiler is not None:
        os.mkdir(f"{top}/classes")
        with open(f"{top}/classes/Warm.java", "w") as file:
            file.write(WARM_JAVA)
        quiet(compiler, "-d", f"{top}/classes", f"{top}/classes/Warm.java")
        java = os.path.realpath(compiler).removesuffix("javac") + "java"
        found["Java"] = config_of(f"{top}/java", [java, "-cp", "/classes", "Warm"], {"/classes": f"{top}/classes"})
    return found


def ask(container: Container) -> None:
    """One request, and its answer."""
    process = container.process
    assert process is not None and process.stdin is not None and process.stdout is not None
    process.stdin.write(b"1234\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"1522756\n"


def cold(config: dict[str, Any], root: str) -> Container:
    container = Container.create("cold", config, root=root, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
    container.start()
    assert container.process is not None and container.process.stdout is not None
    assert container.process.stdout.readline() == b"ready\n"
    return container


def clones(name: str, config: dict[str, Any], top: str, rounds: int, together: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    root = f"{top}/states"
    times: Times = {"cold start": [], "clone": [], f"{together} clones at once": []}
    with cold(config, root) as warm:
        taking = time.perf_counter()
        snapshot = warm.snapshot(f"{top}/snapshot-{name}")
        taking = 1000 * (time.perf_counter() - taking)

    def spawned(_: int = 0) -> Container:
        container = snapshot.spawn(root=root, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        ask(container)
        return container

    def started() -> Container:
        container = cold(config, root)
        ask(container)
        return container

    for _ in range(rounds):
        for way, make in (("cold start", started), ("clone", spawned)):
            start = time.perf_counter()
            container = make()
            times[way].append(1000 * (time.perf_counter() - start))
            container.delete(force=True)
        with ThreadPoolExecutor(together) as pool:
            start = time.perf_counter()
            made = list(pool.map(spawned, range(together)))
            times[f"{together} clones at once"].append(1000 * (time.perf_counter() - start))
        for container in made:
            container.delete(force=True)
    print(f"\n| {name}, to the first answer | least | median |\n|---|---|---|")
    for way, figures in times.items():
        print(f"| {way} | {min(figures):.0f} ms | {statistics.median(figures):.0f} ms |")
    gain = statistics.median(times["cold start"]) - statistics.median(times["clone"])
    print(f"\nTaking the snapshot took {taking:.0f} ms: it pays from the {int(taking // gain) + 1}. clone on.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clones", type=int, default=8, help="how many at once")
    asked = parser.parse_args()
    top = tempfile.mkdtemp(prefix="bench-")
    try:
        for name in ("rootfs", "python", "java"):
            workload.make_rootfs(f"{top}/{name}")
        compare(top, f"{top}/rootfs", asked.rounds)
        for name, config in programs(top).items():
            clones(name, config, top, max(3, asked.rounds // 3), asked.clones)
    finally:
        shutil.rmtree(top)


if __name__ == "__main__":
    main()
