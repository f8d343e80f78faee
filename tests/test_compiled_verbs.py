"""The verbs that change a container, by the compiled command and in Python: the same words, results and remains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
from both_ways import WAYS, Both
from oci_command import PATIENCE, Oci, gone

from cycontainer.errors import LONGEST_SHOWN
from cycontainer.host import current
from cycontainer.lifecycle import Container

pytestmark = [pytest.mark.root, pytest.mark.cgroups]

SCRIPT, UNPRINTABLE = "script", "a\x01b"  # programs that tests put into the root file system
TRAPS = "trap 'echo usr1 >> /tmp/said' USR1; : > /tmp/ready; while :; do sleep 0.01; done"


@pytest.fixture
def both(tmp_path: Path, busybox_rootfs: str) -> Iterator[Both]:
    found = Both(tmp_path, busybox_rootfs)
    yield found
    found.each(Oci.clean)
    for name in (SCRIPT, UNPRINTABLE):
        Path(f"{busybox_rootfs}/bin/{name}").unlink(missing_ok=True)


# --- situations


def none(oci: Oci) -> None:
    os.makedirs(oci.states)


def half_made(oci: Oci) -> None:
    os.makedirs(f"{oci.states}/one")


def created(oci: Oci) -> None:
    oci.create()


def running(oci: Oci) -> None:
    oci.start()


def paused(oci: Oci) -> None:
    oci.start()
    oci.done("pause", "one")


def paused_early(oci: Oci) -> None:
    oci.create()
    oci.done("pause", "one")


def stopped(oci: Oci) -> None:
    oci.end(oci.start())


def without_pid_namespace(oci: Oci) -> None:
    config = oci.config("sh", "-c", "sleep 1000 & sleep 1000 & wait")
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    config["mounts"] = [each for each in config["mounts"] if each["type"] != "proc"]
    config["linux"]["maskedPaths"] = config["linux"]["readonlyPaths"] = []
    oci.write(config=config)
    oci.start()


def program_that_cannot_be_executed(oci: Oci) -> None:
    script = f"{oci.rootfs}/bin/{SCRIPT}"
    Path(script).write_text("#!/bin/cat\n")
    os.chmod(script, 0o755)
    oci.write(f"/bin/{SCRIPT}")
    oci.create()
    Path(script).write_text("#!/no/such/interpreter\n")


def program_that_does_not_print(oci: Oci) -> None:
    oci.write("sh", "-c", ":")
    config = oci.config(f"/bin/{UNPRINTABLE}")
    script = f"{oci.rootfs}/bin/{UNPRINTABLE}"
    Path(script).write_text("#!/bin/cat\n")
    os.chmod(script, 0o755)
    oci.write(config=config)
    oci.create()
    Path(script).write_text("#!/no/such/interpreter\n")


def init_that_died(oci: Oci) -> None:
    pid = oci.create()
    first = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    gone(first)


def with_a_hook_at_the_start(oci: Oci) -> None:
    config = oci.config("sleep", "1000")
    config["hooks"] = {"poststart": [{"path": "/bin/sh", "args": ["sh", "-c", "echo late >&2; exit 4"]}]}
    oci.write(config=config)
    oci.create()


def with_a_hook_at_the_end(oci: Oci) -> None:
    config = oci.config("sleep", "1000")
    config["hooks"] = {"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", "echo last >&2; exit 4"]}]}
    oci.write(config=config)
    oci.start()


SITUATIONS: list[Callable[[Oci], None]] = [
    none, half_made, created, running, paused, paused_early, stopped, without_pid_namespace, init_that_died,
    program_that_cannot_be_executed, program_that_does_not_print, with_a_hook_at_the_start, with_a_hook_at_the_end,
]  # fmt: skip
NEED_PYTHON = {
    (program_that_does_not_print, "start"),
    (with_a_hook_at_the_start, "start"),
    (with_a_hook_at_the_end, "delete"),
}
VERBS: list[list[str]] = [
    ["start", "one"],
    ["pause", "one"],
    ["resume", "one"],
    ["kill", "one"],
    ["kill", "one", "KILL"],
    ["kill", "--all", "one", "sigkill"],
    ["kill", "-a", "one", "0"],
    ["kill", "one", "9"],
    ["delete", "one"],
    ["delete", "--force", "one"],
    ["delete", "-f", "one"],
]


def settled(oci: Oci) -> tuple[str, list[str], set[str]]:
    """What a verb has left: the status, as soon as no signal is under way; files; cgroups."""
    files = sorted(os.listdir(f"{oci.states}/one")) if os.path.isdir(f"{oci.states}/one") else []
    done = oci("state", "one")
    status = done.stdout.partition('"status": "')[2].partition('"')[0]
    name = f"cycontainer/{oci.number}-one"  # type: ignore[attr-defined]  # a Placed
    return status, files, {each.mount for each in current().cgroups.all if os.path.isdir(f"{each.mount}/{name}")}


def await_end(oci: Oci, words: list[str]) -> None:
    """After a signal that ends the container: until it has."""
    done = oci("state", "one")
    pid = int(done.stdout.partition('"pid": ')[2].partition(",")[0] or 0)
    if pid and words[0] == "kill" and words[-1].upper() in ("KILL", "SIGKILL", "9"):
        try:
            first = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        gone(first)


def every_case() -> Iterator[object]:
    """Each verb in each situation; of four, three are for `./bootstrap test`."""
    for number, (situation, words) in enumerate(product(SITUATIONS, VERBS)):
        marks = [pytest.mark.slow] if number % 4 else []
        yield pytest.param(situation, words, marks=marks, id=f"{situation.__name__}, {' '.join(words)}")


@pytest.mark.parametrize(("situation", "words"), list(every_case()))
def test_a_verb_says_and_leaves_the_same(situation: Callable[[Oci], None], words: list[str], both: Both) -> None:
    both.each(situation)
    both.same(
        ["--log", "@log", "--log-format", "json", "--root", "@states", *words],
        alone=(situation, words[0]) not in NEED_PYTHON,
    )
    both.each(lambda oci: await_end(oci, words))
    left = [settled(oci) for oci in both.places.values()]
    assert left[0] == left[1] == left[2] or ((situation, words[0]) in NEED_PYTHON and left[1] == left[2])


# --- words


@pytest.mark.parametrize(
    "words",
    [
        ["kill"],
        ["kill", "one", "FROB"],
        ["kill", "one", "65"],
        ["kill", "one", "-1"],
        ["kill", "one", "1 "],
        ["kill", "one", "SIG9"],
        ["kill", "one", ""],
        ["kill", "one", "RTMIN+40"],
        ["kill", "one", "9", "9"],
        ["kill", "--all=perhaps", "one"],
        ["start"],
        ["start", "../one"],
        ["delete", "--regex", "("],
        ["delete", "--regex", "^none$"],
        ["delete", "--force=false", "one"],
        ["pause", "--frob", "one"],
        ["resume", "-h"],
        ["delete", "--force", "a/b"],
    ],
    ids=" ".join,
)
def test_words_that_are_off(words: list[str], both: Both) -> None:
    both.each(created)
    both.same(["--root", "@states", *words], alone=False)


@pytest.mark.parametrize("name", ["USR1", "SIGUSR1", "usr1", "10", "RTMIN+3", "SIGRTMAX"])
def test_a_signal_arrives(name: str, both: Both) -> None:
    def prepare(oci: Oci) -> None:
        config = oci.config("sh", "-c", TRAPS)
        config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
        oci.write(config=config)
        oci.start()
        oci.done("exec", "one", "sh", "-c", "until test -e /tmp/ready; do sleep 0.01; done")

    both.each(prepare)
    both.same(["--root", "@states", "kill", "one", name], alone="RT" not in name)
    if "RT" not in name:
        wait = "until test -e /tmp/said; do sleep 0.01; done; cat /tmp/said"
        both.each(lambda oci: assert_equal(oci.done("exec", "one", "sh", "-c", wait), "usr1\n"))
    else:
        both.each(lambda oci: assert_equal(oci("state", "one").returncode, 0))


def assert_equal(one: object, other: object) -> None:
    assert one == other


def without_a_cgroup(oci: Oci) -> None:
    without_pid_namespace(oci)
    oci.done("delete", "--force", "one")
    config = json.loads(Path(f"{oci.bundle}/config.json").read_text())
    del config["linux"]["resources"], config["linux"]["cgroupsPath"]
    oci.write(config=config)
    oci.leaving("--cgroup-manager", "disabled", "create", "one")
    oci.done("start", "one")


def is_asleep(oci: Oci, *, children: int) -> bool:
    with open(f"/proc/{oci.pid()}/task/{oci.pid()}/children") as file:
        return len(file.read().split()) == children


@pytest.mark.parametrize("name", ["TERM", "KILL", "0"])
def test_all_of_a_container_in_the_host_s_pid_namespace_get_a_signal(name: str, both: Both) -> None:
    both.each(without_pid_namespace)
    both.each(lambda oci: until(lambda: is_asleep(oci, children=2)))
    opened = [
        os.pidfd_open(pid) for oci in both.places.values() for pid in Container.load("one", root=oci.states).pids()
    ]
    assert len(opened) == 9
    check_that_all_end(both, name, opened)


@pytest.mark.parametrize("name", ["TERM", "KILL", "0"])
def test_where_there_is_no_cgroup_the_first_process_gets_what_all_should(name: str, both: Both) -> None:
    both.each(without_a_cgroup)
    both.each(lambda oci: until(lambda: is_asleep(oci, children=2)))
    places = list(both.places.values())
    first = [os.pidfd_open(oci.pid()) for oci in places]
    others = []
    for oci in places:
        with open(f"/proc/{oci.pid()}/task/{oci.pid()}/children") as file:
            others += [int(pid) for pid in file.read().split()]
    try:
        check_that_all_end(both, name, first)
    finally:
        for pid in others:
            os.kill(pid, signal.SIGKILL)


def check_that_all_end(both: Both, name: str, pidfds: list[int]) -> None:
    """`kill --all` ends these processes, but for signal 0; it succeeds, also when none is left."""
    words = ["--root", "@states", "kill", "--all", "one", name]
    assert both.same(words)[0] == 0
    if name == "0":
        both.each(lambda oci: assert_equal(oci.state()["status"], "running"))
        both.each(lambda oci: oci.end(oci.pid()))
    for pidfd in pidfds:
        gone(pidfd)
    assert both.same(words)[0] == 0


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- several at once, and a state that is being changed


def holder_of(oci: Oci) -> subprocess.Popen[bytes]:
    """Who has the container's lock until it hears a line, or the end."""
    words = ["flock", f"{oci.states}/one", "sh", "-c", "echo held; read go"]
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    return holder


