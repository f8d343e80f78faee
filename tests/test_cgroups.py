"""What a cgroup is good for, in v1's hierarchies and in v2's alike: it is made, holds processes, and is gone."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import inject
import pytest
from in_cgroup import PATH, SLEEP, TOP, cgroup_of, paths_in, plan_of, process_in, unified_plan

from cycontainer.cgroup_runs import run_name, run_path, sweep
from cycontainer.cgroups import Cgroup
from cycontainer.config import Cpu, Memory, Resources
from cycontainer.errors import CgroupError, ConfigError
from cycontainer.host import current
from cycontainer.resources import CgroupPlan, HierarchyPlan

pytestmark = pytest.mark.root

LIMITS = Resources(memory=Memory(limit=64 << 20, swap=64 << 20), pids=100)
DEEPEST = b"cgroup.max.depth"


@pytest.fixture(params=["v1", "v2"])
def plan(request: pytest.FixtureRequest) -> CgroupPlan:
    """Limits in the hierarchies of one version; in a v2 that governs nothing, one that each hierarchy of v2 has."""
    v1 = bool(current().cgroups.v1)
    if request.param == "v2" and v1:
        return unified_plan(writes=((DEEPEST, b"1000"),))
    if request.param == "v1" and not v1:
        pytest.skip("needs cgroup v1 hierarchies")
    return plan_of(LIMITS)


def freezable(plan: CgroupPlan) -> CgroupPlan:
    """The same, and in v1's freezer, which v2 has in each cgroup."""
    mounts = [each.mount for each in plan.hierarchies]
    freezers = [each for each in current().cgroups.v1 if "freezer" in each.controllers and each.mount not in mounts]
    if plan.hierarchies[0].unified:
        return plan
    more = [HierarchyPlan(mount=each.mount, controllers=each.controllers) for each in freezers]
    return plan.replace(hierarchies=(*plan.hierarchies, *more))


# --- making


def test_one_that_exists_is_taken_over_only_when_it_is_empty(plan: CgroupPlan) -> None:
    with cgroup_of(plan) as cgroup, process_in(cgroup, SLEEP):
        with pytest.raises(CgroupError, match="processes are in that cgroup") as failure, cgroup_of(plan):
            pass
        assert failure.value.errno == errno.EBUSY
        assert len(cgroup.processes()) == 1, "what was there stays as it was"
        cgroup.kill()
        with cgroup_of(plan) as same:
            assert same.paths == cgroup.paths


@pytest.mark.parametrize("path", ["", "/", "/a/../b", "..", "/a//b", "/a/", "/a/./b", "/a\0b", "/" + "a/" * 3000 + "a"])
def test_a_path_that_could_lead_elsewhere_is_refused(plan: CgroupPlan, path: str) -> None:
    with pytest.raises(ConfigError, match="cgroupsPath"):
        Cgroup.create(plan, paths_in(plan, path))


