"""The system calls, structures and numbers that the init uses; sys.h gives them."""

cdef extern from "sys.h" nogil:
    long sys0(long n)
    long sys1(long n, long a)
    long sys2(long n, long a, long b)
    long sys3(long n, long a, long b, long c)
    long sys4(long n, long a, long b, long c, long d)
    long sys5(long n, long a, long b, long c, long d, long e)
    long sys6(long n, long a, long b, long c, long d, long e, long f)
    void *memcpy(void *to, const void *source, unsigned long n)

    struct clone_arguments:
        unsigned long flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size
        unsigned long cgroup
    long clone_onto_stack(clone_arguments *args, unsigned long size, int (*run)(void *) noexcept nogil, void *argument)
    long fork_onto_stack(unsigned long flags, void *top, int (*run)(void *) noexcept nogil, void *argument)
    struct open_how_:
        unsigned long flags, mode, resolve
    struct mount_attributes:
        unsigned long attr_set, attr_clr, propagation, userns_fd
    struct file_status:
        unsigned int stx_mask, stx_nlink, stx_uid, stx_gid
        unsigned short stx_mode
        unsigned long stx_ino, stx_size, stx_mnt_id
        unsigned int stx_rdev_major, stx_rdev_minor, stx_dev_major, stx_dev_minor
    struct fs_status:
        long f_type
    struct message_vector:
        void *base
        unsigned long length
    struct message_header:
        void *name
        unsigned int name_length
        int flags
        message_vector *vectors
        unsigned long vector_count
        void *control
        unsigned long control_length
    struct control_header:
        unsigned long length
        int level, type
    struct signal_action:
        unsigned long handler, flags, restorer, mask
    struct poll_entry:
        int fd
        short events, revents
    struct signal_info:
        unsigned int signo
        int code
    struct resource_usage:
        long user_s, user_us, system_s, system_us, maxrss
    struct interface_request:
        char name[16]
        short flags
    struct capability_header:
        unsigned int version
        int pid
    struct capability_data:
        unsigned int effective, permitted, inheritable
    struct window_size:
        unsigned short rows, columns, x, y
    struct filter_program:
        unsigned short length
        void *filter

    long NR_capset "__NR_capset"
    long NR_capget "__NR_capget"
    long NR_execveat "__NR_execveat"
    long NR_fcntl "__NR_fcntl"
    long NR_memfd_create "__NR_memfd_create"
    long NR_pidfd_open "__NR_pidfd_open"
    long NR_pidfd_send_signal "__NR_pidfd_send_signal"
    long NR_chdir "__NR_chdir"
    long NR_chroot "__NR_chroot"
    long NR_clone "__NR_clone"
    long NR_clone3 "__NR_clone3"
    long NR_close "__NR_close"
    long NR_close_range "__NR_close_range"
    long NR_dup3 "__NR_dup3"
    long NR_execve "__NR_execve"
    long NR_exit_group "__NR_exit_group"
    long NR_faccessat2 "__NR_faccessat2"
    long NR_fchdir "__NR_fchdir"
    long NR_fchownat "__NR_fchownat"
    long NR_fsconfig "__NR_fsconfig"
    long NR_fsmount "__NR_fsmount"
    long NR_fsopen "__NR_fsopen"
    long NR_fstatfs "__NR_fstatfs"
    long NR_getcwd "__NR_getcwd"
    long NR_getpid "__NR_getpid"
    long NR_getrusage "__NR_getrusage"
    long NR_ioctl "__NR_ioctl"
    long NR_ioprio_set "__NR_ioprio_set"
    long NR_keyctl "__NR_keyctl"
    long NR_kill "__NR_kill"
    long NR_mkdirat "__NR_mkdirat"
    long NR_mknodat "__NR_mknodat"
    long NR_mmap "__NR_mmap"
    long NR_mount_setattr "__NR_mount_setattr"
    long NR_move_mount "__NR_move_mount"
    long NR_open_tree "__NR_open_tree"
    long NR_openat2 "__NR_openat2"
    long NR_personality "__NR_personality"
    long NR_pipe2 "__NR_pipe2"
    long NR_pivot_root "__NR_pivot_root"
    long NR_ppoll "__NR_ppoll"
    long NR_prctl "__NR_prctl"
    long NR_prlimit64 "__NR_prlimit64"
    long NR_read "__NR_read"
    long NR_readlinkat "__NR_readlinkat"
    long NR_recvmsg "__NR_recvmsg"
    long NR_rt_sigaction "__NR_rt_sigaction"
    long NR_rt_sigprocmask "__NR_rt_sigprocmask"
    long NR_sched_setaffinity "__NR_sched_setaffinity"
    long NR_sched_setattr "__NR_sched_setattr"
    long NR_seccomp "__NR_seccomp"
    long NR_sendmsg "__NR_sendmsg"
    long NR_set_mempolicy "__NR_set_mempolicy"
    long NR_setdomainname "__NR_setdomainname"
    long NR_setgroups "__NR_setgroups"
    long NR_sethostname "__NR_sethostname"
    long NR_setns "__NR_setns"
    long NR_setresgid "__NR_setresgid"
    long NR_setresuid "__NR_setresuid"
    long NR_setsid "__NR_setsid"
    long NR_signalfd4 "__NR_signalfd4"
    long NR_socket "__NR_socket"
    long NR_statx "__NR_statx"
    long NR_symlinkat "__NR_symlinkat"
    long NR_umask "__NR_umask"
    long NR_umount2 "__NR_umount2"
    long NR_unshare "__NR_unshare"
    long NR_wait4 "__NR_wait4"
    long NR_write "__NR_write"

cdef enum:
    EPERM = 1
    ENOENT = 2
    EINTR = 4
    ECHILD = 10
    EAGAIN = 11
    EACCES = 13
    EBUSY = 16
    EEXIST = 17
    ENOTDIR = 20
    ENODEV = 19
    EINVAL = 22
    EROFS = 30
    ENOSYS = 38
    ELOOP = 40
    ENAMETOOLONG = 36
    EBADMSG = 74
    ECANCELED = 125

    AT_FDCWD = -100
    AT_SYMLINK_NOFOLLOW = 0x100
    AT_EACCESS = 0x200
    AT_EMPTY_PATH = 0x1000
    AT_RECURSIVE = 0x8000
    O_WRONLY = 1
    O_RDWR = 2
    O_CREAT = 0o100
    O_EXCL = 0o200
    O_NONBLOCK = 0o4000
    O_CLOEXEC = 0o2000000
    O_PATH = 0o10000000
    RESOLVE_NO_XDEV = 1
    RESOLVE_NO_MAGICLINKS = 2
    RESOLVE_NO_SYMLINKS = 4
    RESOLVE_BENEATH = 8
    RESOLVE_IN_ROOT = 16
    OPEN_TREE_CLONE = 1
    MOUNT_ATTR_RDONLY = 1
    MOVE_MOUNT_F_EMPTY_PATH = 4
    MOVE_MOUNT_T_EMPTY_PATH = 0x40
    FSCONFIG_SET_FLAG = 0
    FSCONFIG_SET_STRING = 1
    FSCONFIG_SET_FD = 5
    FSCONFIG_CMD_CREATE = 6
    MNT_DETACH = 2
    MS_PRIVATE = 1 << 18
    PROC_SUPER_MAGIC = 0x9FA0
    SYSFS_MAGIC = 0x62656572
    CGROUP_SUPER_MAGIC = 0x27E0EB
    CGROUP2_SUPER_MAGIC = 0x63677270
    CONFIGFS_MAGIC = 0x62656570
    TRACEFS_MAGIC = 0x74726163
    RDTGROUP_SUPER_MAGIC = 0x7655821
    PROC_ROOT_INO = 1
    S_IFMT = 0o170000
    S_IFREG = 0o100000
    S_IFDIR = 0o040000
    S_IFCHR = 0o020000
    STATX_BASIC_STATS = 0x7FF

    CLONE_VM = 0x100
    CLONE_PIDFD = 0x1000
    CLONE_VFORK = 0x4000
    CLONE_PARENT = 0x8000
    SIGKILL = 9
    SIGCHLD = 17
    SIGRTMAX = 64
    SIGSTOP = 19
    SIG_SETMASK = 2
    WNOHANG = 1
    WALL = 0x40000000
    SFD_FLAGS = 0o2004000             # SFD_CLOEXEC | SFD_NONBLOCK
    POLLIN = 1
    RUSAGE_CHILDREN = -1
    SOL_SOCKET = 1
    SCM_RIGHTS = 1
    MSG_CMSG_CLOEXEC = 0x40000000
    MSG_NOSIGNAL = 0x4000
    CLOSE_RANGE_CLOEXEC = 4
    PR_SET_NAME = 15
    PR_CAPBSET_DROP = 24
    PR_CAP_AMBIENT = 47
    PR_CAP_AMBIENT_RAISE = 2
    PR_CAP_AMBIENT_CLEAR_ALL = 4
    CAPABILITY_VERSION_3 = 0x20080522
    KEYCTL_JOIN_SESSION_KEYRING = 1
    SECCOMP_SET_MODE_FILTER = 1
    SECCOMP_NEW_LISTENER = 8
    F_SETFL = 4
    IOPRIO_WHO_PROCESS = 1
    AF_INET = 2
    SOCK_DGRAM_CLOEXEC = 0o2000002
    SIOCGIFFLAGS = 0x8913
    SIOCSIFFLAGS = 0x8914
    IFF_UP = 1
    TIOCSCTTY = 0x540E
    TIOCSWINSZ = 0x5414
    TIOCSPTLCK = 0x40045431
    TIOCGPTPEER = 0x5441
    DEVPTS_SUPER_MAGIC = 0x1CD1
    O_NOCTTY = 0o400
    PROT_READ_WRITE = 3
    MAP_PRIVATE = 2


