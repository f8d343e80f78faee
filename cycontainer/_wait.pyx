"""Waiting for a launched process in one call: both pipes, the input, the init's messages, the pidfd and the deadline.

Hot: one poll loop with the GIL released, which is taken only for signals and for what the caller has to decide.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.stdlib cimport free, realloc

from cycontainer._clone cimport Child
from cycontainer._sys cimport (ALL_CHILDREN, CLD_EXITED, CLOCK_MONOTONIC, EAGAIN, ECONNRESET, EINTR, MSG_DONTWAIT,
                               MSG_PEEK, POLLIN, POLLOUT, WEXITED, WNOHANG, WNOWAIT, SYS_waitid, clock_gettime, close, errno, poll,
                               pollfd, read, recv, rusage, siginfo_t, syscall, timespec, write)

from cycontainer.init.sys cimport NR_ioctl, sys3

cdef enum:
    P_PIDFD = 3
    CHUNK = 65536
    FIONREAD = 0x541B
    MOST_BYTES = 1048576    # at once: what a pipe holds at most, without privilege
    MOST_READS = 16         # of one pipe before the others, and the deadline, have their turn
    MOST_ROUNDS = 64        # before Python's signals have it: poll that need not wait tells of none
    MILLION = 1000000

# What `Waiter.wait` returns
MESSAGE = 1
ENDED = 2
DEADLINE = 3

cdef enum:
    SOCKET, PIDFD, OUTPUT, ERRORS, INPUT, SOURCES      # the poll entries


cdef struct Buffer:
    char *data
    size_t length, room


cdef long now_us() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec * MILLION + time.tv_nsec // 1000


cdef int fill(Buffer *buffer, int fd) noexcept nogil:
    """Read once. 1: there may be more; 0: the end; a negative errno: -EAGAIN when there is nothing now."""
    cdef ssize_t got
    cdef char *grown
    if buffer.room - buffer.length < CHUNK:
        grown = <char *> realloc(buffer.data, 2 * buffer.room + CHUNK)
        if grown is NULL:
            return -12                # ENOMEM
        buffer.data, buffer.room = grown, 2 * buffer.room + CHUNK
    got = read(fd, buffer.data + buffer.length, min(buffer.room - buffer.length, <size_t> MOST_BYTES))
    if got < 0:
        return -errno
    buffer.length += <size_t> got
    return got > 0


cdef class Waiter:
    """Waits for one child, with the pipes that lead to it. Owns these; -1 is none. All are non-blocking."""

    cdef Child child
    cdef pollfd entries[5]
    cdef Buffer buffers[2]
    cdef const char *input_data
    cdef size_t input_left
    cdef bytes input
    cdef long deadline
    cdef int failure

    def __cinit__(self, Child child not None, int output, int errors, int input, bytes data, double timeout):
        """`timeout`: seconds from now; infinity for none. `data` goes to the descriptor `input`."""
        cdef int index
        self.child, self.input, self.failure = child, data, 0
        self.entries[SOCKET].fd, self.entries[PIDFD].fd = child.socket, child.pidfd
        self.entries[OUTPUT].fd, self.entries[ERRORS].fd, self.entries[INPUT].fd = output, errors, input
        for index in range(SOURCES):
            self.entries[index].events, self.entries[index].revents = POLLOUT if index == INPUT else POLLIN, 0
        for index in range(2):
            self.buffers[index].data, self.buffers[index].length, self.buffers[index].room = NULL, 0, 0
        self.input_data, self.input_left = data, len(data)
        self.deadline = now_us() + <long> (timeout * MILLION) if timeout < 1e12 else -1

    def __dealloc__(self):
        self.close()
        free(self.buffers[0].data)
        free(self.buffers[1].data)

    cdef void shut(self, int index) noexcept nogil:
        if self.entries[index].fd >= 0:
            close(self.entries[index].fd)
        self.entries[index].fd = -1

    cdef int drain(self, int index) noexcept nogil:
        """Read what is there, or some of it: the writer may be faster. A negative errno stops the wait."""
        cdef int result = 1, reads = 0
        while result > 0 and reads < MOST_READS:
            result = fill(&self.buffers[index - OUTPUT], self.entries[index].fd)
            reads += 1
        if result > 0 or result == -EAGAIN or result == -EINTR:
            return 0
        self.shut(index)
        return result

    cdef void feed(self) noexcept nogil:
        """Write what the pipe takes. A reader that has gone is no error: it had enough."""
        cdef ssize_t put = write(self.entries[INPUT].fd, self.input_data, self.input_left)
        if put < 0 and (errno == EAGAIN or errno == EINTR):
            return
        if put > 0:
            self.input_data += put
            self.input_left -= <size_t> put
        if put < 0 or self.input_left == 0:
            self.shut(INPUT)

    cdef int serve(self) noexcept nogil:
        """One round of poll: 0 to go on, an event, or a negative errno."""
        cdef int index, result, timeout_ms = -1
        cdef long left
        if self.deadline >= 0:
            left = self.deadline - now_us()
            if left <= 0:
                return 3              # DEADLINE
            timeout_ms = <int> min(left // 1000 + 1, 1000000)
        result = poll(self.entries, SOURCES, timeout_ms)
        if result < 0:
            return -errno
        if self.entries[INPUT].revents:
            self.feed()
        for index in range(OUTPUT, INPUT):
            if self.entries[index].revents:
                result = self.drain(index)
                if result < 0:
                    return result
        if self.entries[SOCKET].revents:
            result = self.look_for_message()
            if result != 0:
                return result
        if self.entries[PIDFD].revents:
            # poll may have looked at the socket just before the last message, which came before this end
            result = self.look_for_message() if self.entries[SOCKET].fd >= 0 else 0
            return result if result != 0 else self.finish()
        return 0

    cdef int look_for_message(self) noexcept nogil:
        """1 (MESSAGE) when the socket has a packet, 0, or a negative errno. At its end, look no more: the program was
        executed, or init is gone."""
        cdef char byte
        cdef ssize_t got = recv(self.child.socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT)
        if got > 0:
            return 1
        if got < 0 and errno != EAGAIN and errno != ECONNRESET:
            return -errno             # EINTR too: it is asked again
        if got == 0 or errno != EAGAIN:
            self.entries[SOCKET].fd = -1
        return 0

    cdef int finish(self) noexcept nogil:
        """The process has ended: what it wrote is in the pipes, take that and wait for no one else."""
        cdef int index, result, failure = 0
        for index in range(OUTPUT, INPUT):
            if self.entries[index].fd >= 0:
                result = self.drain_present(index)
                failure = failure or result
            self.shut(index)
        self.shut(INPUT)
        return failure or 2           # ENDED

    cdef int drain_present(self, int index) noexcept nogil:
        """Read what is there now, and not what others go on writing. A negative errno, or 0."""
        cdef Buffer *buffer = &self.buffers[index - OUTPUT]
        cdef int waiting = 0, result = 1
        cdef size_t end
        sys3(NR_ioctl, self.entries[index].fd, FIONREAD, <long> &waiting)
        end = buffer.length + <size_t> waiting
        while result > 0 and buffer.length < end:
            result = fill(buffer, self.entries[index].fd)
        return 0 if result == -EAGAIN or result > 0 else result

    def wait(self) -> int:
        """Until a message (MESSAGE), the process's end (ENDED) or the deadline (DEADLINE).

        Raises:
            KeyboardInterrupt: or what else a signal handler raises; call again to go on.
            OSError: an output could not be read or kept.
        """
        cdef int result, rounds
        while True:
            with nogil:
                result, rounds = 0, 0
                while result == 0 and rounds < MOST_ROUNDS:
                    result = self.serve()
                    rounds += 1
            if result > 0:
                return result
            if result < 0 and result != -EINTR:
                raise OSError(-result, "read the container's output")
            PyErr_CheckSignals()

    def watch(self):
        """The child has changed its process: watch the new one's pidfd."""
        self.entries[PIDFD].fd = self.child.pidfd

    def without_deadline(self):
        """From now on wait as long as it takes."""
        self.deadline = -1

    def close(self):
        """Close the pipes. What came from them is kept."""
        cdef int index
        for index in range(OUTPUT, SOURCES):
            self.shut(index)

    def output(self) -> tuple:
        """What came from both pipes: (bytes, bytes)."""
        return (PyBytes_FromStringAndSize(self.buffers[0].data, <Py_ssize_t> self.buffers[0].length),
                PyBytes_FromStringAndSize(self.buffers[1].data, <Py_ssize_t> self.buffers[1].length))


