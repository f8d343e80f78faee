"""tmpcopyup: what an image has where a tmpfs goes, copied onto that tmpfs.

The image may be hostile, and may change meanwhile. So it is seen through a mount of our own, read-only, without devices
and without symbolic links; what a name stands for is asked of its descriptor, and the way is only down.
Bounded are the levels, a path's length, the remembered links, a file's bytes (what statx(2) said), and by the tmpfs all
the rest: its ENOSPC is the step's.

Kept are owner, mode, times, hard links, holes and extended attributes; an attribute of a kind that the tmpfs lacks is
left out, but for access lists: without its list, a file's mode says more than was granted. Devices are refused. What is
mounted below is left out. Inode flags (chattr(1)) and creation times are not kept.
"""

from cycontainer._steps cimport *
from cycontainer.init.state cimport State
from cycontainer.init.sys cimport *

cdef extern long open_inside(int root, const char *path, long flags, long resolve) noexcept nogil

cdef enum:
    LEVELS = 64              # each holds two descriptors
    PATH_SIZE = 4096
    BLOCK_SIZE = 4096        # of a directory's entries
    CHUNK_SIZE = 65536       # no extended attribute, and no list of their names, is larger
    MOST_SHARED = 65536      # files with several names
    SLOT_BITS = 17
    SLOTS = 1 << SLOT_BITS   # for them: twice as many, so that a search ends
    NAMES_SIZE = 16 << 20    # for their paths
    MOST_MISSED = 65536      # names that are gone when they are looked at: else one who renames could keep us for ever

cdef struct Shared:          # a file with several names
    unsigned long device, inode
    long path                # where its first name stands in Work.names; 0 in an empty slot

cdef struct Work:            # in one mapping, of which only what is used takes memory
    int target               # the tmpfs's root
    int here                 # the working directory, while we are elsewhere; or -1
    long missed, shared, named
    long length              # of `path`
    char path[PATH_SIZE]     # of what is being copied, below the tmpfs's root
    char blocks[LEVELS][BLOCK_SIZE]
    char chunk[CHUNK_SIZE]
    char attributes[CHUNK_SIZE]
    Shared slots[SLOTS]
    char names[NAMES_SIZE]

cdef struct Entry:
    int level                # of the directory it is in,
    int source               # this directory,
    int target               # and the one it goes to
    int found                # itself, O_PATH
    const char *name         # NULL: source and target are not its directories, but itself
    file_status status


cdef long open_at(int directory, const char *name, long flags, long mode) noexcept nogil:
    """`name` in `directory`, itself: not what it links to, not what is mounted on it."""
    cdef open_how_ how
    how.flags, how.mode = flags | OPEN_NOFOLLOW | O_CLOEXEC, mode
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
    return sys4(NR_openat2, directory, <long> name, <long> &how, sizeof(how))


cdef long status_at(long descriptor, file_status *status) noexcept nogil:
    return sys5(NR_statx, descriptor, <long> <const char *> b"", AT_EMPTY_PATH, STATX_BASIC_STATS, <long> status)


cdef long extend(char *path, long length, const char *name) noexcept nogil:
    """Append /`name`: the new length, or -ENAMETOOLONG."""
    cdef long at = 0
    path[length] = c'/'
    while True:
        length += 1
        if length >= PATH_SIZE:
            return -ENAMETOOLONG
        path[length] = name[at]
        if not name[at]:
            return length
        at += 1


cdef inline long starts(const char *text, const char *start) noexcept nogil:
    while start[0] and text[0] == start[0]:
        text += 1
        start += 1
    return start[0] == 0


cdef long miss(Work *work) noexcept nogil:
    """A name that was listed cannot be reached: as if it had not been."""
    work.missed += 1
    return 0 if work.missed < MOST_MISSED else -EAGAIN


# --- extended attributes and the rest of an inode
#
# No descriptor of a link, a FIFO or a socket is one that fgetxattr(2) takes, and getxattrat(2) is newer than the oldest
# kernel that we run on: their attributes are reached by name, from the directory that they are in.

cdef long stand_in(Work *work, int directory) noexcept nogil:
    """Make `directory` the working one; copy_up() goes back to the one that was."""
    if work.here < 0:
        work.here = <int> open_at(AT_FDCWD, b".", O_PATH, 0)
    if work.here < 0:
        return work.here
    return sys1(NR_fchdir, directory)


