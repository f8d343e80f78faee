"""The cgroup file systems: making, writing, walking and removing directories. Hot; GIL-free, by descriptor only.

Every path is below a descriptor that was verified to be a cgroup file system's. A directory that is made only to hold a
container's has the sticky bit: whoever removes the last one in it, in this process or another, knows from it that
cycontainer made it.
"""

from libc.stdlib cimport free
from libc.string cimport memcpy, strcmp, strlen

from cycontainer._cgrouptree cimport (LONGEST, Numbers, collect, nap, now_us, open_directory, read_file, remove_below,
                                      write_file)
from cycontainer._sys cimport (AT_FDCWD, AT_REMOVEDIR, EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, ENOTEMPTY, EOPNOTSUPP,
                               O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_PATH, O_RDONLY, O_WRONLY, S_ISVTX, close, errno,
                               filesystem, fstatat, fstatfs, mkdirat, openat, stat_result, unlinkat, write)

cdef enum:
    CGROUP_MAGIC = 0x27E0EB       # CGROUP_SUPER_MAGIC and CGROUP2_SUPER_MAGIC, linux/magic.h
    CGROUP2_MAGIC = 0x63677270
    MOST_TRIES = 1000             # neighbours that remove a shared parent while we make something in it


# --- one hierarchy's directory ----------------------------------------------------------------------------------------

