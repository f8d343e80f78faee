"""The runtime-spec's configuration as typed records. Model: it touches nothing.

Past this room no one sees JSON, a default, or an unchecked value. The records stand here; how they are read
stands in `read_config.py`. Source: runtime-spec 1.3, config.md and config-linux.md.

Names become numbers where a table has them (capabilities, rlimits, signals, flags); what only another room
can judge (mount options, sysctls against namespaces) stays text.
"""

from __future__ import annotations

from cycontainer.record import Record


class IdMap(Record):
    """One line of uid_map or gid_map: `size` ids from `container` on are `host` and following."""

    container: int
    host: int
    size: int


class Root(Record):
    """`root`. `path` is absolute: a relative one was joined to the bundle."""

    path: str
    readonly: bool = False


class Mount(Record):
    """An entry of `mounts`; `options` are not yet folded (`mount_options.fold_options`)."""

    destination: str  # absolute, in the container
    type: str = ""  # "" when not given
    source: str = ""  # absolute for a bind: a relative one was joined to the bundle
    options: tuple[str, ...] = ()
    uid_map: tuple[IdMap, ...] = ()
    gid_map: tuple[IdMap, ...] = ()
    where: str = ""  # what it is called in errors: "mounts[3]"


class User(Record):
    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()


class Capabilities(Record):
    """Five sets as masks of bits: bit n is capability n (`tables.CAPABILITIES`)."""

    bounding: int = 0
    effective: int = 0
    inheritable: int = 0
    permitted: int = 0
    ambient: int = 0


class Rlimit(Record):
    """A resource limit that init hands to prlimit(2) as it stands."""

    resource: int  # RLIMIT_*
    soft: int  # both in the resource's own unit; RLIM_INFINITY is 2**64 - 1
    hard: int


class Scheduler(Record):
    """What sched_setattr(2) takes; times in nanoseconds."""

    policy: int  # SCHED_*
    flags: int = 0
    nice: int = 0
    priority: int = 0
    runtime_ns: int = 0
    deadline_ns: int = 0
    period_ns: int = 0


class Process(Record):
    """`process`."""

    args: tuple[str, ...]
    cwd: str = "/"
    env: tuple[str, ...] = ()  # "NAME=value", in order, names not repeated: the last of duplicates won
    terminal: bool = False
    console_size: tuple[int, int] | None = None  # rows, columns
    user: User = User()
    capabilities: Capabilities = Capabilities()  # absent is none
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    selinux_label: str = ""
    oom_score_adj: int | None = None
    scheduler: Scheduler | None = None
    io_priority: tuple[int, int] | None = None  # class (IOPRIO_CLASS_*), priority 0 to 7
    cpu_affinity_initial: frozenset[int] | None = None  # of exec
    cpu_affinity_final: frozenset[int] | None = None


class Hook(Record):
    path: str  # absolute
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None  # seconds


class Hooks(Record):
    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


class Namespace(Record):
    type: str  # a key of tables.NAMESPACES: "mount", "pid", "network", "ipc", "uts", "user", "cgroup", "time"
    path: str | None = None  # absolute: join that one; None: a new one
    place: int = 0  # in linux.namespaces, from 0: where an error is


class Device(Record):
    """An entry of `linux.devices`."""

    type: str  # "c", "b", "p"; "u" was read as "c"
    path: str
    major: int = 0
    minor: int = 0
    mode: int = 0o666  # permission bits
    uid: int = 0
    gid: int = 0


class DeviceRule(Record):
    """An entry of `linux.resources.devices`; None is every number."""

    allow: bool
    type: str = "a"  # "a", "b", "c"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"  # letters of "rwm", each at most once, in that order