def test_a_verb_waits_for_another_that_holds_the_container(both: Both) -> None:
    """The compiled command leaves the waiting to the interpreter."""
    both.each(created)
    for way in WAYS[1:]:
        oci, holder = both.places[way], holder_of(both.places[way])
        assert holder.stdin and holder.stdout
        with subprocess.Popen([*both.calls[way], "--root", oci.states, "start", "one"]) as waiting:
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(0.3)
            assert oci.state()["status"] == "created"
            holder.stdin.close()
            assert waiting.wait(20) == 0
        holder.stdout.close()
        assert holder.wait(20) == 1
        assert oci.state()["status"] == "running"


def test_a_verb_does_not_wait_for_ever_and_says_for_whom_it_did(both: Both) -> None:
    """What `delete --force` is to end is dead by then."""
    both.each(running)
    holders = {way: holder_of(both.places[way]) for way in WAYS[1:]}
    firsts = {way: os.pidfd_open(both.places[way].pid()) for way in WAYS[1:]}
    verbs = ["delete --force one", "start one", "delete one", "pause one", "resume one"]
    calls = [(way, ["--root", "@states", *verb.split()]) for way in WAYS[1:] for verb in verbs]
    with ThreadPoolExecutor(len(calls)) as pool:
        answers = list(pool.map(lambda call: both.said(*call), calls))
    for way, holder in holders.items():
        gone(firsts[way])
        holder.communicate()
        oci = both.places[way]
        words = f"flock {oci.states}/one sh -c echo held; read go"[-LONGEST_SHOWN:]
        text = f"cycontainer: the container is being changed by pid {holder.pid} (...{words}): one\n"
        ours = [answer for call, answer in zip(calls, answers) if call[0] == way]
        assert ours == [(1, b"", both.neutral(way, text.encode()), b"")] * len(verbs)
        oci.done("delete", "--force", "one")


