"""What this kernel and this user can do, probed once. Model: it reads /proc, /sys and /etc, and changes nothing."""

from __future__ import annotations

import os

from cycontainer._fd import (
    above_streams,
    close_all,
    effective_capabilities,
    has_news,
    known_filter_flags,
    procfs_of_others,
    root_mount,
)
from cycontainer.cgroup_layout import CgroupLayout as CgroupLayout
from cycontainer.cgroup_layout import Hierarchy as Hierarchy
from cycontainer.cgroup_layout import probe_layout
from cycontainer.errors import HostError, reason_of
from cycontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

OLDEST_KERNEL: Final = (5, 14)
INITIAL_USER_NAMESPACE: Final = 0xEFFFFFFD  # its inode, the same on every machine: USER_NS_INIT_INO, linux/nsfs.h
ID_MAPPERS: Final = ("/usr/bin", "/bin", "/usr/local/bin")  # never PATH's: they have privileges


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
    uids: tuple[tuple[int, int], ...]  # those that the caller's user namespace has: first, count
    gids: tuple[tuple[int, int], ...]
    may_set_groups: bool  # setgroups(2) is not denied in the caller's user namespace
    id_mappers: tuple[str, str] | None  # paths of newuidmap and newgidmap, when both are there
    lsms: tuple[str, ...]  # /sys/kernel/security/lsm
    initial_user_namespace: bool  # the caller stands in the machine's first user namespace
    filter_flags: int  # SECCOMP_FILTER_FLAG_* that the kernel knows
    procfs_of_others: bool  # a procfs may be made for a pid namespace that one is not in, and the caller may ask

    @property
    def privileged(self) -> bool:
        """Whether the caller has CAP_SYS_ADMIN (21) in its user namespace."""
        return bool(self.capabilities >> 21 & 1)


def require_kernel(host: Host) -> None:
    """Raises HostError when the kernel is too old for any container."""
    if host.kernel < OLDEST_KERNEL:
        found, needed = (".".join(map(str, version)) for version in (host.kernel, OLDEST_KERNEL))
        raise HostError(f"Linux {found} is too old: cycontainer needs {needed} or newer")


# --- probing


def probe() -> Host:
    """This machine and this caller, asked now.

    Raises:
        HostError: the kernel is older than 5.14, or /proc is not mounted.
    """
    try:
        host = _ask()
    except OSError as error:
        raise _unasked(error) from None
    require_kernel(host)
    return host


def _unasked(error: OSError) -> HostError:
    where = f"{error.filename}: " if error.filename else ""
    return HostError(f"{where}{reason_of(error)}; cycontainer needs /proc and its files")


def _ask() -> Host:
    system, uid = os.uname(), os.geteuid()
    names = _own_names(uid) if uid else frozenset()
    return Host(
        kernel=_version(system.release),
        machine=system.machine,
        uid=uid,
        gid=os.getegid(),
        groups=tuple(os.getgroups()),
        capabilities=effective_capabilities(),
        last_capability=int(_read("/proc/sys/kernel/cap_last_cap")),
        cgroups=probe_layout(),
        user_namespaces=int(_read_or("/proc/sys/user/max_user_namespaces", "0")) > 0,  # absent: CONFIG_USER_NS=n
        subuids=subordinate_ranges(_read_or("/etc/subuid", ""), names),
        subgids=subordinate_ranges(_read_or("/etc/subgid", ""), names),
        uids=_known_ids("/proc/self/uid_map"),
        gids=_known_ids("/proc/self/gid_map"),
        may_set_groups=_read_or("/proc/self/setgroups", "allow").strip() == "allow",
        id_mappers=_id_mappers(),
        lsms=_lsms(),
        initial_user_namespace=_is_initial(),
        filter_flags=known_filter_flags(),
        procfs_of_others=_has_procfs_of_others(),
    )


def _read(path: str) -> str:
    with open(path, errors="surrogateescape") as file:
        return file.read()