class Memory(Record):
    """Bytes; -1 is unlimited; None is not given."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None  # memory and swap together
    kernel: int | None = None
    kernel_tcp: int | None = None
    swappiness: int | None = None
    disable_oom_killer: bool | None = None
    use_hierarchy: bool | None = None
    check_before_update: bool = False


class Cpu(Record):
    shares: int | None = None
    quota_us: int | None = None
    burst_us: int | None = None
    period_us: int | None = None
    realtime_runtime_us: int | None = None
    realtime_period_us: int | None = None
    cpus: str | None = None  # a checked list, "0-1,3"
    mems: str | None = None
    idle: int | None = None


class Throttle(Record):
    major: int
    minor: int
    rate: int  # bytes or operations a second


class WeightDevice(Record):
    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class BlockIO(Record):
    weight: int | None = None
    leaf_weight: int | None = None
    weight_devices: tuple[WeightDevice, ...] = ()
    throttle_read_bps: tuple[Throttle, ...] = ()
    throttle_write_bps: tuple[Throttle, ...] = ()
    throttle_read_iops: tuple[Throttle, ...] = ()
    throttle_write_iops: tuple[Throttle, ...] = ()


class Resources(Record):
    """`linux.resources`; a None or an empty tuple is not given."""

    devices: tuple[DeviceRule, ...] = ()
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: int | None = None  # -1 is unlimited, 0 is a limit
    block_io: BlockIO | None = None
    hugepages: tuple[tuple[str, int], ...] = ()  # page size ("2MB"), limit in bytes
    network_class: int | None = None
    network_priorities: tuple[tuple[str, int], ...] = ()  # interface, priority
    rdma: tuple[tuple[str, int | None, int | None], ...] = ()  # device, handles, objects
    unified: tuple[tuple[str, str], ...] = ()


class SyscallArgument(Record):
    position: int  # of the argument, from 0; `index` is a method of a tuple
    value: int
    value_two: int = 0
    op: str = "SCMP_CMP_EQ"


class SyscallRule(Record):
    names: tuple[str, ...]
    action: str
    errno: int | None = None
    args: tuple[SyscallArgument, ...] = ()


class Seccomp(Record):
    """`linux.seccomp`; actions, architectures, operators by their checked SCMP_ names."""

    default_action: str
    default_errno: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()  # SECCOMP_FILTER_FLAG_*
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[SyscallRule, ...] = ()


class IntelRdt(Record):
    clos_id: str | None = None
    schemata: tuple[str, ...] = ()
    l3_cache_schema: str = ""
    memory_bandwidth_schema: str = ""
    enable_monitoring: bool = False


class MemoryPolicy(Record):
    mode: int  # MPOL_*
    flags: int = 0  # MPOL_F_*
    nodes: frozenset[int] = frozenset()


class Linux(Record):
    """`linux`."""

    namespaces: tuple[Namespace, ...] = ()
    uid_map: tuple[IdMap, ...] = ()
    gid_map: tuple[IdMap, ...] = ()
    time_offsets: tuple[tuple[str, int, int], ...] = ()  # clock ("boottime"), seconds, nanoseconds
    devices: tuple[Device, ...] = ()
    net_devices: tuple[tuple[str, str], ...] = ()  # name on the host, name in the container
    cgroups_path: str = ""
    resources: Resources = Resources()
    rootfs_propagation: str = ""  # "", "private", "shared", "slave", "unbindable", and each with "r" before
    seccomp: Seccomp | None = None
    sysctl: tuple[tuple[str, str], ...] = ()
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str = ""
    personality: int | None = None  # what personality(2) takes
    intel_rdt: IntelRdt | None = None
    memory_policy: MemoryPolicy | None = None

    def makes(self, kind: str) -> bool:
        """Whether a namespace of this kind is new."""
        return any([namespace.type == kind and namespace.path is None for namespace in self.namespaces])


class Config(Record):
    """A whole config.json, checked."""

    version: str
    root: Root
    process: Process | None = None
    mounts: tuple[Mount, ...] = ()
    hostname: str = ""
    domainname: str = ""
    hooks: Hooks = Hooks()
    annotations: tuple[tuple[str, str], ...] = ()
    linux: Linux = Linux()
    warnings: tuple[str, ...] = ()  # what the spec says must only be warned of, a sentence each
