"""The file tree: mounts, nodes, links, masks, the root.

What lies in the container is reached by openat2(2) from the root's descriptor, and then used as a descriptor.
"""

from cycontainer._steps cimport *
from cycontainer.init.state cimport State
from cycontainer.init.sys cimport *

cdef extern long copy_up(State *state, const Step *step) noexcept nogil
cdef extern long send_message(State *state, int kind, long error, int descriptor) noexcept nogil

cdef extern void put_away(int *descriptor) noexcept nogil
cdef extern long status_of(int descriptor, file_status *status) noexcept nogil
cdef extern long append(char *path, long length, const char *more) noexcept nogil
cdef extern long open_inside(int root, const char *path, long flags, long resolve) noexcept nogil
cdef extern long hold(State *state, const char *path) noexcept nogil
cdef extern long make_working_directory(State *state, const char *path) noexcept nogil
cdef extern long find_target(State *state, const char *path, long rule, const char *name) noexcept nogil

cdef enum:
    PATH_SIZE = 4096


# --- what is mounted --------------------------------------------------------------------------------------------------

cdef long take_source(State *state, long descriptor) noexcept nogil:
    """The descriptor of a step that makes a source, or its error."""
    put_away(&state.source)
    if descriptor >= 0:
        state.source = <int> descriptor
    return descriptor


cdef inline long open_tree(int directory, const char *path, long flags) noexcept nogil:
    return sys3(NR_open_tree, directory, <long> path, O_CLOEXEC | flags)


cdef inline long attach(int source, int target) noexcept nogil:
    return sys5(NR_move_mount, source, <long> <const char *> b"", target, <long> <const char *> b"",
                MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)


cdef long set_attributes(int mount, long set_, long clear, long propagation, long flags) noexcept nogil:
    """mount_setattr(2) on a mount's root."""
    cdef mount_attributes attributes
    attributes.attr_set, attributes.attr_clr = set_, clear
    attributes.propagation, attributes.userns_fd = propagation, 0
    return sys5(NR_mount_setattr, mount, <long> <const char *> b"", AT_EMPTY_PATH | flags,
                <long> &attributes, sizeof(attributes))


cdef long cgroup_source(State *state, const char *prefix) noexcept nogil:
    """This container's directory in one hierarchy."""
    cdef char path[PATH_SIZE]
    cdef long length = append(path, 0, prefix)
    if length >= 0 and state.header.cgroup:
        length = append(path, length, state.plan + state.header.cgroup)
    if length < 0:
        return length
    return take_source(state, open_tree(AT_FDCWD, path, OPEN_TREE_CLONE))


cdef long mount_context(State *state, long attributes) noexcept nogil:
    """The context becomes a file system, and that a detached mount."""
    cdef long result = sys5(NR_fsconfig, state.source, FSCONFIG_CMD_CREATE, 0, 0, 0)
    if result < 0:
        return result
    return take_source(state, sys3(NR_fsmount, state.source, 1, attributes))


cdef long enter_root(State *state, long how, const char *path) noexcept nogil:
    """The source becomes the root; a detached mount is attached over /, where the host's paths still lead past it, or
    (2) at its own path, where hooks look for it."""
    state.root, state.source = state.source, -1
    if how == 1:
        return 0
    return sys5(NR_move_mount, state.root, <long> <const char *> b"", AT_FDCWD,
                <long> (path if how == 2 else <const char *> b"/"), MOVE_MOUNT_F_EMPTY_PATH)


# --- nodes, links, masks ----------------------------------------------------------------------------------------------

cdef long check_node(int parent, long name, long type_, long device) noexcept nogil:
    """What is there already has to be this node."""
    cdef file_status status
    cdef long result = sys5(NR_statx, parent, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, <long> &status)
    if result < 0:
        return result
    if (status.stx_mode & S_IFMT != type_ or status.stx_rdev_major != device >> 8 & 0xFFF
            or status.stx_rdev_minor != (device & 0xFF | device >> 12 & 0xFFF00)):
        return -EEXIST
    return 0


cdef long make_node(int parent, long name, long mode, long device, long owner) noexcept nogil:
    """mknod(2) and its owner, uid in the high half; one that is there already has to be the same."""
    cdef long result = sys4(NR_mknodat, parent, name, mode, device)
    if result == -EEXIST:
        return check_node(parent, name, mode & S_IFMT, device)
    if result < 0 or owner == 0:
        return result
    return sys5(NR_fchownat, parent, name, owner >> 32, <unsigned int> owner, AT_SYMLINK_NOFOLLOW)


