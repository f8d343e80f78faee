"""Descriptors: files that live in memory, namespaces, detached mounts. Hot; it opens and passes on, nothing else."""

from cycontainer.init.sys cimport (NR_capget, NR_close, NR_fcntl, NR_fsconfig, NR_fsmount, NR_fsopen, NR_memfd_create,
                                   NR_mount_setattr, NR_open_tree, NR_openat2, NR_seccomp, NR_statx, capability_data,
                                   capability_header, file_status, mount_attributes, open_how_, sys1, sys2, sys3, sys4,
                                   sys5)
from cycontainer._sys cimport POLLPRI, poll, pollfd

cdef enum:
    F_DUPFD_CLOEXEC = 1030
    F_ADD_SEALS = 1033
    EVERY_SEAL = 0x1 | 0x2 | 0x4 | 0x8    # F_SEAL_SEAL, _SHRINK, _GROW, _WRITE
    EINVAL_ = 22
    MFD_CLOEXEC = 1
    MFD_ALLOW_SEALING = 2
    MFD_NOEXEC_SEAL = 8          # since Linux 6.3, as the next
    MFD_EXEC = 16
    OPEN_TREE_CLONE = 1
    O_CLOEXEC_ = 0o2000000
    O_PATH_ = 0o10000000
    O_NONBLOCK_ = 0o4000
    O_NOCTTY_ = 0o400
    O_CREAT_ = 0o100
    AT_EMPTY_PATH_ = 0x1000
    AT_RECURSIVE_ = 0x8000
    ATTR_IDMAP = 0x100000
    STATX_MNT_ID = 0x1000


cdef long memory_file(const char *name, long flags, long newer) noexcept nogil:
    """memfd_create(2); kernels before 6.3 do not know the flag `newer`."""
    cdef long result = sys2(NR_memfd_create, <long> name, MFD_CLOEXEC | flags | newer)
    if result == -EINVAL_:
        result = sys2(NR_memfd_create, <long> name, MFD_CLOEXEC | flags)
    return result


def executable_file(bytes name not None) -> int:
    """A new, empty file in memory that can be sealed and executed. Raises OSError."""
    cdef long result = memory_file(name, MFD_ALLOW_SEALING, MFD_EXEC)
    if result < 0:
        raise OSError(-result, "memfd_create")
    return result


def seal(int fd) -> None:
    """No one can change an executable file in memory any more, whoever opens it how. Raises OSError."""
    cdef long result = sys3(NR_fcntl, fd, F_ADD_SEALS, EVERY_SEAL)
    if result < 0:
        raise OSError(-result, "F_ADD_SEALS")


def data_file(bytes name not None) -> int:
    """A new, empty file in memory that can never be executed. Raises OSError."""
    cdef long result = memory_file(name, 0, MFD_NOEXEC_SEAL)
    if result < 0:
        raise OSError(-result, "memfd_create")
    return result


def take_tree(bytes path not None, bint recursive, int user_namespace=-1, bint map_below=False) -> int:
    """A detached copy of the mounts at `path`, for another mount namespace: open_tree(2).

    With a descriptor of a user namespace its ids are mapped by that, and with `map_below` those of the mounts below:
    mount_setattr(2), "ID-mapped mounts".

    Raises:
        OSError: with `path` as its file name; EINVAL when its file system cannot be mapped.
    """
    cdef mount_attributes attributes
    cdef const char *where = path
    cdef long flags = AT_RECURSIVE_ if recursive else 0
    cdef long tree, result = 0
    with nogil:
        tree = sys3(NR_open_tree, -100, <long> where, OPEN_TREE_CLONE | O_CLOEXEC_ | flags)
        if tree >= 0 and user_namespace >= 0:
            attributes.attr_set, attributes.attr_clr, attributes.propagation = ATTR_IDMAP, 0, 0
            attributes.userns_fd = <unsigned long> user_namespace
            flags = AT_EMPTY_PATH_ | AT_RECURSIVE_ if map_below else AT_EMPTY_PATH_
            result = sys5(NR_mount_setattr, tree, <long> <const char *> b"", flags,
                          <long> &attributes, sizeof(attributes))
            if result < 0:
                sys1(NR_close, tree)
    if tree < 0 or result < 0:
        raise OSError(-tree if tree < 0 else -result, "map the ids of" if result else "open_tree", path)
    return tree


def take_read_only(bytes path not None) -> int:
    """A detached, read-only mount of a file: open_tree(2), mount_setattr(2). Raises OSError."""
    cdef mount_attributes attributes
    cdef const char *where = path
    cdef long result, tree
    attributes.attr_set, attributes.attr_clr, attributes.propagation, attributes.userns_fd = 1 | 2, 0, 0, 0
    with nogil:        # read-only and nosuid
        tree = sys3(NR_open_tree, -100, <long> where, OPEN_TREE_CLONE | O_CLOEXEC_)
        result = tree
        if tree >= 0:
            result = sys5(NR_mount_setattr, tree, <long> <const char *> b"", AT_EMPTY_PATH_,
                          <long> &attributes, sizeof(attributes))
    if result < 0:
        if tree >= 0:
            sys1(NR_close, tree)
        raise OSError(-result, "take a read-only mount", path)
    return tree


