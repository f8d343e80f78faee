"""The init is executed from memory, or, where the host forbids that, from a read-only mount that no one can reach."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ordinary import OrdinaryUser

from cycontainer.init_process import init_descriptor

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# In a pid namespace of its own, whose vm.memfd_noexec counts there alone: as root, or as the user argv[1].
RUN = f"""
import os, sys
sys.path.insert(0, {ROOT!r})
with open("/proc/sys/vm/memfd_noexec", "w") as file:
    file.write("2")
uid = int(sys.argv[1])
if uid:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
from cycontainer import run
from cycontainer.init_process import INSTALLED, init_descriptor
print(run(["sh", "-c", "echo ran; exit 3"]).returncode, run(["echo", "ran"], text=True).stdout.strip())
init = init_descriptor()
print(os.path.samestat(os.fstat(init), os.stat(INSTALLED)), bool(os.fstatvfs(init).f_flag & os.ST_RDONLY))
print(open("/proc/self/mountinfo").read().count("init/init"))
"""


@pytest.mark.root
@pytest.mark.parametrize("as_root", [True, False], ids=["root", "an ordinary user"])
def test_where_files_in_memory_may_not_be_executed(ordinary_user: OrdinaryUser, as_root: bool) -> None:
    if not os.path.exists("/proc/sys/vm/memfd_noexec"):
        pytest.skip("needs vm.memfd_noexec, Linux 6.3")
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-I", "-S", "-c", RUN]
    done = subprocess.run([*command, "0" if as_root else str(ordinary_user.uid)], capture_output=True, text=True)
    assert done.stderr == ""
    status, ran, installed, read_only, attached = done.stdout.split()
    assert (status, ran, installed, read_only, attached) == ("3", "ran", "True", "True", "0")


def test_elsewhere_it_is_a_sealed_file_in_memory() -> None:
    assert "memfd:cycontainer-init" in os.readlink(f"/proc/self/fd/{init_descriptor()}")
    with open(f"/proc/self/fd/{init_descriptor()}", "r+b", buffering=0) as file, pytest.raises(PermissionError):
        file.write(b"x")
