"""Launching: clone3 into namespaces and a cgroup, straight on to the init. Hot; the GIL is released.

The child shares our memory until its execve, so that a launch costs the same from a parent of any size (a fork copies
page tables: 14 ms at 500 MB). It has a stack of its own and, unlike after vfork(2), we do not wait for it here: a
child that is stopped would stop us. What it reads stays where it is until it has said something, or is dead.
"""

from os import register_at_fork

from cpython.exc cimport PyErr_CheckSignals
from libc.stdlib cimport free, malloc

from cycontainer._steps cimport (FIRST_SLOT, MESSAGE_CLONED, MESSAGE_ENDED, MESSAGE_FAILED, MESSAGE_READY, MESSAGE_SYNC,
                                 MESSAGE_GATE, MESSAGE_LISTENER, MESSAGE_MOUNT, MESSAGE_PROGRAM, MESSAGE_TERMINAL,
                                 PLAN_DESCRIPTOR, SYNC_DESCRIPTOR, Message)
from cycontainer._sys cimport (AF_UNIX, ALL_CHILDREN, CLOCK_MONOTONIC, CMSG_DATA, CMSG_FIRSTHDR, CMSG_LEN, CMSG_SPACE,
                               EAGAIN, ECHILD, ECONNRESET, EINTR, ESRCH, MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_NOSIGNAL,
                               POLLIN, SCM_RIGHTS, SHUT_WR, SIG_SETMASK, SOCK_CLOEXEC, SOCK_SEQPACKET, SOL_SOCKET,
                               SYS_waitid, WEXITED, WNOHANG, clock_gettime, close, cmsghdr, errno, iovec, msghdr, poll,
                               pollfd, pthread_sigmask, recvmsg, sendmsg, shutdown, sigfillset, siginfo_t, sigset_t,
                               socketpair, syscall, timespec)

from cycontainer.init.sys cimport (AT_EMPTY_PATH, CAPABILITY_VERSION_3, CLONE_PIDFD, CLONE_VM, NR_capget, NR_capset,
                                   NR_close_range, NR_dup3, NR_execveat, NR_fcntl, NR_pidfd_send_signal, NR_prctl,
                                   NR_write, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, SIGCHLD, SIGKILL, capability_data,
                                   capability_header, clone_arguments, clone_onto_stack, sys2, sys3, sys5)

cdef enum:
    CLONE_INTO_CGROUP_SHIFT = 33
    F_DUPFD = 0
    STACK_SIZE = 16384
    P_PIDFD = 3

cdef struct Birth:
    # All that the child reads. It lies at the low end of the child's stack.
    int count                # descriptors, in the order of their numbers there: the program's, socket, plan, slots
    int base                 # how many of them are the program's
    int init                 # what is executed
    int ambient              # raise all capabilities as ambient, so that they outlive the execve
    const char *arguments[3]
    const char *environment[1]
    char base_text[16]
    int sources[256]


# --- in the child --------------------------------------------------------------------------------------------------
# From here to the execve nothing is allocated, no Python object is touched, nothing can raise, and no function of libc
# is called: its errno is our parent's, who runs beside us. Signals are blocked, so no handler of the parent runs here.
# No credential changes: the kernel would clear the parent's dumpable flag, which is its memory's. clone(2), vfork(2).

