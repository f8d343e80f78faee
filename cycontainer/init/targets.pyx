"""Where mounts go: paths inside the root, resolved once by openat2(2), made when missing, then used as descriptors."""

from cycontainer._steps cimport *
from cycontainer.init.state cimport State
from cycontainer.init.sys cimport *

cdef enum:
    PATH_SIZE = 4096
    MOST_LINKS = 40          # as the kernel's own limit, path_resolution(7)
    DANGLING = -4096         # not an errno: the path was rewritten, go on with the new one
    A_FILE = 0               # what is made at the end of a path that is missing
    A_DIRECTORY = 1
    ONLY_ON_DISK = 2         # a directory, but no object of the kernel's


cdef public void put_away(int *descriptor) noexcept nogil:
    """Close it, if it is one."""
    if descriptor[0] >= 0:
        sys1(NR_close, descriptor[0])
    descriptor[0] = -1


cdef public long open_inside(int root, const char *path, long flags, long resolve) noexcept nogil:
    """`path` below `root`, as if that were /. A racing rename makes the kernel ask for another try."""
    cdef open_how_ how
    cdef long result = -EAGAIN
    cdef int tries = 0
    how.flags, how.mode = flags | O_CLOEXEC, 0
    how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve
    while result == -EAGAIN and tries < 32:
        result = sys4(NR_openat2, root, <long> path, <long> &how, sizeof(how))
        tries += 1
    return result


cdef public long status_of(int descriptor, file_status *status) noexcept nogil:
    return sys5(NR_statx, descriptor, <long> <const char *> b"", AT_EMPTY_PATH, STATX_BASIC_STATS, <long> status)


# --- targets: found inside the root, made when missing -------------------------------------------------------------

cdef public long append(char *path, long length, const char *more) noexcept nogil:
    """The new length, or -ENAMETOOLONG."""
    while more[0]:
        if length >= PATH_SIZE - 1:
            return -ENAMETOOLONG
        path[length] = more[0]
        length += 1
        more += 1
    path[length] = 0
    return length


cdef long follow_dangling(int parent, char *path, long start, const char *rest) noexcept nogil:
    """Put a symbolic link's text in its place: DANGLING, or -EEXIST when there is no link."""
    cdef char text[PATH_SIZE]
    cdef char kept[PATH_SIZE]
    cdef long length = sys4(NR_readlinkat, parent, <long> (path + start), <long> text, PATH_SIZE - 1)
    if length < 0:
        return -EEXIST
    text[length] = 0
    length = append(kept, 0, rest)
    if length >= 0:
        length = append(path, 0 if text[0] == c'/' else start, text)
    if length >= 0:
        length = append(path, length, kept)
    return DANGLING if length >= 0 else length


cdef long refuse_kernels(int directory) noexcept nogil:
    """-EPERM where what is made is an object of the kernel's, as a cgroup is."""
    cdef fs_status where
    cdef long result = sys2(NR_fstatfs, directory, <long> &where)
    if result >= 0 and where.f_type in (PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC,
                                        CONFIGFS_MAGIC, TRACEFS_MAGIC, RDTGROUP_SUPER_MAGIC):
        return -EPERM
    return result


cdef long make_component(
    int root, int parent, char *path, long start, long end, int directory, long resolve
) noexcept nogil:
    """Make path[start:end] in `parent` and open it."""
    cdef char stop = path[end]
    cdef long result, made
    cdef open_how_ how
    path[end] = 0
    made = refuse_kernels(parent) if directory == ONLY_ON_DISK else 0
    if made >= 0 and directory:
        made = sys3(NR_mkdirat, parent, <long> (path + start), 0o755)
    elif made >= 0:
        how.flags, how.mode, how.resolve = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644, RESOLVE_NO_SYMLINKS
        made = sys4(NR_openat2, parent, <long> (path + start), <long> &how, sizeof(how))
        if made >= 0:
            sys1(NR_close, made)
    result = made
    if made >= 0 or made == -EEXIST:      # another launch may have made it since we looked
        result = open_inside(root, path, O_PATH, resolve)
    if result == -ENOENT and made == -EEXIST and not resolve & RESOLVE_NO_SYMLINKS:
        return make_rest(parent, path, start, end, stop)
    path[end] = stop
    return result


cdef long make_rest(int parent, char *path, long start, long end, char stop) noexcept nogil:
    """What stands there cannot be opened: a link to nothing. Go where it points to, inside the root.

    path[end] is NUL; `rest` begins with `stop`, which stood there.
    """
    cdef char rest[PATH_SIZE]
    cdef long length = 0
    if stop:
        rest[0] = stop
        length = append(rest, 1, path + end + 1)
        if length < 0:
            return length
    else:
        rest[0] = 0
    return follow_dangling(parent, path, start, rest)