def _read_or(path: str, missing: str) -> str:
    """What is not there, or not ours to read, counts as `missing`."""
    try:
        return _read(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return missing


def _version(release: str) -> tuple[int, int]:
    """ "6.18.44-fc" is (6, 18)."""
    words = release.replace("-", ".").split(".")
    numbers = [int(word) if word.isascii() and word.isdigit() else 0 for word in (*words, "0")[:2]]
    return numbers[0], numbers[1]


def _own_names(uid: int) -> frozenset[str]:
    """What stands for the caller in /etc/subuid: the uid, and the user's names."""
    lines = (line.split(":") for line in _read_or("/etc/passwd", "").splitlines())
    names = {fields[0] for fields in lines if len(fields) > 2 and fields[2] == str(uid)}
    if not names:
        import pwd  # a directory service's user: this loads its libraries, so only now

        try:
            names = {pwd.getpwuid(uid).pw_name}
        except KeyError:
            names = set()  # a uid without a name
    return frozenset({str(uid), *names})


def subordinate_ranges(text: str, names: frozenset[str]) -> tuple[tuple[int, int], ...]:
    """The ranges that /etc/subuid or /etc/subgid gives to one of `names`: first id, count. subuid(5)."""
    found = []
    for line in text.splitlines():
        name, *numbers = line.strip().split(":")
        if name in names and len(numbers) == 2 and all(each.isascii() and each.isdigit() for each in numbers):
            first, count = int(numbers[0]), int(numbers[1])
            if count and first + count <= 2**32 - 1:
                found.append((first, count))
    return tuple(found)


def _known_ids(path: str) -> tuple[tuple[int, int], ...]:
    """The ids inside of a user namespace's map: first id, count. user_namespaces(7)."""
    lines = (line.split() for line in _read(path).splitlines())
    return tuple((int(first), int(count)) for first, _, count in lines)


def _id_mappers() -> tuple[str, str] | None:
    for directory in ID_MAPPERS:
        pair = (f"{directory}/newuidmap", f"{directory}/newgidmap")
        if all(os.path.isfile(program) and os.access(program, os.X_OK) for program in pair):
            return pair
    return None


def _lsms() -> tuple[str, ...]:
    """The active security modules; where securityfs is not mounted, those that show themselves elsewhere."""
    listed = _read_or("/sys/kernel/security/lsm", "").strip()
    if listed:
        return tuple(listed.split(","))
    found = ("apparmor",) if _read_or("/sys/module/apparmor/parameters/enabled", "").startswith("Y") else ()
    return (*found, "selinux") if os.path.exists("/sys/fs/selinux/enforce") else found


def _is_initial() -> bool:
    """The map alone does not tell: a nested namespace may map every id to itself."""
    whole = _read("/proc/self/uid_map").split() == ["0", "0", str(2**32 - 1)]
    return whole and os.stat("/proc/self/ns/user").st_ino == INITIAL_USER_NAMESPACE


def _has_procfs_of_others() -> bool:
    with open("/proc/self/ns/pid", "rb") as own:
        return procfs_of_others(own.fileno())


# --- keeping it


class MountTable:
    """Tells whether the mount table has changed, in a microsecond: proc(5), /proc/PID/mounts, on poll(2).

    Owns one descriptor. Daemons close all descriptors, and others get their numbers: it looks before it uses or closes.
    """

    def __init__(self) -> None:
        self.changes, self._fd, self._file = 0, -1, (0, 0)
        self._fd = above_streams(os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC))
        try:
            self._file = self._identity()
        except OSError:
            close_all((self._fd,))
            raise

    def __del__(self) -> None:
        if self.is_open():
            close_all((self._fd,))

    def _identity(self) -> tuple[int, int]:
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    def is_open(self) -> bool:
        """Whether the descriptor is still ours."""
        try:
            return self._identity() == self._file
        except OSError:
            return False

    def count(self) -> int:
        """How many changes were seen. The kernel tells of each only once, so two threads that ask both get the sum."""
        if has_news(self._fd):
            self.changes += 1
        return self.changes


class _Known(Record):
    """What was probed, and what it depends on."""

    caller: tuple[object, ...]
    table: MountTable
    changes: int
    host: Host


_known: _Known | None = None


def _caller() -> tuple[object, ...]:
    """Who asks, and from where: a mount table tells only of the mount namespace in which it was opened."""
    return (os.getpid(), os.geteuid(), os.getegid(), os.getgroups(), effective_capabilities(), root_mount())


def current() -> Host:
    """`probe()`, kept as long as process, ids, groups, capabilities and mounts stay the same; a few microseconds.

    A process that others move to another cgroup is not noticed: asking takes the lock that all changes of cgroups take.

    Raises:
        HostError: as `probe` does.
    """
    try:
        return _current()
    except OSError as error:
        raise _unasked(error) from None


def _current() -> Host:
    global _known
    known, caller = _known, _caller()
    if known is not None and known.caller == caller and known.table.is_open():
        changes = known.table.count()
        if changes == known.changes:
            return known.host
        table = known.table
    else:  # a fork's too: with an inherited descriptor it would take the parent's news away
        table, changes = MountTable(), 0
    known = _Known(caller=caller, table=table, changes=changes, host=probe())
    _known = known
    return known.host
