"""Reads the section `linux` of a configuration. Model; pure. Source: runtime-spec 1.3, config-linux.md."""

from __future__ import annotations

from cycontainer.config import (
    BlockIO,
    Cpu,
    Device,
    DeviceRule,
    IntelRdt,
    Linux,
    Memory,
    MemoryPolicy,
    Namespace,
    Resources,
    Seccomp,
    SyscallArgument,
    SyscallRule,
    Throttle,
    WeightDevice,
)
from cycontainer.read_config import MOST_ID, UINT64, read_cpu_list, read_id_maps
from cycontainer.tables import MEMORY_POLICIES, MEMORY_POLICY_FLAGS, NAMESPACES, PERSONALITIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.node import Node

INT64: Final = 2**63 - 1
DEVICE_MAJOR, DEVICE_MINOR = 4095, (1 << 20) - 1
_PROPAGATIONS: Final = tuple(f"{r}{name}" for r in ("", "r") for name in ("private", "shared", "slave", "unbindable"))
_ACTIONS: Final = tuple(
    f"SCMP_ACT_{name}" for name in "KILL KILL_PROCESS KILL_THREAD TRAP ERRNO TRACE ALLOW LOG NOTIFY".split()
)
_ARCHITECTURES: Final = tuple(
    f"SCMP_ARCH_{name}"
    for name in (
        "X86 X86_64 X32 ARM AARCH64 LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE "
        "S390 S390X SH SHEB PARISC PARISC64 RISCV64"
    ).split()
)
_OPERATORS: Final = tuple(f"SCMP_CMP_{name}" for name in "NE LT LE EQ GE GT MASKED_EQ".split())
_FILTER_FLAGS: Final = tuple(f"SECCOMP_FILTER_FLAG_{name}" for name in "TSYNC LOG SPEC_ALLOW WAIT_KILLABLE_RECV".split())
_IPC_SYSCTLS: Final = frozenset(
    f"kernel/{name}" for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split()
)


def _read_namespaces(node: Node) -> tuple[Namespace, ...]:
    found: list[Namespace] = []
    for entry in node.array():
        kind = entry["type"].text()
        if kind not in NAMESPACES:
            raise entry["type"].error(f"unknown namespace {kind!r}; one of {', '.join(NAMESPACES)}")
        if any(kind == other.type for other in found):
            raise entry["type"].error(f"the {kind} namespace is there twice")
        found.append(Namespace(type=kind, path=entry["path"].path_text() if entry["path"].text("") else None))
    return tuple(found)


# --- resources


def _read_device_rule(node: Node) -> DeviceRule:
    if not node["allow"]:
        raise node["allow"].error("is missing")
    access = node["access"].text("rwm") or "rwm"
    if set(access) - set("rwm") or len(set(access)) != len(access):
        raise node["access"].error(f"must be letters of rwm, each once, not {access!r}")
    majors = [node[key].optional_integer(-1, most) for key, most in (("major", 2**32 - 1), ("minor", 2**32 - 1))]
    major, minor = (None if number == -1 else number for number in majors)
    kind = node["type"].text("a") or "a"
    if kind not in ("a", "b", "c"):
        raise node["type"].error(f"must be a, b or c, not {kind!r}")
    ordered = "".join(letter for letter in "rwm" if letter in access)
    return DeviceRule(allow=node["allow"].flag(), type=kind, major=major, minor=minor, access=ordered)


def _read_memory(node: Node) -> Memory | None:
    if not node:
        return None
    sizes = {
        ours: node[name].optional_integer(-1, INT64)
        for name, ours in (
            ("limit", "limit"),
            ("reservation", "reservation"),
            ("swap", "swap"),
            ("kernel", "kernel"),
            ("kernelTCP", "kernel_tcp"),
        )
    }
    limit, swap = sizes["limit"], sizes["swap"]
    if swap is not None and swap > 0 and (limit is None or limit < 0):
        raise node["swap"].error("memory and swap together need a memory limit as well")
    if swap is not None and limit is not None and 0 <= swap < limit:
        raise node["swap"].error(f"{swap} is memory and swap together, and less than the memory limit, {limit}")
    return Memory(
        **sizes,
        swappiness=node["swappiness"].optional_integer(0, 100),
        disable_oom_killer=node["disableOOMKiller"].flag() if node["disableOOMKiller"] else None,
        use_hierarchy=node["useHierarchy"].flag() if node["useHierarchy"] else None,
        check_before_update=node["checkBeforeUpdate"].flag(),
    )


