"""What processes have: their threads, signals, timers, descriptors, locks, confinement. It is there after a restore."""

from __future__ import annotations

from typing import Any

import pytest
from saved import Obedient, Round, config_of, python, python_config

from cycontainer._fd import effective_capabilities
from cycontainer.errors import CriuError

pytestmark = [pytest.mark.root, pytest.mark.criu]


@pytest.fixture
def top(tmp_path: object) -> str:
    return str(tmp_path)


TIMERS = "0 1000 True\n" * 2  # no error, the interval, and what is left of the time


def test_threads_signals_and_timers(top: str) -> None:
    before = """
        import ctypes, os, queue, signal, threading, time
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        asked, answered = queue.Queue(), queue.Queue()
        def work(n=0):
            while (n := n + asked.get()) >= 0:
                answered.put(n)
        threading.Thread(target=work, daemon=True).start()
        asked.put(1); answered.get()
        caught = []
        signal.signal(signal.SIGALRM, lambda *_: caught.append("alarm"))
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGUSR2)
        signal.setitimer(signal.ITIMER_REAL, 5000, 1000)
        libc, timer, times = ctypes.CDLL(None), ctypes.c_void_p(), (ctypes.c_long * 4)(1000, 0, 5000, 0)
        file = libc.timerfd_create(time.CLOCK_MONOTONIC, 0); libc.timerfd_settime(file, 0, times, None)
        libc.timer_create(time.CLOCK_MONOTONIC, None, ctypes.byref(timer)); libc.timer_settime(timer, 0, times, None)
    """
    after = """
        asked.put(1); print(answered.get(), len(os.listdir("/proc/self/task")))
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        print(3000 < left <= 5000, interval, signal.getsignal(signal.SIGUSR1).name, *signal.sigpending())
        for get, which in ((libc.timerfd_gettime, file), (libc.timer_gettime, timer)):
            print(get(which, times), times[0], 3000 < times[2] <= 5000)
        os.kill(os.getpid(), signal.SIGALRM); print(*caught); caught.clear()
    """
    said = Round(top, python_config(f"{top}/root")).run(python(before), python(after), times=2)
    assert said[1:] == [f"{n} 2\nTrue 1000.0 SIG_IGN 12\n{TIMERS}alarm\n" for n in (2, 3)]


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("mode", ["soft", "full"])
def test_a_stopped_process(busybox_rootfs: str, top: str, paused: bool, mode: str) -> None:
    config, root, options = config_of(busybox_rootfs), f"{top}/states", {"manage_cgroups_mode": mode}
    stopped = "until grep -q stopped /proc/$!/status; do :; done"
    with Obedient.start("one", config, root) as first:
        first.do(f"sleep 1000 <&- >&- 2>&- & kill -STOP $!; {stopped}")
        if paused:
            first.container.pause()
        first.container.checkpoint(f"{top}/images", leave_running=True, **options)
        assert first.container.status == ("paused" if paused else "running")
        if paused:
            first.container.resume()
        first.do(stopped)  # criu lets go of it, and then it stops again
    with Obedient.restore("two", config, f"{top}/images", root, **options) as second:
        second.do(f"{stopped}; kill -CONT $!; while grep -q stopped /proc/$!/status; do :; done")


def test_descriptors(top: str) -> None:
    before = """
        import mmap, os, select, socket
        pipe = os.pipe(); os.write(pipe[1], b"in a pipe")
        pair = socket.socketpair(); pair[0].send(b"in a socket")
        server = socket.socket(socket.AF_UNIX); server.bind("/tmp/server"); server.listen()
        client = socket.socket(socket.AF_UNIX); client.connect("/tmp/server"); peer = server.accept()[0]
        datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); datagram.bind("/tmp/datagram")
        file = open("/tmp/file", "w+"); file.write("0123456789"); file.seek(4)
        secret = os.memfd_create("secret"); os.write(secret, b"in memory")
        event = os.eventfd(7)
        watch = select.epoll(); watch.register(event, select.EPOLLIN)
        shared = mmap.mmap(-1, 4096)
        if not (child := os.fork()):
            while os.read(pair[1].fileno(), 100) != b"end": shared[0] += 1; peer.send(b"x")
            os._exit(0)
        while not shared[0]: pass
    """
    after = """
        print(os.read(pipe[0], 100), file.read(3), file.tell(), os.pread(secret, 100, 0), watch.poll())
        n = shared[0]; pair[0].send(b"again")
        client.recv(1); client.recv(1)
        print(shared[0] - n)
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"by name", "/tmp/datagram"); print(datagram.recv(100))
        pair[0].send(b"end"); print(os.waitpid(child, 0)[1])
    """
    said = Round(top, python_config(f"{top}/root")).run(python(before), python(after))[1]
    assert said.splitlines()[0].startswith("b'in a pipe' 456 7 b'in memory' [(")
    assert said.splitlines()[1:] == ["1", "b'by name'", "0"]


