"""What `run()`'s keywords come to: a configuration document, isolated unless it says otherwise. Compile; pure.

The document is the runtime-spec's, so that the same reader checks it, and a person can print it.
"""

from __future__ import annotations

from cycontainer._arguments import WRITABLE
from cycontainer.errors import ConfigError, shown
from cycontainer.record import Record
from cycontainer.spec import DEFAULT_MOUNTS, MASKED_PATHS, READONLY_PATHS
from cycontainer.version import SPEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

    from cycontainer.host import Host

NOBODY: Final = 65534
ENVIRONMENT: Final = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8")
PERIOD_US: Final = 100_000
FIRST_SUBORDINATE: Final = 100_000  # on the host
SUBORDINATE: Final = 65536  # ids of a user namespace that root makes
TERMINALS: Final = 5  # the group tty

_NOTHING: Final = ["nosuid", "nodev", "noexec"]
_SYSTEM_MOUNTS: Final = tuple(
    mount for mount in DEFAULT_MOUNTS if mount["destination"] not in ("/sys", "/sys/fs/cgroup")
)


class Options(Record):
    """The keywords of `run()` that change the container, not only this run of it."""

    rootfs: str | None
    cwd: str | None
    uid: int | None
    gid: int | None
    hostname: str | None
    memory: int | None
    cpus: float | None
    pids: int | None
    network: str
    read_only: bool
    user_namespace: bool
    keep_init: bool
    masked_paths: tuple[str, ...]
    supervised: tuple[str, ...]  # system calls that the caller answers
    private: tuple[str, ...]  # directories of the host's root that are to be empty, writable ones first
    work: int = 0  # bytes of a working directory of its own


def _tmpfs(destination: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", *options]}


def _private_mounts(directories: tuple[str, ...], later: Sequence[object]) -> list[dict[str, Any]]:
    """An empty file system for each: /tmp and its like can be written, the others only be seen to be empty.

    later: where the caller mounts something; what has to be there for that can be made.
    """
    return [
        _tmpfs(path, "mode=1777" if path != "/run" else "mode=755")
        if path in WRITABLE
        else _tmpfs(path, "noexec", "ro", "mode=555", f"nr_inodes={1 + _most_names(later)}")
        for path in directories
    ]


def _most_names(paths: Sequence[object]) -> int:
    """How many directories and files may have to be made as targets, however these are spelt."""
    return sum([str(path).count("/") + 1 for path in paths])


def _has(ranges: tuple[tuple[int, int], ...], number: int) -> bool:
    return any(first <= number < first + count for first, count in ranges)


def _id_maps(uid: int, gid: int, *, ranged: bool, ids: tuple[int, int]) -> dict[str, Any]:
    """The machine's root maps a range; an ordinary user, and the root of a user namespace, has but itself."""
    if ranged:
        line = [{"containerID": 0, "hostID": FIRST_SUBORDINATE, "size": SUBORDINATE}]
        return {"uidMappings": line, "gidMappings": line}
    return {
        "uidMappings": [{"containerID": uid, "hostID": ids[0], "size": 1}],
        "gidMappings": [{"containerID": gid, "hostID": ids[1], "size": 1}],
    }


def _resources(options: Options) -> dict[str, Any]:
    resources: dict[str, Any] = {}
    if options.memory is not None:
        resources["memory"] = {"limit": options.memory, "swap": options.memory}
    if options.cpus is not None:
        resources["cpu"] = {"quota": max(1000, round(options.cpus * PERIOD_US)), "period": PERIOD_US}
    if options.pids is not None:
        resources["pids"] = {"limit": options.pids + (1 if options.keep_init else 0)}  # pid 1 is ours
    return resources


def _user(options: Options, host: Host, *, privileged: bool, ranged: bool) -> tuple[int, int]:
    """Who the program is: nobody on the host's root, where there is one; else root, or oneself as an ordinary user."""
    user = 0, 0
    if options.rootfs is None and not privileged:
        user = host.uid, host.gid
    elif options.rootfs is None and (ranged or (_has(host.uids, NOBODY) and _has(host.gids, NOBODY))):
        user = NOBODY, NOBODY
    return user[0] if options.uid is None else options.uid, user[1] if options.gid is None else options.gid


def document(
    options: Options, args: list[str], mounts: list[dict[str, Any]], *, privileged: bool, host: Host
) -> dict[str, Any]:
    """The whole configuration. `privileged`: the caller needs no user namespace."""
    on_host_root = options.rootfs is None
    user_namespace = options.user_namespace or not privileged
    ranged = user_namespace and privileged and host.initial_user_namespace
    uid, gid = _user(options, host, privileged=privileged, ranged=ranged)
    kinds = ["mount", "pid", "ipc", "uts", "cgroup"]
    kinds += ["network"] if options.network == "none" else []
    kinds += ["user"] if user_namespace else []
    base = [dict(mount) for mount in _SYSTEM_MOUNTS]
    if not (ranged if user_namespace else _has(host.gids, TERMINALS)):
        for mount in base:  # there is no such group
            mount["options"] = [option for option in mount["options"] if option != f"gid={TERMINALS}"]
    later = [mount.get("destination") for mount in mounts] + ([options.cwd] if options.work else [])
    private = _private_mounts(options.private if on_host_root else ("/tmp",), later)
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in kinds],
        "resources": _resources(options),
        "maskedPaths": [*MASKED_PATHS, *options.masked_paths],
        "readonlyPaths": list(READONLY_PATHS),
    }
    if user_namespace:
        linux.update(_id_maps(uid, gid, ranged=ranged, ids=(host.uid, host.gid)))
    return {
        "ociVersion": SPEC,
        "root": {"path": options.rootfs or "/", "readonly": options.read_only or on_host_root},
        "hostname": options.hostname or "cycontainer",
        "process": {
            "args": args,
            "cwd": options.cwd or "/",
            "env": list(ENVIRONMENT),
            "user": {"uid": uid, "gid": gid},
            "noNewPrivileges": True,
        },
        "mounts": [*base, *private, *mounts],
        "linux": linux,
    }