@pytest.mark.parametrize("unified", [False, True])
def test_what_is_no_cgroup_file_system_is_refused(unified: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        hierarchy = HierarchyPlan(mount=directory, controllers=("pids",), unified=unified)
        with pytest.raises(CgroupError) as failure:
            Cgroup.create(CgroupPlan(hierarchies=(hierarchy,)), (PATH,))
        assert failure.value.errno == errno.EOPNOTSUPP
        assert os.listdir(directory) == []


def test_a_parent_that_was_there_before_stays(plan: CgroupPlan) -> None:
    made = f"{plan.hierarchies[0].mount}{TOP}"
    os.mkdir(made)
    try:
        with cgroup_of(plan, f"{TOP}/a/b"):
            pass
        assert [entry.name for entry in os.scandir(made) if entry.is_dir()] == []
    finally:
        os.rmdir(made)


def test_a_making_that_fails_leaves_one_that_was_there_as_it_was() -> None:
    plan = plan_of(Resources(pids=30, memory=Memory(limit=64 << 20)))
    with cgroup_of(plan) as cgroup:
        wrong = plan_of(Resources(pids=5, memory=Memory(limit=32 << 20), cpu=Cpu(cpus="4095")))
        with pytest.raises(CgroupError) as failure, cgroup_of(wrong):
            pass
        assert (failure.value.path[-12:], failure.value.value) == ("/cpuset.cpus", "4095")
        assert cgroup.read("pids.max") == b"30\n"
        v2 = cgroup.unified
        assert cgroup.read("memory.max" if v2 else "memory.limit_in_bytes") == b"%d\n" % (64 << 20)
        cpusets = [each.mount for each in wrong.hierarchies if each.mount not in [p.mount for p in plan.hierarchies]]
        assert not [mount for mount in cpusets if os.path.exists(f"{mount}{PATH}")]


def test_a_making_whose_file_is_missing_leaves_one_that_was_there_as_it_was() -> None:
    plan = unified_plan(writes=((DEEPEST, b"7"),))
    with cgroup_of(plan) as cgroup:
        with (
            pytest.raises(CgroupError) as failure,
            cgroup_of(unified_plan(writes=((DEEPEST, b"9"), (b"no.such", b"1")))),
        ):
            pass
        assert (failure.value.path.rpartition("/")[2], failure.value.value) == ("no.such", "1")
        assert cgroup.read("cgroup.max.depth") == b"7\n"


def test_a_file_that_is_only_written_is_written() -> None:
    plan = unified_plan(writes=((DEEPEST, b"7"), (b"cgroup.kill", b"1")))
    with cgroup_of(plan) as cgroup, cgroup_of(plan), process_in(cgroup, SLEEP) as process:
        cgroup.update(plan)
        assert process.wait() == -signal.SIGKILL


def test_what_cannot_be_put_back_keeps_nothing_else_from_it() -> None:
    v1 = bool(current().cgroups.v1)
    if not v1:
        pytest.skip("v2 takes any limit back: it kills who is above it")
    more = Resources(memory=Memory(limit=200 << 20, swap=200 << 20, swappiness=7))
    with cgroup_of(plan_of(Resources(memory=Memory(limit=30 << 20, swap=30 << 20, swappiness=60)))) as cgroup:
        held = []

        def use_and_fail() -> None:
            held.append(
                process_in(cgroup, "held = b'x' * (90 << 20)\nprint(flush=True)\nimport signal; signal.pause()")
            )
            process = held[0].__enter__()
            assert process.stdout and process.stdout.readline()
            raise ValueError("refused beside it")

        with pytest.raises(ValueError, match="refused beside it") as failure:
            cgroup.update(plan_of(more), use_and_fail)
        held[0].__exit__(None, None, None)
        assert "could not put the old value back" in failure.value.__notes__[0]
        assert cgroup.read("memory.swappiness") == b"60\n"


# --- many


def test_making_and_removing_leaves_nothing(plan: CgroupPlan) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(1000):
        Cgroup.create(plan, paths_in(plan, f"/cycontainer/{run_name()}")).destroy()
    assert len(os.listdir("/proc/self/fd")) == before


def in_threads(count: int, work: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as failure:
            failures.append(failure)
            raise

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.filterwarnings("default")  # a thread's exception is reported by in_threads
def test_neighbours_do_not_fight_over_the_parent_that_they_share(plan: CgroupPlan) -> None:
    def work() -> None:
        for _ in range(20):
            Cgroup.create(plan, paths_in(plan, f"{TOP}/{run_name()}")).destroy()

    in_threads(20, work)
    assert not os.path.exists(f"{plan.hierarchies[0].mount}{TOP}")


# --- processes


def test_frozen_is_stopped_and_goes_on_when_thawed(plan: CgroupPlan) -> None:
    dots = "import os\nwhile True: os.write(1, b'.')"
    with cgroup_of(freezable(plan)) as cgroup, process_in(cgroup, dots) as process:
        assert process.stdout
        process.stdout.read(1)
        cgroup.freeze()
        file, frozen = FROZEN[plan.hierarchies[0].unified]
        assert frozen in cgroup.read(file)
        cgroup.thaw()
        process.stdout.read(1 << 17)  # more than a pipe holds: it goes on
        cgroup.freeze()
        cgroup.kill()  # the frozen too
        assert cgroup.processes() == []
        assert process.wait() == -signal.SIGKILL


FROZEN = {False: ("freezer.state", b"FROZEN"), True: ("cgroup.events", b"frozen 1")}
FREEZING = {False: ("freezer.state", b"THAWED\n"), True: ("cgroup.freeze", b"0\n")}
VFORK = """
import ctypes, os, signal
libc = ctypes.CDLL(None)
if os.fork() == 0:
    CLONE_VFORK = 0x4000
    if libc.syscall(56 if os.uname().machine == "x86_64" else 220, CLONE_VFORK | 17, 0, 0, 0, 0) == 0:
        signal.pause()
signal.pause()
"""
# Only SIGKILL ends a wait of the kernel's own for a page that userfaultfd(2) withholds: no freezer does.
WITHHELD = """
import ctypes, os, fcntl, mmap, struct, signal
libc = ctypes.CDLL(None)
fd = libc.syscall(323 if os.uname().machine == "x86_64" else 282, os.O_CLOEXEC)
fcntl.ioctl(fd, 0xC018AA3F, bytearray(struct.pack("QQQ", 0xAA, 0, 0)))
page = mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
fcntl.ioctl(fd, 0xC020AA00, bytearray(struct.pack("QQQQ", address, 4096, 1, 0)))
if os.fork() == 0: signal.pause()
libc.mlock(ctypes.c_void_p(address), 4096)
"""


def state_of(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def await_state(cgroup: Cgroup, state: str, processes: int) -> None:
    """Until one of its processes is in it."""
    deadline = time.monotonic() + 20
    while len(pids := cgroup.processes()) < processes or state not in [state_of(pid) for pid in pids]:
        assert time.monotonic() < deadline, [state_of(pid) for pid in pids]
        time.sleep(0.01)


def test_who_waits_for_its_vfork_child_is_frozen_with_it(plan: CgroupPlan) -> None:
    with cgroup_of(freezable(plan)) as cgroup, process_in(cgroup, VFORK):
        await_state(cgroup, "D", processes=3)
        cgroup.freeze()
        file, frozen = FROZEN[plan.hierarchies[0].unified]
        assert frozen in cgroup.read(file)
        cgroup.thaw()


def test_where_one_cannot_be_frozen_all_go_on(plan: CgroupPlan) -> None:
    with cgroup_of(freezable(plan)) as cgroup, process_in(cgroup, WITHHELD):
        await_state(cgroup, "D", processes=2)
        begun = time.monotonic()
        with pytest.raises(CgroupError) as failure:
            cgroup.freeze()
        assert failure.value.errno == errno.EBUSY
        assert time.monotonic() - begun < 4
        file, thawed = FREEZING[plan.hierarchies[0].unified]
        assert cgroup.read(file) == thawed


@pytest.mark.skipif(not inject.AVAILABLE, reason="the registers are x86_64's")
def test_whatever_keeps_a_freezer_from_its_end_all_go_on(plan: CgroupPlan) -> None:
    file, thawed = FREEZING[plan.hierarchies[0].unified]
    failures = 0
    with cgroup_of(freezable(plan)) as cgroup, process_in(cgroup, SLEEP):
        for n in count(1):
            outcome = inject.Trial(cgroup.freeze, 0, n, errno.ENOMEM, follow=False).run()
            if outcome.error is not None:
                failures += 1
                assert cgroup.read(file) == thawed, (n, outcome)
            cgroup.thaw()
            if outcome.call < 0:
                break
    assert failures > 3


def test_no_one_freezes_or_kills_itself(plan: CgroupPlan) -> None:
    with cgroup_of(freezable(plan)) as cgroup:
        child = os.fork()
        if child == 0:
            for path in cgroup.paths:
                with open(f"{path}/cgroup.procs", "w") as file:
                    file.write("0")
            refused = 0
            for verb in (cgroup.freeze, cgroup.kill):
                try:
                    verb()
                except CgroupError as failure:
                    refused += failure.errno == errno.EDEADLK
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


FORK_BOMB = """
import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    try: os.fork()
    except OSError: pass
"""


@pytest.mark.parametrize("frozen", [True, False], ids=["with the freezer", "without"])
def test_a_fork_bomb_is_killed(frozen: bool) -> None:
    plan = plan_of(Resources(pids=30))
    with cgroup_of(freezable(plan) if frozen else plan) as cgroup, process_in(cgroup, FORK_BOMB):
        cgroup.kill()
        assert cgroup.processes() == []
        assert cgroup.read("pids.max") == b"30\n"


def test_who_ignores_every_signal_and_hides_below_is_killed(plan: CgroupPlan) -> None:
    with cgroup_of(plan) as cgroup:
        code = f"""
import os, signal
for number in range(1, 32):
    if number not in (9, 19): signal.signal(number, signal.SIG_IGN)
for path in {cgroup.paths!r}:
    os.mkdir(path + "/below")
    open(path + "/below/cgroup.procs", "w").write("0")
print(flush=True)
signal.pause()
"""
        with process_in(cgroup, code) as process:
            assert process.stdout
            process.stdout.readline()
            assert cgroup.processes() == [process.pid]
            with pytest.raises(CgroupError) as failure:
                cgroup.destroy()
            assert failure.value.errno == errno.EBUSY
            cgroup.kill()
            assert process.wait() == -signal.SIGKILL


# --- a signal to all

MANY = 90
FORKS = f"""
import os, signal
if any(os.fork() == 0 for _ in range({MANY})): signal.pause()
print(flush=True)
signal.pause()
"""
CHAINS = """
import os, time
def hop():
    if os.fork(): os._exit(0)
    time.sleep(0.001)
for number in range(10):
    if os.fork() == 0:
        os.close(1)
        while True: hop()
os.write(1, b"\\n")
"""


@contextmanager
def descriptors(free: int) -> Iterator[None]:
    """While no more than these can be opened."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    fd = os.open("/", os.O_PATH)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[0], 200), limits[1]))
    held = [fd]
    try:
        while True:
            held.append(os.dup(fd))
    except OSError as failure:
        assert failure.errno == errno.EMFILE
    for each in held[len(held) - free :]:
        os.close(each)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in held[: len(held) - free]:
            os.close(each)


def await_none(cgroup: Cgroup) -> None:
    deadline = time.monotonic() + 20
    while cgroup.processes():
        assert time.monotonic() < deadline, cgroup.processes()
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
@pytest.mark.parametrize("free", [20, 2, 0])
def test_a_signal_reaches_more_processes_than_descriptors_are_free(plan: CgroupPlan, free: int, number: int) -> None:
    with cgroup_of(plan.replace(hierarchies=plan.hierarchies[:1])) as cgroup, process_in(cgroup, FORKS) as process:
        assert process.stdout and process.stdout.readline()
        assert len(cgroup.processes()) == MANY + 1
        with descriptors(free):
            cgroup.signal(0)
            cgroup.signal(number)
        await_none(cgroup)


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_all_are_killed_where_no_descriptor_is_free(plan: CgroupPlan, frozen: bool) -> None:
    with cgroup_of(freezable(plan)) as cgroup, process_in(cgroup, FORKS) as process:
        assert process.stdout and process.stdout.readline()
        os.mkdir(f"{cgroup.paths[0]}/below")
        if frozen:
            cgroup.freeze()
        opened = sorted(os.listdir("/proc/self/fd"))
        with descriptors(free=0):
            cgroup.kill()
        assert (cgroup.processes(), sorted(os.listdir("/proc/self/fd"))) == ([], opened)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL], ids=["USR1", "KILL"])
def test_who_is_forked_while_the_others_get_a_signal_gets_it_too(plan: CgroupPlan, number: int) -> None:
    # without a limit, as the dead count until they are reaped
    unlimited = plan.replace(hierarchies=(plan.hierarchies[0].replace(writes=()),))
    for _ in range(10):  # one look at who is there misses one every fourth time
        with cgroup_of(unlimited) as cgroup, process_in(cgroup, CHAINS) as process:
            assert process.stdout and process.stdout.readline()
            cgroup.signal(number)
            await_none(cgroup)


def test_no_one_signals_itself_by_all(plan: CgroupPlan) -> None:
    with cgroup_of(plan) as cgroup, process_in(cgroup, SLEEP) as other:
        child = os.fork()
        if child == 0:
            for path in cgroup.paths:
                with open(f"{path}/cgroup.procs", "w") as file:
                    file.write("0")
            try:
                cgroup.signal(signal.SIGTERM)
            except CgroupError as failure:
                os._exit(failure.errno)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EDEADLK
        assert other.poll() is None


ELSEWHERE = """
import sys
from cycontainer.cgroups import Cgroup
from cycontainer.errors import CgroupError
from cycontainer.host import Hierarchy
mounts = [word.split(":") for word in sys.argv[2:]]
cgroup = Cgroup.open(tuple(Hierarchy(mount=mount, controllers=(name,), own="/") for mount, name in mounts),
                     (sys.argv[1],) * len(mounts))
try:
    cgroup.signal(15)
except CgroupError as error:
    print(error)
"""


def test_who_lives_in_another_pid_namespace_is_told_of() -> None:
    plan = unified_plan()  # v1 does not show such a process at all
    mounts = [f"{each.mount}:" for each in plan.hierarchies]
    with cgroup_of(plan) as cgroup, process_in(cgroup, SLEEP) as process:
        apart = ["unshare", "--pid", "--fork", sys.executable, "-c", ELSEWHERE, PATH, *mounts]
        done = subprocess.run(apart, check=True, capture_output=True, text=True)
        assert "lives in another pid namespace" in done.stdout
        assert process.poll() is None


# --- the end


def test_what_a_container_made_below_is_removed_however_deep_and_wide(plan: CgroupPlan) -> None:
    with cgroup_of(plan) as cgroup:
        home = os.open(cgroup.paths[0], os.O_RDONLY)
        deep = os.dup(home)
        for name in ["deeper" * 10] * 150:  # longer than any path may be
            os.mkdir(name, dir_fd=deep)
            below = os.open(name, os.O_RDONLY, dir_fd=deep)
            os.close(deep)
            deep = below
        for number in range(100):
            os.mkdir(f"{number}", dir_fd=home)
        os.close(deep)
        os.close(home)
        assert cgroup.processes() == []


OWNER, OTHER, CLONE_NEWUSER = 54321, 154321, 0x10000000


def become_owner() -> None:
    os.setgroups([])
    os.setresgid(OWNER, OWNER, OWNER)
    os.setresuid(OWNER, OWNER, OWNER)


@contextmanager
def user_namespace() -> Iterator[int]:
    """One that is the owner's, whose root is the owner, and in which the other is somebody, too."""
    code = f"""
import ctypes, os, sys
os.setgroups([]); os.setresgid({OWNER}, {OWNER}, {OWNER}); os.setresuid({OWNER}, {OWNER}, {OWNER})
assert ctypes.CDLL(None).unshare({CLONE_NEWUSER}) == 0
print(flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-I", "-S", "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline()
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{holder.pid}/{name}", "w") as file:
                file.write(f"0 {OWNER} 1\n1 {OTHER} 1\n")
        fd = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY)
        yield fd
        os.close(fd)
        holder.kill()


def test_who_is_root_in_its_user_namespace_removes_what_others_there_have_made() -> None:
    with cgroup_of(unified_plan()) as cgroup, user_namespace() as namespace:
        path, mount = cgroup.paths[0], unified_plan().hierarchies[0].mount
        os.makedirs(f"{path}/theirs/of/theirs")
        for place, who in (
            (f"{mount}{TOP}", OWNER),
            (path, OWNER),
            (f"{path}/theirs", OTHER),
            (f"{path}/theirs/of", OTHER),
        ):
            os.chown(place, who, who)
        child = os.fork()
        if child == 0:
            become_owner()
            try:
                cgroup.destroy()
            except CgroupError as failure:
                if failure.errno == errno.EACCES:
                    cgroup.destroy(within=namespace)
                    os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert not os.path.exists(path)


def test_removing_what_is_gone_is_fine(plan: CgroupPlan) -> None:
    cgroup = Cgroup.create(plan, paths_in(plan, PATH))
    cgroup.destroy()
    cgroup.destroy()
    gone = Cgroup.open(plan.hierarchies, paths_in(plan, PATH))
    gone.kill()
    assert gone.processes() == []
    gone.destroy()


def test_another_process_may_remove_what_one_made(plan: CgroupPlan) -> None:
    Cgroup.create(plan, paths_in(plan, f"{TOP}/deep/er"))
    everything = current().cgroups.all
    Cgroup.open(everything, (f"{TOP}/deep/er",) * len(everything)).destroy()
    assert not os.path.exists(f"{plan.hierarchies[0].mount}{TOP}")


# --- what is read


def test_the_peak_and_the_kills_of_memory_are_told() -> None:
    with cgroup_of(plan_of(LIMITS)) as cgroup:
        assert cgroup.memory_report()[1] == 0
        with process_in(cgroup, "b'x' * (200 << 20)") as process:
            assert process.wait() == -signal.SIGKILL
        peak, kills = cgroup.memory_report()
        assert (peak or 64 << 20, kills) == (64 << 20, 1)  # v2 has a peak since Linux 5.19


def test_where_no_memory_is_counted_nothing_is_told_of_it() -> None:
    with cgroup_of(plan_of(Resources(pids=5))) as cgroup:
        assert cgroup.memory_report() == (None, None)


@pytest.mark.parametrize("file", ["../pids.max", "", ".."])
def test_only_a_cgroup_s_own_files_are_read_and_written(plan: CgroupPlan, file: str) -> None:
    with cgroup_of(plan) as cgroup:
        with pytest.raises(ValueError, match="no file of a cgroup"):
            cgroup.read(file)
        with pytest.raises(ValueError, match="no file of a cgroup"):
            cgroup.write(file, b"1")


# --- what runs leave


@pytest.mark.parametrize("path_of", [run_path, lambda: f"/cycontainer/{run_name()}"], ids=["at the top", "below ours"])
def test_what_a_killed_caller_left_is_swept_and_nothing_else(plan: CgroupPlan, path_of: Callable[[], str]) -> None:
    others = (path_of(), f"{path_of()}-x", "/cycontainer/run-container")
    kept = [Cgroup.create(plan, paths_in(plan, path)) for path in others]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        path = path_of()
        cgroup = Cgroup.create(plan, paths_in(plan, path))
        process_in(cgroup, SLEEP).__enter__()
        os.write(writer, path.encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(writer)
    with open(reader) as file:
        left = file.read()
    assert left in sweep(current().cgroups)
    assert left not in sweep(current().cgroups)
    for cgroup in kept:
        assert os.path.isdir(cgroup.paths[0])
        cgroup.destroy()


def test_run_names_are_each_process_s_own_and_never_the_same() -> None:
    assert run_name() != run_name()
    assert run_name().startswith(f"run-{os.getpid()}-")