cdef long list_attributes(Work *work, const Entry *entry) noexcept nogil:
    """Names that end with NUL, one behind the other, to work.attributes; how long all are."""
    cdef long result
    if entry.name == NULL:
        return sys3(NR_flistxattr, entry.source, <long> work.attributes, CHUNK_SIZE)
    result = stand_in(work, entry.source)
    return result if result < 0 else sys3(NR_llistxattr, <long> entry.name, <long> work.attributes, CHUNK_SIZE)


cdef long copy_attribute(Work *work, const Entry *entry, const char *attribute) noexcept nogil:
    cdef long result, length, value = <long> work.chunk
    if entry.name == NULL:
        length = sys4(NR_fgetxattr, entry.source, <long> attribute, value, CHUNK_SIZE)
        return length if length < 0 else sys5(NR_fsetxattr, entry.target, <long> attribute, value, length, 0)
    result = stand_in(work, entry.source)
    if result >= 0:
        result = length = sys4(NR_lgetxattr, <long> entry.name, <long> attribute, value, CHUNK_SIZE)
    if result >= 0:
        result = stand_in(work, entry.target)
    if result >= 0:
        result = sys5(NR_lsetxattr, <long> entry.name, <long> attribute, value, length, 0)
    return result


cdef long copy_attributes(Work *work, const Entry *entry) noexcept nogil:
    """All of one file. ENODATA: it was removed meanwhile; EOPNOTSUPP: the tmpfs has none of this kind."""
    cdef char *attribute
    cdef long at = 0, result, length = list_attributes(work, entry)
    if length == -EOPNOTSUPP:
        return 0
    while at < length:
        attribute = work.attributes + at
        result = copy_attribute(work, entry, attribute)
        if result < 0 and result != -ENODATA and (result != -EOPNOTSUPP or starts(attribute, b"system.posix_acl_")):
            return result
        while work.attributes[at]:
            at += 1
        at += 1
    return length


cdef long finish(Work *work, const Entry *entry) noexcept nogil:
    """Owner, attributes, mode, times: in this order, as chown(2) takes set-user-ID and capabilities(7) away."""
    cdef const file_status *status = &entry.status
    cdef const file_times *from_ = <const file_times *> status
    cdef long times[4]
    cdef long name = <long> entry.name, mode = status.stx_mode & 0o7777, by_name = entry.name != NULL
    cdef long result = sys5(NR_fchownat, entry.target, name if by_name else <long> <const char *> b"", status.stx_uid,
                            status.stx_gid, AT_SYMLINK_NOFOLLOW if by_name else AT_EMPTY_PATH)
    if result >= 0:
        result = copy_attributes(work, entry)
    if result >= 0 and not by_name:
        result = sys2(NR_fchmod, entry.target, mode)
    elif result >= 0 and status.stx_mode & S_IFMT != S_IFLNK:
        result = sys3(NR_fchmodat, entry.target, name, mode)      # follows no link: here only we make any
    if result >= 0:
        times[0], times[1] = from_.stx_atime.tv_sec, from_.stx_atime.tv_nsec
        times[2], times[3] = from_.stx_mtime.tv_sec, from_.stx_mtime.tv_nsec
        result = sys4(NR_utimensat, entry.target, name, <long> times, AT_SYMLINK_NOFOLLOW if by_name else 0)
    return result


# --- each kind of file

cdef long put(int target, const char *bytes_, long length, long at) noexcept nogil:
    cdef long done = 0, result
    while done < length:
        result = sys4(NR_pwrite64, target, <long> (bytes_ + done), length - done, at + done)
        if result < 0:
            return result
        done += result
    return 0


cdef long copy_bytes(Work *work, int source, int target, long size) noexcept nogil:
    """`size` bytes and no more, however the file grows; holes are left out, they could be larger than any tmpfs."""
    cdef long at = 0, data, length, result
    while at < size:
        data = sys3(NR_lseek, source, at, SEEK_DATA)
        if data == -ENXIO:
            break                                 # a hole to the end
        at = max(at, min(data, size))             # other errors: who cannot tell holes has none
        length = sys4(NR_pread64, source, <long> work.chunk, min(size - at, <long> CHUNK_SIZE), at)
        if length < 0:
            return length
        if length == 0:
            size = at                             # it was truncated, or a hole reaches to the end
        result = put(target, work.chunk, length, at)
        if result < 0:
            return result
        at += length
    return sys2(NR_ftruncate, target, size)


