"""The one container that is measured: `/bin/true` in the runtime-spec's default configuration, with two limits."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
MEMORY, PIDS = 268435456, 100  # the limits of floor.c
MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def seccomp() -> dict[str, Any]:
    """The filter of floor.c as an allow list: the calls that the headers know, without those it denies."""
    with open(os.path.join(HERE, "floor.c")) as file:
        table = file.read().split("DENIED[] = {")[1].split("}")[0]
    denied = set(re.findall(r"SYS_(\w+)", table))
    command = ["cc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"]
    headers = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    known = [(name, int(number)) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", headers)]
    names = [name for name, number in known if number <= 450 and name not in denied]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": sorted(names), "action": "SCMP_ACT_ALLOW"}],
    }


def config(rootfs: str, cgroups_path: str) -> dict[str, Any]:
    """An OCI configuration with the steps of `floor --ns all --mounts spec --caps --seccomp tree --cgroup v1`."""
    private = ("nosuid", "noexec", "nodev")
    kept = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    return {
        "ociVersion": "1.0.2",
        "hostname": "floor",
        "root": {"path": rootfs, "readonly": True},
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "capabilities": {"bounding": kept, "effective": kept, "permitted": kept},
            "noNewPrivileges": True,
        },
        "mounts": [
            _mount("/proc", "proc", "proc", *private),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount("/dev/pts", "devpts", "devpts", *private[:2], "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
            _mount("/dev/shm", "tmpfs", "shm", *private, "mode=1777", "size=65536k"),
            _mount("/dev/mqueue", "mqueue", "mqueue", *private),
            _mount("/sys", "sysfs", "sysfs", *private, "ro"),
            _mount("/sys/fs/cgroup", "cgroup", "cgroup", *private, "ro"),
        ],
        "linux": {
            "cgroupsPath": cgroups_path,
            "namespaces": [{"type": name} for name in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "resources": {"memory": {"limit": MEMORY}, "pids": {"limit": PIDS}},
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": seccomp(),
        },
    }


def make_rootfs(path: str) -> None:
    """A root file system of one static busybox, whose `true` is what every runtime starts."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SystemExit("the comparison needs a static busybox: apt-get install busybox-static")
    for name in ("bin", "dev", "proc", "sys", "tmp"):
        os.makedirs(os.path.join(path, name))
    shutil.copy2(busybox, os.path.join(path, "bin/busybox"))
    os.symlink("busybox", os.path.join(path, "bin/true"))


def make_bundle(path: str, rootfs: str, cgroups_path: str) -> str:
    """An OCI bundle at `path`; returns it."""
    return write_bundle(path, config(rootfs, cgroups_path))


def write_bundle(path: str, document: dict[str, Any]) -> str:
    """An OCI bundle with that configuration at `path`; returns it."""
    os.makedirs(path)
    with open(os.path.join(path, "config.json"), "w") as file:
        json.dump(document, file)
    return path


def build_floor() -> str:
    """The path of the compiled floor.c, which is compiled again when it is older than its source."""
    source, program = os.path.join(HERE, "floor.c"), os.path.join(HERE, "floor")
    if not os.path.exists(program) or os.path.getmtime(program) < os.path.getmtime(source):
        subprocess.run(["cc", "-O2", "-static", "-pthread", "-o", program, source], check=True)
    return program


def install(path: str) -> str:
    """A fresh virtual environment at `path` that has nothing but this tree's package, as pip would leave it there.

    Returns its directory of programs. A tree in development starts slowly: its hooks alone import for 20 ms.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    programs = os.path.join(path, "bin")
    python = os.path.join(programs, "python")
    where = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    package = os.path.join(where.stdout.strip(), "cycontainer")
    shutil.copytree(
        os.path.join(os.path.dirname(HERE), "cycontainer"), package, ignore=shutil.ignore_patterns("*.py[xc]")
    )
    subprocess.run([python, "-m", "compileall", "-q", package], check=True)
    shutil.copy(os.path.join(package, "command/cycontainer"), programs)
    return programs
