"""Pools: containers that wait, each for one program; bounded, and gone with whoever made them."""

from __future__ import annotations

import asyncio
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from guard import left_since, snapshot
from ordinary import OrdinaryUser
from pace import SLOWER

from cycontainer import (
    CgroupError,
    ConfigError,
    Error,
    LaunchError,
    Pool,
    ProgramError,
    Template,
    WaitTimeout,
    aio,
    run,
)
from cycontainer._warm import Warm
from cycontainer.pool import Turn
from cycontainer.spec import default_config

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAMESPACES = "for kind in mnt pid ipc uts net cgroup; do readlink /proc/self/ns/$kind; done"


@pytest.fixture
def pool(busybox_rootfs: str) -> Iterator[Pool]:
    if os.geteuid():
        pytest.skip("needs root")
    with Pool(2, rootfs=busybox_rootfs) as made:
        assert made.fill()
        yield made


def test_a_program_in_a_waiting_container_is_a_run(pool: Pool) -> None:
    result = pool.run(["sh", "-c", "cat; echo e >&2; exit 3"], input="in", text=True)
    assert (result.returncode, result.stdout, result.stderr) == (3, "in", "e\n")
    assert pool.run(["sleep", "100"], timeout=0.1).timed_out
    assert pool.run(["env"], env={"A": "1"}).stdout == b"A=1\n"
    assert pool.run(["sh", "-c", "kill -ABRT $$"]).returncode == -6
    assert pool.run(["yes"], output_limit=100).output_exceeded
    with pytest.raises(ProgramError) as failure:
        pool.run(["no-such-program"])
    assert failure.value.program == "no-such-program"


def test_it_is_confined_as_a_run_is(pool: Pool, busybox_rootfs: str) -> None:
    script = "grep -E 'Cap|NoNew|Seccomp|Sig|Uid|Gid' /proc/self/status; ls -l /proc/self/fd | wc -l; echo /proc/[0-9]*"
    assert pool.run(["sh", "-c", script]).stdout == run(["sh", "-c", script], rootfs=busybox_rootfs).stdout
    mounts = ["sh", "-c", "cut -d' ' -f5,6 /proc/self/mountinfo | sort -u"]
    seen = set(pool.run(mounts, text=True).stdout.splitlines())
    plain = set(run(mounts, rootfs=busybox_rootfs, text=True).stdout.splitlines())
    assert {line for line in seen ^ plain if not line.startswith("/dev ")} == set()


def test_each_is_used_once_and_all_of_it_is_new(pool: Pool) -> None:
    seen = [pool.run(["sh", "-c", f"{NAMESPACES}; ls /tmp; echo 1 > /tmp/left"]).stdout for _ in range(6)]
    assert len(seen) == len(set(seen)) and not any(b"left" in one for one in seen)
    with pool.acquire() as container:
        assert container.run(["true"]).returncode == 0
        with pytest.raises(Error):
            container.run(["true"])


def test_an_ordinary_user_has_pools_too(ordinary_user: OrdinaryUser) -> None:
    assert ordinary_user(pooled) == [b"0\n", b"1\n", b"2\n"]


def pooled() -> list[bytes]:
    with Pool(2) as pool:
        return [pool.run(["echo", str(number)]).stdout for number in range(3)]


@pytest.mark.root
def test_files_go_in_and_out(busybox_rootfs: str) -> None:
    with Pool(1, rootfs=busybox_rootfs, work_size=1 << 20) as pool:
        for data in (b"1", b"2"):
            result = pool.run(["cp", "in", "out"], files={"in": data}, collect=["*"])
            assert result.files == {"in": data, "out": data}


@pytest.mark.root
def test_limits_hold_in_it(busybox_rootfs: str) -> None:
    with Pool(1, rootfs=busybox_rootfs, memory=16 << 20) as pool:
        if not pool._template._stock.plan.cgroup or not pool._template._stock.plan.cgroup.hierarchies:
            pytest.skip("needs a memory controller")
        result = pool.run(["sh", "-c", "tail /dev/zero"], timeout=30)
        assert result.oom_killed


# --- reset


