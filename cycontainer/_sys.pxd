# The C library's and the kernel's names that compiled modules use: all declarations stand here.

# --- launching and waiting ---

from libc.stdint cimport uint64_t

cdef extern from "<errno.h>" nogil:
    int errno
    enum:
        EAGAIN, EBADF, ECHILD, ECONNRESET, EINTR, EINVAL, ENOSYS, EPIPE

cdef extern from "<fcntl.h>" nogil:
    enum:
        F_ADD_SEALS, F_GETFL, F_SETFL, O_CLOEXEC, O_NONBLOCK, O_RDONLY

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events, revents
    int poll(pollfd *entries, unsigned long count, int timeout_ms)
    enum:
        POLLIN, POLLOUT, POLLERR, POLLHUP, POLLPRI

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        unsigned int events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event *event)
    enum:
        EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int sigaddset(sigset_t *set, int number)
    int sigemptyset(sigset_t *set)
    int sigfillset(sigset_t *set)
    int sigismember(const sigset_t *set, int number)
    int sigpending(sigset_t *set)
    int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
    enum:
        SIG_BLOCK, SIG_SETMASK, SIGKILL, SIGPIPE

cdef extern from "<sys/resource.h>" nogil:
    struct timeval:
        long tv_sec, tv_usec
    struct rusage:
        timeval ru_utime, ru_stime
        long ru_maxrss

cdef extern from "<sys/socket.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        void *msg_name
        unsigned int msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level, cmsg_type
    cmsghdr *CMSG_FIRSTHDR(msghdr *header)
    unsigned char *CMSG_DATA(cmsghdr *header)
    size_t CMSG_LEN(size_t size)
    size_t CMSG_SPACE(size_t size)
    ssize_t recvmsg(int fd, msghdr *message, int flags)
    struct sockaddr:
        unsigned short sa_family
    int socket(int domain, int kind, int protocol)
    int connect(int fd, const sockaddr *address, unsigned int length)
    ssize_t recv(int fd, void *buffer, size_t size, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    int shutdown(int fd, int how)
    int socketpair(int domain, int type, int protocol, int *pair)
    enum:
        AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM, SOL_SOCKET, SCM_RIGHTS
        MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, SHUT_WR

cdef extern from "<sys/un.h>" nogil:
    struct sockaddr_un:
        unsigned short sun_family
        char sun_path[108]

cdef extern from "<sys/wait.h>" nogil:
    ctypedef struct siginfo_t:
        int si_pid, si_code, si_status
    enum:
        WEXITED, WNOHANG, WNOWAIT, CLD_EXITED
    enum:
        ALL_CHILDREN "__WALL"

cdef extern from "<sys/syscall.h>" nogil:
    long syscall(long number, ...)
    enum:
        SYS_waitid

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec, tv_nsec
    int clock_gettime(int clock, timespec *time)
    enum:
        CLOCK_MONOTONIC

cdef extern from "<signal.h>" nogil:
    int sigtimedwait(const sigset_t *set, siginfo_t *info, const timespec *timeout)

cdef extern from "<unistd.h>" nogil:
    int close(int fd)
    ssize_t read(int fd, void *buffer, size_t size)
    ssize_t write(int fd, const void *buffer, size_t size)

# --- cgroups ---

cdef extern from "<errno.h>" nogil:
    enum:
        EACCES, EBUSY, EDEADLK, EEXIST, EMFILE, ENODEV, ENOENT, ENOMEM, ENOTEMPTY, EOPNOTSUPP, EPERM, ESRCH, EXDEV

cdef extern from "<fcntl.h>" nogil:
    int openat(int directory, const char *path, int flags, ...)
    enum:
        AT_FDCWD, AT_REMOVEDIR, O_DIRECTORY, O_NOFOLLOW, O_PATH, O_WRONLY

cdef extern from "<dirent.h>" nogil:
    enum:
        DT_DIR

cdef extern from "<poll.h>" nogil:
    int ppoll(pollfd *entries, unsigned long count, const timespec *timeout, const sigset_t *mask)

cdef extern from *:               # sched.h has it only with _GNU_SOURCE
    """
    extern int setns(int, int);
    """
    int setns(int fd, int kind) nogil

cdef extern from "<sys/wait.h>" nogil:
    int waitpid(int pid, int *status, int options)

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    int pthread_create(pthread_t *thread, const void *attributes, void *(*start)(void *) noexcept nogil, void *argument)
    int pthread_join(pthread_t thread, void **result)

cdef extern from "<sys/stat.h>" nogil:
    struct stat_result "stat":
        unsigned int st_mode
    int fstatat(int directory, const char *path, stat_result *result, int flags)
    int mkdirat(int directory, const char *path, unsigned int mode)
    enum:
        S_ISVTX

cdef extern from "<sys/syscall.h>" nogil:
    enum:
        SYS_bpf, SYS_close_range, SYS_getdents64, SYS_openat2, SYS_pidfd_open, SYS_pidfd_send_signal, SYS_unshare

cdef extern from "<sys/vfs.h>" nogil:
    struct filesystem "statfs":
        long f_type
    int fstatfs(int fd, filesystem *status)

cdef extern from "<unistd.h>" nogil:
    int fork()
    void _exit(int status)
    int getpid()
    ssize_t pread(int fd, void *buffer, size_t size, long offset)
    long lseek(int fd, long offset, int whence)
    int unlinkat(int directory, const char *path, int flags)

# --- seccomp filters: a library that is opened when it is needed ---

cdef extern from "<dlfcn.h>" nogil:
    void *dlopen(const char *file, int flags)
    void *dlsym(void *library, const char *name)
    enum:
        RTLD_NOW, RTLD_LOCAL

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)

cdef extern from "<sys/syscall.h>" nogil:
    enum:
        SYS_pidfd_getfd

# --- end of seccomp filters ---
