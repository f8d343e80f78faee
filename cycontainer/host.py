"""What this kernel and this user can do, probed once. Model: it reads /proc and /sys, and changes nothing."""

from __future__ import annotations

import os

from cycontainer._fd import effective_capabilities
from cycontainer.errors import HostError
from cycontainer.record import Record


class Hierarchy(Record):
    """One mounted cgroup hierarchy."""

    controllers: tuple[str, ...]  # v1: "memory", or "cpu", "cpuacct", or "name=systemd"; v2: what its root offers
    mount: str  # where it is mounted: "/sys/fs/cgroup/memory"
    own: str  # the caller's own cgroup in it, absolute from the mount: "/user.slice"


class CgroupLayout(Record):
    """How cgroups are laid out on this machine. Source: cgroups(7), systemd's CGROUP_DELEGATION.md."""

    mode: str  # "v1", "hybrid" (v1 controllers and a cgroup2 mount beside them), "v2", "none"
    v1: tuple[Hierarchy, ...] = ()
    v2: Hierarchy | None = None


class Host(Record):
    """All that compiling depends on beside the configuration."""

    kernel: tuple[int, int]
    machine: str  # "x86_64", "aarch64"
    uid: int  # effective
    gid: int
    groups: tuple[int, ...]
    capabilities: int  # effective, a mask of bits
    last_capability: int  # the highest that the kernel knows
    cgroups: CgroupLayout
    user_namespaces: bool  # whether any may be made
    subuids: tuple[tuple[int, int], ...]  # the caller's ranges of /etc/subuid: first, count
    subgids: tuple[tuple[int, int], ...]
    id_mappers: tuple[str, str] | None  # paths of newuidmap and newgidmap, when both are there
    lsms: tuple[str, ...]  # /sys/kernel/security/lsm
    initial_user_namespace: bool  # the caller stands in the machine's first user namespace

    @property
    def privileged(self) -> bool:
        """Whether the caller has CAP_SYS_ADMIN (21) in its user namespace."""
        return bool(self.capabilities >> 21 & 1)


# --- probing

_current: tuple[tuple[object, ...], Host] | None = None
_mounts = -1  # /proc/self/mountinfo, open: readable with an error when the mount table has changed, proc(5)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _status() -> dict[str, str]:
    """/proc/self/status, proc(5)."""
    return dict(line.split(":\t", 1) for line in _read("/proc/self/status").splitlines() if ":\t" in line)


def _own_cgroups() -> dict[str, str]:
    """The caller's cgroup by the controllers of its hierarchy; "" is v2. cgroups(7)."""
    lines = (line.split(":", 2) for line in _read("/proc/self/cgroup").splitlines())
    return {controllers: path for _, controllers, path in lines}


def read_layout(mountinfo: str, own: dict[str, str]) -> CgroupLayout:
    """The cgroup layout that /proc/self/mountinfo and /proc/self/cgroup describe."""
    v1: list[Hierarchy] = []
    v2: Hierarchy | None = None
    seen: set[str] = set()
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        root, mount = left.split(" ")[3:5]
        if kind == "cgroup2" and v2 is None:
            v2 = Hierarchy(controllers=(), mount=mount, own=_below(root, own.get("", "/")))
        if kind != "cgroup":
            continue
        words = options.split(" ")[-1].split(",")
        for controllers, path in own.items():
            names = controllers.split(",")
            if controllers and controllers not in seen and all(name in words for name in names):
                seen.add(controllers)
                v1.append(Hierarchy(controllers=tuple(names), mount=mount, own=_below(root, path)))
    mode = "hybrid" if v1 and v2 else "v1" if v1 else "v2" if v2 else "none"
    return CgroupLayout(mode=mode, v1=tuple(v1), v2=v2)


def _below(root: str, path: str) -> str:
    """A cgroup's path from its mount, whose root need not be the hierarchy's."""
    if root == "/" or not path.startswith(root):
        return path
    return path[len(root) :] or "/"


def _subordinate(path: str, uid: int) -> tuple[tuple[int, int], ...]:
    """The caller's ranges in /etc/subuid or /etc/subgid, subuid(5)."""
    names = {str(uid)}
    try:
        text = _read(path)
        for line in _read("/etc/passwd").splitlines():
            fields = line.split(":")
            if len(fields) > 2 and fields[2] == str(uid):
                names.add(fields[0])
    except OSError:
        return ()  # no such file: no ranges
    ranges = []
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) == 3 and fields[0] in names and fields[1].isdigit() and fields[2].isdigit():
            ranges.append((int(fields[1]), int(fields[2])))
    return tuple(ranges)


def _id_mappers() -> tuple[str, str] | None:
    for directory in ("/usr/bin", "/bin", "/usr/local/bin"):
        pair = (f"{directory}/newuidmap", f"{directory}/newgidmap")
        if all(os.access(program, os.X_OK) for program in pair):
            return pair
    return None


def _numbers(path: str) -> list[int]:
    return [int(word) for word in _read(path).split()]


def probe() -> Host:
    """This machine and this user, asked now.

    Raises:
        HostError: the kernel is older than 5.14.
    """
    system = os.uname()
    numbers = [int("".join(c for c in part if c.isdigit()) or 0) for part in system.release.split(".")[:2]]
    kernel = (numbers[0], numbers[1] if len(numbers) > 1 else 0)
    if kernel < (5, 14):
        raise HostError(f"Linux {system.release} is too old: cycontainer needs 5.14 or newer")
    uid = os.geteuid()
    lsm = "/sys/kernel/security/lsm"
    apparmor = os.path.isdir("/sys/kernel/security/apparmor") or os.path.exists("/sys/module/apparmor/parameters/enabled")
    lsms = tuple(_read(lsm).strip().split(",")) if os.path.exists(lsm) else (("apparmor",) if apparmor else ())
    return Host(
        kernel=kernel,
        machine=system.machine,
        uid=uid,
        gid=os.getegid(),
        groups=tuple(os.getgroups()),
        capabilities=int(_status()["CapEff"], 16),
        last_capability=_numbers("/proc/sys/kernel/cap_last_cap")[0],
        cgroups=read_layout(_read("/proc/self/mountinfo"), _own_cgroups()),
        user_namespaces=_numbers("/proc/sys/user/max_user_namespaces")[0] > 0,
        subuids=_subordinate("/etc/subuid", uid) if uid else (),
        subgids=_subordinate("/etc/subgid", uid) if uid else (),
        id_mappers=_id_mappers(),
        lsms=lsms,
        initial_user_namespace=_numbers("/proc/self/uid_map") == [0, 0, 2**32 - 1],
    )


def _mounts_changed() -> bool:
    """Whether the mount table changed since the last call; true the first time."""
    import select

    global _mounts
    if _mounts < 0:
        _mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        return True
    watch = select.poll()
    watch.register(_mounts, select.POLLPRI)
    return any(events & (select.POLLERR | select.POLLPRI) for _, events in watch.poll(0))


def current() -> Host:
    """`probe()`, kept as long as the process, its ids, capabilities and mounts are the same."""
    global _current, _mounts
    if _current and _current[0][0] != os.getpid():
        _mounts = -1  # a fork's: it watches the parent's mounts
    identity = (os.getpid(), os.geteuid(), os.getegid(), tuple(os.getgroups()), effective_capabilities())
    if _mounts_changed() or _current is None or _current[0] != identity:
        _current = (identity, probe())
    return _current[1]
