"""Where a process, a thread or an interpreter cannot be what a run needs: it is told at once, and nothing is left."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
from ordinary import OrdinaryUser

from cycontainer import LaunchError, run, spawn

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

SECOND = """
import cycontainer
assert cycontainer.run(["echo", "1"]).stdout == b"1\\n"
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
script = '''
import cycontainer
try:
    cycontainer.run(["true"])
except ImportError as error:
    assert "interpreter" in str(error), error
else:
    raise AssertionError("it was let in")
'''
failure = interpreters.run_string(interpreters.create(), script)
assert failure is None, failure
assert cycontainer.run(["echo", "1"]).stdout == b"1\\n"
"""


def test_a_second_interpreter_is_refused_and_the_first_goes_on() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", SECOND], check=True, cwd=PROJECT, timeout=60)


def test_where_no_process_may_be_made_it_is_told(ordinary_user: OrdinaryUser) -> None:
    assert "EAGAIN" in ordinary_user(starved_of_processes)


def starved_of_processes() -> str:
    before = os.listdir("/proc/self/fd")
    limits = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, limits[1]))
    for call in (run, spawn):
        with pytest.raises(LaunchError) as failure:
            call(["true"])
    resource.setrlimit(resource.RLIMIT_NPROC, limits)
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 2  # the init's file, and the launcher's view of the mounts
    assert run(["true"]).returncode == 0
    return str(failure.value)


FACES = """
import asyncio, os, resource, sys, threading, time
import cycontainer
from cycontainer import aio

def pool():
    with cycontainer.Pool(2) as made:
        made.run(["true"], acquire_timeout=10)

def template():
    with cycontainer.Template(networks=2, cgroups=2) as made:
        made.run(["true"])

def executor():
    with cycontainer.ContainerExecutor(2, timeout=60) as made:
        made.submit(pow, 2, 3).result()

def stream():
    with cycontainer.stream(["true"]) as lines:
        list(lines)

def on_a_loop():
    asyncio.run(aio.run(["true"]))

def held():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return sorted(os.listdir("/proc/self/fd")), threading.active_count(), file.read()

FACES = (pool, template, executor, stream, on_a_loop)
for face in FACES:
    face()  # what is imported and opened once, is
before = held()
failures = 0
kind, values = {
    "processes": (resource.RLIMIT_NPROC, (1,)),
    "descriptors": (resource.RLIMIT_NOFILE, range(4, 60, 5)),
}[sys.argv[1]]
limits = resource.getrlimit(kind)
for face in FACES[:-1] if kind == resource.RLIMIT_NOFILE else FACES:  # a loop of asyncio opens descriptors itself
    for value in values:
        resource.setrlimit(kind, (value, limits[1]))
        try:
            face()
        except (cycontainer.Error, OSError, RuntimeError):  # Python says so when it can start no thread
            failures += 1
        finally:
            resource.setrlimit(kind, limits)
        deadline = time.monotonic() + 10
        while held() != before and time.monotonic() < deadline:  # a thread may still be on its way
            time.sleep(0.01)
        assert held() == before, (face, value, held(), before)
    face()
print(failures)
"""


def starved_faces(kind: str) -> int:
    """How many calls failed; nothing is left of any."""
    words = [sys.executable, "-W", "ignore", "-c", FACES, kind]
    done = subprocess.run(words, cwd=PROJECT, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_where_no_process_may_be_made_no_face_hangs_or_leaves_anything(ordinary_user: OrdinaryUser) -> None:
    assert ordinary_user(starved_faces, "processes") == 5


def test_however_few_descriptors_are_left_no_face_hangs_or_leaves_anything() -> None:
    assert starved_faces("descriptors") > 4


FULL = """
import ctypes, os
LIBC = ctypes.CDLL(None, use_errno=True)
assert LIBC.unshare(0x20000) == 0 and LIBC.mount(None, b"/", None, 16384 | 1 << 18, None) == 0
assert LIBC.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, b"size=4k,nr_inodes=2") == 0
with open("/tmp/full", "wb") as file:
    file.write(bytes(4096))
import cycontainer
for made in (cycontainer.Template(work_size=1 << 20), cycontainer.Pool(1, work_size=1 << 20)):
    with made:
        result = made.run(["cp", "in", "out"], files={"in": b"1"}, collect=["out"])
    assert result.files == {"out": b"1"}, result
with cycontainer.ContainerExecutor(1, timeout=60) as executor:
    assert executor.submit(pow, 2, 3).result() == 8
assert cycontainer.run(["sh", "-c", "echo 1 > /tmp/x; cat /tmp/x"]).stdout == b"1\\n"
"""


@pytest.mark.root
@pytest.mark.skipif(PROJECT.startswith("/tmp/"), reason="this tree lies in /tmp, which is covered here")
def test_a_full_tmp_is_no_obstacle() -> None:
    subprocess.run([sys.executable, "-c", FULL], check=True, cwd=PROJECT, timeout=60)


FORKED = """
import os, asyncio
import cycontainer
from cycontainer import aio
assert cycontainer.run(["true"]).returncode == 0
pid = os.fork()
if pid == 0:
    assert cycontainer.run(["echo", "1"]).stdout == b"1\\n"
    assert asyncio.run(aio.run(["echo", "1"])).stdout == b"1\\n"
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert cycontainer.run(["echo", "1"]).stdout == b"1\\n"
"""


def test_a_fork_after_the_import_has_runs_of_its_own() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], check=True, cwd=PROJECT, timeout=60)


FEW = """
import os, resource, sys
from cycontainer import Container
from cycontainer.errors import Error
from cycontainer.spec import default_config
from cycontainer.streams import DEVNULL

config = default_config()
config["root"]["path"] = sys.argv[1]
config["process"].update(args=["true"], terminal=False)

def make():
    nothing = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL}
    with Container.create("one", config, root=sys.argv[2], **nothing) as container:
        container.start()

make()  # what is imported and opened once, is
before = os.listdir("/proc/self/fd")
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
failures = 0
for number in range(3, 120):
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, most))
    try:
        make()
    except (Error, OSError):
        failures += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Container.handle("one", root=sys.argv[2]).delete(force=True)  # without descriptors it could not be undone either
    assert os.listdir("/proc/self/fd") == before, number
assert 5 < failures < 117, failures
print("done")
"""


@pytest.mark.root
def test_however_few_descriptors_there_are_left_those_of_the_caller_stay(busybox_rootfs: str, tmp_path: object) -> None:
    words = [sys.executable, "-c", FEW, busybox_rootfs, f"{tmp_path}/states"]
    result = subprocess.run(words, capture_output=True, text=True, cwd=PROJECT, timeout=120)
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr
