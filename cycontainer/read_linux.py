"""Reads the section `linux` of a configuration. Model; pure. Source: runtime-spec 1.3, config-linux.md."""

from __future__ import annotations

from cycontainer.config import Device, IdMap, IntelRdt, Linux, MemoryPolicy, Namespace
from cycontainer.errors import ConfigError, shown
from cycontainer.node import PATH_MAX, UINT32, Node
from cycontainer.read_resources import read_interface, read_resources
from cycontainer.tables import (
    DEVICE_MAJOR,
    DEVICE_MINOR,
    MEMORY_POLICIES,
    MEMORY_POLICY_FLAGS,
    MOST_ID,
    NAMESPACES,
    PERSONALITIES,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.config import Seccomp

MOST_LINES: Final = 340  # UID_GID_MAP_MAX_EXTENTS, user_namespaces(7)
CLOCKS: Final = ("boottime", "monotonic")  # time_namespaces(7)
KTIME_SEC_MAX: Final = 2**63 // 10**9  # linux/ktime.h
PROPAGATIONS: Final = tuple(f"{r}{name}" for r in ("", "r") for name in ("private", "shared", "slave", "unbindable"))
# What engines leave in fileMode beside the permissions: the file's type, by mknod(2) or by Go's os.FileMode.
_TYPE_BITS: Final = 0o170000 | 1 << 26 | 1 << 25 | 1 << 21
_SYSCTL_OWNERS: Final = {  # sysctl, or the start of several: the namespace it belongs to; namespaces(7), sysctl/*.rst
    "kernel/msgmax": "ipc",
    "kernel/msgmnb": "ipc",
    "kernel/msgmni": "ipc",
    "kernel/sem": "ipc",
    "kernel/shmall": "ipc",
    "kernel/shmmax": "ipc",
    "kernel/shmmni": "ipc",
    "kernel/shm_rmid_forced": "ipc",
    "kernel/domainname": "uts",
    "fs/mqueue/": "ipc",
    "net/": "network",
    "user/": "user",
}


def read_linux(node: Node) -> Linux:
    """The section `linux`.

    Raises:
        ConfigError: with the JSON path of what is wrong.
    """
    namespaces = _read_namespaces(node["namespaces"])
    paths = {namespace.type: namespace.path for namespace in namespaces}
    uid_map, gid_map = _read_user_maps(node, paths)
    propagation = node["rootfsPropagation"]
    return Linux(
        namespaces=namespaces,
        uid_map=uid_map,
        gid_map=gid_map,
        time_offsets=_read_time_offsets(node["timeOffsets"], paths),
        devices=tuple([_read_device(entry) for entry in node["devices"].array()]),
        net_devices=_read_net_devices(node["netDevices"], paths),
        cgroups_path=_read_cgroups_path(node["cgroupsPath"]),
        resources=read_resources(node["resources"]),
        rootfs_propagation=propagation.one_of(PROPAGATIONS) if propagation.text("") else "",
        seccomp=_read_seccomp(node["seccomp"]),
        sysctl=_read_sysctl(node["sysctl"], paths),
        masked_paths=tuple([entry.path_text() for entry in node["maskedPaths"].array()]),
        readonly_paths=tuple([entry.path_text() for entry in node["readonlyPaths"].array()]),
        mount_label=node["mountLabel"].line(),
        personality=_read_personality(node["personality"]),
        intel_rdt=_read_intel_rdt(node["intelRdt"]),
        memory_policy=_read_memory_policy(node["memoryPolicy"]),
    )


def _read_seccomp(node: Node) -> Seccomp | None:
    if not node:
        return None
    from cycontainer.read_seccomp import read_seccomp  # 0.1 ms, for who has a filter

    return read_seccomp(node)


# --- namespaces, and what needs one


def _read_namespaces(node: Node) -> tuple[Namespace, ...]:
    found: dict[str, Namespace] = {}
    for place, entry in enumerate(node.array()):
        kind = entry["type"].text()
        if kind not in NAMESPACES:
            raise entry["type"].error(f"unknown namespace {shown(kind)}; one of {', '.join(NAMESPACES)}")
        if kind in found:
            raise entry["type"].error(f"the {kind} namespace is there twice")
        path = entry["path"].path_text() if entry["path"].os_text("") else None
        found[kind] = Namespace(type=kind, path=path, place=place)
    return tuple(found.values())


def read_id_maps(node: Node) -> tuple[IdMap, ...]:
    """Lines of uid_map or gid_map. Source: user_namespaces(7), "User and group ID mappings"."""
    entries = node.array()
    if len(entries) > MOST_LINES:
        raise node.error(f"has {len(entries)} lines; the kernel takes {MOST_LINES}")
    lines: list[IdMap] = []
    for entry in entries:
        size = entry["size"].integer(1, UINT32)
        first, host = (entry[key].integer(0, MOST_ID) for key in ("containerID", "hostID"))
        if max(first, host) + size > UINT32:
            raise entry["size"].error(f"reaches beyond the last id, {MOST_ID}")
        for other in lines:
            if first < other.container + other.size and other.container < first + size:
                raise entry["containerID"].error("is mapped twice, overlapping with another line")
            if host < other.host + other.size and other.host < host + size:
                raise entry["hostID"].error("is mapped twice, overlapping with another line")
        lines.append(IdMap(container=first, host=host, size=size))
    return tuple(lines)


def _read_user_maps(node: Node, paths: dict[str, str | None]) -> tuple[tuple[IdMap, ...], tuple[IdMap, ...]]:
    """Both maps, which a new user namespace has; with a joined one containerd repeats them."""
    uids, gids = node["uidMappings"], node["gidMappings"]
    maps = read_id_maps(uids), read_id_maps(gids)
    for side, lines in zip((uids, gids), maps):
        if lines and "user" not in paths:
            raise side.error("needs a user namespace")
        if not lines and "user" in paths and paths["user"] is None:
            raise side.error("is missing: a new user namespace without ids can do nothing")
    return maps


def _read_time_offsets(node: Node, paths: dict[str, str | None]) -> tuple[tuple[str, int, int], ...]:
    found = []
    for clock, value in node.items():
        if clock not in CLOCKS:
            raise value.error(f"unknown clock; one of {', '.join(CLOCKS)}")
        seconds = value["secs"].integer(-KTIME_SEC_MAX, KTIME_SEC_MAX // 2, default=0)
        found.append((clock, seconds, value["nanosecs"].integer(0, 999_999_999, default=0)))
    if found and ("time" not in paths or paths["time"] is not None):
        raise node.error("needs a new time namespace")
    return tuple(found)


def _read_net_devices(node: Node, paths: dict[str, str | None]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for host_name, value in node.items():
        if "network" not in paths:
            raise node.error("needs a network namespace")
        read_interface(Node(host_name, value.path))
        value.object()
        name = read_interface(value["name"]) if value["name"].text("") else host_name
        if name in found.values():
            raise value.error(f"{shown(name)} would be there twice in the container")
        found[host_name] = name
    return tuple(found.items())


def _sysctl_path(key: str) -> str:
    """The file below /proc/sys: the first separator says which it is, and the other stands for itself. sysctl(8)."""
    slash, dot = key.find("/"), key.find(".")
    if slash < 0 or 0 <= dot < slash:
        return key.translate({ord("."): "/", ord("/"): "."})
    return key


def _sysctl_owner(path: str) -> str | None:
    """The namespace that a sysctl belongs to; None when it is the whole machine's."""
    for name, owner in _SYSCTL_OWNERS.items():
        if path == name or (name.endswith("/") and path.startswith(name)):
            return owner
    return None


def _read_sysctl(node: Node, paths: dict[str, str | None]) -> tuple[tuple[str, str], ...]:
    """Paths below /proc/sys, "net/ipv4/ip_forward", and values."""
    found: dict[str, str] = {}
    for key, value in node.items():
        path = _sysctl_path(key)
        if any(part in ("", ".", "..") for part in path.split("/")) or len(path) > PATH_MAX // 2:
            raise value.error("must have the name of a sysctl, such as net.ipv4.ip_forward")
        if path == "kernel/hostname":
            raise value.error("use the property hostname instead")
        owner = _sysctl_owner(path)
        if owner is None:
            raise value.error("belongs to no namespace: it would change the host")
        if owner not in paths:
            raise value.error(f"needs a {owner} namespace: it would change the host")
        if path in found:
            raise value.error("is there twice, in two spellings")
        found[path] = value.text()
    return tuple(found.items())


# --- the rest


def _read_device(node: Node) -> Device:
    kind = node["type"].one_of(("c", "b", "u", "p"))
    path = node["path"].path_text()
    if path.endswith("/") or not {".", ".."}.isdisjoint(path.split("/")):
        raise node["path"].error(f"must be the path of a file, not {shown(path)}")
    major, minor = 0, 0
    if kind != "p":
        major, minor = node["major"].integer(0, DEVICE_MAJOR), node["minor"].integer(0, DEVICE_MINOR)
    mode = node["fileMode"].integer(0, UINT32, default=0o666) & ~_TYPE_BITS
    if mode > 0o777:
        raise node["fileMode"].error("must be permissions from 0 to 511, which is 0777: JSON has no octal numbers")
    return Device(
        type="c" if kind == "u" else kind,
        path=path,
        major=major,
        minor=minor,
        mode=mode,
        uid=node["uid"].integer(0, MOST_ID, default=0),
        gid=node["gid"].integer(0, MOST_ID, default=0),
    )


def _read_cgroups_path(node: Node) -> str:
    path = node.line()
    if ".." in path.split("/"):
        raise node.error("must not climb with ..")
    if len(path.encode()) > PATH_MAX:
        raise node.error(f"is longer than a path may be, {PATH_MAX} bytes")
    return path


def _read_personality(node: Node) -> int | None:
    if not node:
        return None
    if node["flags"].texts():
        raise node["flags"].error("no flags are known")
    return PERSONALITIES[node["domain"].one_of(PERSONALITIES)]


def _read_intel_rdt(node: Node) -> IntelRdt | None:
    if not node:
        return None
    group, bandwidth = node["closID"], node["memBwSchema"].line()
    if bandwidth and not bandwidth.startswith("MB:"):
        raise node["memBwSchema"].error(f"must be a line that begins with MB:, not {shown(bandwidth)}")
    for entry in node["schemata"].array():
        entry.line()
    root = group.text("") == "/"  # the default group
    return IntelRdt(
        clos_id="/" if root else group.name() if group else None,
        schemata=node["schemata"].texts(),
        l3_cache_schema=node["l3CacheSchema"].text(""),
        memory_bandwidth_schema=bandwidth,
        enable_monitoring=node["enableMonitoring"].flag(),
    )


def _read_memory_policy(node: Node) -> MemoryPolicy | None:
    """What set_mempolicy(2) takes, whose rules these are."""
    if not node:
        return None
    mode = node["mode"].text()
    if mode not in MEMORY_POLICIES:
        raise node["mode"].error(f"invalid memory policy mode {shown(mode)}; one of {', '.join(MEMORY_POLICIES)}")
    flags: set[str] = set()
    for entry in node["flags"].array():
        flag = entry.text()
        if flag not in MEMORY_POLICY_FLAGS:
            raise entry.error(f"invalid memory policy flag {shown(flag)}; one of {', '.join(MEMORY_POLICY_FLAGS)}")
        flags.add(flag)
    if {"MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"} <= flags:
        raise node["flags"].error("invalid memory policy flags: nodes are static or relative, not both")
    if "MPOL_F_NUMA_BALANCING" in flags and mode not in ("MPOL_BIND", "MPOL_PREFERRED_MANY"):
        raise node["flags"].error(f"invalid memory policy flag MPOL_F_NUMA_BALANCING: it does not go with {mode}")
    nodes = _read_nodes(node["nodes"], mode)
    if flags and not nodes:
        raise node["flags"].error("invalid memory policy flags: they go with nodes")
    return MemoryPolicy(mode=MEMORY_POLICIES[mode], flags=sum(MEMORY_POLICY_FLAGS[flag] for flag in flags), nodes=nodes)


def _read_nodes(node: Node, mode: str) -> frozenset[int]:
    try:
        nodes = node.number_list() or frozenset()
    except ConfigError as wrong:
        raise node.error(f"invalid memory policy nodes: {wrong.problem}") from None
    if nodes and mode in ("MPOL_DEFAULT", "MPOL_LOCAL"):
        raise node.error(f"invalid memory policy nodes: {mode} takes none")
    if not nodes and mode not in ("MPOL_DEFAULT", "MPOL_LOCAL", "MPOL_PREFERRED"):
        raise node.error(f"invalid memory policy nodes: {mode} needs at least one")
    return nodes