cdef long walk(int root, char *path, int directory, long resolve) noexcept nogil:
    """Open `path`, making what is missing; or DANGLING with `path` rewritten."""
    cdef int parent = root
    cdef long opened = -ENOENT, start = 0, end = 0, after
    cdef char stop
    while True:
        start = end
        while path[start] == c'/':
            start += 1
        end = start
        while path[end] and path[end] != c'/':
            end += 1
        if end == start:
            return parent
        after = end
        while path[after] == c'/':
            after += 1
        stop, path[end] = path[end], 0
        opened = open_inside(root, path, O_PATH, resolve)
        path[end] = stop
        if opened == -ENOENT:
            opened = make_component(root, parent, path, start, end, directory or path[after] != 0, resolve)
        if parent != root:
            sys1(NR_close, parent)
        if opened < 0:
            return opened
        parent = <int> opened


cdef public long reach(int root, const char *path, int directory, long resolve) noexcept nogil:
    """A new O_PATH descriptor of `path` inside `root`; what is missing is made, as a directory or a file.

    `resolve` holds for each look at the path: between two of them others may change the image.
    """
    cdef char work[PATH_SIZE]
    cdef int _links
    cdef long result = open_inside(root, path, O_PATH | OPEN_DIRECTORY if directory else O_PATH, resolve)
    if result != -ENOENT:
        return result
    result = append(work, 0, path)
    if result < 0:
        return result
    for _links in range(MOST_LINKS):
        result = walk(root, work, directory, resolve)
        if result != DANGLING:
            return result
    return -ELOOP


cdef public long hold(State *state, const char *path) noexcept nogil:
    """What follows is made in this directory: it is resolved once for all of that."""
    put_away(&state.held)
    state.held = <int> reach(state.root, path, 1, 0)
    return state.held


cdef public long make_working_directory(State *state, const char *path) noexcept nogil:
    """Make it, if it is missing and may be made; where not, or if it is none, the step that goes there tells."""
    cdef long result = reach(state.root, path, ONLY_ON_DISK, 0)
    if result >= 0:
        return sys1(NR_close, result)
    if result in (-ENOTDIR, -ELOOP, -EACCES, -EPERM, -EROFS):
        return 0
    return result


cdef long make_below(int directory, const char *name) noexcept nogil:
    """A new directory that nothing can have been put into the place of; or why there is none."""
    cdef open_how_ how
    cdef long result = sys3(NR_mkdirat, directory, <long> name, 0o755)
    if result < 0:
        return result
    how.flags, how.mode = O_PATH | O_CLOEXEC | OPEN_DIRECTORY, 0
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
    return sys4(NR_openat2, directory, <long> name, <long> &how, sizeof(how))


cdef long take_mode(State *state, const char *path) noexcept nogil:
    """Give the source, a new file system, the mode of the directory that it will cover, if there is one."""
    cdef file_status status
    cdef long result, covered = open_inside(state.root, path, O_PATH | OPEN_DIRECTORY, 0)
    if covered < 0:
        return 0              # none: what is in the way is found when the target is made
    result = status_of(<int> covered, &status)
    sys1(NR_close, covered)
    if result < 0:
        return result
    return sys3(NR_fchmodat, state.source, <long> <const char *> b".", status.stx_mode & 0o7777)


cdef long refuse_root(State *state) noexcept nogil:
    """-EBUSY when the target is the container's root, by a link of the image: what is mounted over it is never seen."""
    cdef file_status target, root
    cdef long result = status_of(state.target, &target)
    if result >= 0:
        result = status_of(state.root, &root)
    if result >= 0 and target.stx_mnt_id == root.stx_mnt_id and target.stx_ino == root.stx_ino:
        return -EBUSY
    return result


cdef public long find_target(State *state, const char *path, long rule, const char *name) noexcept nogil:
    """Where the next OP_ATTACH goes. `name`: what it is called in the held directory, NULL when it is not there."""
    cdef file_status status
    cdef fs_status where
    cdef int directory = rule & TARGET_DIRECTORY
    cdef long result
    put_away(&state.target)
    if rule & TARGET_TAKE_MODE:
        result = take_mode(state, path)
        if result < 0:
            return result
    if not directory:
        result = status_of(state.source, &status)
        if result < 0:
            return result
        directory = status.stx_mode & S_IFMT == S_IFDIR
    result = -ENOENT
    if name is not NULL:
        result = make_below(state.held, name)
    if result >= 0:
        state.target = <int> result
    else:
        result = reach(state.root, path, directory, RESOLVE_NO_SYMLINKS if rule & TARGET_NO_LINKS else 0)
        if result < 0:
            return result
        state.target = <int> result
        if not rule & TARGET_NO_LINKS:
            result = refuse_root(state)
            if result < 0:
                return result
    result = sys2(NR_fstatfs, state.target, <long> &where)
    if result == 0 and where.f_type == PROC_SUPER_MAGIC and not rule & TARGET_IN_PROC:
        return -EPERM         # a volume that covers /proc/self/attr would undo a confinement: CVE-2019-16884
    return result
