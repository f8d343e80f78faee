"""Who the program is and what it may use: ids, capabilities, limits, scheduling, seccomp."""

from cycontainer._steps cimport *
from cycontainer.init.state cimport State
from cycontainer.init.sys cimport *

cdef extern long load_notifying(State *state, filter_program *filter, long flags) noexcept nogil


cdef long drop_bounding(unsigned long keep, long last) noexcept nogil:
    """Drop every capability up to `last` that is not in `keep` from the bounding set."""
    cdef long capability, result = 0
    for capability in range(last + 1):
        if not keep >> capability & 1:
            result = sys5(NR_prctl, PR_CAPBSET_DROP, capability, 0, 0, 0)
            if result < 0:
                break
    return result


cdef long set_capabilities(long effective, long permitted, long inheritable) noexcept nogil:
    """capset(2), for this process."""
    cdef capability_header header
    cdef capability_data data[2]
    cdef int half
    header.version, header.pid = CAPABILITY_VERSION_3, 0
    for half in range(2):
        data[half].effective = <unsigned int> (effective >> 32 * half)
        data[half].permitted = <unsigned int> (permitted >> 32 * half)
        data[half].inheritable = <unsigned int> (inheritable >> 32 * half)
    return sys2(NR_capset, <long> &header, <long> data)


cdef long raise_ambient(unsigned long mask) noexcept nogil:
    """Make `mask` the ambient set; each has to be permitted and inheritable."""
    cdef long capability, result = sys5(NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(64):
        if result < 0:
            break
        if mask >> capability & 1:
            result = sys5(NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
    return result


cdef long set_rlimit(long resource, long soft, long hard) noexcept nogil:
    cdef long limits[2]
    limits[0], limits[1] = soft, hard
    return sys4(NR_prlimit64, 0, resource, <long> limits, 0)


cdef long join_keyring() noexcept nogil:
    """A new, anonymous session keyring. A kernel without keyrings has none that could leak."""
    cdef long result = sys2(NR_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0)
    return 0 if result == -ENOSYS else result


cdef long load_seccomp(State *state, long filter, long length, long flags) noexcept nogil:
    cdef filter_program program
    program.length, program.filter = <unsigned short> length, <void *> filter
    if flags & SECCOMP_NEW_LISTENER:
        return load_notifying(state, &program, flags)
    return sys3(NR_seccomp, SECCOMP_SET_MODE_FILTER, flags, <long> &program)


cdef public long identity_step(State *state, const Step *step) noexcept nogil:
    """One step. Returns what the kernel returned: a negative errno when it failed."""
    cdef long *arg = <long *> step.arg
    cdef long plan = <long> state.plan
    if step.op == OP_SET_GROUPS:
        return sys2(NR_setgroups, arg[1], plan + arg[0])
    if step.op == OP_SET_GID:
        return sys3(NR_setresgid, arg[0], arg[0], arg[0])
    if step.op == OP_SET_UID:
        return sys3(NR_setresuid, arg[0], arg[0], arg[0])
    if step.op == OP_DROP_BOUNDING:
        return drop_bounding(<unsigned long> arg[0], arg[1])
    if step.op == OP_SET_CAPABILITIES:
        return set_capabilities(arg[0], arg[1], arg[2])
    if step.op == OP_RAISE_AMBIENT:
        return raise_ambient(<unsigned long> arg[0])
    if step.op == OP_SET_RLIMIT:
        return set_rlimit(arg[0], arg[1], arg[2])
    if step.op == OP_JOIN_KEYRING:
        return join_keyring()
    if step.op == OP_SET_PERSONALITY:
        return sys1(NR_personality, arg[0])
    if step.op == OP_SET_SCHEDULER:
        return sys3(NR_sched_setattr, 0, plan + arg[0], 0)
    if step.op == OP_SET_IO_PRIORITY:
        return sys3(NR_ioprio_set, IOPRIO_WHO_PROCESS, 0, arg[0])
    if step.op == OP_SET_MEMORY_POLICY:
        return sys3(NR_set_mempolicy, arg[0], plan + arg[1] if arg[1] else 0, arg[2])
    if step.op == OP_SET_AFFINITY:
        return sys3(NR_sched_setaffinity, 0, arg[1], plan + arg[0])
    if step.op == OP_LOAD_SECCOMP:
        return load_seccomp(state, plan + arg[0], arg[1], arg[2])
    return -ENOSYS