def _read_cpu(node: Node) -> Cpu | None:
    if not node:
        return None
    for name in ("cpus", "mems"):
        if node[name].text(""):
            read_cpu_list(node[name])
    return Cpu(
        shares=node["shares"].optional_integer(0, 262144),
        quota_us=node["quota"].optional_integer(-1, INT64),
        burst_us=node["burst"].optional_integer(0, UINT64),
        period_us=node["period"].optional_integer(0, 1_000_000),
        realtime_runtime_us=node["realtimeRuntime"].optional_integer(-1, INT64),
        realtime_period_us=node["realtimePeriod"].optional_integer(0, UINT64),
        cpus=node["cpus"].text("") or None,
        mems=node["mems"].text("") or None,
        idle=node["idle"].optional_integer(0, 1),
    )


def _read_throttles(node: Node) -> tuple[Throttle, ...]:
    return tuple(
        Throttle(
            major=entry["major"].integer(0, DEVICE_MAJOR),
            minor=entry["minor"].integer(0, DEVICE_MINOR),
            rate=entry["rate"].integer(0, UINT64),
        )
        for entry in node.array()
    )


def _read_block_io(node: Node) -> BlockIO | None:
    if not node:
        return None
    devices = tuple(
        WeightDevice(
            major=entry["major"].integer(0, DEVICE_MAJOR),
            minor=entry["minor"].integer(0, DEVICE_MINOR),
            weight=entry["weight"].optional_integer(0, 1000),
            leaf_weight=entry["leafWeight"].optional_integer(0, 1000),
        )
        for entry in node["weightDevice"].array()
    )
    return BlockIO(
        weight=node["weight"].optional_integer(0, 1000),
        leaf_weight=node["leafWeight"].optional_integer(0, 1000),
        weight_devices=devices,
        throttle_read_bps=_read_throttles(node["throttleReadBpsDevice"]),
        throttle_write_bps=_read_throttles(node["throttleWriteBpsDevice"]),
        throttle_read_iops=_read_throttles(node["throttleReadIOPSDevice"]),
        throttle_write_iops=_read_throttles(node["throttleWriteIOPSDevice"]),
    )


def _read_page_size(node: Node) -> str:
    size = node.text()
    if not (size[:-2].isascii() and size[:-2].isdigit() and size[-2:] in ("KB", "MB", "GB")):
        raise node.error(f"must be a page size such as 2MB, not {size!r}")
    return size


def _read_unified(node: Node) -> tuple[tuple[str, str], ...]:
    found = []
    for key, value in node.items():
        if "/" in key or "." not in key.strip("."):
            raise value.error(f"{key!r} is no file of a cgroup")
        found.append((key, value.text()))
    return tuple(found)


def _read_resources(node: Node) -> Resources:
    if not node:
        return Resources()
    network = node["network"]
    return Resources(
        devices=tuple(map(_read_device_rule, node["devices"].array())),
        memory=_read_memory(node["memory"]),
        cpu=_read_cpu(node["cpu"]),
        pids=node["pids"]["limit"].required().integer(-1, INT64) if node["pids"] else None,
        block_io=_read_block_io(node["blockIO"]),
        hugepages=tuple(
            (_read_page_size(entry["pageSize"]), entry["limit"].integer(0, UINT64))
            for entry in node["hugepageLimits"].array()
        ),
        network_class=network["classID"].optional_integer(0, 2**32 - 1),
        network_priorities=tuple(
            (entry["name"].text(), entry["priority"].integer(0, 2**32 - 1)) for entry in network["priorities"].array()
        ),
        rdma=tuple(
            (name, *(value[key].optional_integer(0, 2**32 - 1) for key in ("hcaHandles", "hcaObjects")))
            for name, value in node["rdma"].items()
        ),
        unified=_read_unified(node["unified"]),
    )


# --- seccomp


