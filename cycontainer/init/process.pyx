"""The process itself: what it says to the launcher, its namespaces, the program, and what pid 1 does beside it."""

from cycontainer._steps cimport *
from cycontainer.init.state cimport State
from cycontainer.init.sys cimport *

cdef extern int carry_out_from(State *state, long first) noexcept nogil
cdef extern long take_plan(State *state, int descriptor) noexcept nogil
cdef extern long open_terminal(State *state, long rows, long columns, long uid) noexcept nogil

cdef struct Rights:               # ancillary data with one descriptor, unix(7)
    control_header header
    int descriptor
    int padding

cdef enum:
    UNEXECUTED = SIGRTMAX         # what tells of a child's death before its execve, which makes it SIGCHLD: execve(2)

cdef enum:
    GIVEN = 4                     # descriptors that come with OP_GO_ON: a plan, 0, 1 and 2

cdef struct Given:                # the same, with those
    control_header header
    int descriptors[GIVEN]

cdef char program_stack[65536]    # of the program's side of OP_FORK, until its execve


cdef void fill_header(message_header *header, message_vector *vector, Rights *rights) noexcept nogil:
    header.name, header.name_length, header.flags = NULL, 0, 0
    header.vectors, header.vector_count = vector, 1
    header.control, header.control_length = rights, sizeof(Rights)
    rights.header.length = sizeof(control_header) + 4
    rights.header.level, rights.header.type = SOL_SOCKET, SCM_RIGHTS


cdef long send_packet(State *state, Message *message, int descriptor) noexcept nogil:
    """One packet to the launcher, with a descriptor unless that is -1. A seccomp filter leaves us `write`."""
    cdef message_vector vector
    cdef message_header header
    cdef Rights rights
    if descriptor < 0:            # whole also where it is a FIFO: less than PIPE_BUF
        return sys3(NR_write, state.sync, <long> message, sizeof(Message))
    vector.base, vector.length = message, sizeof(Message)
    fill_header(&header, &vector, &rights)
    rights.descriptor = descriptor
    return sys3(NR_sendmsg, state.sync, <long> &header, MSG_NOSIGNAL)


cdef public long send_message(State *state, int kind, long error, int descriptor) noexcept nogil:
    """Tell the launcher where we are."""
    cdef Message message
    message.kind, message.step, message.error, message.tasks = kind, <int> state.at, <int> error, 0
    message.user_us = message.system_us = message.peak_kb = 0
    return send_packet(state, &message, descriptor)


cdef long synchronise(State *state, long takes) noexcept nogil:
    """Let the launcher do its part; where the step `takes` one, the descriptor of its answer becomes the source."""
    cdef unsigned char answer = 0
    cdef message_vector vector
    cdef message_header header
    cdef Rights rights
    cdef long result = send_message(state, MESSAGE_SYNC, 0, -1)
    if result < 0:
        return result
    vector.base, vector.length = &answer, 1
    fill_header(&header, &vector, &rights)
    result = sys3(NR_recvmsg, state.sync, <long> &header, MSG_CMSG_CLOEXEC)
    if result < 0:
        return result
    if result == 0:
        return -ECANCELED         # the launcher is gone
    if answer:
        return -<long> answer     # its part failed, with this errno
    if not takes:
        return 0
    if header.control_length < sizeof(control_header) or rights.header.length != sizeof(control_header) + 4:
        return -EBADMSG
    if state.source >= 0:
        sys1(NR_close, state.source)
    state.source = rights.descriptor
    return 0


cdef long take_streams(int *descriptors) noexcept nogil:
    """They become 0, 1 and 2."""
    cdef long index, result = 0
    for index in range(3):
        if result >= 0:
            result = sys3(NR_dup3, descriptors[index], index, 0)
    for index in range(3):
        sys1(NR_close, descriptors[index])
    return result