# --- of copyup.pyx --------------------------------------------------------------------------------------------------

cdef extern from "sys.h" nogil:
    struct file_time:                 # a member of file_status, nameless in C
        long tv_sec
        unsigned int tv_nsec
    struct file_times "file_status":  # statx(2) again, for its times
        file_time stx_atime, stx_mtime
    struct directory_entry:
        unsigned short length
        char name[1]                  # as long as it is

    long OPEN_DIRECTORY
    long OPEN_NOFOLLOW
    long NR_fchmod "__NR_fchmod"
    long NR_fchmodat "__NR_fchmodat"
    long NR_fgetxattr "__NR_fgetxattr"
    long NR_flistxattr "__NR_flistxattr"
    long NR_fsetxattr "__NR_fsetxattr"
    long NR_ftruncate "__NR_ftruncate"
    long NR_getdents64 "__NR_getdents64"
    long NR_lgetxattr "__NR_lgetxattr"
    long NR_linkat "__NR_linkat"
    long NR_llistxattr "__NR_llistxattr"
    long NR_lseek "__NR_lseek"
    long NR_lsetxattr "__NR_lsetxattr"
    long NR_munmap "__NR_munmap"
    long NR_pread64 "__NR_pread64"
    long NR_pwrite64 "__NR_pwrite64"
    long NR_utimensat "__NR_utimensat"

cdef enum:
    ENXIO = 6
    EXDEV = 18
    EMLINK = 31
    ENODATA = 61
    EOPNOTSUPP = 95
    ESTALE = 116
    SEEK_DATA = 3
    S_IFIFO = 0o010000
    S_IFLNK = 0o120000
    S_IFSOCK = 0o140000
    MAP_FRESH = 0x4022                # MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    ATTR_LOOK_ONLY = 0x20000F         # MOUNT_ATTR_: RDONLY, NOSUID, NODEV, NOEXEC, NOSYMFOLLOW