def test_of_a_removal_that_breaks_off_no_reader_sees_half(both: Both) -> None:
    both.each(stopped)
    for way, oci in both.places.items():
        busy = [f"{oci.states}/one/{number}" for number in range(10)]  # in whatever order it is come by
        for path in busy:
            os.mkdir(path)
            subprocess.run(["mount", "-t", "tmpfs", "busy", path], check=True)
        assert both.said(way, ["--root", "@states", "delete", "one"])[0] == 1
        assert oci("state", "one").stderr == "cycontainer: container does not exist: one\n"
        for path in busy:
            if os.path.ismount(path):
                subprocess.run(["umount", path], check=True)
        assert oci.done("delete", "--force", "one") == ""
        assert os.listdir(oci.states) == []


def test_of_starts_and_deletes_at_once_each_is_whole(both: Both) -> None:
    both.each(created)
    oci = both.places["compiled"]
    ways = [both.calls[way] for way in ("compiled", "python", "compiled", "python")]
    starts = [subprocess.Popen([*way, "--root", oci.states, "start", "one"], stderr=subprocess.PIPE) for way in ways]
    said = [process.communicate(timeout=20)[1] for process in starts]
    assert sorted(process.returncode for process in starts) == [0, 1, 1, 1], said
    deletes = [
        subprocess.Popen([*way, "--root", oci.states, "delete", "--force", "one"], stderr=subprocess.PIPE)
        for way in ways
    ]
    assert [(process.communicate(timeout=20)[1], process.returncode) for process in deletes] == [(b"", 0)] * 4
    assert os.listdir(oci.states) == []
