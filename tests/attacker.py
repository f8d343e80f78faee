"""A hostile process: tries on other processes all that ptrace's permissions guard, and says on stdout what it got.

A line of stdin is a verb and pids ("all" that are seen but oneself): "look PID...", "stop PID..."; the answer is a list
of strings as JSON, empty when all was refused. The arguments: a secret that the launcher's memory and environment hold,
and a file that only the host has.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Iterator

PIDFD_OPEN, PIDFD_GETFD = 434, 438
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
UP = "/.." * 20
libc = ctypes.CDLL(None, use_errno=True)


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def areas(pid: int) -> Iterator[tuple[int, int]]:
    """Where a process has memory that can be read."""
    with open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            if line.split()[1].startswith("r") and "[v" not in line:
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                yield start, end - start


def memory(pid: int) -> bytes:
    """All of it, by process_vm_readv(2) and by /proc/PID/mem."""
    found = bytearray()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        for start, size in areas(pid):
            buffer = ctypes.create_string_buffer(size)
            local, remote = Vector(ctypes.addressof(buffer), size), Vector(start, size)
            libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
            found += buffer.raw
            file.seek(start)
            found += file.read(size)
    return bytes(found)


def taken_descriptors(pid: int) -> list[str]:
    """What pidfd_getfd(2) hands over."""
    pidfd = libc.syscall(PIDFD_OPEN, pid, 0)
    taken = [libc.syscall(PIDFD_GETFD, pidfd, fd, 0) for fd in range(32)] if pidfd >= 0 else []
    return [os.readlink(f"/proc/self/fd/{fd}") for fd in taken if fd >= 0]


def traced(pid: int) -> bool:
    """Whether it can be traced; it is let go again."""
    if libc.ptrace(PTRACE_SEIZE, pid, None, None) < 0:
        return False
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, 0x40000000)
    libc.ptrace(PTRACE_DETACH, pid, None, None)
    os.kill(pid, signal.SIGCONT)
    return True


def attempts(pid: int, secret: bytes, host_file: str) -> Iterator[str]:
    """What came of each attack. "got": it was not refused, though it may be worthless."""
    yield "got ptrace" if traced(pid) else ""
    yield "got pidfd_getfd" if taken_descriptors(pid) else ""
    for name in ("mem", "environ"):
        try:
            found = memory(pid) if name == "mem" else open(f"/proc/{pid}/environ", "rb").read()
            yield f"the secret is in its {name}" if secret in found else f"got {name}"
        except OSError:
            continue
    for name in ("root", "cwd", "exe"):
        try:
            link = os.readlink(f"/proc/{pid}/{name}")
            os.stat(f"/proc/{pid}/{name}")
        except OSError:
            continue
        yield f"got {name}"
        yield f"its exe is {link}" if name == "exe" and "memfd:" not in link else ""
        yield f"its {name} leads to the host" if os.path.exists(f"/proc/{pid}/{name}{UP}{host_file}") else ""
    for fd in range(32):  # their numbers are no secret: whoever has the same id may list them, proc(5)
        try:
            os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        yield "got fd"
        yield f"its {fd} leads to the host" if os.path.exists(f"/proc/{pid}/fd/{fd}{UP}{host_file}") else ""


def answer(verb: str, pids: list[int], secret: str, host_file: str) -> list[str]:
    if verb == "stop":
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        return []
    return sorted({text for pid in pids for text in attempts(pid, secret.encode(), host_file) if text})


def main(secret: str, host_file: str) -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        verb, *words = line.split()
        seen = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
        pids = seen if words == ["all"] else list(map(int, words))
        try:
            print(json.dumps(answer(verb, pids, secret, host_file)), flush=True)
        except ProcessLookupError:
            print("[]", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