cdef long go_on(State *state) noexcept nogil:
    """Wait, however long, for another plan and the program's streams. Without its launcher a container that waits ends.

    Returns only on failure, which the launcher has not heard of.
    """
    cdef unsigned char answer = 0
    cdef message_vector vector
    cdef message_header header
    cdef Rights unused
    cdef Given given
    cdef long result = send_message(state, MESSAGE_SYNC, 0, -1)
    if result < 0:
        return result
    vector.base, vector.length = &answer, 1
    fill_header(&header, &vector, &unused)
    header.control, header.control_length = &given, sizeof(given)
    result = sys3(NR_recvmsg, state.sync, <long> &header, MSG_CMSG_CLOEXEC)
    if result < 0:
        return result
    if result == 0:
        return -ECANCELED
    if header.control_length < sizeof(given) or given.header.length != sizeof(control_header) + GIVEN * sizeof(int):
        return -EBADMSG
    result = take_streams(given.descriptors + 1)
    if result >= 0:
        result = take_plan(state, given.descriptors[0])
    if result >= 0:
        sys1(NR_exit_group, carry_out_from(state, 0))
    return result


cdef long await_start(State *state) noexcept nogil:
    """Until `start` writes a byte. The launcher may be long gone: from now on `start` is who hears of a failure."""
    cdef int slots = state.base + FIRST_SLOT
    cdef unsigned char byte
    cdef long result = sys3(NR_read, slots + GO_SLOT, <long> &byte, 1)
    if result == 1:
        state.sync, state.started = slots + OUTCOME_SLOT, 1
    return result if result < 0 else 0


cdef long introduce_oneself(State *state) noexcept nogil:
    """Give the launcher our pidfd, and wait until it has it: before, nobody would end us.

    The first process does so, too: either may be killed before, and we be stopped by who lives where we are. So it is
    no failure of ours that we cannot: to tell of that before anybody knows of us would leave us to nobody.
    """
    cdef unsigned char answer
    cdef long result, pidfd = sys2(NR_pidfd_open, sys0(NR_getpid), 0)
    if pidfd >= 0:
        send_message(state, MESSAGE_CLONED, 0, <int> pidfd)
        sys1(NR_close, pidfd)
    result = sys3(NR_read, state.sync, <long> &answer, 1)
    return -ECANCELED if result == 0 else result


cdef long clone_on(State *state, long flags) noexcept nogil:
    """Go on in a child that is our sibling, in new namespaces or those that were joined for it.

    This process stays until the launcher ends it, which has heard of the other by then, or until that has died. Not by
    clone3: a filter cannot read its flags, so Docker's answers it with ENOSYS; and one may be on us already.
    """
    cdef poll_entry entries[2]
    cdef int pidfd = -1
    cdef long result = sys5(NR_clone, CLONE_PARENT | CLONE_PIDFD | flags, 0, <long> &pidfd, 0, 0)
    if result < 0:
        return result
    if result == 0:
        return introduce_oneself(state)
    send_message(state, MESSAGE_CLONED, 0, pidfd)
    entries[0].fd, entries[0].events = pidfd, POLLIN
    entries[1].fd, entries[1].events = state.sync, 0          # the launcher's end
    sys5(NR_ppoll, <long> entries, 2, 0, 0, 8)
    sys1(NR_exit_group, 126)
    return 0


cdef long fresh_dispositions() noexcept nogil:
    """A caller's ignored signals would go on through execve; an ignored SIGCHLD would take pid 1's children from it."""
    cdef signal_action action
    cdef long signal, result = 0
    action.handler = action.flags = action.restorer = action.mask = 0
    for signal in range(1, 65):
        if signal != SIGKILL and signal != SIGSTOP and result >= 0:
            result = sys4(NR_rt_sigaction, signal, <long> &action, 0, 8)
    return result


cdef long fresh_signals() noexcept nogil:
    """Default dispositions and an empty mask, signal(7)."""
    cdef long mask = 0
    cdef long result = fresh_dispositions()
    return result if result < 0 else sys4(NR_rt_sigprocmask, SIG_SETMASK, <long> &mask, 0, 8)


# --- pid 1, while the program runs ---------------------------------------------------------------------------------

