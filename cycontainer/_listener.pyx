"""A seccomp listener: what it tells and what it is answered, seccomp_unotify(2). Hot; the GIL is released.

The structures are of the kernel's first version, in buffers that have room for what later ones add.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memset

from cycontainer._sys cimport EINTR, ENOENT, SYS_pidfd_getfd, errno, ioctl, syscall

cdef struct Data:                 # struct seccomp_data
    int32_t number
    uint32_t architecture
    uint64_t instruction
    uint64_t args[6]

cdef struct Notification:         # struct seccomp_notif
    uint64_t id
    uint32_t pid, flags
    Data data
    char room[432]

cdef struct Response:             # struct seccomp_notif_resp
    uint64_t id
    int64_t value
    int32_t error
    uint32_t flags

cdef struct Addition:             # struct seccomp_notif_addfd
    uint64_t id
    uint32_t flags, source, target, target_flags

cdef enum:
    RECV = 0xC0502100             # SECCOMP_IOCTL_NOTIF_*: _IOWR('!', 0, 80 bytes),
    SEND = 0xC0182101             # _IOWR('!', 1, 24 bytes),
    ID_VALID = 0x40082102         # _IOW('!', 2, 8 bytes),
    ADDFD = 0x40182103            # _IOW('!', 3, 24 bytes)
    FLAG_CONTINUE = 1
    ADDFD_SEND = 2
    O_CLOEXEC_ = 0o2000000


def get_descriptor(int pidfd, int number) -> int:
    """A duplicate of another process's descriptor, close-on-exec: pidfd_getfd(2). Raises OSError."""
    cdef long result = syscall(SYS_pidfd_getfd, pidfd, number, 0)
    if result < 0:
        raise OSError(errno, "pidfd_getfd")
    return result


def receive(int listener) -> tuple[int, int, int, int, tuple[int, ...]] | None:
    """The next call that waits for an answer: (id, pid, architecture, number, its six arguments).

    None when it has been taken back, by a signal, before it was read. Raises OSError.
    """
    cdef Notification call
    cdef int result = -1
    with nogil:
        memset(&call, 0, sizeof(call))
        result = ioctl(listener, RECV, &call)
    if result < 0 and errno in (ENOENT, EINTR):
        return None
    if result < 0:
        raise OSError(errno, "receive a system call")
    return call.id, call.pid, call.data.architecture, call.data.number, tuple([call.data.args[n] for n in range(6)])


cdef bint _answer(int listener, uint64_t id, int64_t value, int error, uint32_t flags) except -1:
    cdef Response response
    cdef int result
    response.id, response.value, response.error, response.flags = id, value, -error, flags
    with nogil:
        result = ioctl(listener, SEND, &response)
    if result < 0 and errno == ENOENT:
        return False
    if result < 0:
        raise OSError(errno, "answer a system call")
    return True


def let_go_on(int listener, uint64_t id) -> bool:
    """The kernel carries the call out. False when nobody waits for it any more, as for all answers. Raises OSError."""
    return _answer(listener, id, 0, 0, FLAG_CONTINUE)


def answer(int listener, uint64_t id, int64_t value, int error) -> bool:
    """The call returns `value`, or fails with a positive `error`. Raises OSError."""
    return _answer(listener, id, 0 if error else value, error, 0)


def add_descriptor(int listener, uint64_t id, int source, bint close_on_exec) -> bool:
    """The caller gets a duplicate of `source`, and the call returns its number there. Raises OSError."""
    cdef Addition addition
    cdef int result
    addition.id, addition.flags, addition.source, addition.target = id, ADDFD_SEND, source, 0
    addition.target_flags = O_CLOEXEC_ if close_on_exec else 0
    with nogil:
        result = ioctl(listener, ADDFD, &addition)
    if result < 0 and errno == ENOENT:
        return False
    if result < 0:
        raise OSError(errno, "add a descriptor")
    return True


def is_waiting(int listener, uint64_t id) -> bool:
    """Whether the caller still waits: so what was opened by its pid before is its own."""
    return ioctl(listener, ID_VALID, &id) == 0