def _read_syscall(node: Node) -> SyscallRule:
    names = node["names"].required().texts()
    if not names or not all(names):
        raise node["names"].error("must name at least one system call")
    action = node["action"].one_of(_ACTIONS)
    number = node["errnoRet"].optional_integer(0, 4095)
    if number is not None and action not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        raise node["errnoRet"].error(f"does not go with {action}")
    if action == "SCMP_ACT_NOTIFY" and "write" in names:
        raise node["action"].error("SCMP_ACT_NOTIFY cannot be used for the write syscall")
    arguments = tuple(
        SyscallArgument(
            index=entry["index"].integer(0, 5),
            value=entry["value"].integer(0, UINT64),
            value_two=entry["valueTwo"].integer(0, UINT64) if entry["valueTwo"] else 0,
            op=entry["op"].one_of(_OPERATORS),
        )
        for entry in node["args"].array()
    )
    return SyscallRule(names=names, action=action, errno=number, args=arguments)


def _read_seccomp(node: Node) -> Seccomp | None:
    if not node:
        return None
    default = node["defaultAction"].one_of(_ACTIONS)
    if default == "SCMP_ACT_NOTIFY":
        raise node["defaultAction"].error("SCMP_ACT_NOTIFY cannot be the default action")
    return Seccomp(
        default_action=default,
        default_errno=node["defaultErrnoRet"].optional_integer(0, 4095),
        architectures=tuple(entry.one_of(_ARCHITECTURES) for entry in node["architectures"].array()),
        flags=tuple(entry.one_of(_FILTER_FLAGS) for entry in node["flags"].array()),
        listener_path=node["listenerPath"].text(""),
        listener_metadata=node["listenerMetadata"].text(""),
        syscalls=tuple(map(_read_syscall, node["syscalls"].array())),
    )


# --- the rest


def _read_device(node: Node) -> Device:
    kind = node["type"].one_of(("c", "b", "u", "p"))
    numbers = {}
    for name, most in (("major", DEVICE_MAJOR), ("minor", DEVICE_MINOR)):
        numbers[name] = 0 if kind == "p" else node[name].required().integer(0, most)
    path = node["path"].path_text()
    if path.endswith("/") or "/../" in f"{path}/":
        raise node["path"].error(f"must be the path of a file, not {path!r}")
    return Device(
        type="c" if kind == "u" else kind,
        path=path,
        **numbers,
        mode=node["fileMode"].integer(0, 0o777) if node["fileMode"] else 0o666,
        uid=node["uid"].integer(0, MOST_ID) if node["uid"] else 0,
        gid=node["gid"].integer(0, MOST_ID) if node["gid"] else 0,
    )


def _sysctl_needs(path: str) -> str | None:
    """The namespace that owns a sysctl; None for one that is the whole machine's."""
    if path in _IPC_SYSCTLS or path.startswith("fs/mqueue/"):
        return "ipc"
    if path.startswith("net/"):
        return "network"
    if path == "kernel/domainname":
        return "uts"
    return "user" if path.startswith("user/") else None


def _read_sysctl(node: Node, kinds: frozenset[str]) -> tuple[tuple[str, str], ...]:
    found = []
    for key, value in node.items():
        path = key.replace(".", "/") if "/" not in key else key
        if ".." in key or not all(path.split("/")):
            raise value.error(f"{key!r} is no name of a sysctl")
        if path == "kernel/hostname":
            raise value.error("use hostname instead")
        needed = _sysctl_needs(path)
        if needed is None:
            raise value.error(f"{key} is not namespaced: it would change the host")
        if needed not in kinds:
            raise value.error(f"{key} needs a {needed} namespace: it would change the host")
        found.append((key, value.text()))
    return tuple(found)


def _read_time_offsets(node: Node, kinds: frozenset[str]) -> tuple[tuple[str, int, int], ...]:
    if not node:
        return ()
    if "time" not in kinds:
        raise node.error("needs a time namespace")
    found = []
    for clock, value in node.items():
        if clock not in ("boottime", "monotonic"):
            raise value.error(f"unknown clock {clock!r}; boottime or monotonic")
        seconds = value["secs"].integer(-INT64, INT64) if value["secs"] else 0
        found.append((clock, seconds, value["nanosecs"].integer(0, 999_999_999) if value["nanosecs"] else 0))
    return tuple(found)


