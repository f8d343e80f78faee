"""The verbs on a container that runs: ps, pause, resume, update, events."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from oci_command import COMMAND, Oci, gone
from pace import SLOWER

from cycontainer.host import current
from cycontainer.resources_v2 import cpu_weight

pytestmark = [pytest.mark.root, pytest.mark.skipif(current().cgroups.mode == "none", reason="needs cgroups")]
V1 = bool(current().cgroups.v1)
NO_LIMIT = 1 << 60  # v1 shows a number of pages that no machine has


def limit(oci: Oci, file: str) -> str:
    """A file of the container's cgroup."""
    with open(f"/sys/fs/cgroup/{file.partition('.')[0] if V1 else '.'}/cycontainer/one/{file}") as opened:
        return opened.read().strip()


def memory(oci: Oci) -> int:
    """Its limit of memory, in bytes."""
    return _number(limit(oci, "memory.limit_in_bytes" if V1 else "memory.max"))


def memory_and_swap(oci: Oci) -> int:
    """That of both together."""
    if V1:
        return _number(limit(oci, "memory.memsw.limit_in_bytes"))
    return min(memory(oci) + _number(limit(oci, "memory.swap.max")), NO_LIMIT)


def _number(text: str) -> int:
    return NO_LIMIT if text == "max" else min(int(text), NO_LIMIT)


def shares(oci: Oci) -> int:
    """v1's number, or the weight that it comes to on v2."""
    return int(limit(oci, "cpu.shares" if V1 else "cpu.weight"))


def quota(oci: Oci) -> str:
    return limit(oci, "cpu.cfs_quota_us") if V1 else limit(oci, "cpu.max").split()[0]


# --- ps


def test_ps_prints_the_lines_of_the_containers_processes(oci: Oci) -> None:
    first = oci.start()
    oci.leaving("exec", "--detach", "--pid-file", "pid", "one", "cat", "/dev/zero")
    with open(f"{oci.bundle}/pid") as file:
        second = int(file.read())
    assert json.loads(oci.done("ps", "--format", "json", "one")) == sorted([first, second])
    title, *lines = oci.done("ps", "one").splitlines()
    place = title.split().index("PID")
    assert sorted(int(line.split()[place]) for line in lines) == sorted([first, second])


def test_ps_takes_options_of_ps1(oci: Oci) -> None:
    pid = oci.start()
    assert oci.done("ps", "one", "-e", "-o", "pid,comm").split() == ["PID", "COMMAND", str(pid), "sleep"]
    assert oci("ps", "one", "--no-such-option").returncode == 1
    done = oci("ps", "one", "-e", "-o", "comm")
    assert done.returncode == 1 and "no column PID" in done.stderr


def test_ps_of_a_stopped_container_prints_nobody(oci: Oci) -> None:
    oci.end(oci.start())
    assert len(oci.done("ps", "one").splitlines()) == 1
    assert oci.done("ps", "-f", "json", "one") == "[]\n"
    assert oci("ps", "two").returncode == 1


def test_ps_works_without_a_path(oci: Oci) -> None:
    oci.start()
    assert len(oci.done("ps", "one", env={}).splitlines()) == 2


# --- pause and resume


def test_a_paused_container_waits_and_goes_on(oci: Oci) -> None:
    pid = oci.start()
    oci.done("pause", "one")
    assert oci.state()["status"] == "paused"
    done = oci("exec", "one", "true")
    assert done.returncode == 255 and "cannot exec in a paused container" in done.stderr
    assert oci("pause", "one").returncode == 1
    done = oci("delete", "one")
    assert done.returncode == 1 and "cannot delete container that is not stopped: paused" in done.stderr
    oci.done("resume", "one")
    assert oci.state()["status"] == "running"
    done = oci("resume", "one")
    assert done.returncode == 1 and "container not paused" in done.stderr
    oci.end(pid)
    done = oci("pause", "one")
    assert done.returncode == 1 and "container not running" in done.stderr


def test_exec_in_a_paused_container_waits_when_it_is_told_to(oci: Oci) -> None:
    oci.start()
    oci.done("pause", "one")
    words = ["exec", "--ignore-paused", "one", "echo", "at last"]
    with subprocess.Popen([*COMMAND, "--root", oci.states, *words], stdout=subprocess.PIPE) as waiting:
        oci.done("resume", "one")
        assert waiting.communicate(timeout=20)[0] == b"at last\n" and waiting.returncode == 0


def test_a_paused_container_dies_of_sigkill(oci: Oci) -> None:
    pidfd = os.pidfd_open(oci.start())
    oci.done("pause", "one")
    oci.done("kill", "one", "KILL")
    gone(pidfd)