cdef int tasks_started() noexcept nogil:
    """Processes and threads that were started here beside us: the last number of /proc/loadavg is the newest pid."""
    cdef char text[128]
    cdef open_how_ how
    cdef fs_status status
    cdef long length, at, value = 0, descriptor
    how.flags, how.mode, how.resolve = O_CLOEXEC | O_NONBLOCK, 0, RESOLVE_NO_SYMLINKS
    descriptor = sys4(NR_openat2, AT_FDCWD, <long> <const char *> b"/proc/loadavg", <long> &how, sizeof(how))
    if descriptor < 0:
        return 0
    length = sys2(NR_fstatfs, descriptor, <long> &status)
    if length == 0 and status.f_type == PROC_SUPER_MAGIC:
        length = sys3(NR_read, descriptor, <long> text, sizeof(text))
    sys1(NR_close, descriptor)
    for at in range(length):
        if c'0' <= text[at] <= c'9':
            value = value * 10 + text[at] - c'0'
        elif text[at] != c'\n':
            value = 0
    return <int> (value - 1) if value else 0


cdef long report_end(State *state, int status) noexcept nogil:
    """The program's end, and what all that we waited for has used."""
    cdef Message message
    cdef resource_usage usage
    sys2(NR_getrusage, RUSAGE_CHILDREN, <long> &usage)
    message.kind, message.step, message.error, message.tasks = MESSAGE_ENDED, 0, status, tasks_started()
    message.user_us = usage.user_s * 1000000 + usage.user_us
    message.system_us = usage.system_s * 1000000 + usage.system_us
    message.peak_kb = usage.maxrss
    return send_packet(state, &message, -1)


cdef long reap(long program, int *status) noexcept nogil:
    """Wait for all that has ended. Returns 1 when the program was among them."""
    cdef int one = 0
    cdef long pid, ended = 0
    while True:
        pid = sys4(NR_wait4, -1, <long> &one, WNOHANG | WALL, 0)
        if pid < 0 and pid != -ECHILD and not ended:
            return pid
        if pid <= 0:
            return ended
        if pid == program:
            ended, status[0] = 1, one


cdef long watch(State *state, poll_entry *entries) noexcept nogil:
    """Let go of all but the socket, and watch that and our signals."""
    cdef long all = -1
    cdef long result = sys3(NR_close_range, 0, state.sync - 1, 0)
    if result >= 0:
        result = sys3(NR_close_range, state.sync + 1, 0xFFFFFFFF, 0)
    if result >= 0:
        result = sys4(NR_signalfd4, -1, <long> &all, 8, SFD_FLAGS)
    entries[0].fd, entries[1].fd = <int> result, state.sync
    entries[0].events = entries[1].events = POLLIN
    return result


cdef long end_all(State *state, poll_entry *signals, long program) noexcept nogil:
    """The launcher has hung up: its time is over, or it is gone. Kill all, and tell what they have used, if it listens.

    Whom we may not kill (after a change of ids) the kernel does when we end, and it is not waited for here.
    """
    cdef signal_info info
    cdef long left[2]
    cdef long pid = 0
    cdef int one, status = SIGKILL
    left[0], left[1] = 0, 500000000               # ppoll(2) counts it down
    sys2(NR_kill, -1, SIGKILL)
    while pid >= 0:
        pid = sys4(NR_wait4, -1, <long> &one, WNOHANG | WALL, 0)
        if pid == program:
            status = one
        if pid == 0:
            pid = sys5(NR_ppoll, <long> signals, 1, <long> left, 0, 8) - 1
            sys3(NR_read, signals.fd, <long> &info, sizeof(info))
    report_end(state, status)
    return 125


cdef long take_signals(int signals, long program) noexcept nogil:
    """Pass them on, but those of children. Returns 1 when the program has died before it executed anything."""
    cdef signal_info info
    cdef long unexecuted = 0
    while sys3(NR_read, signals, <long> &info, sizeof(info)) == sizeof(info):
        if info.signo == UNEXECUTED and info.code > 0:        # the kernel's own: no process can send such a code
            unexecuted = 1
        elif info.signo != SIGCHLD:
            sys2(NR_kill, program, info.signo)
    return unexecuted


