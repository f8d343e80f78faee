"""Containers of a caller that is itself in a user namespace: as its root, in a container with all its capabilities."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# In new user, mount and pid namespaces: argv[1] is the line of both maps, argv[2] the code to run there as root.
ENTER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
reader, writer = os.pipe()
caller, line = os.getpid(), sys.argv[1]
if os.fork() == 0:
    os.read(reader, 1)
    for name, text in (("setgroups", "deny" if line.endswith(" 1") else "allow"), ("uid_map", line), ("gid_map", line)):
        with open(f"/proc/{caller}/{name}", "w") as file:
            file.write(text)
    os._exit(0)
assert libc.unshare(0x10000000 | 0x20000 | 0x20000000) == 0
os.write(writer, b"x")
os.wait()
os.setresgid(0, 0, 0)
os.setresuid(0, 0, 0)
if os.fork() == 0:
    assert libc.mount(b"proc", b"/proc", b"proc", 0, None) == 0
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", *sys.argv[2:]])
os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from cycontainer import run
found = []
for keywords in json.loads(sys.argv[2]):
    result = run(["sh", "-c", "id -u; cat /proc/self/uid_map; stat -c %u /bin/busybox; touch /tmp/x; hostname"],
                 text=True, **keywords)
    found.append([result.returncode, result.stdout.split(), result.stderr])
print(json.dumps(found))
"""


def found_inside(line: str, code: str, calls: list[dict[str, object]]) -> object:
    """What the code prints as root of a user namespace with that map, for each call of run()."""
    command = [sys.executable, "-I", "-S", "-c", ENTER, line, code, ROOT, json.dumps(calls)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.fixture
def their_rootfs(busybox_rootfs: str) -> Iterator[Callable[[int], str]]:
    """Makes a root file system that belongs to an id of the host."""
    place = tempfile.mkdtemp(prefix="nested-")
    os.chmod(place, 0o755)

    def make(owner: int) -> str:
        subprocess.run(["cp", "-a", busybox_rootfs, f"{place}/rootfs"], check=True)
        subprocess.run(["chown", "-hR", f"{owner}:{owner}", f"{place}/rootfs"], check=True)
        return f"{place}/rootfs"

    yield make
    shutil.rmtree(place)


@pytest.mark.root
@pytest.mark.parametrize("line", ["0 0 1", "0 200000 300000"], ids=["one id", "many ids"])
def test_the_root_of_a_user_namespace_has_containers(their_rootfs: Callable[[int], str], line: str) -> None:
    own = ["0", *line.split(), "0", "cycontainer"]
    one = ["0", "0", "0", "1", "0", "cycontainer"]
    rootfs = their_rootfs(int(line.split()[1]))
    calls: list[dict[str, object]] = [{}, {"user_namespace": True}, {"network": "host"}]
    found = found_inside(line, RUN, [{"rootfs": rootfs, **call} for call in calls])
    assert found == [[0, own, ""], [0, one, ""], [0, own, ""]]


@pytest.mark.root
@pytest.mark.parametrize(("line", "user"), [("0 0 1", "0"), ("0 200000 300000", "65534")], ids=["one id", "many ids"])
def test_on_the_hosts_root_it_runs_nobody_where_there_is_one(line: str, user: str) -> None:
    code = RUN.replace("stat -c %u /bin/busybox; ", "")
    assert found_inside(line, code, [{}]) == [[0, [user, *line.split(), "cycontainer"], ""]]
