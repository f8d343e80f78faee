"""The init and the command for aarch64, as `make cross` builds them, under qemu's emulation."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import subprocess
from glob import glob
from pathlib import Path

import pytest
from elf import PT_DYNAMIC, PT_INTERP, machine, program_headers

from cycontainer._plan import PlanWriter, assemble, broken_at

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILT = f"{ROOT}/build/aarch64-linux-gnu/lib/cycontainer"
INIT = f"{BUILT}/init/init"
COMMAND = f"{ROOT}/build/aarch64-linux-gnu/scripts/cycontainer"
PARTS = {os.path.basename(path).removesuffix(".pyx") for path in glob(f"{ROOT}/cycontainer/_cgroup*.pyx")}  # no modules
LIBC = "/usr/aarch64-linux-gnu"
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
EM_AARCH64 = 183
BASE = 200  # the init's first descriptor; the socket, and the plan behind it
MESSAGE_FAILED = 1


def is_built() -> bool:
    """Whether `make cross` was run since the sources changed."""
    stamp = f"{ROOT}/build/aarch64-linux-gnu/built"
    sources = [
        path
        for kind in ("pyx", "pxd", "c", "h", "S")
        for path in glob(f"{ROOT}/cycontainer/**/*.{kind}", recursive=True)
    ]
    return os.path.exists(stamp) and os.stat(stamp).st_mtime > max(os.stat(path).st_mtime for path in sources)


pytestmark = pytest.mark.skipif(
    EMULATOR is None or not is_built(), reason="needs qemu-user, and what `make cross` makes of these sources"
)


def plan_of(directory: str) -> bytes:
    writer = PlanWriter()
    writer.set_umask(0o027)
    writer.set_rlimit("RLIMIT_NOFILE", 7, 100, 200)
    writer.change_directory(directory)
    writer.look_up()
    writer.execute()
    return writer.finish()


def carried_out(plan: bytes, script: str) -> tuple[int, str, bytes]:
    """Start the init with a plan: its exit status, what the program printed, what the init reported."""
    argv, envp, places = (b"sh", b"-c", script.encode()), (b"WORD=given",), (b"/no/such/sh", b"/bin/sh")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    file = os.memfd_create("plan")
    os.pwrite(file, assemble(plan, BASE, argv, envp, places, None), 0)
    command = [str(EMULATOR), INIT, str(BASE)]
    with ours, theirs:
        os.dup2(theirs.fileno(), BASE)
        os.dup2(file, BASE + 1)
        try:
            done = subprocess.run(command, pass_fds=(BASE, BASE + 1), stdout=subprocess.PIPE, text=True, timeout=60)
        finally:
            for descriptor in (file, BASE, BASE + 1):
                os.close(descriptor)
        theirs.close()
        return done.returncode, done.stdout, ours.recv(4096)


def test_every_module_is_for_that_machine() -> None:
    modules = {os.path.basename(path).partition(".")[0] for path in glob(f"{BUILT}/*.so")}
    assert modules == {os.path.basename(path).partition(".")[0] for path in glob(f"{ROOT}/cycontainer/*.pyx")} - PARTS
    assert {machine(path) for path in (INIT, *glob(f"{BUILT}/*.so"))} == {EM_AARCH64}


def test_it_is_static_and_needs_no_symbol() -> None:
    assert not {PT_INTERP, PT_DYNAMIC} & {kind for kind, _ in program_headers(INIT)}


def test_it_does_nothing_without_a_plan() -> None:
    done = subprocess.run([str(EMULATOR), INIT], stdin=subprocess.DEVNULL, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (125, b"", b"")


def test_it_carries_a_plan_out_and_executes_the_program(tmp_path: Path) -> None:
    script = "echo $WORD; umask; pwd; ulimit -Sn; ulimit -Hn; exit 3"
    status, printed, report = carried_out(plan_of(str(tmp_path)), script)
    assert (status, printed.split()) == (3, ["given", "0027", str(tmp_path), "100", "200"])
    assert report == b""  # the end of the stream is the program's execve


def test_a_failed_step_is_reported_by_number_and_errno(tmp_path: Path) -> None:
    plan = plan_of(str(tmp_path))
    for step in range(5):
        status, printed, report = carried_out(broken_at(plan, step), "echo never")
        assert (status, printed) == (126, "")
        assert struct.unpack_from("=iii", report) == (MESSAGE_FAILED, step, errno.ENOSYS)


def test_what_the_kernel_refuses_is_reported(tmp_path: Path) -> None:
    _, _, report = carried_out(plan_of(str(tmp_path / "missing")), "echo never")
    assert struct.unpack_from("=iii", report) == (MESSAGE_FAILED, 2, errno.ENOENT)


def test_the_command_is_for_that_machine_and_answers(tmp_path: Path) -> None:
    assert machine(COMMAND) == EM_AARCH64 and os.path.getsize(COMMAND) < 200 * 1024
    for words, status, said in (
        (["--version"], 0, "cycontainer version"),
        (["--root", str(tmp_path), "list"], 0, "ID "),
        (["--root", str(tmp_path), "state", "one"], 1, "cycontainer: container does not exist: one"),
    ):
        done = subprocess.run([str(EMULATOR), "-L", LIBC, COMMAND, *words], capture_output=True, text=True)
        assert done.returncode == status and (done.stdout + done.stderr).startswith(said), words