def test_file_locks(top: str) -> None:
    config, options = python_config(f"{top}/root"), {"file_locks": True}
    hold = """
        import fcntl, os
        files = [open(f"/tmp/{name}", "w") for name in ("whole", "range")]
        fcntl.flock(files[0], fcntl.LOCK_EX)
        fcntl.lockf(files[1], fcntl.LOCK_EX, 10, 5)
    """
    look = """
        ways = [("whole", fcntl.flock, ()), ("range", fcntl.lockf, (10, 5)), ("range", fcntl.lockf, (4,))]
        for name, lock, area in ways:
            child = os.fork()
            if not child:
                try: lock(open(f"/tmp/{name}", "w"), fcntl.LOCK_EX | fcntl.LOCK_NB, *area)
                except BlockingIOError: os._exit(1)
                os._exit(0)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    with Obedient.start("one", config, f"{top}/states") as subject:
        subject.do(python(hold))
        with pytest.raises(CriuError, match=r"--file-locks \(file_locks\)"):
            subject.container.checkpoint(f"{top}/images")
        assert subject.do(python(look)) == "1\n1\n0\n"
    said = Round(top, config).run(python(hold), python(look), times=2, saving=options, restoring=options)
    assert said[1:] == ["1\n1\n0\n"] * 2


def test_names_and_shared_memory(top: str) -> None:
    config = python_config(f"{top}/root")
    config.update(hostname="saved", domainname="saved.domain")
    before = """
        import ctypes, os, sys
        libc = ctypes.CDLL(None)
        libc.shmat.restype = ctypes.c_void_p
        segment = libc.shmget(4711, 4096, 0o1600)
        ctypes.memset(libc.shmat(segment, None, 0), ord("s"), 5)
        semaphores = libc.semget(4712, 1, 0o1600)
        libc.semctl(semaphores, 0, 16, 42)
        queue = libc.msgget(4713, 0o1600)
        libc.msgsnd(queue, b"\\1\\0\\0\\0\\0\\0\\0\\0message", 7, 0)
    """
    after = """
        names = os.uname().nodename, open("/proc/sys/kernel/domainname").read().strip()
        found = ctypes.create_string_buffer(100)
        size = libc.msgrcv(libc.msgget(4713, 0), found, 50, 0, 0)
        print(*names, ctypes.string_at(libc.shmat(libc.shmget(4711, 0, 0), None, 0), 5), found.raw[8 : 8 + size])
        print(libc.semctl(libc.semget(4712, 0, 0), 0, 12))
    """
    said = Round(top, config).run(python(before), python(after))[1]
    assert said == "saved saved.domain b'sssss' b'message'\n42\n"


LOOK = """
    import os, resource
    with open("/proc/self/status") as file:
        wanted = ("Uid", "Gid", "Groups", "Umask", "Cap", "NoNewPrivs", "Seccomp", "SigIgn")
        print(*[line.strip() for line in file if line.startswith(wanted)], sep="\\n")
    try: os.getpriority(os.PRIO_PROCESS, 0)
    except OSError as error: print(error.errno)
    print(os.getcwd(), resource.getrlimit(resource.RLIMIT_CORE), open("/proc/self/oom_score_adj").read())
"""


def confined(top: str, uid: int) -> dict[str, Any]:
    rule = {"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42}
    config = python_config(f"{top}/root", seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    user = {"uid": uid, "gid": uid and 1001, "additionalGids": [7, 8], "umask": 0o27}
    limits = [{"type": "RLIMIT_CORE", "soft": 10, "hard": 20}]
    config["process"].update(user=user, noNewPrivileges=True, cwd="/tmp", rlimits=limits, oomScoreAdj=100)
    return config


def may_raise_limits() -> bool:
    """criu reads the limits of another user's process with CAP_SYS_RESOURCE only."""
    return bool(effective_capabilities() >> 24 & 1)


@pytest.mark.parametrize("uid", [0, 1000])
def test_confinement(top: str, uid: int) -> None:
    if uid and not may_raise_limits():
        pytest.skip("criu needs CAP_SYS_RESOURCE to save another user's process")
    before, *after = Round(top, confined(top, uid)).run(python(LOOK), python(LOOK), times=2)
    assert "NoNewPrivs:\t1\nSeccomp:\t2\n" in before and "\n42\n/tmp (10, 20) 100\n" in before
    assert f"Uid:\t{uid}\t" in before and after == [before] * 2


def test_another_user_s_process_takes_a_capability(top: str) -> None:
    if may_raise_limits():
        pytest.skip("criu has CAP_SYS_RESOURCE here")
    with Obedient.start("one", confined(top, 1000), f"{top}/states") as subject:
        with pytest.raises(CriuError, match="criu needs CAP_SYS_RESOURCE"):
            subject.container.checkpoint(f"{top}/images")
        assert subject.do("print('here')") == "here\n"
