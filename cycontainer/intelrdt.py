"""`linux.intelRdt`: a container's share of cache and memory bandwidth, in the resctrl file system. Lifecycle.

Sources: runtime-spec 1.3, config-linux.md, "IntelRdt"; Documentation/filesystems/resctrl.rst.
"""

from __future__ import annotations

import os

from cycontainer.errors import ConfigError, reason_of
from cycontainer.record import Record
from cycontainer.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cycontainer.config import IntelRdt

WHERE = "linux.intelRdt"
DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Group(Record):
    """Where a container's tasks are; its state keeps it.

    Attributes:
        root: where the resctrl file system is mounted.
        name: of the group below it, "" for the root's own.
        monitor: of the monitoring group below that, "" without one.
        made: the group was made for this container, which then also ends it.
        shared: its name was given: others may have joined it since.
    """

    root: str
    name: str
    monitor: str
    made: bool
    shared: bool


def find_root() -> str:
    """Where a resctrl file system is mounted in our mount namespace.

    Raises:
        ConfigError: nowhere.
    """
    with open("/proc/thread-self/mountinfo", errors="surrogateescape") as mounts:
        for line in mounts:
            place, _, kind = line.partition(" - ")
            if kind.startswith("resctrl "):
                return place.split()[4].encode().decode("unicode_escape")
    raise ConfigError(WHERE, "no resctrl file system is mounted (mount -t resctrl resctrl /sys/fs/resctrl)")


def plan_group(config: IntelRdt, container_id: str, root: str) -> Group:
    """Which group a container will be in, and whether that is still to be made; nothing is changed.

    To be kept before `assign`, so that `remove` finds what a killed process has left.

    Raises:
        ConfigError: the group is missing and has no schemata to be made with.
    """
    name = container_id if config.clos_id is None else "" if config.clos_id == "/" else config.clos_id
    top = _open(root)
    try:
        made = bool(name) and not _exists(top, name)
    finally:
        os.close(top)
    if made and config.clos_id is not None and not schemata(config):
        raise ConfigError(f"{WHERE}.closID", f"there is no group {name}, and no schemata to make it with")
    monitor = container_id if config.enable_monitoring else ""
    return Group(root=root, name=name, monitor=monitor, made=made, shared=config.clos_id is not None)


def assign(group: Group, config: IntelRdt, pid: int) -> None:
    """Put a container's first process, which still waits, into its group; what it starts will be there too.

    Raises:
        ConfigError: the kernel refuses; nothing is left.
    """
    lines, place = schemata(config), group.name or "."
    top = _open(group.root)
    with Undo() as undo:
        undo.later("remove the resctrl group", lambda: remove(group, pid))
        try:
            if group.made:
                _make(top, group.name)
            if lines:
                _write(top, f"{place}/schemata", lines, "schemata")
            if group.monitor:
                _make(top, f"{place}/mon_groups/{group.monitor}")
            _join(top, group, pid)
        finally:
            os.close(top)


def join(group: Group, pid: int) -> None:
    """Put one more process of the container, which does not run yet, into its group. Raises ConfigError."""
    top = _open(group.root)
    try:
        _join(top, group, pid)
    finally:
        os.close(top)


def update(group: Group, config: IntelRdt) -> str:
    """Write other schemata, all of them or none; the former ones. Raises ConfigError: the kernel refuses them."""
    top = _open(group.root)
    place = f"{group.name or '.'}/schemata"
    try:
        with open(os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=top)) as file:
            former = file.read()
        _write(top, place, schemata(config), "schemata")
    except OSError as error:
        raise _refused(top, "read the resctrl group's schemata", error) from None
    finally:
        os.close(top)
    return former


def put_back(group: Group, former: str) -> None:
    """Write the schemata again that `update` has replaced. Raises ConfigError."""
    top = _open(group.root)
    try:
        _write(top, f"{group.name or '.'}/schemata", former, "schemata")
    finally:
        os.close(top)


def remove(group: Group, pid: int = 0) -> None:
    """Remove what was made for a container; a group with a given name only when nobody but `pid` is in it.

    Raises:
        OSError: it could not be removed. One that is gone already is no error.
    """
    path = f"{group.root}/{group.name}".rstrip("/")
    if group.monitor:
        _remove(f"{path}/mon_groups/{group.monitor}")
    if group.made and not (group.shared and _has_others(path, pid)):
        _remove(path)


def schemata(config: IntelRdt) -> str:
    """The lines to be written; the later of two for one resource wins."""
    lines = config.l3_cache_schema.splitlines()
    if config.memory_bandwidth_schema:
        lines = [line for line in lines if not line.startswith("MB:")] + [config.memory_bandwidth_schema]
    return "".join(f"{line}\n" for line in (*lines, *config.schemata))


def _join(top: int, group: Group, pid: int) -> None:
    place = group.name or "."
    _write(top, f"{place}/tasks", str(pid), "tasks")
    if group.monitor:  # after the group itself: a monitoring group takes only its tasks
        _write(top, f"{place}/mon_groups/{group.monitor}/tasks", str(pid), "tasks")


def _last_status(top: int) -> str:
    """The kernel's own words for its last refusal, where it has some."""
    try:
        fd = os.open("info/last_cmd_status", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=top)
        with open(fd, errors="replace") as file:
            said = file.read(4096).strip()
    except OSError:
        return ""
    return f": {said}" if said and said != "ok" else ""


def _refused(top: int, what: str, error: OSError) -> ConfigError:
    return ConfigError(WHERE, f"{what}: {reason_of(error)}{_last_status(top)}")


def _open(root: str) -> int:
    try:
        return os.open(root, DIRECTORY)
    except OSError as error:
        raise ConfigError(WHERE, f"{root}: {reason_of(error)}") from None


def _exists(top: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=top, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _make(top: int, name: str) -> None:
    """Make a group, unless another was faster."""
    try:
        os.mkdir(name, 0o755, dir_fd=top)
    except FileExistsError:
        return
    except OSError as error:
        raise _refused(top, f"make the resctrl group {name}", error) from None


def _write(top: int, name: str, text: str, what: str) -> None:
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=top)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise _refused(top, f"write the resctrl group's {what}", error) from None


def _has_others(path: str, pid: int) -> bool:
    """Whether there are tasks beside one."""
    try:
        with open(f"{path}/tasks") as file:
            return bool(set(file.read().split()) - {str(pid)})
    except FileNotFoundError:
        return False


def _remove(path: str) -> None:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