cdef long open_same(const Entry *entry, file_status *status) noexcept nogil:
    """Open the regular file that was found, to read it."""
    cdef const file_status *found = &entry.status
    cdef long result, source = open_at(entry.source, entry.name, O_NONBLOCK, 0)   # another now may be a FIFO
    if source < 0:
        return source
    result = status_at(source, status)
    if result >= 0 and (status.stx_mode & S_IFMT != S_IFREG or status.stx_ino != found.stx_ino
                        or status.stx_dev_major != found.stx_dev_major or status.stx_dev_minor != found.stx_dev_minor):
        result = -ESTALE
    if result >= 0:
        return source
    sys1(NR_close, source)
    return result


cdef long copy_file(Work *work, const Entry *entry) noexcept nogil:
    cdef Entry opened
    cdef long result, target, source = open_same(entry, &opened.status)
    if source == -ENOENT:
        return miss(work)
    if source < 0:
        return source
    result = target = open_at(entry.target, entry.name, O_WRONLY | O_CREAT | O_EXCL, 0o600)
    if result >= 0:
        result = copy_bytes(work, <int> source, <int> target, <long> opened.status.stx_size)
        opened.source, opened.target, opened.name = <int> source, <int> target, NULL
        if result >= 0:
            result = finish(work, &opened)
        sys1(NR_close, target)
    sys1(NR_close, source)
    return result


cdef long copy_node(Work *work, const Entry *entry) noexcept nogil:
    """What has no content: links, FIFOs, sockets. A device of the image would lead to the host's hardware."""
    cdef long kind = entry.status.stx_mode & S_IFMT, result = -EPERM
    if kind == S_IFLNK:
        result = sys4(NR_readlinkat, entry.found, <long> <const char *> b"", <long> work.chunk, PATH_SIZE)
        if result >= 0:
            work.chunk[result] = 0
            result = sys3(NR_symlinkat, <long> work.chunk, entry.target, <long> entry.name)
    elif kind == S_IFIFO or kind == S_IFSOCK:
        result = sys4(NR_mknodat, entry.target, <long> entry.name, kind | 0o600, 0)
    return finish(work, entry) if result >= 0 else result


cdef inline long copy_leaf(Work *work, const Entry *entry) noexcept nogil:
    return copy_file(work, entry) if entry.status.stx_mode & S_IFMT == S_IFREG else copy_node(work, entry)


cdef Shared *slot_of(Work *work, unsigned long device, unsigned long inode) noexcept nogil:
    """The file's, or the empty one that is to be its. They are never all taken: MOST_SHARED."""
    cdef unsigned long at = (inode * 0x9E3779B97F4A7C15UL) >> (64 - SLOT_BITS)
    while work.slots[at].path and (work.slots[at].inode != inode or work.slots[at].device != device):
        at = (at + 1) & (SLOTS - 1)
    return &work.slots[at]


cdef long copy_shared(Work *work, const Entry *entry) noexcept nogil:
    """A file with several names: copied under the first that is met, linked to under the others."""
    cdef unsigned long device = <unsigned long> entry.status.stx_dev_major << 32 | entry.status.stx_dev_minor
    cdef Shared *slot = slot_of(work, device, entry.status.stx_ino)
    cdef long missed = work.missed, result
    if slot.path:
        return sys5(NR_linkat, work.target, <long> (work.names + slot.path), entry.target, <long> entry.name, 0)
    if work.shared >= MOST_SHARED or work.named + work.length >= NAMES_SIZE:
        return -EMLINK
    result = copy_leaf(work, entry)
    if result >= 0 and work.missed == missed:
        slot.device, slot.inode, slot.path = device, entry.status.stx_ino, work.named
        memcpy(work.names + work.named, work.path, work.length + 1)
        work.named += work.length + 1
        work.shared += 1
    return result


# --- the way down

cdef long copy_directory(Work *work, const Entry *entry) noexcept nogil:
    cdef long result, target, source
    if entry.level + 1 >= LEVELS:
        return -ENAMETOOLONG
    source = open_at(entry.found, b".", OPEN_DIRECTORY, 0)
    if source < 0:
        return source
    result = sys3(NR_mkdirat, entry.target, <long> entry.name, 0o700)
    if result >= 0:
        result = target = open_at(entry.target, entry.name, OPEN_DIRECTORY, 0)
    if result >= 0:
        result = copy_all(work, entry.level + 1, <int> source, <int> target)
        sys1(NR_close, target)
    sys1(NR_close, source)
    return result