@pytest.mark.root
def test_a_reset_uses_the_network_namespace_again_and_nothing_else(busybox_rootfs: str) -> None:
    with Pool(1, rootfs=busybox_rootfs, networks=1, reset=True) as pool:
        seen = []
        for _ in range(8):
            seen.append(pool.run(["sh", "-c", f"{NAMESPACES}; ls /tmp; echo 1 > /tmp/x"], text=True).stdout.split())
            pool.fill()
    assert len({one[4] for one in seen}) < 8, "the network namespaces"
    assert not any("x" in one for one in seen)


@pytest.mark.root
def test_who_could_change_a_network_is_not_reset(busybox_rootfs: str) -> None:
    config = default_config()
    for kind in ("bounding", "effective", "permitted"):
        config["process"]["capabilities"][kind] = ["CAP_NET_ADMIN"]
    with pytest.raises(ConfigError, match="reset"):
        Pool(1, rootfs=busybox_rootfs, config=config, reset=True)


def rooted(uid: int, **linux: Any) -> dict[str, Any]:
    """A configuration whose program can write sysctls, if it is root."""
    config = default_config()
    config["process"]["user"] = {"uid": uid, "gid": uid}
    config["process"]["capabilities"] = {}
    config["linux"] |= {"readonlyPaths": [], "maskedPaths": [], **linux}
    return config


PROC_AGAIN = {"destination": "/proc2", "type": "bind", "source": "/proc", "options": ["rbind"]}
SYSFS = {"destination": "/sys2", "type": "sysfs", "source": "sysfs", "options": ["nosuid"]}


@pytest.mark.root
def test_a_root_that_can_write_sysctls_is_not_reset(own_rootfs: str) -> None:
    for name in ("proc2", "sys2"):
        os.mkdir(f"{own_rootfs}/{name}")
    closed = {"readonlyPaths": ["/proc/sys"]}
    user, held = rooted(1000), rooted(1000)
    held["process"]["capabilities"] = {"bounding": ["CAP_SETUID"]}
    refused = [(rooted(0), ()), (held, ()), (rooted(0, **closed), (PROC_AGAIN,)), (rooted(0, **closed), (SYSFS,))]
    refused.append((rooted(0, **closed), ({**PROC_AGAIN, "options": ["rbind", "ro"], "source": "/"},)))
    for config, mounts in refused:
        with pytest.raises(ConfigError, match="reset: a root that can write"):
            Pool(1, rootfs=own_rootfs, config=config, mounts=mounts, reset=True)
    read_only = {**PROC_AGAIN, "options": ["rbind", "rro"]}
    for config, mounts in ((user, ()), (rooted(0, **closed), (read_only,)), (rooted(0, maskedPaths=["/proc/sys"]), ())):
        with Pool(1, rootfs=own_rootfs, config=config, mounts=mounts, reset=True) as pool:
            written = pool.run(
                ["sh", "-c", "cd /proc; echo 5 > sys/net/core/somaxconn; cd /proc2 && echo 5 > sys/net/core/somaxconn"]
            )
            assert pool.run(["sh", "-c", "cat /proc/sys/net/core/somaxconn"]).stdout != b"5\n", written


@pytest.mark.root
def test_the_hosts_procfs_below_a_root_counts(own_rootfs: str) -> None:
    config = rooted(0)
    config["root"] = {"path": "/"}
    config["mounts"] = []
    with pytest.raises(ConfigError, match="/proc/sys/net"):
        Pool(1, config=config, reset=True)


# --- faults


def test_one_that_dies_while_it_waits_is_not_used(pool: Pool) -> None:
    dead = pool._ready[0].child
    assert dead is not None
    os.kill(dead.pid, signal.SIGKILL)
    assert select.select([dead.pidfd], [], [], 20)[0]
    assert [pool.run(["echo", "1"]).stdout for _ in range(4)] == [b"1\n"] * 4


def test_no_more_wait_than_were_asked_for_and_who_waits_gives_up(pool: Pool) -> None:
    containers = [pool.acquire() for _ in range(4)]
    assert pool.fill() and len(pool._ready) == 2
    for container in containers:
        container.close()
    with pool._changed:
        pool._size, ready = 0, list(pool._ready)
        pool._ready.clear()
    with pytest.raises(WaitTimeout):
        pool.acquire(timeout=0.1)
    pool._ready.extend(ready)


def test_the_time_to_wait_is_for_all_that_are_found_dead(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Warm, "is_alive", lambda warm: False)
    with pytest.raises(WaitTimeout):
        pool.acquire(timeout=0.5)  # in which many more are set up
    monkeypatch.undo()
    assert pool.run(["echo", "1"], acquire_timeout=20 * SLOWER).stdout == b"1\n"