cdef long keep_capabilities() noexcept nogil:
    """All permitted capabilities become inheritable and ambient: as an ordinary user's id is not mapped in a new user
    namespace yet, execve would drop them. capabilities(7), "Transformation of capabilities during execve"."""
    cdef capability_header header
    cdef capability_data data[2]
    cdef long result, capability
    header.version, header.pid = CAPABILITY_VERSION_3, 0
    result = sys2(NR_capget, <long> &header, <long> data)
    if result < 0:
        return result
    data[0].inheritable, data[1].inheritable = data[0].permitted, data[1].permitted
    result = sys2(NR_capset, <long> &header, <long> data)
    for capability in range(64):
        if result < 0:
            return result
        if data[capability >> 5].permitted >> (capability & 31) & 1:
            result = sys5(NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
    return result


cdef long place_descriptors(Birth *birth) noexcept nogil:
    """Give each descriptor its number, the init the one behind them, and close all others."""
    cdef long index, result = 0
    for index in range(birth.count + 1):
        result = sys3(NR_fcntl, birth.sources[index], F_DUPFD, birth.count + 1)
        if result < 0:
            return result
        birth.sources[index] = <int> result
    for index in range(birth.count):
        result = sys3(NR_dup3, birth.sources[index], index, 0)
        if result < 0:
            return result
    result = sys3(NR_dup3, birth.sources[birth.count], birth.count, 0o2000000)    # O_CLOEXEC
    if result < 0:
        return result
    return sys3(NR_close_range, birth.count + 1, 0xFFFFFFFF, 0)


cdef int born(void *argument) noexcept nogil:
    """The child's whole life before the init. Returns its exit status, on failure only."""
    cdef Birth *birth = <Birth *> argument
    cdef Message message
    cdef long result = 0
    cdef int socket = birth.sources[birth.base + SYNC_DESCRIPTOR]
    if birth.ambient:
        result = keep_capabilities()
    if result >= 0:
        result = place_descriptors(birth)
    if result >= 0:
        socket = birth.base + SYNC_DESCRIPTOR
        result = sys5(NR_execveat, birth.count, <long> <const char *> b"", <long> birth.arguments,
                      <long> birth.environment, AT_EMPTY_PATH)
    message.kind, message.step, message.error, message.tasks = MESSAGE_FAILED, -1, <int> -result, 0
    message.user_us = message.system_us = message.peak_kb = 0
    sys3(NR_write, socket, <long> &message, sizeof(message))
    return 126


# --- in the parent -------------------------------------------------------------------------------------------------

cdef long give_birth(clone_arguments *args, Birth *birth) noexcept nogil:
    """clone3 with all signals blocked, as posix_spawn(3) does it; the pid, or a negative errno."""
    cdef sigset_t all_signals, before
    cdef long result
    sigfillset(&all_signals)
    pthread_sigmask(SIG_SETMASK, &all_signals, &before)
    result = clone_onto_stack(args, 88, born, birth)    # CLONE_ARGS_SIZE_VER2
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    return result


cdef void end(int pidfd) noexcept nogil:
    """Kill it, and reap it unless someone else has: waitid(2), P_PIDFD. What cannot be killed is not waited for.

    Each of the two calls has a second chance: who comes here has no other way to be rid of it.
    """
    cdef siginfo_t info
    cdef int chances = 2
    cdef int options = WEXITED | ALL_CHILDREN
    cdef long result = sys5(NR_pidfd_send_signal, pidfd, SIGKILL, 0, 0, 0)
    if result < 0 and result != -ESRCH:
        result = sys5(NR_pidfd_send_signal, pidfd, SIGKILL, 0, 0, 0)
    if result < 0 and result != -ESRCH:
        options |= WNOHANG
    while chances and syscall(SYS_waitid, P_PIDFD, pidfd, &info, options, NULL) < 0 and errno != ECHILD:
        chances -= errno != EINTR


cdef int pid_of(int pidfd) except -1:
    """The pid of a pidfd in our pid namespace. Source: proc(5), /proc/PID/fdinfo."""
    with open(f"/proc/self/fdinfo/{pidfd}", "rb", buffering=0) as info:    # one read: a few short lines
        found = info.read(1024).partition(b"\nPid:")[2].split()
    if not found or int(found[0]) <= 0:    # -1: it has been reaped; 0: it is of a pid namespace that is not ours
        raise ProcessLookupError(ESRCH, "no pid in fdinfo")
    return int(found[0])


cdef class HeldSignals:
    """A block in which this thread takes no signal: what is opened in it has an owner before Python hears of one."""

    cdef sigset_t before

    def __enter__(self):
        cdef sigset_t all_signals
        sigfillset(&all_signals)
        pthread_sigmask(SIG_SETMASK, &all_signals, &self.before)

    def __exit__(self, *_):
        pthread_sigmask(SIG_SETMASK, &self.before, NULL)


cdef void shut(int fd) noexcept nogil:
    if fd >= 0:
        close(fd)


cdef void *newest = NULL    # of all children there are

cdef void enlist(Child child) noexcept:
    global newest
    child.before, child.after = NULL, newest
    if newest is not NULL:
        (<Child> newest).before = <void *> child
    newest = <void *> child


cdef void strike_off(Child child) noexcept:
    global newest
    if child.after is not NULL:
        (<Child> child.after).before = child.before
    if child.before is not NULL:
        (<Child> child.before).after = child.after
    else:
        newest = child.after


def _leave_to_parent():
    """In a fork: by its copies of sockets a container would outlive its launcher, and a launcher not hear an init."""
    cdef void *at = newest
    while at is not NULL:
        child = <Child> at
        child.settle()
        child.close_socket()
        at = child.after


register_at_fork(after_in_child=_leave_to_parent)


cdef class Child:
    """A process that was launched: its pid, its pidfd and the socket to its init, which this object owns.

    Attributes:
        pid: in our pid namespace.
        pidfd: readable when it has ended; -1 once `close` was called.
        socket: to the init, SOCK_SEQPACKET; -1 once `close` or `close_socket` was called.
        terminal: the master of its terminal, once its init has sent it; who takes it over sets -1.
        program: a pidfd of the process that will execute the program, when its filter notifies.
        gate: the end of a full pipe that this process waits at; the same.
        listener: its seccomp listener, once it is known; who takes it over sets -1.
        heard: the last step of its plan that its init waited for us with; -1 when it has not.
    """

    def __cinit__(self):
        self.pid = self.pidfd = self.socket = self.second = self.loose = -1
        self.terminal = self.program = self.gate = self.listener = self.heard = -1
        self.stack, self.introduced = NULL, False
        enlist(self)

    def __dealloc__(self):
        self.release()
        strike_off(self)

    cdef void release(self) noexcept:
        """Close what is open. A child that may still run on our memory is killed first."""
        if self.stack is not NULL:
            with nogil:
                end(self.pidfd)
        self.settle()
        shut(self.pidfd)
        shut(self.socket)
        shut(self.terminal)
        shut(self.program)
        shut(self.gate)
        shut(self.listener)
        shut(self.loose)
        shut(self.second)             # it ends when the socket does
        self.pidfd = self.socket = self.terminal = -1
        self.program = self.gate = self.listener = self.loose = self.second = -1

    cdef void settle(self) noexcept:
        """The child has said something, or is dead: it no longer uses our memory."""
        free(self.stack)
        self.stack = NULL

    def close(self):
        """Close the descriptors; a child that has not yet reached its init is killed."""
        self.release()

    def abandon(self):
        """Kill what a failure has left, reap it, and a second process that is not adopted: no one wants their status.

        One call: a signal that interrupts Python comes before it or after it.
        """
        cdef tuple message = (0,)
        with nogil:
            end(self.pidfd)
        self.settle()
        while message and self.second < 0 and self.awaits_second():
            try:
                message = self.receive()
            except OSError:
                break                 # no more can be heard
        if self.second >= 0:
            with nogil:
                end(self.second)

    cdef bint awaits_second(self) noexcept:
        """Whether there is something to read, from a process that holds the socket's other end: a second that has just
        been made says so at once. One that is held up ends when it finds our end closed."""
        cdef pollfd entry
        if self.socket < 0:
            return False
        entry.fd, entry.events, entry.revents = self.socket, POLLIN, 0
        with nogil:
            poll(&entry, 1, 1000)
        return entry.revents != 0

    def settled(self):
        """The child has been heard, or is dead: what it had of our memory is freed."""
        self.settle()

    def close_socket(self):
        """The program has been executed, and no init stays: there is nothing more to hear or to say."""
        shut(self.socket)
        self.socket = -1

    def adopt(self):
        """The init went on in a second process: from now on this is that one, and goes on. The first is reaped.

        Raises OSError: there is none, or it cannot be found, or has ended (EPIPE).
        """
        cdef int first = self.pidfd
        self.pid = pid_of(self.second)
        self.pidfd, self.second = self.second, -1
        try:
            self.answer(0, ())        # at once: it need not wait for the other's end
        finally:
            with nogil:
                end(first)            # it has done its part
            close(first)

    def take(self, int pidfd):
        """Become the process of `pidfd`, and take that over: our child, but not launched by us. Raises OSError."""
        self.pid = pid_of(pidfd)
        self.pidfd = pidfd

    def send_signal(self, int number):
        """pidfd_send_signal(2). Raises OSError; ESRCH when it has ended."""
        cdef long result = sys5(NR_pidfd_send_signal, self.pidfd, number, 0, 0, 0)
        if result < 0:
            raise OSError(-result, "pidfd_send_signal")

    def hang_up(self):
        """Say no more to the init: a pid 1 that stands by its program kills all, tells what they used, and ends."""
        shutdown(self.socket, SHUT_WR)

    def hear(self, double timeout):
        """Wait at most `timeout` seconds (infinity: as long as it takes) for the socket to be readable; whether it is.

        Raises what a signal handler raises."""
        cdef pollfd entry
        cdef timespec now
        cdef int result, left = -1
        cdef double until = 0
        clock_gettime(CLOCK_MONOTONIC, &now)
        until = now.tv_sec + now.tv_nsec / 1e9 + timeout
        entry.fd, entry.events = self.socket, POLLIN
        while True:
            if timeout < 1e9:
                clock_gettime(CLOCK_MONOTONIC, &now)
                left = max(0, <int> ((until - now.tv_sec - now.tv_nsec / 1e9) * 1000 + 1))
            with nogil:
                result = poll(&entry, 1, left)
            if result >= 0:
                return result > 0
            if errno != EINTR:
                raise OSError(errno, "poll")
            PyErr_CheckSignals()

    def take_descriptor(self):
        """The descriptor that came with the last message, the caller's from now on; -1 when none came."""
        fd, self.loose = self.loose, -1
        return fd

    def receive(self):
        """One message of the init that is there: (kind, step, errno, tasks, user_us, system_us, peak_kb), all int. None
        when there is none yet, () at the end of the stream. Raises OSError.

        What came with it is for `take_descriptor` until the next, or, of MESSAGE_CLONED, for `adopt`. A program may
        have got hold of the socket (CAP_SYS_PTRACE): what it sends may be anything, and nothing of it stays open.
        """
        cdef Message message
        cdef char control[64]
        cdef iovec vector
        cdef msghdr header
        cdef ssize_t got
        cdef cmsghdr *rights
        vector.iov_base, vector.iov_len = &message, sizeof(message)
        header.msg_name, header.msg_namelen, header.msg_flags = NULL, 0, 0
        header.msg_iov, header.msg_iovlen = &vector, 1
        header.msg_control, header.msg_controllen = control, CMSG_LEN(sizeof(int))    # the room decides how many
        shut(self.loose)
        self.loose = -1
        with nogil:
            got = recvmsg(self.socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
            # ECONNRESET, told once: it died with an answer of ours unread, and its last words come next
            while got < 0 and (errno == EINTR or errno == ECONNRESET):
                got = recvmsg(self.socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
        if got < 0 and errno == EAGAIN:
            return None
        if got < 0:
            raise OSError(errno, "recvmsg")
        rights = CMSG_FIRSTHDR(&header)
        if rights is not NULL and rights.cmsg_type == SCM_RIGHTS and rights.cmsg_len == CMSG_LEN(sizeof(int)):
            self.loose = (<int *> CMSG_DATA(rights))[0]
        if got != sizeof(message):
            return ()
        if message.kind != MESSAGE_FAILED or message.step >= 0:
            self.settle()             # else it may be the child that says so, before it has left our memory
        if message.kind == MESSAGE_CLONED:
            self.introduced += 1
            if self.introduced == 1:
                self.second, self.loose = self.loose, -1
            elif self.introduced == 2:
                return self.receive()     # both processes tell of the second; and nobody honest once more
        return (message.kind, message.step, message.error, message.tasks, message.user_us, message.system_us,
                message.peak_kb)

    def answer(self, int error, tuple descriptors not None):
        """Let a waiting init go on with up to 253 descriptors, or fail its step with `error`. Raises OSError."""
        cdef char control[1040]
        cdef unsigned char byte = <unsigned char> error
        cdef iovec vector
        cdef msghdr header
        cdef cmsghdr *rights
        cdef int index, count = len(descriptors)
        if count > 253:
            raise ValueError("at most 253 descriptors")         # SCM_MAX_FD
        vector.iov_base, vector.iov_len = &byte, 1
        header.msg_name, header.msg_namelen, header.msg_flags = NULL, 0, 0
        header.msg_iov, header.msg_iovlen = &vector, 1
        header.msg_control, header.msg_controllen = NULL, 0
        if count:
            header.msg_control, header.msg_controllen = control, CMSG_SPACE(count * sizeof(int))
            rights = CMSG_FIRSTHDR(&header)
            rights.cmsg_len, rights.cmsg_level, rights.cmsg_type = CMSG_LEN(count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS
            for index in range(count):
                (<int *> CMSG_DATA(rights))[index] = descriptors[index]
        while sendmsg(self.socket, &header, MSG_NOSIGNAL) < 0:
            if errno != EINTR:
                raise OSError(errno, "answer the init")


cdef Birth *prepare(tuple program, int socket, int plan, tuple slots, int init, bint ambient) except NULL:
    """All that the child reads, at the low end of a new stack."""
    cdef Birth *birth
    cdef int index = 0
    cdef bytes text = b"%d" % len(program)
    if len(program) + FIRST_SLOT + len(slots) >= 255:
        raise ValueError("more than 250 descriptors for one launch")
    birth = <Birth *> malloc(STACK_SIZE)
    if birth is NULL:
        raise MemoryError
    for index, fd in enumerate(program):
        birth.sources[index] = fd
    birth.base = len(program)
    birth.sources[birth.base + SYNC_DESCRIPTOR] = socket
    birth.sources[birth.base + PLAN_DESCRIPTOR] = plan
    for index, fd in enumerate(slots):
        birth.sources[birth.base + FIRST_SLOT + index] = fd
    birth.count = birth.base + FIRST_SLOT + len(slots)
    birth.sources[birth.count] = init
    birth.init, birth.ambient = init, ambient
    for index in range(len(text)):
        birth.base_text[index] = text[index]
    birth.base_text[len(text)] = 0
    birth.arguments[0], birth.arguments[1], birth.arguments[2] = b"cycontainer", birth.base_text, NULL
    birth.environment[0] = NULL
    return birth


def spawn(int init, int plan, tuple program not None, tuple slots not None, unsigned long flags, int cgroup=-1,
          bint ambient=False) -> Child:
    """clone3(2) a child that executes `init` with `plan`. It returns at once.

    Args:
        init: descriptor of the init's file.
        plan: descriptor of a file that holds the plan, at its offset 0.
        program: the program's descriptors, that it will have as 0, 1, 2 and so on.
        slots: the plan's descriptors, slot 0 first.
        flags: CLONE_NEW*.
        cgroup: descriptor of a cgroup v2 directory to be born in; -1 is ours.
        ambient: whether all capabilities are to outlive the execve (a new user namespace, as an ordinary user).

    Raises:
        OSError: clone3 refused, or there are no descriptors left; nothing is left behind.
    """
    cdef int pair[2]
    cdef int pidfd = -1
    cdef clone_arguments args
    cdef Child child = Child.__new__(Child), inner = Child.__new__(Child)
    cdef Birth *birth
    cdef long pid
    if socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0:
        raise OSError(errno, "socketpair")
    child.socket, inner.socket = pair[0], pair[1]    # whoever forks meanwhile closes both
    try:
        birth = prepare(program, pair[1], plan, slots, init, ambient)
        args.flags, args.pidfd, args.exit_signal = flags | CLONE_VM | CLONE_PIDFD, <unsigned long> &pidfd, SIGCHLD
        args.child_tid = args.parent_tid = args.tls = args.set_tid = args.set_tid_size = args.cgroup = 0
        args.stack, args.stack_size = <unsigned long> birth + sizeof(Birth), STACK_SIZE - sizeof(Birth)
        if cgroup >= 0:
            args.flags |= <unsigned long> 1 << CLONE_INTO_CGROUP_SHIFT
            args.cgroup = <unsigned long> cgroup
        with nogil:
            pid = give_birth(&args, birth)
        if pid < 0:
            free(birth)
            raise OSError(-pid, "clone3")
        child.pid, child.pidfd, child.stack = <int> pid, pidfd, birth
    finally:
        inner.close_socket()
    return child


# The kinds of messages, for the launcher (Child.receive).
FAILED, SYNC, READY, ENDED = MESSAGE_FAILED, MESSAGE_SYNC, MESSAGE_READY, MESSAGE_ENDED
CLONED, TERMINAL, MOUNT = MESSAGE_CLONED, MESSAGE_TERMINAL, MESSAGE_MOUNT
PROGRAM, GATE, LISTENER = MESSAGE_PROGRAM, MESSAGE_GATE, MESSAGE_LISTENER