cdef void linger(poll_entry *launcher) noexcept nogil:
    """Wait a second at most until the launcher hangs up: it has read what our cgroup has counted. Of one that is empty
    systemd leaves nothing."""
    cdef long left[2]
    left[0], left[1] = 1, 0
    sys5(NR_ppoll, <long> launcher, 1, <long> left, 0, 8)


cdef long stand_by(State *state, long program, long lingers) noexcept nogil:
    """Reap, pass signals on, and end when the program or the launcher does; that ends the pid namespace.

    Returns the exit status. All signals are blocked, as the launcher left them: so they queue even for a pid 1
    (signal(7), "Signal mask").
    """
    cdef poll_entry entries[2]
    cdef int status = 0
    cdef long unexecuted = 0, result = watch(state, entries)
    while result >= 0:
        entries[1].revents = 0
        result = sys5(NR_ppoll, <long> entries, 2, 0, 0, 8)
        if result == -EINTR:
            result = 0
        if result >= 0 and entries[1].revents:
            return end_all(state, entries, program)
        if result > 0:
            unexecuted |= take_signals(entries[0].fd, program)
        if result >= 0:
            result = reap(program, &status)
        if result > 0 and unexecuted:             # a filter kills its execve, or memory has run out
            send_message(state, MESSAGE_FAILED, -(status & 127), -1)
            return 126
        if result > 0:
            result = report_end(state, status)
            if result >= 0 and lingers:
                linger(entries + 1)
            if result >= 0:
                return 128 + (status & 127) if status & 127 else status >> 8 & 255
    return result


cdef int program_side(void *state) noexcept nogil:
    """The steps that are left, in a child that shares our memory until its execve: no one else is here yet."""
    return carry_out_from(<State *> state, (<State *> state).at + 1)


cdef long fork_program(State *state, long lingers) noexcept nogil:
    """The child goes on with the plan; we stay and stand by. Returns only on failure. By clone, as `clone_on`."""
    cdef long program, at = state.at
    cdef long result = fresh_dispositions()       # also of UNEXECUTED
    if result < 0:
        return result
    program = fork_onto_stack(
        CLONE_VM | CLONE_VFORK | UNEXECUTED, program_stack + sizeof(program_stack), program_side, state
    )
    if program < 0:
        return program
    result = 126 if state.failed else stand_by(state, program, lingers)
    state.at = at                                 # until here it said how far the program's side has come
    if result >= 0:
        sys1(NR_exit_group, result)
    return result


# --- the program ----------------------------------------------------------------------------------------------------

cdef long change_directory(long path) noexcept nogil:
    """chdir(2), and proof that it lies below the root: CVE-2024-21626."""
    cdef char where[4097]
    cdef long result = sys1(NR_chdir, path)
    if result < 0:
        return result
    result = sys2(NR_getcwd, <long> where, sizeof(where))
    if result < 0:
        return result
    return 0 if where[0] == c'/' else -ENOENT


cdef bint is_null(long descriptor) noexcept nogil:
    cdef file_status status
    cdef long result = sys5(NR_statx, descriptor, <long> <const char *> b"", AT_EMPTY_PATH, STATX_BASIC_STATS,
                            <long> &status)
    return (result == 0 and status.stx_mode & S_IFMT == S_IFCHR
            and status.stx_rdev_major == 1 and status.stx_rdev_minor == 3)


cdef long own_null() noexcept nogil:
    """By a descriptor of the host's own null device its mode and times could be changed; so one in the container takes
    its place, or nothing is started."""
    cdef open_how_ how
    cdef long index, result = 0, null = -1
    for index in range(3):
        if result < 0 or not is_null(index):
            continue
        if null < 0:
            how.flags, how.mode, how.resolve = O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS
            null = sys4(NR_openat2, AT_FDCWD, <long> <const char *> b"/dev/null", <long> &how, sizeof(how))
            result = null
            if null >= 0:
                result = sys3(NR_fcntl, null, F_SETFL, 0) if is_null(null) else -ENODEV
        if result >= 0:
            result = sys3(NR_dup3, null, index, 0)
    if null >= 0:
        sys1(NR_close, null)
    return result


