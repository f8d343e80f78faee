"""The filter of `run()`: as tight as the engines' own for a container without capabilities. Compile; pure."""

from __future__ import annotations

from cycontainer.config import Seccomp, SyscallArgument, SyscallRule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# All that programs need, by subject. What is absent is refused with EPERM: mounts, modules, keys, bpf, ptrace of other
# memory, io_uring, userfaultfd, clocks, swap, namespaces, handles, quotas, raw I/O, reboot.
_FILES: Final = """
access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat
getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel
io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl lchown lchown32 lgetxattr link linkat
listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat newfstatat open
openat openat2 _llseek _newselect pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv
removexattr removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs
statfs64 statx symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat
utimensat_time64 utimes vmsplice write writev cachestat statmount listmount
"""
_MEMORY: Final = """
brk madvise membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock
munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages process_madvise process_mrelease map_shadow_stack
"""
_PROCESSES: Final = """
arch_prctl capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getpgid getpgrp getpid getppid
getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid getuid getuid32 getgid
getgid32 geteuid geteuid32 getegid getegid32 getgroups getgroups32 getcpu ioprio_get ioprio_set kill pidfd_open
pidfd_send_signal prctl prlimit64 ptrace rseq sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
sched_setparam sched_setscheduler sched_yield seccomp set_robust_list set_thread_area set_tid_address setfsgid setfsgid32
setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32 setresgid setresgid32
setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 sysinfo tgkill times tkill ugetrlimit uname vfork
wait4 waitid waitpid landlock_add_rule landlock_create_ruleset landlock_restrict_self lsm_get_self_attr lsm_list_modules
lsm_set_self_attr uretprobe
"""
_SIGNALS_AND_TIME: Final = """
alarm clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer
gettimeofday nanosleep pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo setitimer sigaltstack signal sigaction signalfd
signalfd4 sigpending sigprocmask sigreturn sigsuspend time timer_create timer_delete timer_getoverrun timer_gettime
timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
timerfd_settime64 adjtimex
"""
_TALKING: Final = """
accept accept4 bind connect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
epoll_wait_old eventfd eventfd2 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake getpeername getsockname
getsockopt ipc listen mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
mq_unlink msgctl msgget msgrcv msgsnd pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 recv recvfrom recvmmsg
recvmmsg_time64 recvmsg select semctl semget semop semtimedop semtimedop_time64 send sendmmsg sendmsg sendto setsockopt
shmat shmctl shmdt shmget shutdown socketcall socketpair
"""
_NEW_NAMESPACES: Final = 0x7E020000  # CLONE_NEW* but time's, which clone(2) cannot make
_AF_VSOCK: Final = 40  # leads to the hypervisor past every network namespace
_PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)  # personality(2): Linux, 32 bits, old uname, a question


def _only(name: str, index: int, value: int, op: str, value_two: int = 0) -> SyscallRule:
    argument = SyscallArgument(index=index, value=value, value_two=value_two, op=op)
    return SyscallRule(names=(name,), action="SCMP_ACT_ALLOW", args=(argument,))


DEFAULT: Final = Seccomp(
    default_action="SCMP_ACT_ERRNO",
    default_errno=1,
    syscalls=(
        SyscallRule(
            names=tuple(" ".join((_FILES, _MEMORY, _PROCESSES, _SIGNALS_AND_TIME, _TALKING)).split()),
            action="SCMP_ACT_ALLOW",
        ),
        _only("clone", 0, _NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ", 0),
        # its flags lie in memory, where no filter sees them: the C library falls back to clone
        SyscallRule(names=("clone3",), action="SCMP_ACT_ERRNO", errno=38),
        _only("socket", 0, _AF_VSOCK, "SCMP_CMP_NE"),
        *(_only("personality", 0, value, "SCMP_CMP_EQ") for value in _PERSONALITIES),
    ),
)