def test_a_paused_container_is_deleted_by_force(oci: Oci) -> None:
    oci.start()
    oci.done("pause", "one")
    oci.done("delete", "--force", "one")


# --- a thousand


def test_a_thousand_containers_are_listed_in_half_a_second(oci: Oci) -> None:
    oci.create()
    with open(f"{oci.states}/one/state") as file:
        state = file.read()
    for number in range(1000):
        os.mkdir(f"{oci.states}/one-{number}")
        os.mkfifo(f"{oci.states}/one-{number}/go")
        with open(f"{oci.states}/one-{number}/state", "w") as file:
            file.write(state.replace("\nid one\n", f"\nid one-{number}\n"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(oci.done("list", "--format", "json"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert len(found) == 1001 and {each["status"] for each in found} == {"created", "running"}
    assert (
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5 * SLOWER
    )  # what a busy machine adds is left out
    for number in range(1000):
        shutil.rmtree(f"{oci.states}/one-{number}")


# --- update


def test_update_changes_limits_by_options(oci: Oci) -> None:
    oci.start()
    oci.done("update", "one", "--memory", "50M", "--memory-swap", "60m", "--pids-limit", "20", "--cpu-share=512")
    oci.done("update", "--cpu-period", "50000", "--cpu-quota", "20000", "--cpuset-cpus", "0", "one")
    assert (memory(oci), memory_and_swap(oci)) == (50 << 20, 60 << 20)
    assert (limit(oci, "pids.max"), shares(oci), quota(oci)) == ("20", 512 if V1 else cpu_weight(512), "20000")
    assert limit(oci, "cpuset.cpus") == "0"


def inside(oci: Oci, file: str) -> str:
    """A file of its cgroup as the container sees it; "" where this kernel has none."""
    path = f"/sys/fs/cgroup/{file.partition('.')[0] if V1 else '.'}/{file}"
    return oci.done("exec", "one", "sh", "-c", f"test ! -e {path} || cat {path}").strip()


def test_update_changes_a_weight_of_block_io_as_it_is_seen_inside(oci: Oci) -> None:
    oci.start()
    files = ("blkio.weight", "blkio.bfq.weight") if V1 else ("io.weight", "io.bfq.weight")
    if not any(inside(oci, file) for file in files):
        done = oci("update", "--blkio-weight", "250", "one")
        assert done.returncode == 1 and "weight" in done.stderr
        pytest.skip("this kernel has no weights of block I/O: the update was refused")
    oci.done("update", "--blkio-weight", "250", "one")
    others = {"io.weight": "2425"}  # 10 to 1000 are 1 to 10000 there
    assert any(inside(oci, file).removeprefix("default ") == others.get(file, "250") for file in files)


def test_update_changes_real_time_as_it_is_seen_inside(oci: Oci) -> None:
    config = oci.config("sleep", "1000")
    config["linux"]["cgroupsPath"] = "/cycontainer-real-time"  # directly below the root, which has all
    oci.write(config=config)
    oci.start()
    if not inside(oci, "cpu.rt_period_us"):
        done = oci("update", "--cpu-rt-period", "500000", "--cpu-rt-runtime", "1000", "one")
        assert done.returncode == 1 and ("real" in done.stderr or "cpu.rt_" in done.stderr)
        return  # v2, or a kernel without
    oci.done("update", "--cpu-rt-period", "500000", "one")
    assert inside(oci, "cpu.rt_period_us") == "500000"
    with open("/sys/fs/cgroup/cpu/cpu.rt_runtime_us") as file:
        if int(file.read()) < 1000:
            pytest.skip("the cgroup that the tests run in was given no real time")
    oci.done("update", "--cpu-rt-period", "1000000", "--cpu-rt-runtime", "1000", "one")
    assert (inside(oci, "cpu.rt_period_us"), inside(oci, "cpu.rt_runtime_us")) == ("1000000", "1000")


@pytest.mark.parametrize(("size", "swap"), [(200, 300), (20, 30), (200, -1), (20, 400)])
def test_memory_and_swap_change_in_either_direction(oci: Oci, size: int, swap: int) -> None:
    oci.start()
    oci.done("update", "--memory", "100M", "--memory-swap", "150M", "one")
    oci.done("update", "--memory", f"{size}M", "--memory-swap", f"{swap}M" if swap > 0 else "-1", "one")
    assert (memory(oci), memory_and_swap(oci)) == (size << 20, swap << 20 if swap > 0 else NO_LIMIT)


@pytest.mark.parametrize(
    ("text", "size"),
    [("52428800", 50 << 20), ("50mb", 50 << 20), ("50MiB", 50 << 20), ("0.5g", 1 << 29), ("1.5m", 3 << 19)],
)
def test_a_size_is_written_in_several_ways(oci: Oci, text: str, size: int) -> None:
    oci.start()
    oci.done("update", "--memory", text, "one")
    assert memory(oci) == size


def test_swap_alone_and_no_limit_at_all(oci: Oci) -> None:
    oci.start()
    oci.done("update", "--memory", "100M", "--memory-swap", "150M", "one")
    oci.done("update", "--memory-swap", "120M", "one")
    assert memory_and_swap(oci) == 120 << 20
    oci.done("update", "--memory", "-1", "one")
    assert memory_and_swap(oci) == NO_LIMIT


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"limit": 4096, "checkBeforeUpdate": True}, "rejecting memory limit 4096"),
        ({"limit": 4096, "swap": 8192, "checkBeforeUpdate": True}, "rejecting memory+swap limit 8192"),
    ],
)
def test_a_limit_below_what_is_in_use_is_rejected_when_it_is_to_be_checked(
    oci: Oci, document: dict[str, Any], text: str
) -> None:
    oci.start()
    before = memory(oci), memory_and_swap(oci)
    done = oci("update", "-r", "-", "one", stdin=None, input=json.dumps({"memory": document}))
    assert done.returncode == 1 and text in done.stderr
    assert (memory(oci), memory_and_swap(oci)) == before