cdef long look_up(State *state) noexcept nogil:
    """The first candidate that is an executable file: what execvp(3) would take. It stops at an error that execvp(3)
    stops at: the next candidate would be another program."""
    cdef file_status status
    cdef long result, error = -ENOENT
    cdef long *candidate = <long *> (state.plan + state.header.candidates)
    while candidate[0]:
        state.program = state.plan + candidate[0]
        candidate += 1
        result = sys5(NR_statx, AT_FDCWD, <long> state.program, 0, STATX_BASIC_STATS, <long> &status)
        if result == 0:
            result = sys4(NR_faccessat2, AT_FDCWD, <long> state.program, 1, AT_EACCESS)
            if result == 0 and status.stx_mode & S_IFMT == S_IFREG:
                return 0
            if result == 0:
                result = -EACCES
        if result == -EACCES:
            error = result
        elif result != -ENOENT and result != -ENOTDIR and result != -ESTALE:
            return result
    return error


cdef long execute(State *state) noexcept nogil:
    """execve(2), the offsets of its arrays turned into pointers where they lie."""
    cdef long arrays[2]
    cdef long *entry
    cdef int index
    arrays[0], arrays[1] = state.header.argv, state.header.envp
    for index in range(2):
        entry = <long *> (state.plan + arrays[index])
        while entry[0]:
            entry[0] += <long> state.plan
            entry += 1
    return sys3(NR_execve, <long> state.program, <long> (state.plan + arrays[0]), <long> (state.plan + arrays[1]))


cdef public long process_step(State *state, const Step *step) noexcept nogil:
    """One step. Returns what the kernel returned: a negative errno when it failed."""
    cdef long *arg = <long *> step.arg
    cdef long plan = <long> state.plan
    cdef int slots = state.base + FIRST_SLOT
    if step.op == OP_PRCTL:
        return sys5(NR_prctl, arg[0], arg[1], arg[2], arg[3], arg[4])
    if step.op == OP_SETSID:
        return sys0(NR_setsid)
    if step.op == OP_UMASK:
        return sys1(NR_umask, arg[0])
    if step.op == OP_WRITE_SLOT:
        return sys3(NR_write, slots + arg[0], plan + arg[1], arg[2])
    if step.op == OP_CLOSE_SLOTS:
        sys1(NR_close, state.base + PLAN_DESCRIPTOR)      # what was opened after the plan was closed has its number
        return sys3(NR_close_range, slots + arg[0], 0xFFFFFFFF, 0)
    if step.op == OP_SYNC:
        return synchronise(state, arg[0])
    if step.op == OP_SETNS:
        return sys2(NR_setns, slots + arg[0], arg[1])
    if step.op == OP_UNSHARE:
        return sys1(NR_unshare, arg[0])
    if step.op == OP_CLONE:
        return clone_on(state, arg[0])
    if step.op == OP_FORK:
        return fork_program(state, arg[0])
    if step.op == OP_FRESH_SIGNALS:
        return fresh_signals()
    if step.op == OP_CHDIR:
        return change_directory(plan + arg[0])
    if step.op == OP_OWN_NULL:
        return own_null()
    if step.op == OP_LOOK_UP:
        return look_up(state)
    if step.op == OP_READY:
        return send_message(state, MESSAGE_READY, 0, -1)
    if step.op == OP_AWAIT_START:
        return await_start(state)
    if step.op == OP_GO_ON:
        return go_on(state)
    if step.op == OP_OPEN_TERMINAL:
        return open_terminal(state, arg[0], arg[1], arg[2])
    if step.op == OP_TAKE_TERMINAL:
        return sys3(NR_ioctl, 0, TIOCSCTTY, 0)
    if step.op == OP_EXECUTE:
        return execute(state)
    return -ENOSYS
