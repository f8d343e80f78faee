"""The configuration that `cycontainer spec` writes, and the lists that `run()` shares with it. Model; pure."""

from __future__ import annotations

from cycontainer.version import SPEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


_NOTHING: Final = ("nosuid", "noexec", "nodev")
DEFAULT_MOUNTS: Final = (
    _mount("/proc", "proc", "proc", *_NOTHING),
    _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
    _mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    _mount("/dev/shm", "tmpfs", "shm", *_NOTHING, "mode=1777", "size=65536k"),
    _mount("/dev/mqueue", "mqueue", "mqueue", *_NOTHING),
    _mount("/sys", "sysfs", "sysfs", *_NOTHING, "ro"),
    _mount("/sys/fs/cgroup", "cgroup", "cgroup", *_NOTHING, "relatime", "ro"),
)
MASKED_PATHS: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_CAPABILITIES: Final = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def default_config(rootless_ids: tuple[int, int] | None = None) -> dict[str, Any]:
    """A configuration that works as it is; with the uid and gid of an ordinary user, one that works for that user."""
    mounts = [{**mount, "options": list(mount["options"])} for mount in DEFAULT_MOUNTS]
    kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    linux: dict[str, Any] = {}
    if rootless_ids:
        mounts = [mount for mount in mounts if not mount["destination"].startswith("/sys")]
        mounts.append(_mount("/sys", "sysfs", "sysfs", *_NOTHING, "ro"))
        for mount in mounts:
            mount["options"] = [option for option in mount["options"] if option != "gid=5"]
        kinds.append("user")
        for key, number in zip(("uidMappings", "gidMappings"), rootless_ids, strict=True):
            linux[key] = [{"containerID": 0, "hostID": number, "size": 1}]
    else:
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    return {
        "ociVersion": SPEC,
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {name: list(_CAPABILITIES) for name in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "cycontainer",
        "mounts": mounts,
        "linux": {
            **linux,
            "namespaces": [{"type": kind} for kind in kinds],
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
        },
    }
