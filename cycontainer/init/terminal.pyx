"""A terminal of the container's own devpts, whose master goes to the launcher: pts(4), ioctl_tty(2)."""

from cycontainer._steps cimport *
from cycontainer.init.state cimport State
from cycontainer.init.sys cimport *

cdef extern long open_inside(int root, const char *path, long flags, long resolve) noexcept nogil
cdef extern long send_message(State *state, int kind, long error, int descriptor) noexcept nogil


cdef long open_master(int root) noexcept nogil:
    """A new terminal's master. Only a devpts is asked for one, and only what it has itself under the name ptmx."""
    cdef open_how_ how
    cdef fs_status status
    cdef long result, directory = open_inside(root, b"/dev/pts", O_PATH, 0)
    if directory < 0:
        return directory
    result = sys2(NR_fstatfs, directory, <long> &status)
    if result == 0 and status.f_type != DEVPTS_SUPER_MAGIC:
        result = -ENODEV
    if result == 0:
        how.flags, how.mode = O_RDWR | O_NOCTTY | O_CLOEXEC, 0
        how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
        result = sys4(NR_openat2, directory, <long> <const char *> b"ptmx", <long> &how, sizeof(how))
    sys1(NR_close, directory)
    return result


cdef long become_output(long terminal) noexcept nogil:
    """0, 1 and 2 are the terminal, opened once: a checkpoint finds the session by it."""
    cdef long index, result = 0
    for index in range(3):
        if result >= 0:
            result = sys3(NR_dup3, terminal, index, 0)
    return result


cdef long set_up(long terminal, long rows, long columns, long uid) noexcept nogil:
    cdef window_size size
    cdef long result = 0
    if rows or columns:
        size.rows, size.columns, size.x, size.y = <unsigned short> rows, <unsigned short> columns, 0, 0
        result = sys3(NR_ioctl, terminal, TIOCSWINSZ, <long> &size)
    if result >= 0:
        result = sys5(NR_fchownat, terminal, <long> <const char *> b"", uid, -1, AT_EMPTY_PATH)
    return become_output(terminal) if result >= 0 else result


cdef public long open_terminal(State *state, long rows, long columns, long uid) noexcept nogil:
    """OP_OPEN_TERMINAL. Without a root of ours to look below, it is where we are: / of a joined mount namespace."""
    cdef int unlocked = 0
    cdef long flags, result, terminal
    cdef long master = open_master(state.root if state.root >= 0 else AT_FDCWD)
    if master < 0:
        return master
    result = sys3(NR_ioctl, master, TIOCSPTLCK, <long> &unlocked)
    terminal = sys3(NR_ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC) if result >= 0 else result
    if terminal >= 0:
        result = set_up(terminal, rows, columns, uid)
    if terminal >= 0 and result >= 0:
        if state.source >= 0:
            sys1(NR_close, state.source)
        flags = OPEN_TREE_CLONE | AT_EMPTY_PATH | O_CLOEXEC
        state.source = <int> sys3(NR_open_tree, terminal, <long> <const char *> b"", flags)
        result = send_message(state, MESSAGE_TERMINAL, 0, <int> master)
    if terminal >= 0:
        sys1(NR_close, terminal)
    sys1(NR_close, master)
    return terminal if terminal < 0 else result