def _read_memory_policy(node: Node) -> MemoryPolicy | None:
    if not node:
        return None
    mode = node["mode"].text()
    if mode not in MEMORY_POLICIES:
        raise node["mode"].error(f"invalid memory policy: unknown mode {mode!r}")
    flags = 0
    for entry in node["flags"].array():
        if entry.text() not in MEMORY_POLICY_FLAGS:
            raise entry.error(f"invalid memory policy: unknown flag {entry.text()!r}")
        flags |= MEMORY_POLICY_FLAGS[entry.text()]
    nodes = read_cpu_list(node["nodes"]) if node["nodes"].text("") else frozenset()
    return MemoryPolicy(mode=MEMORY_POLICIES[mode], flags=flags, nodes=nodes or frozenset())


def _read_personality(node: Node) -> int | None:
    if not node:
        return None
    if node["flags"].array():
        raise node["flags"].error("no flags are known")
    return PERSONALITIES[node["domain"].one_of(PERSONALITIES)]


def _read_intel_rdt(node: Node) -> IntelRdt | None:
    if not node:
        return None
    group = node["closID"].text("") or None
    if group and ("/" in group or group in (".", "..")):
        raise node["closID"].error(f"{group!r} is no name of a group")
    return IntelRdt(
        clos_id=group,
        schemata=node["schemata"].texts(),
        l3_cache_schema=node["l3CacheSchema"].text(""),
        memory_bandwidth_schema=node["memBwSchema"].text(""),
        enable_monitoring=node["enableMonitoring"].flag(),
    )


def _read_net_devices(node: Node, kinds: frozenset[str]) -> tuple[tuple[str, str], ...]:
    found = []
    for name, value in node.items():
        if "network" not in kinds:
            raise node.error("needs a network namespace")
        inside = value["name"].text("") or name
        for each in (name, inside):
            if not 0 < len(each) < 16 or each in (".", "..") or any(c in each for c in "/: \t\n"):
                raise value.error(f"{each!r} is no name of an interface")
        found.append((name, inside))
    return tuple(found)


def _check_user_namespace(node: Node, linux: Linux) -> None:
    user = next((namespace for namespace in linux.namespaces if namespace.type == "user"), None)
    mapped = bool(linux.uid_map or linux.gid_map)
    if mapped and (user is None or user.path):
        raise node["uidMappings"].error("mappings go with a new user namespace")
    if user and not user.path and not (linux.uid_map and linux.gid_map):
        raise node["gidMappings" if linux.uid_map else "uidMappings"].error("a new user namespace needs mappings")


def read_linux(node: Node) -> Linux:
    """The section `linux`.

    Raises:
        ConfigError: with the JSON path of what is wrong.
    """
    namespaces = _read_namespaces(node["namespaces"])
    kinds = frozenset(namespace.type for namespace in namespaces)
    path = node["cgroupsPath"].text("")
    if ".." in path.split("/"):
        raise node["cgroupsPath"].error("must not climb with ..")
    linux = Linux(
        namespaces=namespaces,
        uid_map=read_id_maps(node["uidMappings"]),
        gid_map=read_id_maps(node["gidMappings"]),
        time_offsets=_read_time_offsets(node["timeOffsets"], kinds),
        devices=tuple(map(_read_device, node["devices"].array())),
        net_devices=_read_net_devices(node["netDevices"], kinds),
        cgroups_path=path,
        resources=_read_resources(node["resources"]),
        rootfs_propagation=node["rootfsPropagation"].one_of(_PROPAGATIONS) if node["rootfsPropagation"].text("") else "",
        seccomp=_read_seccomp(node["seccomp"]),
        sysctl=_read_sysctl(node["sysctl"], kinds),
        masked_paths=tuple(entry.path_text() for entry in node["maskedPaths"].array()),
        readonly_paths=tuple(entry.path_text() for entry in node["readonlyPaths"].array()),
        mount_label=node["mountLabel"].text(""),
        personality=_read_personality(node["personality"]),
        intel_rdt=_read_intel_rdt(node["intelRdt"]),
        memory_policy=_read_memory_policy(node["memoryPolicy"]),
    )
    _check_user_namespace(node, linux)
    return linux