def test_update_reads_a_document(oci: Oci, tmp_path: Path) -> None:
    oci.start()
    document: dict[str, Any] = {"memory": {"limit": 64 << 20, "swap": 0}, "cpu": {"shares": 100, "cpus": ""}}
    with open(tmp_path / "resources.json", "w") as file:
        json.dump(document, file)
    oci.done("update", "--resources", f"{tmp_path}/resources.json", "one")
    assert (memory(oci), shares(oci)) == (64 << 20, 100 if V1 else cpu_weight(100))
    done = subprocess.run(
        [*COMMAND, "--root", oci.states, "update", "-r", "-", "one"], input=b'{"pids": {"limit": 33}}', check=True
    )
    assert done.returncode == 0 and limit(oci, "pids.max") == "33"


def test_an_update_that_fails_changes_nothing(oci: Oci) -> None:
    oci.start()
    before = memory(oci), limit(oci, "pids.max")
    for words in (
        ("--pids-limit", "20", "--cpuset-cpus", "4000"),
        ("--memory", "1Q"),
        ("--memory", "x"),
        ("--cpu-period", "5"),
        ("--l3-cache-schema", "L3:0=f"),
        ("--resources", "/no/such/file"),
    ):
        done = oci("update", *words, "one")
        assert done.returncode == 1 and done.stderr.startswith("cycontainer: "), words
    assert (memory(oci), limit(oci, "pids.max")) == before
    assert oci.done("update", "--kernel-memory", "50M", "one") == ""


# --- events


def test_stats_are_printed_once(oci: Oci) -> None:
    oci.start()
    event = json.loads(oci.done("events", "--stats", "one"))
    assert (event["type"], event["id"], event["data"]["pids"]["current"]) == ("stats", "one", 1)
    assert event["data"]["memory"]["usage"]["usage"] > 0


def test_events_come_at_their_intervals_until_the_end(oci: Oci) -> None:
    pid = oci.start()
    command = [*COMMAND, "--root", oci.states, "events", "--interval", "10ms", "one"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as events:
        assert events.stdout is not None
        for _ in range(3):
            assert json.loads(events.stdout.readline())["type"] == "stats"
        oci.end(pid)
        events.stdout.read()
        assert events.wait(20) == 0


def test_out_of_memory_is_an_event(oci: Oci) -> None:
    config = oci.config("sh", "-c", "while ! test -e /tmp/go; do sleep 0.01; done; head -c 100m /dev/zero | tail")
    config["linux"]["resources"] = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    oci.write(config=config)
    oci.start()
    command = [*COMMAND, "--root", oci.states, "events", "--interval", "1ms", "one"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as events:
        assert events.stdout is not None
        assert json.loads(events.stdout.readline())["type"] == "stats"  # it watches
        oci.done("exec", "one", "touch", "/tmp/go")
        types = {json.loads(line)["type"] for line in events.stdout}
        assert "oom" in types and events.wait(20) == 0


@pytest.mark.parametrize("words", [("--interval", "0s"), ("--interval", "5"), ("--interval", "5x"), ("--interval", "")])
def test_intervals_that_are_none(oci: Oci, words: tuple[str, ...]) -> None:
    assert oci("events", *words, "one").returncode == 1


def test_events_of_a_stopped_container_fail(oci: Oci) -> None:
    oci.end(oci.start())
    for words in ((), ("--stats",)):
        done = oci("events", *words, "one")
        assert done.returncode == 1 and "container not running" in done.stderr
