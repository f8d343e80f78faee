"""What the container sees of the system: its names, its loopback, and what is set through procfs."""

from cycontainer._steps cimport *
from cycontainer.init.state cimport State
from cycontainer.init.sys cimport *


cdef long bring_loopback_up() noexcept nogil:
    """Set IFF_UP on lo, as netdevice(7) has it."""
    cdef interface_request request
    cdef long result
    cdef long descriptor = sys3(NR_socket, AF_INET, SOCK_DGRAM_CLOEXEC, 0)
    if descriptor < 0:
        return descriptor
    request.name[0], request.name[1], request.name[2] = c'l', c'o', 0
    result = sys3(NR_ioctl, descriptor, SIOCGIFFLAGS, <long> &request)
    if result >= 0:
        request.flags |= IFF_UP
        result = sys3(NR_ioctl, descriptor, SIOCSIFFLAGS, <long> &request)
    sys1(NR_close, descriptor)
    return result


cdef long is_procfs(long descriptor) noexcept nogil:
    """`descriptor`, or an error (and closed): -EINVAL when what it opened is not the top of a procfs."""
    cdef fs_status status
    cdef file_status file
    cdef long result
    if descriptor < 0:
        return descriptor
    result = sys2(NR_fstatfs, descriptor, <long> &status)
    if result == 0:
        result = sys5(NR_statx, descriptor, <long> <const char *> b"", AT_EMPTY_PATH, STATX_BASIC_STATS, <long> &file)
    if result == 0 and (status.f_type != PROC_SUPER_MAGIC or file.stx_ino != PROC_ROOT_INO):
        result = -EINVAL
    if result == 0:
        return descriptor
    sys1(NR_close, descriptor)
    return result


cdef long open_new_proc() noexcept nogil:
    """A procfs of this pid namespace, mounted nowhere: nobody can have put anything on top of its files."""
    cdef long result, context = sys2(NR_fsopen, <long> <const char *> b"proc", 1)
    if context < 0:
        return context
    result = sys5(NR_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0)
    if result >= 0:
        result = sys3(NR_fsmount, context, 1, 0)
    sys1(NR_close, context)
    return result


cdef long open_host_proc() noexcept nogil:
    cdef open_how_ how
    how.flags, how.mode, how.resolve = O_PATH | O_CLOEXEC, 0, 0
    return is_procfs(sys4(NR_openat2, AT_FDCWD, <long> <const char *> b"/proc", <long> &how, sizeof(how)))


cdef long write_proc(int proc, long path, long value, long length) noexcept nogil:
    """Write below a procfs that was verified, without leaving it."""
    cdef open_how_ how
    cdef long result, descriptor
    how.flags, how.mode = O_WRONLY | O_CLOEXEC, 0
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
    descriptor = sys4(NR_openat2, proc, path, <long> &how, sizeof(how))
    if descriptor < 0:
        return descriptor
    result = sys3(NR_write, descriptor, value, length)
    sys1(NR_close, descriptor)
    return result


cdef public long system_step(State *state, const Step *step) noexcept nogil:
    """One step. Returns what the kernel returned: a negative errno when it failed."""
    cdef long *arg = <long *> step.arg
    cdef long plan = <long> state.plan
    if step.op == OP_SET_HOST_NAME:
        return sys2(NR_sethostname, plan + arg[0], arg[1])
    if step.op == OP_SET_DOMAIN_NAME:
        return sys2(NR_setdomainname, plan + arg[0], arg[1])
    if step.op == OP_LOOPBACK_UP:
        return bring_loopback_up()
    if step.op == OP_OPEN_PROC:
        if state.proc >= 0:
            sys1(NR_close, state.proc)
        state.proc = <int> (open_new_proc() if arg[0] else open_host_proc())
        return state.proc
    if step.op == OP_WRITE_PROC:
        return write_proc(state.proc, plan + arg[0], plan + arg[1], arg[2])
    return -ENOSYS
