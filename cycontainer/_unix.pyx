"""Messages to unix sockets that others listen on: bytes, and descriptors with them. Hot; the GIL is released.

Source: unix(7).
"""

from libc.string cimport memcpy, memset

from cycontainer._sys cimport (AF_UNIX, CMSG_DATA, CMSG_FIRSTHDR, CMSG_LEN, CMSG_SPACE, EINTR, MSG_NOSIGNAL,
                               SCM_RIGHTS, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, close, cmsghdr, connect,
                               errno, iovec, msghdr, sendmsg, sockaddr,
                               sockaddr_un, socket)

import os

cdef enum:
    LONGEST = 107                 # of a path, without its NUL
    MOST = 8                      # descriptors in one message


cdef int reach(sockaddr_un *address, unsigned int length, int kind) noexcept nogil:
    """A socket that is connected, or a negative errno."""
    cdef int error, fd = socket(AF_UNIX, kind | SOCK_CLOEXEC, 0)
    if fd < 0:
        return -errno
    while connect(fd, <const sockaddr *> address, length) < 0:
        error = -errno
        if error != -EINTR:
            close(fd)
            return error
    return fd


cdef ssize_t put(int fd, const char *data, size_t length, const int *descriptors, int count) noexcept nogil:
    """All of a message, or a negative errno."""
    cdef char control[64]
    cdef iovec vector
    cdef msghdr header
    cdef cmsghdr *rights
    memset(&header, 0, sizeof(header))
    vector.iov_base, vector.iov_len = <void *> data, length
    header.msg_iov, header.msg_iovlen = &vector, 1
    if count:
        header.msg_control, header.msg_controllen = control, CMSG_SPACE(count * sizeof(int))
        rights = CMSG_FIRSTHDR(&header)
        rights.cmsg_len, rights.cmsg_level, rights.cmsg_type = CMSG_LEN(count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS
        memcpy(CMSG_DATA(rights), descriptors, count * sizeof(int))
    while sendmsg(fd, &header, MSG_NOSIGNAL) < 0:
        if errno != EINTR:
            return -errno
    return 0


def send(bytes path not None, bytes data not None, tuple descriptors=(), bint datagram=False) -> None:
    """Connect to the socket at `path`, send one message, and close the connection.

    Args:
        path: of a file, or after a NUL a name that is no file's.
        data: at least one byte.
        descriptors: at most eight; they stay the caller's.
        datagram: whether the socket takes datagrams; else it is a stream.

    Raises:
        OSError: it cannot be reached, or does not take the message; with `path` as its file name.
    """
    cdef sockaddr_un address
    cdef int numbers[MOST]
    cdef int index, fd, parent = -1, count = len(descriptors), kind = SOCK_DGRAM if datagram else SOCK_STREAM
    cdef ssize_t result
    cdef bytes where = path
    cdef const char *text = data
    cdef size_t length = len(data)
    cdef unsigned int size
    if count > MOST:
        raise ValueError("at most 8 descriptors")
    for index in range(count):
        numbers[index] = descriptors[index]
    if len(path) > LONGEST and path[:1] != b"\0":
        directory, name = os.path.split(path)
        parent = os.open(directory or b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        where = b"/proc/self/fd/%d/%s" % (parent, name)
    try:
        if len(where) > LONGEST:
            raise OSError(36, os.strerror(36), path)       # ENAMETOOLONG
        memset(&address, 0, sizeof(address))
        address.sun_family = AF_UNIX
        memcpy(address.sun_path, <const char *> where, len(where))
        size = <unsigned int> (sizeof(address) - sizeof(address.sun_path) + len(where) + (where[:1] != b"\0"))
        with nogil:
            fd = reach(&address, size, kind)
            result = fd
            if fd >= 0:
                result = put(fd, text, length, numbers, count)
                close(fd)
    finally:
        if parent >= 0:
            os.close(parent)
    if result < 0:
        raise OSError(-result, os.strerror(-result), os.fsdecode(path))