cdef long make_link(int parent, long name, const char *text, long device) noexcept nogil:
    """symlink(2). What the image has there is its own: it decides what its names mean; but where `device` was asked
    for, it has to be that character device, or the link."""
    cdef char found[PATH_SIZE]
    cdef long length, at = 0, result = sys3(NR_symlinkat, <long> text, parent, name)
    if result != -EEXIST:
        return result
    if device == 0:
        return 0
    length = sys4(NR_readlinkat, parent, name, <long> found, PATH_SIZE)
    if length == -EINVAL:
        return check_node(parent, name, S_IFCHR, device)
    while at < length and found[at] == text[at]:      # the NUL ends it: a link's text has none
        at += 1
    return 0 if at == length and text[at] == 0 else -EEXIST


cdef long null_device() noexcept nogil:
    """A detached mount of the host's /dev/null, verified to be it, private, so that nothing can be mounted back on it,
    and read-only: who owns the host's could change its mode and times by it."""
    cdef file_status status
    cdef long result, descriptor = open_tree(AT_FDCWD, b"/dev/null", OPEN_TREE_CLONE)
    if descriptor < 0:
        return descriptor
    result = status_of(<int> descriptor, &status)
    if result == 0 and (status.stx_mode & S_IFMT != S_IFCHR
                        or status.stx_rdev_major != 1 or status.stx_rdev_minor != 3):
        result = -EINVAL
    if result == 0:
        result = set_attributes(<int> descriptor, MOUNT_ATTR_RDONLY, 0, MS_PRIVATE, 0)
    if result == 0:
        return descriptor
    sys1(NR_close, descriptor)
    return result


cdef inline long set_string(long context, const char *key, const char *value) noexcept nogil:
    return sys5(NR_fsconfig, context, FSCONFIG_SET_STRING, <long> key, <long> value, 0)


cdef long empty_directory() noexcept nogil:
    """A detached mount of one empty, read-only directory."""
    cdef long result, context = sys2(NR_fsopen, <long> <const char *> b"tmpfs", 1)
    if context < 0:
        return context
    result = set_string(context, b"mode", b"555")
    if result >= 0:
        result = set_string(context, b"nr_inodes", b"1")
    if result >= 0:
        result = sys5(NR_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0)
    if result >= 0:
        result = sys3(NR_fsmount, context, 1, 0xF)       # read-only, nosuid, nodev, noexec
    sys1(NR_close, context)
    return result


cdef long mask(State *state, const char *path) noexcept nogil:
    """Hide what is there, if anything is: a directory behind an empty one, all else behind the null device."""
    cdef file_status status
    cdef int *kept
    cdef long result, cover, target = open_inside(state.root, path, O_PATH, 0)
    if target == -ENOENT or target == -ENOTDIR:
        return 0
    if target < 0:
        return target
    result = status_of(<int> target, &status)
    if result < 0:
        sys1(NR_close, target)
        return result
    kept = &state.empty if status.stx_mode & S_IFMT == S_IFDIR else &state.null
    if state.null_kept and kept == &state.null:
        cover, kept[0], state.null_kept = kept[0], -1, 0
    elif kept[0] >= 0:            # made once, then copied from where it is attached
        cover = open_tree(kept[0], b"", OPEN_TREE_CLONE | AT_EMPTY_PATH)
    else:
        cover = empty_directory() if kept == &state.empty else null_device()
    result = attach(<int> cover, <int> target) if cover >= 0 else cover
    sys1(NR_close, target)
    if cover >= 0 and kept[0] < 0:
        kept[0] = <int> cover
    elif cover >= 0:
        sys1(NR_close, cover)
    return result


cdef long make_readonly(State *state, const char *path) noexcept nogil:
    """Bind what is there, if anything is, onto itself, read-only with all below."""
    cdef long result, copy, target = open_inside(state.root, path, O_PATH, 0)
    if target == -ENOENT or target == -ENOTDIR:
        return 0
    if target < 0:
        return target
    copy = open_tree(<int> target, b"", OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE)
    result = copy
    if copy >= 0:
        result = set_attributes(<int> copy, MOUNT_ATTR_RDONLY, 0, 0, AT_RECURSIVE)
        if result >= 0:
            result = attach(<int> copy, <int> target)
        sys1(NR_close, copy)
    sys1(NR_close, target)
    return result


# --- the end ----------------------------------------------------------------------------------------------------------

cdef long pivot(State *state) noexcept nogil:
    """Make the root the only one: pivot_root(2), "pivot_root(".", ".")"."""
    cdef long result = sys1(NR_fchdir, state.root)
    if result >= 0:
        result = sys2(NR_pivot_root, <long> <const char *> b".", <long> <const char *> b".")
    if result >= 0:
        result = sys2(NR_umount2, <long> <const char *> b".", MNT_DETACH)
    if result >= 0:
        result = sys1(NR_chdir, <long> <const char *> b"/")
    return result