def open_inside(int root, bytes path not None, bint look=False) -> int:
    """Open `path` to read below the directory `root`, as if that were /. It never blocks, and follows no magic link.

    `look`: with O_PATH, so that nothing happens to what is there.

    Raises:
        OSError: openat2(2)'s.
    """
    cdef open_how_ how
    cdef const char *where = path
    cdef long result
    how.flags, how.mode = O_CLOEXEC_ | (O_PATH_ if look else 0o4000), 0       # O_NONBLOCK: a FIFO must not hold us
    how.resolve = 16 | 2                               # RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
    with nogil:
        result = sys4(NR_openat2, root, <long> where, <long> &how, sizeof(how))
    if result < 0:
        raise OSError(-result, "openat2", path)
    return result


def open_beneath(int root, bytes path not None, long flags) -> int:
    """openat2(2) below the directory `root`, through no link of any kind and into no other mount; it never blocks.

    Raises:
        OSError: ELOOP where there is a link, EXDEV where it would leave.
    """
    cdef open_how_ how
    cdef const char *where = path
    cdef long result
    how.flags, how.mode = O_CLOEXEC_ | O_NONBLOCK_ | O_NOCTTY_ | flags, 0o700 if flags & O_CREAT_ else 0
    how.resolve = 1 | 2 | 4 | 8      # RESOLVE_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH
    with nogil:
        result = sys4(NR_openat2, root, <long> where, <long> &how, sizeof(how))
    if result < 0:
        raise OSError(-result, "openat2", path)
    return result


def new_tmpfs(dict options not None) -> int:
    """A detached mount of a new tmpfs, nosuid and nodev; `options` as in tmpfs(5), in bytes. Raises OSError."""
    cdef long context = sys2(NR_fsopen, <long> <const char *> b"tmpfs", 1)       # FSOPEN_CLOEXEC
    cdef long result = context
    cdef bytes key, value
    for key, value in options.items():
        if result >= 0:
            result = sys5(NR_fsconfig, context, 1, <long> <const char *> key, <long> <const char *> value, 0)
    if result >= 0:
        result = sys5(NR_fsconfig, context, 6, 0, 0, 0)                          # FSCONFIG_CMD_CREATE
    if result >= 0:
        result = sys3(NR_fsmount, context, 1, 2 | 4)                             # nosuid, nodev
    if context >= 0:
        sys1(NR_close, context)
    if result < 0:
        raise OSError(-result, "make a tmpfs")
    return result


def procfs_of_others(int pid_namespace) -> bool:
    """Whether a procfs can be made for a pid namespace, given as a descriptor, that one is not in: since Linux 6.17."""
    cdef long result, context = sys2(NR_fsopen, <long> <const char *> b"proc", 1)    # FSOPEN_CLOEXEC
    if context < 0:
        return False                                   # an ordinary user may not even ask
    result = sys5(NR_fsconfig, context, 5, <long> <const char *> b"pidns", 0, pid_namespace)    # FSCONFIG_SET_FD
    sys1(NR_close, context)
    return result >= 0


def known_filter_flags() -> int:
    """The SECCOMP_FILTER_FLAG_* that this kernel knows: without a filter others are EINVAL, not EFAULT. seccomp(2)."""
    cdef long flag, together, known = 0
    for flag in range(6):
        together = 1 << flag | (8 if flag == 5 else 0)       # WAIT_KILLABLE_RECV goes with NEW_LISTENER only
        if sys3(NR_seccomp, 1, together, 0) == -14:          # SECCOMP_SET_MODE_FILTER; EFAULT
            known |= 1 << flag
    return known


def above_streams(int fd) -> int:
    """`fd`, or where it is now that it was 0, 1 or 2: who inherits these must not get what is ours. Raises OSError."""
    cdef long result
    if fd > 2:
        return fd
    result = sys3(NR_fcntl, fd, F_DUPFD_CLOEXEC, 3)
    sys1(NR_close, fd)
    if result < 0:
        raise OSError(-result, "F_DUPFD_CLOEXEC")
    return result


def close_all(descriptors) -> None:
    """close(2) each. What it says changes nothing: the descriptor is gone, and closing it again could hit another's."""
    for fd in descriptors:
        sys1(NR_close, fd)


def has_news(int fd) -> bool:
    """Whether a descriptor has a POLLPRI to tell of: the mount table has changed. proc(5), /proc/PID/mounts."""
    cdef pollfd entry
    entry.fd, entry.events, entry.revents = fd, POLLPRI, 0
    return poll(&entry, 1, 0) > 0


def root_mount() -> int:
    """The id of the mount that / is: another one in another mount namespace, or after a change of root. statx(2)."""
    cdef file_status status
    status.stx_mnt_id = 0
    sys5(NR_statx, -100, <long> <const char *> b"/", 0, STATX_MNT_ID, <long> &status)
    return status.stx_mnt_id


def effective_capabilities() -> int:
    """This thread's effective capabilities as a mask: capget(2). Raises OSError."""
    cdef capability_header header
    cdef capability_data data[2]
    header.version, header.pid = 0x20080522, 0
    cdef long result = sys2(NR_capget, <long> &header, <long> data)
    if result < 0:
        raise OSError(-result, "capget")
    return data[0].effective | <unsigned long> data[1].effective << 32
