"""Waiting for a launched process in one call: both pipes, the input, the init's messages, the pidfd and the deadline.

Hot: one poll loop with the GIL released, which is taken only for signals and for what the caller has to decide.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.stdlib cimport free, realloc

from cycontainer._clone cimport Child
from cycontainer._sys cimport (ALL_CHILDREN, CLD_EXITED, CLOCK_MONOTONIC, EAGAIN, ECONNRESET, EINTR, EPIPE,
                               EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, MSG_DONTWAIT, MSG_PEEK, POLLIN, POLLOUT,
                               SIG_BLOCK, SIG_SETMASK, SIGPIPE, WEXITED, WNOHANG, WNOWAIT, SYS_waitid, clock_gettime,
                               close, epoll_create1, epoll_ctl, epoll_event, errno, poll, pollfd, pthread_sigmask,
                               read, recv, rusage, sigaddset, sigemptyset, siginfo_t, sigismember, sigpending,
                               sigset_t, sigtimedwait, syscall, timespec, write)

from cycontainer.init.sys cimport NR_ioctl, NR_prctl, sys3

cdef enum:
    P_PIDFD = 3
    PR_SET_CHILD_SUBREAPER = 36
    CHUNK = 65536
    FIONREAD = 0x541B
    MOST_BYTES = 1048576    # at once: what a pipe holds at most, without privilege
    MOST_READS = 16         # of one pipe before the others, and the deadline, have their turn
    MOST_ROUNDS = 64        # before Python's signals have it: poll that need not wait tells of none
    MILLION = 1000000

# What `Waiter.wait` and `Waiter.step` return
NOTHING = 0
MESSAGE = 1
ENDED = 2
DEADLINE = 3
OUTPUT = 4
FLOOD = 5

cdef enum:
    SOCKET, PIDFD, STDOUT, STDERR, STDIN, SOURCES      # the poll entries


cdef struct Buffer:
    char *data
    size_t length, room


cdef long now_us() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec * MILLION + time.tv_nsec // 1000


cdef ssize_t write_quietly(int fd, const char *data, size_t length) noexcept nogil:
    """write(2), or a negative errno, without SIGPIPE: a host program that takes its default would die of a reader that
    has gone."""
    cdef sigset_t pipe, before, pending
    cdef timespec now
    cdef ssize_t put
    sigemptyset(&pipe)
    sigaddset(&pipe, SIGPIPE)
    sigpending(&pending)
    pthread_sigmask(SIG_BLOCK, &pipe, &before)
    put = write(fd, data, length)
    if put < 0:
        put = -errno
    if put == -EPIPE and not sigismember(&pending, SIGPIPE):
        now.tv_sec = now.tv_nsec = 0
        sigtimedwait(&pipe, NULL, &now)           # ours: such a signal goes to the thread that wrote
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    return put


cdef class Waiter:
    """Waits for one child, with the pipes that lead to it. Owns these; -1 is none. All are non-blocking."""

    cdef Child child
    cdef pollfd entries[5]
    cdef Buffer buffers[2]
    cdef const char *input_data
    cdef size_t input_left
    cdef bytes input
    cdef long deadline
    cdef size_t left              # bytes that may still come from both outputs
    cdef readonly bint flooded    # more came, and were thrown away
    cdef bint streaming, told, holding
    cdef int epoll, mounts

    def __cinit__(self, Child child not None, int output, int errors, int input, bytes data, double timeout,
                  long limit=-1, bint streaming=False, bint holding=False):
        """`timeout`: seconds from now; infinity for none. `data` goes to the descriptor `input`.

        `limit`: bytes that are kept of both outputs; -1 is any number. `streaming`: every output is an event.
        `holding`: keep its mount namespace, for `release_mounts`.
        """
        cdef int index
        self.child, self.input, self.epoll, self.mounts, self.holding = child, data, -1, -1, holding
        self.left = <size_t> limit if limit >= 0 else <size_t> -1
        self.flooded, self.told, self.streaming = False, False, streaming
        self.entries[SOCKET].fd, self.entries[PIDFD].fd = child.socket, child.pidfd
        self.entries[STDOUT].fd, self.entries[STDERR].fd, self.entries[STDIN].fd = output, errors, input
        for index in range(SOURCES):
            self.entries[index].events, self.entries[index].revents = POLLOUT if index == STDIN else POLLIN, 0
        for index in range(2):
            self.buffers[index].data, self.buffers[index].length, self.buffers[index].room = NULL, 0, 0
        self.input_data, self.input_left = data, len(data)
        self.within(timeout)

    def __dealloc__(self):
        self.close()
        free(self.buffers[0].data)
        free(self.buffers[1].data)

    cdef void unwatch(self, int index) noexcept nogil:
        if self.epoll >= 0 and self.entries[index].fd >= 0:
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, self.entries[index].fd, NULL)

    cdef void shut(self, int index) noexcept nogil:
        if self.entries[index].fd >= 0:
            self.unwatch(index)       # a copy of it in a child that is just being born would keep it there
            close(self.entries[index].fd)
        self.entries[index].fd = -1

    cdef int fill(self, int index) noexcept nogil:
        """Read once. 1: there may be more; 0: the end; a negative errno: -EAGAIN when there is nothing now."""
        cdef Buffer *buffer = &self.buffers[index - STDOUT]
        cdef ssize_t got
        cdef char *grown
        if buffer.room - buffer.length < CHUNK:
            grown = <char *> realloc(buffer.data, 2 * buffer.room + CHUNK)
            if grown is NULL:
                return -12            # ENOMEM
            buffer.data, buffer.room = grown, 2 * buffer.room + CHUNK
        got = read(self.entries[index].fd, buffer.data + buffer.length,
                   min(buffer.room - buffer.length, <size_t> MOST_BYTES))
        if got < 0:
            return -errno
        if <size_t> got > self.left:
            self.flooded = True
        buffer.length += min(<size_t> got, self.left)
        self.left -= min(<size_t> got, self.left)
        return got > 0

    cdef int drain(self, int index) noexcept nogil:
        """Read what is there, or some of it: the writer may be faster. A negative errno stops the wait."""
        cdef int result = 1, reads = 0
        cdef int most = 1 if self.streaming else MOST_READS
        while result > 0 and reads < most:
            result = self.fill(index)
            reads += 1
        if result > 0 or result == -EAGAIN or result == -EINTR:
            return 0
        self.shut(index)
        return result

    cdef void feed(self) noexcept nogil:
        """Write what the pipe takes. A reader that has gone is no error: it had enough."""
        cdef ssize_t put = write_quietly(self.entries[STDIN].fd, self.input_data, self.input_left)
        if put == -EAGAIN or put == -EINTR:
            return
        if put > 0:
            self.input_data += put
            self.input_left -= <size_t> put
        if put < 0 or self.input_left == 0:
            self.shut(STDIN)

    cdef int serve(self, bint at_once) noexcept nogil:
        """One round of poll: 0 to go on, an event, or a negative errno. `at_once`: it does not wait."""
        cdef int index, result, timeout_ms = -1
        cdef long left
        if self.deadline >= 0:
            left = self.deadline - now_us()
            if left <= 0:
                return 3              # DEADLINE
            timeout_ms = <int> min(left // 1000 + 1, 1000000)
        result = poll(self.entries, SOURCES, 0 if at_once else timeout_ms)
        if result < 0:
            return -errno
        if self.entries[STDIN].revents:
            self.feed()
        for index in range(STDOUT, STDIN):
            if self.entries[index].revents:
                result = self.drain(index)
                if result < 0:
                    return result
        if self.flooded and not self.told:
            self.told = True
            return 5                  # FLOOD
        if self.streaming and self.buffers[0].length + self.buffers[1].length:
            return 4                  # OUTPUT
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
        if got < 0 and errno == ECONNRESET:           # it died, an answer unread: its last words come next
            got = recv(self.child.socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT)
        if self.holding and got >= 0:
            self.hold_mounts()
        if got > 0:
            return 1
        if got < 0 and errno != EAGAIN:
            return -errno             # EINTR too: it is asked again
        if got == 0:
            self.unwatch(SOCKET)
            self.entries[SOCKET].fd = -1
        return 0

    cdef void hold_mounts(self) noexcept nogil:
        """Who ends last in a mount namespace waits until no one can be using its mounts any more, 50 us and more. So
        that this is not the program we hold it, if this kernel has PIDFD_GET_MNT_NAMESPACE (Linux 6.11)."""
        cdef long got
        if self.mounts < 0:
            got = sys3(NR_ioctl, self.entries[PIDFD].fd, 0xFF03, 0)
            self.mounts = <int> got if got >= 0 else -1

    def release_mounts(self) -> int:
        """The mount namespace that is held, a descriptor that is now the caller's; -1 when there is none."""
        cdef int held = self.mounts
        self.mounts = -1
        return held

    cdef int finish(self) noexcept nogil:
        """The process has ended: what it wrote is in the pipes, take that and wait for no one else."""
        cdef int index, result, failure = 0
        for index in range(STDOUT, STDIN):
            if self.entries[index].fd >= 0:
                result = self.drain_present(index)
                failure = failure or result
            self.shut(index)
        self.shut(STDIN)
        return failure or 2           # ENDED

    cdef int drain_present(self, int index) noexcept nogil:
        """Read what is there now, and not what others go on writing. A negative errno, or 0."""
        cdef Buffer *buffer = &self.buffers[index - STDOUT]
        cdef int waiting = 0, result = 1
        cdef size_t end
        sys3(NR_ioctl, self.entries[index].fd, FIONREAD, <long> &waiting)
        end = buffer.length + <size_t> waiting
        while result > 0 and buffer.length < end and not self.flooded:
            result = self.fill(index)
        return 0 if result == -EAGAIN or result > 0 else result

    def wait(self) -> int:
        """Until a message (MESSAGE), the process's end (ENDED), the deadline (DEADLINE), more output than is allowed
        (FLOOD, once), or, when streaming, output (OUTPUT), which `take` takes.

        Raises:
            KeyboardInterrupt: or what else a signal handler raises; call again to go on.
            OSError: an output could not be read or kept.
        """
        cdef int result, rounds
        while True:
            with nogil:
                result, rounds = 0, 0
                while result == 0 and rounds < MOST_ROUNDS:
                    result = self.serve(False)
                    rounds += 1
            if result > 0:
                return result
            if result < 0 and result != -EINTR:
                raise OSError(-result, "read the container's output")
            PyErr_CheckSignals()

    def wait_for(self, double timeout) -> int:
        """What `wait` returns and raises, or NOTHING when there was nothing to tell for `timeout` seconds."""
        cdef pollfd entry
        cdef long now, wake, until
        cdef int result
        if timeout >= 1e12:
            return self.wait()
        until = now_us() + <long> (timeout * MILLION)
        entry.fd, entry.events = self.descriptor(), POLLIN
        while True:
            now = now_us()
            result = self.step()
            if result or now >= until:
                return result
            wake = min(until, self.deadline) if self.deadline >= 0 else until
            with nogil:
                poll(&entry, 1, <int> min(max(0, wake - now) // 1000 + 1, 1000000))
            PyErr_CheckSignals()

    def step(self) -> int:
        """What `wait` returns, or NOTHING when there is nothing to tell now. Raises OSError."""
        cdef int result
        with nogil:
            result = self.serve(True)
        if result >= 0:
            return result
        if result != -EINTR and result != -EAGAIN:
            raise OSError(-result, "read the container's output")
        return NOTHING

    def descriptor(self) -> int:
        """Readable when `step` has something to do, but for the deadline; this object's. Raises OSError."""
        cdef int index
        if self.epoll < 0:
            self.epoll = epoll_create1(EPOLL_CLOEXEC)
            if self.epoll < 0:
                raise OSError(errno, "epoll_create1")
            for index in range(SOURCES):
                self.add(index)
        return self.epoll

    cdef int add(self, int index) except -1:
        cdef epoll_event event
        event.events, event.data.fd = <unsigned int> self.entries[index].events, index
        if self.entries[index].fd < 0:
            return 0
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, self.entries[index].fd, &event) < 0:
            raise OSError(errno, "epoll_ctl")
        return 0

    def watch(self):
        """The child has changed its process: watch the new one's pidfd. Raises OSError."""
        self.entries[PIDFD].fd = self.child.pidfd
        if self.epoll >= 0:
            self.add(PIDFD)           # the old one went when it was closed

    def within(self, double timeout):
        """The deadline is so many seconds from now; infinity for none."""
        self.deadline = now_us() + <long> (timeout * MILLION) if timeout < 1e12 else -1

    def due(self) -> float:
        """Seconds until the deadline, which may have passed; infinity for none."""
        return (self.deadline - now_us()) / 1e6 if self.deadline >= 0 else float("inf")

    def close(self):
        """Close the pipes. What came from them is kept."""
        cdef int index
        for index in range(STDOUT, SOURCES):
            self.shut(index)
        if self.epoll >= 0:
            close(self.epoll)
        if self.mounts >= 0:
            close(self.mounts)
        self.epoll = self.mounts = -1

    def take(self) -> tuple:
        """What came from both pipes since the last time: (bytes, bytes)."""
        taken = self.output()
        self.buffers[0].length = self.buffers[1].length = 0
        return taken

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


def adopt_orphans() -> None:
    """From now on this process is the parent of its descendants' orphans, and has to wait for them. prctl(2)."""
    cdef long result = sys3(NR_prctl, PR_SET_CHILD_SUBREAPER, 1, 0)
    if result < 0:
        raise OSError(-result, "PR_SET_CHILD_SUBREAPER")
