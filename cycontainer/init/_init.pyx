"""The container's init: carries out a plan that was made elsewhere, step by step.

Compiled by Cython, linked without libc and without Python. It parses nothing, allocates nothing, decides nothing. The
first step that fails goes to the launcher as {step, errno}, and is the last.
"""

from cycontainer._steps cimport *
from cycontainer.init.state cimport State
from cycontainer.init.sys cimport *

cdef extern from "memory.h":
    pass

cdef extern long process_step(State *state, const Step *step) noexcept nogil
cdef extern long system_step(State *state, const Step *step) noexcept nogil
cdef extern long identity_step(State *state, const Step *step) noexcept nogil
cdef extern long tree_step(State *state, const Step *step) noexcept nogil
cdef extern long send_message(State *state, int kind, long error, int descriptor) noexcept nogil


cdef inline long carry_out(State *state, const Step *step) noexcept nogil:
    """One step, by its subject. Returns what the kernel returned: a negative errno when it failed."""
    if step.op < OP_SET_HOST_NAME:
        return process_step(state, step)
    if step.op < OP_SET_GROUPS:
        return system_step(state, step)
    if step.op < OP_SET_PROPAGATION:
        return identity_step(state, step)
    return tree_step(state, step)


cdef public int carry_out_from(State *state, long first) noexcept nogil:
    """Every step from `first` on. Returns the exit status; not at all when the program was executed."""
    cdef long result
    for state.at in range(first, state.header.steps):
        result = carry_out(state, &state.steps[state.at])
        if result < 0:
            state.failed = 1
            send_message(state, MESSAGE_FAILED, -result, -1)
            return 126
    return 0


cdef long number(const char *digits) noexcept nogil:
    cdef long value = 0
    while digits[0]:
        value = value * 10 + digits[0] - 48
        digits += 1
    return value


cdef inline long sys_mmap(long size, int descriptor) noexcept nogil:
    """The plan, private and writable: OP_EXECUTE turns its offsets into pointers where they lie."""
    return sys6(NR_mmap, 0, size, PROT_READ_WRITE, MAP_PRIVATE, descriptor, 0)


cdef public long take_plan(State *state, int descriptor) noexcept nogil:
    """Map the plan, and close its file. A negative errno when it is none."""
    cdef Header head
    cdef long result = sys3(NR_read, descriptor, <long> &head, sizeof(head))
    if result < 0:
        return result
    if result != sizeof(head) or head.magic != PLAN_MAGIC:
        return -EBADMSG
    result = sys_mmap(head.size, descriptor)
    if result < 0 and result > -4096:
        return result
    sys1(NR_close, descriptor)
    state.plan = <char *> result
    state.header = <Header *> result
    state.steps = <Step *> (result + head.first)
    return 0


cdef public int init_main(int argc, char **argv) noexcept nogil:
    """argv[1] is the first descriptor that is ours, in digits. Returns the exit status."""
    cdef State state
    cdef long result
    if argc != 2:
        return 125
    state.base = <int> number(argv[1])
    state.sync = state.base + SYNC_DESCRIPTOR
    state.root = state.source = state.target = state.held = state.proc = state.empty = state.null = -1
    state.null_kept = 0
    state.program, state.failed, state.started, state.at = NULL, 0, 0, -1
    sys1(NR_umask, 0)
    sys2(NR_prctl, PR_SET_NAME, <long> <const char *> b"cycontainer/new")
    result = sys3(NR_close_range, state.base, 0xFFFFFFFF, CLOSE_RANGE_CLOEXEC)
    if result >= 0:
        result = take_plan(&state, state.base + PLAN_DESCRIPTOR)
    if result < 0:
        send_message(&state, MESSAGE_FAILED, -result, -1)
        return 126
    return carry_out_from(&state, 0)
