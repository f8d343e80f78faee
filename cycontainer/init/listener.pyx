"""A seccomp filter that notifies: its listener goes to the launcher, seccomp_unotify(2).

Under the filter only `write` is sure to be left: it tells the listener's number, for the launcher to fetch it with
pidfd_getfd(2), and a write to a full pipe holds us until that was done. The program's execve closes both.
"""

from cycontainer._steps cimport *
from cycontainer.init.state cimport State
from cycontainer.init.sys cimport *

cdef extern long send_message(State *state, int kind, long error, int descriptor) noexcept nogil

cdef char nothing[4096]


cdef long send_and_close(State *state, int kind, long descriptor) noexcept nogil:
    """Give a descriptor away; one that is a negative errno is returned."""
    cdef long result = descriptor
    if descriptor >= 0:
        result = send_message(state, kind, 0, <int> descriptor)
        sys1(NR_close, descriptor)
    return result


cdef long full_pipe(int *ends) noexcept nogil:
    """A pipe that takes not one byte more, and whose ends wait for one another."""
    cdef long result = sys2(NR_pipe2, <long> ends, O_CLOEXEC | O_NONBLOCK)
    while result >= 0:
        result = sys3(NR_write, ends[1], <long> nothing, sizeof(nothing))
    if result == -EAGAIN:
        result = sys3(NR_fcntl, ends[0], F_SETFL, 0)
    return sys3(NR_fcntl, ends[1], F_SETFL, 0) if result == 0 else result


cdef long tell_listener(State *state, long listener, long pipe) noexcept nogil:
    cdef Message message
    message.kind, message.step = MESSAGE_LISTENER, <int> state.at
    message.error, message.tasks = <int> listener, <int> pipe
    message.user_us = message.system_us = message.peak_kb = 0
    return sys3(NR_write, state.sync, <long> &message, sizeof(message))


cdef public long load_notifying(State *state, filter_program *filter, long flags) noexcept nogil:
    """Load the filter, and wait until someone has its listener."""
    cdef int ends[2]
    cdef unsigned char byte = 1
    cdef long result = full_pipe(ends)
    if result >= 0 and not state.started:    # a FIFO takes no descriptors: `start` fetches the pipe's, too
        result = send_and_close(state, MESSAGE_PROGRAM, sys2(NR_pidfd_open, sys0(NR_getpid), 0))
        if result >= 0:
            result = send_and_close(state, MESSAGE_GATE, ends[0])
        ends[0] = -1
    if result >= 0:
        result = sys3(NR_seccomp, SECCOMP_SET_MODE_FILTER, flags, <long> filter)
    if result >= 0:
        result = tell_listener(state, result, ends[0])
    if result >= 0:
        result = sys3(NR_write, ends[1], <long> &byte, 1)
    return result
