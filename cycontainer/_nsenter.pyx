"""Joining namespaces: their descriptors, verified, and one setns loop. Hot; the GIL is released."""

from libc.stdio cimport snprintf

from cycontainer.init.sys cimport (AT_FDCWD, O_CLOEXEC, O_PATH, NR_close, NR_fstatfs, NR_ioctl, NR_openat2, NR_setns,
                                   NR_socket, NR_unshare, fs_status, open_how_, sys1, sys2, sys3, sys4)

cdef enum:
    NSFS_MAGIC = 0x6E736673
    NS_GET_NSTYPE = 0xB703       # ioctl_ns(2)
    NO_NAMESPACE = -22           # EINVAL
    CLONE_NEWNET = 0x40000000


cdef long open_path(const char *path, long flags) noexcept nogil:
    cdef open_how_ how
    how.flags, how.mode, how.resolve = flags | O_CLOEXEC, 0, 0
    return sys4(NR_openat2, AT_FDCWD, <long> path, <long> &how, sizeof(how))


cdef long open_verified(const char *path, long kind) noexcept nogil:
    """A namespace's descriptor; -EINVAL when `path` is none of that kind.

    What is no file of nsfs is never opened for reading: a FIFO would hang us, a device might act.
    """
    cdef fs_status status
    cdef char again[32]
    cdef long found_kind, fd, found = open_path(path, O_PATH)
    if found < 0:
        return found
    fd = sys2(NR_fstatfs, found, <long> &status)
    if fd < 0 or status.f_type != NSFS_MAGIC:
        sys1(NR_close, found)
        return fd if fd < 0 else NO_NAMESPACE
    snprintf(again, sizeof(again), b"/proc/self/fd/%d", <int> found)
    fd = open_path(again, 0)
    sys1(NR_close, found)
    if fd < 0:
        return fd
    found_kind = sys2(NR_ioctl, fd, NS_GET_NSTYPE)
    if found_kind == kind:
        return fd
    sys1(NR_close, fd)
    return found_kind if found_kind < 0 else NO_NAMESPACE


def open_namespace(bytes path not None, int kind) -> int:
    """A descriptor of the namespace at `path`, verified to be of `kind`, a CLONE_NEW* flag.

    Raises:
        OSError: it cannot be opened; EINVAL when it is no namespace, or one of another kind.
    """
    cdef const char *where = path
    cdef long fd
    with nogil:
        fd = open_verified(where, kind)
    if fd < 0:
        raise OSError(-fd, "open the namespace", path)
    return fd


cdef long bring_loopback_up() noexcept nogil:
    """Set IFF_UP on lo, netdevice(7)."""
    cdef long words[5]                  # struct ifreq: a name of 16 bytes, then the flags
    cdef long result, socket = sys3(NR_socket, 2, 2 | O_CLOEXEC, 0)       # AF_INET, SOCK_DGRAM
    if socket < 0:
        return socket
    words[0], words[1], words[2], words[3], words[4] = 0x6F6C, 0, 1, 0, 0     # "lo", IFF_UP
    result = sys3(NR_ioctl, socket, 0x8914, <long> words)                 # SIOCSIFFLAGS
    sys1(NR_close, socket)
    return result


def new_network() -> int:
    """A descriptor of a new network namespace with its loopback up. This thread is where it was before.

    Raises:
        OSError: it could not be made. Only when this thread cannot go back it stays in the new one.
    """
    cdef long before, made, result
    with nogil:
        before = open_path(b"/proc/thread-self/ns/net", 0)
        result = before
        made = -1
        if before >= 0:
            result = sys1(NR_unshare, CLONE_NEWNET)
        if result >= 0 and before >= 0:
            result = bring_loopback_up()
            if result >= 0:
                made = result = open_path(b"/proc/thread-self/ns/net", 0)
            if sys2(NR_setns, before, CLONE_NEWNET) < 0 and made >= 0:
                sys1(NR_close, made)
                made, result = -1, -1
        if before >= 0:
            sys1(NR_close, before)
    if made < 0:
        raise OSError(-result, "make a network namespace")
    return made


def join(tuple descriptors not None, tuple kinds not None) -> None:
    """setns(2) this thread into each namespace, in order. Raises OSError; those before stay joined."""
    cdef int fds[16]
    cdef int flags[16]
    cdef long index, count = len(descriptors), error = 0
    if count > 16 or len(kinds) != count:
        raise ValueError("up to 16 descriptors, and as many kinds")
    for index in range(count):
        fds[index], flags[index] = descriptors[index], kinds[index]
    with nogil:
        for index in range(count):
            error = sys2(NR_setns, fds[index], flags[index])
            if error < 0:
                break
    if error < 0:
        raise OSError(-error, "setns")