cdef long copy_entry(Work *work, Entry *entry) noexcept nogil:
    """One name of a directory."""
    cdef long above = work.length
    cdef long result, found = open_at(entry.source, entry.name, O_PATH, 0)
    if found == -ENOENT or found == -EXDEV:
        return miss(work)
    if found < 0:
        return found
    entry.found = <int> found
    result = status_at(found, &entry.status)
    if result >= 0:
        result = extend(work.path, above, entry.name)
    if result >= 0:
        work.length = result
        if entry.status.stx_mode & S_IFMT == S_IFDIR:
            result = copy_directory(work, entry)
        elif entry.status.stx_nlink > 1:
            result = copy_shared(work, entry)
        else:
            result = copy_leaf(work, entry)
    work.length = above
    sys1(NR_close, found)
    return result


cdef long copy_all(Work *work, int level, int source, int target) noexcept nogil:
    """All that is in a directory; then the directory itself, as each name made in it changes its times."""
    cdef Entry entry
    cdef directory_entry *listed
    cdef long at, result = 0, length = 1
    entry.level, entry.source, entry.target = level, source, target
    while length > 0 and result >= 0:
        length = sys3(NR_getdents64, source, <long> work.blocks[level], BLOCK_SIZE)
        at = 0
        while at < length and result >= 0:
            listed = <directory_entry *> (work.blocks[level] + at)
            at += listed.length
            entry.name = listed.name
            if not is_dots(entry.name):
                result = copy_entry(work, &entry)
    if result >= 0:
        result = length if length < 0 else status_at(source, &entry.status)
    entry.name = NULL
    return finish(work, &entry) if result >= 0 else result


cdef inline long is_dots(const char *name) noexcept nogil:
    return name[0] == c'.' and (name[1] == 0 or name[1] == c'.' and name[2] == 0)


cdef long look_only(int found) noexcept nogil:
    """The directory again, as a mount of ours: no way up, no device, no link, and reading leaves no trace."""
    cdef mount_attributes attributes
    cdef long result, mount = sys3(NR_open_tree, found, <long> <const char *> b"",
                                   O_CLOEXEC | OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE)
    if mount < 0:
        return mount
    attributes.attr_set, attributes.attr_clr, attributes.propagation, attributes.userns_fd = ATTR_LOOK_ONLY, 0, 0, 0
    result = sys5(NR_mount_setattr, mount, <long> <const char *> b"", AT_EMPTY_PATH | AT_RECURSIVE,
                  <long> &attributes, sizeof(attributes))
    if result >= 0:
        return mount
    sys1(NR_close, mount)
    return result


cdef long copy_tree(int source, int target) noexcept nogil:
    """Copy what one directory has, and is, to another."""
    cdef Work *work
    cdef long result = sys6(NR_mmap, 0, sizeof(Work), PROT_READ_WRITE, MAP_FRESH, -1, 0)
    if result < 0 and result > -4096:
        return result
    work = <Work *> result
    work.target, work.here, work.named = target, -1, 1
    work.path[0], work.length = c'.', 1               # linkat(2) is told "./a/b"
    result = copy_all(work, 0, source, target)
    if work.here >= 0:
        sys1(NR_fchdir, work.here)
        sys1(NR_close, work.here)
    sys2(NR_munmap, <long> work, sizeof(Work))
    return result


cdef public long copy_up(State *state, const Step *step) noexcept nogil:
    """arg[0]: a path in the container; what is there goes to the source, a tmpfs. Nothing there: nothing to copy."""
    cdef long result, mount, source, target, found = open_inside(state.root, state.plan + step.arg[0], O_PATH, 0)
    if found == -ENOENT:
        return 0
    if found < 0:
        return found
    result = mount = look_only(<int> found)
    sys1(NR_close, found)
    if mount < 0:
        return mount
    result = source = open_at(<int> mount, b".", OPEN_DIRECTORY, 0)       # -ENOTDIR when it is none
    if source >= 0:
        result = target = open_at(state.source, b".", OPEN_DIRECTORY, 0)
        if target >= 0:
            result = copy_tree(<int> source, <int> target)
            sys1(NR_close, target)
        sys1(NR_close, source)
    sys1(NR_close, mount)             # last: what is mounted below goes with it
    return result
