"""The machine before and after a test: what there is now that was not there before."""

from __future__ import annotations

import gc
import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from glob import glob

SHARED: list[str] = []  # directories that many tests use, and none may change
OURS = "cycontainer"  # what the product makes on the machine is named so
PATIENCE = 2.0  # seconds for what the kernel takes away after the last process has gone


def descriptors() -> set[str]:
    """This process's open descriptors, and what each is."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"descriptor {number}: {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:
            continue  # the one that listed the directory
    return found


def children() -> set[str]:
    """This process's children, zombies too, by pid and start time."""
    found = set()
    for task in glob("/proc/self/task/*/children"):
        for pid in read(task).split():
            fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
            if fields:  # not the name: it changes with execve, and the process stays
                found.add(f"process {pid}, started at {fields[19]}")
    return found


def mounts() -> set[str]:
    """The mounts of this process's mount namespace."""
    lines = (line.split() for line in read("/proc/self/mountinfo").splitlines())
    return {f"mount {words[0]} on {words[4]} ({words[words.index('-') + 1]})" for words in lines}


def cgroups() -> set[str]:
    """The cgroups that are ours, with all below them, in every hierarchy."""
    return {f"cgroup {path}" for path in below_ours("/sys/fs/cgroup")}


def below_ours(top: str) -> Iterator[str]:
    """Every directory under `top` whose own name, or that of one above it, begins with our name."""
    for path, _, _ in os.walk(top):
        if f"/{OURS}" in path[len(top) :]:
            yield path


def network_devices() -> set[str]:
    """The devices of this process's network namespace."""
    return {f"network device {name}" for _, name in socket.if_nameindex()}


def temporary_files() -> set[str]:
    """What lies under our name where temporary files and states lie."""
    places = {tempfile.gettempdir(), "/dev/shm", "/run", os.environ.get("XDG_RUNTIME_DIR", "/run")}
    return {f"file {path}" for place in places for path in (*glob(f"{place}/{OURS}*"), *glob(f"{place}/{OURS}*/*"))}


def shared_files() -> set[str]:
    """What lies in the directories that tests share, and how many they are: then one that is gone shows, too."""
    found = {described_file(path) for top in SHARED for path in below(top)}
    return found | {f"shared files: {len(found)}"}


def below(top: str) -> Iterator[str]:
    for path, directories, files in os.walk(top):
        for name in (*directories, *files):
            yield f"{path}/{name}"


def described_file(path: str) -> str:
    """A file as it is; of a directory what lies in it tells whether it was changed."""
    status = os.lstat(path)
    own = "" if stat.S_ISDIR(status.st_mode) else f", {status.st_size} bytes, of {status.st_mtime_ns}"
    return f"shared file {path}: {stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}{own}"


def namespaces() -> set[str]:
    """The namespaces that this process's threads and descendants are in."""
    return {f"namespace {name}" for pid in ("self", *descendants()) for name in namespaces_of(pid)}


def descendants() -> list[str]:
    """The pids of this process's children, of theirs, and so on."""
    found: list[str] = []
    waiting = ["self"]
    while waiting:
        nearer = [pid for task in glob(f"/proc/{waiting.pop()}/task/*/children") for pid in read(task).split()]
        found += nearer
        waiting += nearer
    return found


def namespaces_of(pid: str) -> Iterator[str]:
    for link in glob(f"/proc/{pid}/task/*/ns/*"):
        try:
            yield os.readlink(link)
        except OSError:
            continue  # the process has ended, or is not ours to look into


def read(path: str) -> str:
    """The file's text; empty when its process has ended."""
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


VIEWS: tuple[Callable[[], set[str]], ...] = (
    descriptors,
    children,
    mounts,
    cgroups,
    network_devices,
    temporary_files,
    shared_files,
    namespaces,
)


def snapshot() -> set[str]:
    """All that a test must leave as it found it, each thing named."""
    return set().union(*(view() for view in VIEWS))


def left_since(before: set[str]) -> list[str]:
    """What has come and stays; the kernel gets `PATIENCE` to finish what it does after the last process."""
    left = snapshot() - before
    if left:
        gc.collect()  # a traceback's cycle may hold an object that closes its descriptor when it goes
    deadline = time.monotonic() + PATIENCE
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left &= snapshot()
    return sorted(described(thing) for thing in left)


def described(thing: str) -> str:
    """With what a person wants to know of it; a process's name and state, as they are now."""
    kind, _, rest = thing.partition(" ")
    if kind != "process":
        return thing
    words = read(f"/proc/{rest.split(',')[0]}/stat").partition(" ")[2]
    name, _, state = words.rpartition(")")
    return f"{thing}: {name}), state {state[1:2]}"