def test_a_container_is_that_of_one_thread(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    container, program = pool.acquire(), pool._template.program

    def meanwhile(args: Any) -> Any:
        container.close()  # as another thread would
        return program(args)

    monkeypatch.setattr(pool._template, "program", meanwhile)
    with pytest.raises(Error, match="closed"):
        container.run(["true"])
    assert not pool._lent


def queued(pool: Pool, count: int) -> None:
    """Until so many wait for a container."""
    with pool._changed:
        assert pool._changed.wait_for(lambda: len(pool._turns) == count, 20 * SLOWER)


def test_first_come_first_served_in_threads_and_on_a_loop(busybox_rootfs: str) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    served: queue.SimpleQueue[int] = queue.SimpleQueue()

    async def awaited(pool: aio.Pool, number: int) -> None:
        warm = await pool._taken(None)
        served.put(number)
        pool._source._throw_away(warm)

    def taken(pool: Pool, number: int) -> None:
        with pool.acquire():
            served.put(number)

    async def order(pool: aio.Pool) -> list[int]:
        source, waiting = pool._source, []
        assert await pool.fill(20 * SLOWER)
        with source._changed:
            source._size, kept = 0, list(source._ready)
            source._ready.clear()
        for number in range(6):
            call = awaited(pool, number) if number % 2 else asyncio.to_thread(taken, source, number)
            waiting.append(asyncio.ensure_future(call))
            await asyncio.to_thread(queued, source, number + 1)
        found = []
        for warm in kept:
            with source._changed:
                source._ready.append(warm)
                source._serve()
            found.append(await asyncio.to_thread(served.get, timeout=20 * SLOWER))
        await asyncio.gather(*waiting)
        return found

    async def main() -> list[int]:
        async with aio.Pool(6, rootfs=busybox_rootfs) as pool:
            return await order(pool)

    assert asyncio.run(main()) == list(range(6))


def test_who_waits_and_is_interrupted_leaves_what_he_had_to_the_next(pool: Pool) -> None:
    assert pool.fill()
    with pool._changed:
        pool._size = 0  # no more are set up
    with pytest.raises(KeyboardInterrupt), Turn(pool, lambda: None) as turn:
        assert turn.taken(0).is_alive() and pool._lent == 1
        pool._size = 2
        raise KeyboardInterrupt
    assert len(pool._ready) == 2 and not pool._lent
    pool._size = 0
    busy = [pool.acquire(), pool.acquire()]
    with pytest.raises(KeyboardInterrupt), Turn(pool, lambda: None):
        assert len(pool._turns) == 1
        raise KeyboardInterrupt
    assert not pool._turns
    for one in busy:
        one.close()


def test_who_waits_hears_that_it_is_closed(pool: Pool) -> None:
    told: queue.SimpleQueue[str] = queue.SimpleQueue()

    def take() -> None:
        with pytest.raises(Error) as failure:
            pool.acquire()
        told.put(str(failure.value))

    with pool._changed:
        pool._size = 0
        kept = list(pool._ready)
        pool._ready.clear()
    thread = threading.Thread(target=take)
    thread.start()
    queued(pool, 1)
    pool._ready.extend(kept)
    pool.close()
    assert told.get(timeout=20 * SLOWER) == "the pool is closed"
    thread.join()
    assert not pool._ready and not pool._turns
    began = time.monotonic()
    assert not pool.fill(60 * SLOWER) and time.monotonic() - began < 30 * SLOWER


def test_a_loop_that_is_closed_gets_none(pool: Pool) -> None:
    loop = asyncio.new_event_loop()
    busy = [pool.acquire() for _ in range(2)]
    with pool._changed:
        pool._size = 0
    while pool._ready:
        busy.append(pool.acquire())
    waiting = aio.Pool.__new__(aio.Pool)
    waiting._source = pool
    task = loop.create_task(waiting.run(["true"]))
    loop.run_until_complete(asyncio.sleep(0))
    assert len(pool._turns) == 1
    loop.close()
    with pool._changed:
        pool._size = 2
        pool._changed.notify_all()
    assert pool.run(["echo", "1"], acquire_timeout=20 * SLOWER).stdout == b"1\n"
    for one in busy:
        one.close()
    assert not pool._lent and not pool._turns
    task.get_coro().close()


def test_threads_share_one(pool: Pool) -> None:
    outputs: list[bytes] = []

    def launch(number: int) -> None:
        outputs.extend(pool.run(["echo", str(number)]).stdout for _ in range(5))

    threads = [threading.Thread(target=launch, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs) == sorted(b"%d\n" % number for number in range(6) for _ in range(5))


def test_whichever_step_of_the_program_fails_it_is_named(pool: Pool) -> None:
    plan = pool._template._stock.program
    assert plan is not None
    for step, attempt in enumerate(plan.attempts):
        pool._template._stock.program = plan.broken_at(step)
        with pytest.raises(LaunchError) as failure:
            pool.run(["true"], timeout=20)
        assert failure.value.attempt == attempt


@pytest.mark.root
def test_what_cannot_be_set_up_is_told_to_who_asks(busybox_rootfs: str) -> None:
    with Pool(1, rootfs=busybox_rootfs) as pool:
        assert pool.fill()
        stock = pool._template._stock
        good = stock.plan, stock._plan_inside
        stock.plan, stock._plan_inside = (plan.broken_at(3) for plan in good)
        pool.run(["true"])  # one waits already
        with pytest.raises(LaunchError):
            for _ in range(2):
                pool.run(["true"])
        stock.plan, stock._plan_inside = good
        assert pool.fill()
        assert pool.run(["echo", "1"], acquire_timeout=20).stdout == b"1\n"


def test_a_closed_pool_and_one_of_a_parent_are_refused(pool: Pool) -> None:
    pool.close()
    with pytest.raises(Error):
        pool.run(["true"])
    pool.close()


@pytest.mark.parametrize("keywords", [{"size": 0}, {"size": "a"}, {"size": 1, "networks": -1}, {"size": 10**9}])
def test_what_cannot_be_meant_is_refused(keywords: dict[str, Any]) -> None:
    before = snapshot()
    with pytest.raises(ConfigError):
        Pool(**keywords)
    assert not left_since(before)


@pytest.mark.root
def test_what_could_leave_processes_behind_is_not_reset(busybox_rootfs: str) -> None:
    config = default_config()
    linux = config["linux"]
    linux["namespaces"] = [namespace for namespace in linux["namespaces"] if namespace["type"] != "pid"]
    with pytest.raises(ConfigError, match="reset: without a pid namespace"):
        Pool(1, rootfs=busybox_rootfs, config=config, init=False, reset=True)
    with pytest.raises(ConfigError, match="reset: without a pid namespace"):
        Template(rootfs=busybox_rootfs, config=config, init=False, reuse=True)


@pytest.mark.root
def test_without_no_new_privileges_none_can_wait(busybox_rootfs: str) -> None:
    config = default_config()
    config["process"]["noNewPrivileges"] = False
    with pytest.raises(ConfigError):
        Pool(1, rootfs=busybox_rootfs, config=config)


KILLED = """
import os, sys, threading
from cycontainer import Pool
pool = Pool(3, rootfs=sys.argv[1], init=sys.argv[2] == "init")
assert pool.fill()
busy = pool.acquire()
assert pool.fill()
thread = threading.Thread(target=lambda: busy.run(["sleep", "1000"]), daemon=True)
thread.start()
if os.fork() == 0:  # which has all descriptors, too
    sys.stdin.read()
    os._exit(0)
print(busy.pid, *[warm.child.pid for warm in pool._ready], flush=True)
os.wait()
"""


@pytest.mark.root
@pytest.mark.parametrize("init", ["init", "alone"])
def test_a_killed_parent_leaves_nothing_running(busybox_rootfs: str, init: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", KILLED, busybox_rootfs, init]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 4
        ends = [os.pidfd_open(pid) for pid in pids]
        parent.kill()
        parent.wait()
        for end in ends:
            assert select.select([end], [], [], 20)[0], "it runs on"
            os.close(end)
    run(["true"], rootfs=busybox_rootfs)  # it takes away what cgroups are left


@pytest.mark.root
def test_what_runs_when_the_pool_is_closed_runs_on(busybox_rootfs: str) -> None:
    results: list[int] = []
    for init in (True, False):
        pool = Pool(2, rootfs=busybox_rootfs, init=init)
        container = pool.acquire()
        reader, writer = os.pipe()
        running = threading.Thread(
            target=lambda c, r: results.append(c.run(["sh", "-c", "read x; exit $x"], stdin=r).returncode),
            args=(container, reader),
        )
        running.start()
        pool.close()
        os.write(writer, b"7\n")
        running.join()
        pool._thread.join()
        for fd in (reader, writer):
            os.close(fd)
    assert results == [7, 7]


FORKED = """
import os, sys, threading
from cycontainer import Error, Pool, Template
with Pool(1, rootfs=sys.argv[1]) as pool, Template(rootfs=sys.argv[1], networks=1) as template:
    assert pool.fill() and template.fill()
    taken = pool.acquire()
    supplies = template._stock._supplies
    held = [pool._changed, supplies._changed]  # as when another thread is at work
    for lock in held:
        lock.acquire()
    pid = os.fork()
    if pid == 0:
        refused = 0
        for use in (pool.acquire, pool.fill, lambda: pool.run(["true"]), lambda: taken.run(["true"])):
            try:
                use()
            except Error:
                refused += 1
        taken.close()
        pool.close()
        assert template.run(["true"]).returncode == 0 and not template.fill()
        template.close()
        os._exit(refused != 4)
    for lock in held:
        lock.release()
    assert os.waitpid(pid, 0)[1] == 0
    assert taken.run(["true"]).returncode == 0
    assert pool.run(["true"]).returncode == 0
"""


@pytest.mark.root
def test_a_fork_has_no_pool_and_waits_for_none(busybox_rootfs: str) -> None:
    # the threads of the parent hold locks: in a fork of its own, for no one there lets go of them
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED, busybox_rootfs], check=True, cwd=PROJECT, timeout=60)
    subprocess.run([sys.executable, "-c", "from cycontainer import Pool; Pool(2)"], check=True, cwd=PROJECT, timeout=60)


# --- the thread


@pytest.mark.root
def test_whatever_fails_in_the_thread_is_told_and_it_goes_on(
    busybox_rootfs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Pool(1, rootfs=busybox_rootfs) as pool:
        assert pool.fill()

        def fail() -> None:
            raise MemoryError("none")

        monkeypatch.setattr(pool, "_make_one", fail)
        pool.run(["true"])
        told: list[str] = []

        def ask() -> None:
            with pytest.raises(Error, match="MemoryError") as failure:
                pool.acquire(timeout=20)
            told.append(str(failure.value))

        for thread in (threads := [threading.Thread(target=ask) for _ in range(3)]):
            thread.start()
        for thread in threads:
            thread.join()
        assert len(told) == 3
        monkeypatch.undo()
        assert pool.fill() and pool._failure is None
        assert pool.run(["echo", "1"]).stdout == b"1\n"


@pytest.mark.root
@pytest.mark.parametrize("error", [CgroupError("/some", 16), OSError(5, "some")])
def test_what_cannot_be_removed_is_told_when_it_is_closed(
    busybox_rootfs: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    pool = Pool(2, rootfs=busybox_rootfs)
    assert pool.fill()
    close, closed = Warm.close, []

    def fail(warm: Warm) -> None:
        close(warm)
        closed.append(warm)
        raise error

    monkeypatch.setattr(Warm, "close", fail)
    for _ in range(3):  # and to nobody who asks for a container
        assert pool.run(["echo", "1"]).stdout == b"1\n"
    assert pool.fill()
    with pytest.raises(type(error)):
        pool.close()
    assert len(closed) == 5 and not pool._ready and pool._template._closed


@pytest.mark.root
@pytest.mark.parametrize("made", [Pool, Template])
def test_without_a_thread_nothing_is_left(
    busybox_rootfs: str, monkeypatch: pytest.MonkeyPatch, made: type[Pool] | type[Template]
) -> None:
    started = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == ("cycontainer-pool" if made is Pool else "cycontainer-supplies"):
            raise RuntimeError("can't start new thread")
        started(thread)

    monkeypatch.setattr(threading.Thread, "start", fail)
    before = snapshot()
    with pytest.raises(LaunchError, match="EAGAIN"):
        Pool(2, rootfs=busybox_rootfs) if made is Pool else Template(rootfs=busybox_rootfs, networks=1)
    assert not left_since(before)
