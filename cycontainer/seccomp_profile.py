"""The filter of `run()`: as tight as the engines' own for a container without capabilities. Model; pure.

What is listed is allowed. All else is refused with EPERM, or with ENOSYS where it is newer than all that is listed.
So nothing here

- makes or joins namespaces or mounts: unshare setns mount umount2 pivot_root chroot fsopen fsmount fsconfig fspick
  move_mount open_tree mount_setattr; clone3, which could, is answered as if the kernel had none;
- reaches kernel interfaces with a history of faults: bpf perf_event_open userfaultfd io_uring_* keyctl add_key
  request_key modify_ldt vm86 fanotify_init lookup_dcookie;
- belongs to the machine: kexec_*, modules, swap, quotas, setting clocks, reboot, acct, syslog, host name, I/O ports;
- reaches past the mount namespace, or into other processes: open_by_handle_at pidfd_getfd process_madvise kcmp;
- says where memory lies: mbind set_mempolicy move_pages migrate_pages, which engines tie to CAP_SYS_NICE.

i386's `socketcall` is left out, too: it hides the family of a socket from every filter, and AF_VSOCK is refused. What
else it stands for is allowed through it as by itself (`_seccomp_rules.pyx`); 32-bit programs make sockets by `socket`.

Source: the engines' published profiles; syscalls(2); seccomp(2).
"""

from __future__ import annotations

from cycontainer.config import Seccomp, SyscallArgument, SyscallRule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# Names of all architectures, old and new: libseccomp leaves out what one of them lacks, or what it has not heard of.
_ALLOWED: Final = {
    "open, read and write files": """
        open openat openat2 creat close close_range dup dup2 dup3 fcntl fcntl64 flock ioctl read readv pread64
        preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek readahead fadvise64 fadvise64_64
        arm_fadvise64_64 fallocate truncate truncate64 ftruncate ftruncate64 sync syncfs fsync fdatasync
        sync_file_range arm_sync_file_range sync_file_range2 copy_file_range sendfile sendfile64 splice tee vmsplice
        memfd_create memfd_secret cachestat
    """,
    "names, attributes and directories": """
        access faccessat faccessat2 stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx statfs
        statfs64 fstatfs fstatfs64 getcwd chdir fchdir getdents getdents64 mkdir mkdirat rmdir mknod mknodat link
        linkat symlink symlinkat readlink readlinkat rename renameat renameat2 unlink unlinkat umask chmod fchmod
        fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat lchown lchown32 utime utimes futimesat utimensat
        utimensat_time64 getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr flistxattr listxattrat
        setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat
        name_to_handle_at inotify_init inotify_init1 inotify_add_watch inotify_rm_watch
    """,
    "memory": """
        brk mmap mmap2 munmap mremap mprotect madvise mincore msync mlock mlock2 mlockall munlock munlockall mseal
        remap_file_pages membarrier pkey_alloc pkey_free pkey_mprotect map_shadow_stack process_mrelease
    """,
    "make, watch and end processes": """
        fork vfork execve execveat exit exit_group wait4 waitid waitpid kill tkill tgkill pidfd_open
        pidfd_send_signal getpid getppid gettid getpgrp getpgid setpgid getsid setsid set_tid_address
        set_robust_list get_robust_list rseq prctl arch_prctl set_thread_area get_thread_area set_tls cacheflush
        breakpoint uretprobe
    """,
    # since Linux 4.8 a tracer cannot get past the filter; who may be traced, ids and capabilities decide
    "debug own processes": """
        ptrace process_vm_readv process_vm_writev
    """,
    # the kernel asks for capabilities where one is needed; programs drop what they have by the same calls
    "ids, capabilities and limits": """
        getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid
        getresgid32 getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32
        setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32
        capget capset getrlimit ugetrlimit setrlimit prlimit64 getrusage times sysinfo uname getcpu getrandom
    """,
    "confine oneself further": """
        seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self lsm_get_self_attr lsm_set_self_attr
        lsm_list_modules
    """,
    "scheduling": """
        sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam
        sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval
        sched_rr_get_interval_time64 getpriority setpriority ioprio_get ioprio_set
    """,
    "signals": """
        rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
        rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaction sigaltstack signal signalfd signalfd4 sigpending
        sigprocmask sigreturn sigsuspend pause restart_syscall
    """,
    # adjtimex and clock_adjtime also read the clock's state, which anyone may; they set it with CAP_SYS_TIME only
    "clocks and timers": """
        time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep
        clock_nanosleep_time64 nanosleep adjtimex clock_adjtime clock_adjtime64 alarm getitimer setitimer
        timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
        timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
    """,
    "wait for many things": """
        poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create epoll_create1 epoll_ctl
        epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 futex futex_time64
        futex_waitv futex_wait futex_wake futex_requeue io_setup io_destroy io_submit io_cancel io_getevents
        io_pgetevents io_pgetevents_time64
    """,
    # `socket` has a condition, below
    "sockets and pipes": """
        pipe pipe2 socketpair bind connect listen accept accept4 getsockname getpeername getsockopt setsockopt
        shutdown send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64
    """,
    "System V's and POSIX's queues, semaphores and shared memory": """
        ipc msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
        mq_open mq_unlink mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64 mq_notify
        mq_getsetattr
    """,
}

# CLONE_NEW* of linux/sched.h, all that clone(2) can make: its low byte, where time's would be, is the exit signal.
_NEW_NAMESPACES: Final = 0x7E020000
_AF_VSOCK: Final = 40  # leads to the hypervisor, past every network namespace
_PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)  # Linux, PER_LINUX32, each as 2.6, a question
_EPERM: Final = 1
_ENOSYS: Final = 38


def _where(name: str, value: int, op: str) -> SyscallRule:
    """Allow a call when its first argument compares with `value`."""
    condition = SyscallArgument(position=0, value=value, op=op)
    return SyscallRule(names=(name,), action="SCMP_ACT_ALLOW", args=(condition,))


DEFAULT: Final = Seccomp(
    default_action="SCMP_ACT_ERRNO",
    default_errno=_EPERM,
    # beside the machine's own: 32-bit programs run. x32, the same calls by second numbers, is left out
    architectures=("SCMP_ARCH_X86", "SCMP_ARCH_ARM"),
    syscalls=(
        SyscallRule(names=tuple(" ".join(_ALLOWED.values()).split()), action="SCMP_ACT_ALLOW"),
        _where("clone", _NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ"),  # none of these bits
        # its flags lie in memory, where no filter sees them: with ENOSYS a C library goes on to clone
        SyscallRule(names=("clone3",), action="SCMP_ACT_ERRNO", errno=_ENOSYS),
        _where("socket", _AF_VSOCK, "SCMP_CMP_NE"),
        *(_where("personality", value, "SCMP_CMP_EQ") for value in _PERSONALITIES),
    ),
)
