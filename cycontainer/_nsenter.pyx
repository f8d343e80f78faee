"""Joining namespaces: their descriptors, verified, and one setns loop. Hot; the GIL is released."""

cdef extern from "<fcntl.h>" nogil:
    int open(const char *path, int flags, ...)
    int O_PATH, O_RDONLY, O_CLOEXEC, O_NONBLOCK

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)

cdef extern from "<sys/vfs.h>" nogil:
    struct statfs:
        long f_type
    int fstatfs(int fd, statfs *status)

cdef extern from "<sched.h>" nogil:
    int setns(int fd, int kind)

from cycontainer._sys cimport close, errno

from libc.stdio cimport snprintf

cdef enum:
    NSFS_MAGIC = 0x6E736673
    NS_GET_NSTYPE = 0xB703       # ioctl_ns(2)


cdef int open_verified(const char *path, int kind) noexcept nogil:
    """A namespace's descriptor; -EINVAL when `path` is none of that kind.

    What is no file of nsfs is never opened for reading: a FIFO would hang us, a device might act.
    """
    cdef statfs status
    cdef char again[32]
    cdef int fd, found = open(path, O_PATH | O_CLOEXEC)
    if found < 0:
        return -errno
    if fstatfs(found, &status) < 0 or status.f_type != NSFS_MAGIC:
        close(found)
        return -22
    snprintf(again, sizeof(again), b"/proc/self/fd/%d", found)
    fd = open(again, O_RDONLY | O_CLOEXEC)
    if fd < 0:
        fd = -errno
    elif ioctl(fd, NS_GET_NSTYPE) != kind:
        close(fd)
        fd = -22
    close(found)
    return fd


def open_namespace(bytes path not None, int kind) -> int:
    """A descriptor of the namespace at `path`, verified to be of `kind`, a CLONE_NEW* flag.

    Raises:
        OSError: it cannot be opened; EINVAL when it is no namespace, or one of another kind.
    """
    cdef const char *where = path
    cdef int fd
    with nogil:
        fd = open_verified(where, kind)
    if fd < 0:
        raise OSError(-fd, "open the namespace", path)
    return fd


def join(tuple descriptors not None, tuple kinds not None) -> None:
    """setns(2) this thread into each namespace, in order. Raises OSError; those before stay joined."""
    cdef int fds[16]
    cdef int flags[16]
    cdef int index, count = len(descriptors), error = 0
    if count > 16 or len(kinds) != count:
        raise ValueError("up to 16 descriptors, and as many kinds")
    for index in range(count):
        fds[index], flags[index] = descriptors[index], kinds[index]
    with nogil:
        for index in range(count):
            if setns(fds[index], flags[index]) < 0:
                error = errno
                break
    if error:
        raise OSError(error, "setns")