cdef int open_root(Place *place) noexcept nogil:
    cdef filesystem status
    place.root = openat(AT_FDCWD, place.mount, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    if place.root < 0:
        return -errno
    if fstatfs(place.root, &status) < 0:
        return -errno
    return 0 if status.f_type == CGROUP_MAGIC or status.f_type == CGROUP2_MAGIC else -EOPNOTSUPP


cdef int make_parents(int root, const char *path) noexcept nogil:
    """What is missing above `path`. A neighbour may be removing it at the same time: the caller tries again."""
    cdef char prefix[LONGEST]
    cdef size_t index
    memcpy(prefix, path, strlen(path) + 1)
    for index in range(strlen(path)):
        if prefix[index] != c'/':
            continue
        prefix[index] = 0
        if mkdirat(root, prefix, 0o755 | S_ISVTX) < 0 and errno != EEXIST and errno != ENOENT and errno != ENODEV:
            return -errno
        prefix[index] = c'/'
    return 0


cdef int make_directory(Place *place) noexcept nogil:
    """The directory and its parents; an existing one is taken when no process is in it. The sticky bit, which means
    nothing there, marks what we have made."""
    cdef int error = 0, _try
    cdef Numbers found
    for _try in range(MOST_TRIES):
        error = 0 if mkdirat(place.root, place.path, 0o755 | S_ISVTX) == 0 else -errno
        if error != -ENOENT and error != -ENODEV:     # ENODEV: the parent is just being removed
            break
        error = make_parents(place.root, place.path)
        if error < 0:
            break
        error = -ENOENT
    if error < 0 and error != -EEXIST:
        return error
    place.made = error == 0
    place.directory = open_directory(place.root, place.path)
    if place.directory < 0:
        return place.directory
    if place.made:
        return 0
    found.items, found.count, found.room = NULL, 0, 0
    error = collect(place.directory, &found)
    free(found.items)
    return error if error < 0 or found.count == 0 else -EBUSY


cdef int inherit_file(int parent, int child, const char *file) noexcept nogil:
    cdef char text[LONGEST]
    cdef long length = read_file(child, file, text, sizeof(text))
    if length < 0 or length > 1:
        return <int> min(length, 0)
    length = read_file(parent, file, text, sizeof(text))
    return write_file(child, file, text, <size_t> length) if length >= 0 else <int> length


cdef int inherit(Place *place) noexcept nogil:
    """A new v1 cpuset is empty and takes no task: copy from above, all the way down. cgroup-v1/cpusets.rst."""
    cdef char prefix[LONGEST]
    cdef size_t index, length = strlen(place.path)
    cdef int child, error = 0, parent = openat(place.root, b".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    if parent < 0:
        return -errno
    memcpy(prefix, place.path, length + 1)
    for index in range(1, length + 1):
        if place.path[index] != c'/' and index < length:
            continue
        prefix[index] = 0
        child = open_directory(place.root, prefix)
        prefix[index] = place.path[index]
        error = child
        if child >= 0:
            error = inherit_file(parent, child, b"cpuset.cpus")
            error = inherit_file(parent, child, b"cpuset.mems") if error >= 0 else error
        close(parent)
        parent = child
        if error < 0:
            break
    if parent >= 0:
        close(parent)
    return min(error, 0)


cdef int write_all(Place *place, Failure *failure) noexcept nogil:
    """The values in their order. What is refused as invalid may only be so beside another file's old value (memory and
    memory with swap, quota and burst, shares of an idle group): it is tried again as long as others go through."""
    cdef int index, error, first = -1
    cdef bint some = True         # were written in this round
    cdef Write *each
    for index in range(place.count):
        place.writes[index].done = False
    while some and first != 0:
        some, first = False, 0
        for index in range(place.count):
            each = &place.writes[index]
            error = 0 if each.done else write_file(place.directory, each.file, each.value, each.length)
            if error == 0:
                some, each.done = some or not each.done, True
                continue
            if first == 0:
                first, failure.file, failure.write = error, each.file, each
            if error != -EINVAL:
                failure.file, failure.write = each.file, each
                return error
    return first


cdef int make_place(Place *place, Failure *failure) noexcept nogil:
    """Directory, limits, and a descriptor through which the init enters."""
    cdef int error = open_root(place)
    if error >= 0:
        error = make_directory(place)
    if error >= 0 and place.cpuset:
        error = inherit(place)
    if error >= 0:
        error = write_all(place, failure)
    if error < 0:
        return error
    failure.file = b"tasks"
    place.tasks = openat(place.directory, failure.file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW)
    return 0 if place.tasks >= 0 else -errno


cdef int make_all(Place *places, int count, Failure *failure) noexcept nogil:
    """Every hierarchy's, or none: what was made is gone again after a failure."""
    cdef int index, error = 0
    for index in range(count):
        failure.place, failure.file, failure.write = index, NULL, NULL
        error = make_place(&places[index], failure)
        if error < 0:
            break
    if error < 0:
        for index in range(failure.place, -1, -1):
            if places[index].made:
                remove_place(&places[index], now_us() + PATIENCE_US)
            elif places[index].root >= 0:
                remove_parents(&places[index])
    return error


cdef void remove_parents(Place *place) noexcept nogil:
    """Those that cycontainer made for a container, when nothing is in them any more."""
    cdef char prefix[LONGEST]
    cdef stat_result status
    cdef long index
    memcpy(prefix, place.path, strlen(place.path) + 1)
    for index in range(<long> strlen(place.path) - 1, 0, -1):
        if prefix[index] != c'/':
            continue
        prefix[index] = 0
        if fstatat(place.root, prefix, &status, 0) < 0 and fstatat(place.root, prefix, &status, 0) < 0:
            return                # twice: want of memory passes, and nobody would come back for it
        if not status.st_mode & S_ISVTX:
            return
        if unlinkat(place.root, prefix, AT_REMOVEDIR) < 0 and unlinkat(place.root, prefix, AT_REMOVEDIR) < 0:
            return


cdef int remove_place(Place *place, long deadline) noexcept nogil:
    """The directory with all below. One that was just left stays busy for a moment."""
    cdef long length = 50
    cdef int error
    if place.root < 0:
        return 0
    while unlinkat(place.root, place.path, AT_REMOVEDIR) < 0:
        error = -errno
        if error == -ENOENT or error == -ENODEV:
            break
        if (error != -EBUSY and error != -ENOTEMPTY) or now_us() > deadline:
            return error
        if place.directory < 0:
            place.directory = open_directory(place.root, place.path)
        if place.directory >= 0:
            error = remove_below(place.directory, deadline)
            if error < 0 and error != -EBUSY:
                return error
        length = nap(length)
    remove_parents(place)
    return 0