def exited_with_0(int pidfd) -> bool:
    """Whether a child that has not been waited for is known to have ended so. waitid(2)."""
    cdef siginfo_t info
    info.si_code = 0
    return syscall(SYS_waitid, P_PIDFD, pidfd, &info, WEXITED | WNOWAIT | WNOHANG | ALL_CHILDREN, NULL) == 0 \
        and info.si_code == CLD_EXITED and info.si_status == 0


def reap(int pidfd) -> tuple:
    """Wait for an ended child: (returncode, user seconds, system seconds, largest resident set in bytes).

    returncode is minus the signal's number when one ended it. waitid(2).

    Raises:
        ChildProcessError: someone else has waited for it, or SIGCHLD is ignored, and the kernel does not remember.
        OSError: it is still there, and unreaped.
    """
    cdef siginfo_t info
    cdef rusage usage
    cdef long result
    with nogil:
        result = syscall(SYS_waitid, P_PIDFD, pidfd, &info, WEXITED | ALL_CHILDREN, &usage)
        while result < 0 and errno == EINTR:
            result = syscall(SYS_waitid, P_PIDFD, pidfd, &info, WEXITED | ALL_CHILDREN, &usage)
    if result < 0:
        raise OSError(errno, "waitid")            # ChildProcessError when that is ECHILD
    return (info.si_status if info.si_code == CLD_EXITED else -info.si_status,
            usage.ru_utime.tv_sec + usage.ru_utime.tv_usec / 1e6, usage.ru_stime.tv_sec + usage.ru_stime.tv_usec / 1e6,
            usage.ru_maxrss * 1024)


cdef struct PidfdInfo:        # struct pidfd_info, linux/pidfd.h
    unsigned long mask, cgroupid
    unsigned int pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid
    int exit_code
    unsigned int coredump_mask, pad1
    unsigned long more[8]


def exit_status(int pidfd):
    """The wait status that the kernel keeps for a reaped process, or None: PIDFD_GET_INFO, since Linux 6.15."""
    cdef PidfdInfo info
    cdef size_t at
    for at in range(sizeof(info)):
        (<char *> &info)[at] = 0
    info.mask = 1 << 3                # PIDFD_INFO_EXIT
    # _IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info) with the size of its first version, 64 bytes
    if sys3(NR_ioctl, pidfd, 0xC040FF0B, <long> &info) < 0 or not info.mask & 1 << 3:
        return None
    return info.exit_code