def overlay(config: dict[str, Any], options: Options, args: list[str], mounts: list[dict[str, Any]]) -> dict[str, Any]:
    """The caller's own configuration, with what the keywords say put over it."""
    if type(config) is not dict:
        raise ConfigError("config", "must be a dict")
    process = {"cwd": "/", **_section(config, "process"), "args": args}
    if options.cwd is not None:
        process["cwd"] = options.cwd
    if options.uid is not None:
        process["user"] = {**_section(process, "user", "process."), "uid": options.uid, "gid": options.gid or 0}
    linux = _section(config, "linux")
    resources = dict(_section(linux, "resources", "linux."))
    for name, value in _resources(options).items():
        resources[name] = {**_section(resources, name, "linux.resources."), **value}
    linux = {**linux, "resources": resources, "maskedPaths": _joined(linux.get("maskedPaths"), options.masked_paths)}
    result = {**config, "process": process, "linux": linux, "mounts": _joined(config.get("mounts"), mounts)}
    if options.rootfs is not None:
        result["root"] = {**_section(config, "root"), "path": options.rootfs}
    if options.hostname is not None:
        result["hostname"] = options.hostname
    return result


def _section(parent: dict[str, Any], name: str, above: str = "") -> dict[str, Any]:
    """An object of the caller's configuration; an empty one when it is missing."""
    section = parent.get(name)
    if section is not None and type(section) is not dict:
        raise ConfigError(f"{above}{name}", f"must be an object, not {shown(section)}")
    return section or {}


def _joined(given: Any, more: Sequence[Any]) -> Any:
    """A list of the caller's configuration, and more; if it is none, the reader says so."""
    return [*given, *more] if type(given) in (list, tuple) else given or list(more)
