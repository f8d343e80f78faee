"""Names and their numbers, once. Ground: it touches nothing."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

CAPABILITIES: Final = tuple(  # in the kernel's order, which is their number: linux/capability.h
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
        "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
        "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
        "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)
_CAPABILITY: Final = {name: number for number, name in enumerate(CAPABILITIES)}

RLIMITS: Final = {  # asm-generic/resource.h
    f"RLIMIT_{name}": number
    for number, name in enumerate(
        (
            "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"
        ).split()
    )
}

NAMESPACES: Final = {  # runtime-spec's name: (CLONE_NEW* of sched.h, its file in /proc/PID/ns)
    "mount": (0x00020000, "mnt"),
    "pid": (0x20000000, "pid"),
    "network": (0x40000000, "net"),
    "ipc": (0x08000000, "ipc"),
    "uts": (0x04000000, "uts"),
    "user": (0x10000000, "user"),
    "cgroup": (0x02000000, "cgroup"),
    "time": (0x00000080, "time"),
}

_SIGNALS: Final = (  # signal(7), x86 and ARM
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG "
    "XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
).split()
SIGNALS: Final = {name: number for number, name in enumerate(_SIGNALS, 1)}

SCHEDULERS: Final = {  # linux/sched.h
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHEDULER_FLAGS: Final = {  # linux/sched.h
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
DEVICE_MAJOR, DEVICE_MINOR = 4095, (1 << 20) - 1  # the highest numbers: linux/kdev_t.h
IO_CLASSES: Final = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}  # linux/ioprio.h
PERSONALITIES: Final = {"LINUX": 0x0000, "LINUX32": 0x0008}  # linux/personality.h
MEMORY_POLICIES: Final = {  # linux/mempolicy.h
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_POLICY_FLAGS: Final = {
    "MPOL_F_STATIC_NODES": 1 << 15,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_NUMA_BALANCING": 1 << 13,
}

# libseccomp knows what these are (_seccomp.pyx); which there are, runtime-spec's config-linux.md says, "Seccomp".
SECCOMP_ACTIONS: Final = tuple(
    f"SCMP_ACT_{name}" for name in "KILL KILL_PROCESS KILL_THREAD TRAP ERRNO TRACE ALLOW LOG NOTIFY".split()
)
SECCOMP_ARCHITECTURES: Final = tuple(
    f"SCMP_ARCH_{name}"
    for name in (
        "X86 X86_64 X32 ARM AARCH64 LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE "
        "S390 S390X SH SHEB PARISC PARISC64 RISCV64"
    ).split()
)
SECCOMP_OPERATORS: Final = tuple(f"SCMP_CMP_{name}" for name in "NE LT LE EQ GE GT MASKED_EQ".split())
FILTER_FLAGS: Final = tuple(f"SECCOMP_FILTER_FLAG_{name}" for name in "TSYNC LOG SPEC_ALLOW WAIT_KILLABLE_RECV".split())


def capability_mask(names: Iterable[str]) -> tuple[int, tuple[str, ...]]:
    """The bits of the capabilities named, and the names that this table lacks.

    Such a name is the caller's to warn of, and no error: runtime-spec config.md, "Linux Process".
    """
    mask = 0
    unknown: list[str] = []
    for name in names:
        if name in _CAPABILITY:
            mask |= 1 << _CAPABILITY[name]
        else:
            unknown.append(name)
    return mask, tuple(unknown)


def signal_number(text: str) -> int | None:
    """The number of a signal given as KILL, SIGKILL, 9 or RTMIN+n; None when there is none."""
    name = text.upper().removeprefix("SIG")
    if name in SIGNALS:
        return SIGNALS[name]
    base, sign, offset = name.partition("+")
    if base == "RTMIN" and (not sign or offset.isascii() and offset.isdigit()):
        name = str(34 + int(offset or "0"))
    if name.isascii() and name.isdigit() and len(name) < 4 and 1 <= int(name) <= 64:
        return int(name)
    return None