cdef long change_root(State *state) noexcept nogil:
    """For ramdisks, whose root cannot be pivoted away: it stays, covered by the container's at its very root."""
    cdef long result = sys1(NR_fchdir, state.root)
    if result >= 0:
        result = sys1(NR_chroot, <long> <const char *> b".")
    if result >= 0:
        result = sys1(NR_chdir, <long> <const char *> b"/")
    return result


cdef long set_label(int source, const char *label, long length) noexcept nogil:
    """fsetxattr(2), through a descriptor that is no O_PATH."""
    cdef open_how_ how
    cdef long result, directory
    how.flags, how.mode, how.resolve = O_CLOEXEC | OPEN_DIRECTORY, 0, RESOLVE_NO_XDEV
    directory = sys4(NR_openat2, source, <long> <const char *> b".", <long> &how, sizeof(how))
    if directory < 0:
        return directory
    result = sys5(NR_fsetxattr, directory, <long> <const char *> b"security.selinux", <long> label, length, 0)
    sys1(NR_close, directory)
    return result


cdef public long tree_step(State *state, const Step *step) noexcept nogil:
    """One step. Returns what the kernel returned: a negative errno when it failed."""
    cdef long *arg = <long *> step.arg
    cdef char *plan = state.plan
    if step.op == OP_SET_PROPAGATION:
        return sys5(NR_mount_setattr, AT_FDCWD, <long> <const char *> b"/", arg[1],
                    <long> (plan + arg[0]), sizeof(mount_attributes))
    if step.op == OP_ROOT:
        return enter_root(state, arg[0], plan + arg[1])
    if step.op == OP_SOURCE_TREE:
        return take_source(state, open_tree(AT_FDCWD, plan + arg[0], arg[1]))
    if step.op == OP_KEEP:
        state.kept[arg[0]], state.source = state.source, -1
        return 0
    if step.op == OP_KEEP_NULL:
        state.null, state.null_kept = <int> null_device(), 1
        return state.null
    if step.op == OP_SOURCE_KEPT:
        return take_source(state, state.kept[arg[0]])
    if step.op == OP_SOURCE_INSIDE:
        return take_source(state, open_inside(state.root, plan + arg[0], O_PATH, 0))
    if step.op == OP_SOURCE_SLOT:
        return take_source(state, state.base + FIRST_SLOT + arg[0])
    if step.op == OP_SOURCE_CGROUP:
        return cgroup_source(state, plan + arg[0])
    if step.op == OP_FS_OPEN:
        return take_source(state, sys2(NR_fsopen, <long> (plan + arg[0]), 1))
    if step.op == OP_FS_SET:
        return sys5(NR_fsconfig, state.source, FSCONFIG_SET_STRING if arg[1] else FSCONFIG_SET_FLAG,
                    <long> (plan + arg[0]), <long> (plan + arg[1]) if arg[1] else 0, 0)
    if step.op == OP_FS_SET_SLOT:
        return sys5(NR_fsconfig, state.source, FSCONFIG_SET_FD, <long> (plan + arg[0]), 0,
                    state.base + FIRST_SLOT + arg[1])
    if step.op == OP_FS_MOUNT:
        return mount_context(state, arg[0])
    if step.op == OP_SET_ATTRIBUTES:
        return set_attributes(state.source, arg[0], arg[1], arg[2], arg[3])
    if step.op == OP_SET_LABEL:
        return set_label(state.source, plan + arg[0], arg[1])
    if step.op == OP_TARGET:
        return find_target(state, plan + arg[0], arg[1], plan + arg[2] if arg[2] else NULL)
    if step.op == OP_COPY_UP:
        return copy_up(state, step)
    if step.op == OP_ATTACH:
        return attach(state.source, state.target)
    if step.op == OP_HOLD:
        return hold(state, plan + arg[0])
    if step.op == OP_MAKE_DIRECTORY:
        return make_working_directory(state, plan + arg[0])
    if step.op == OP_MAKE_NODE:
        return make_node(state.held, <long> plan + arg[0], arg[1], arg[2], arg[3])
    if step.op == OP_MAKE_LINK:
        return make_link(state.held, <long> plan + arg[0], plan + arg[1], arg[2])
    if step.op == OP_MASK:
        return mask(state, plan + arg[0])
    if step.op == OP_MAKE_READONLY:
        return make_readonly(state, plan + arg[0])
    if step.op == OP_PIVOT:
        return pivot(state)
    if step.op == OP_CHROOT:
        return change_root(state)
    if step.op == OP_ROOT_ATTRIBUTES:
        return set_attributes(state.root, arg[0], arg[1], arg[2], arg[3])
    if step.op == OP_HAND_OVER:
        return send_message(state, MESSAGE_MOUNT, 0, state.source)
    return -ENOSYS
