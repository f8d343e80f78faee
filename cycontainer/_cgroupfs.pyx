"""The cgroup file systems: making, writing, walking and removing directories. Hot; no Python, by descriptor only.

Every path is below a descriptor that was verified to be a cgroup file system's. A directory that is made only to hold a
container's has the sticky bit: whoever removes the last one in it, in this process or another, knows from it that
cycontainer made it.
"""

from libc.stdlib cimport free
from libc.string cimport memcpy, strlen, strstr

from cycontainer._cgroup_parts cimport (LONGEST, PATIENCE_US, Failure, Numbers, Place, Write, attach_devices, collect,
                                        nap, now_us, open_directory, read_file, remove_below, write_file)
from cycontainer._sys cimport (AT_FDCWD, AT_REMOVEDIR, EBUSY, EEXIST, EINTR, EINVAL, ENODEV, ENOENT, ENOTEMPTY,
                               EOPNOTSUPP, O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_PATH, O_RDONLY, O_WRONLY, S_ISVTX,
                               SIG_SETMASK, _exit, close, errno, filesystem, fork, fstatat, fstatfs, mkdirat, openat,
                               pthread_sigmask, setns, sigfillset, sigset_t, stat_result, unlinkat, waitpid)

cdef enum:
    CLONE_NEWUSER = 0x10000000
    CGROUP_MAGIC = 0x27E0EB       # CGROUP_SUPER_MAGIC and CGROUP2_SUPER_MAGIC, linux/magic.h
    CGROUP2_MAGIC = 0x63677270
    MOST_TRIES = 1000             # neighbours that remove a shared parent while we make something in it


# --- one hierarchy's directory ---------------------------------------------------------------------------------------

cdef public int open_root(Place *place) noexcept nogil:
    """1 for v2, 0 for v1, or a negative errno."""
    cdef filesystem status
    place.root = openat(AT_FDCWD, place.mount, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    if place.root < 0:
        return -errno
    if fstatfs(place.root, &status) < 0:
        return -errno
    if status.f_type == CGROUP2_MAGIC:
        return 1
    return 0 if status.f_type == CGROUP_MAGIC else -EOPNOTSUPP


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
    """The directory and its parents; an existing one is taken when no process may be in it, or none is. The sticky bit,
    which means nothing there, marks what we have made."""
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
    if place.made or place.occupied:
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


# --- v2: controllers -------------------------------------------------------------------------------------------------

cdef bint has_word(const char *text, const char *word, size_t length) noexcept nogil:
    """Whether `word` is one of those in `text`, between blanks."""
    cdef const char *at = strstr(text, word)
    while at is not NULL:
        if (at == text or (at - 1)[0] == c' ') and (at[length] in (c'\n', c' ', 0)):
            return True
        at = strstr(at + 1, word)
    return False


cdef size_t next_word(const char **at, char *word, size_t room) noexcept nogil:
    """Take the next of the words between blanks; its length, 0 at the end."""
    cdef size_t length = 0
    while at[0][0] == c' ':
        at[0] += 1
    while at[0][0] and at[0][0] != c' ' and length + 1 < room:
        word[length] = at[0][0]
        at[0] += 1
        length += 1
    word[length] = 0
    return length


cdef bint has_all(const char *text, const char *words) noexcept nogil:
    cdef char word[32]
    cdef size_t length = next_word(&words, word, sizeof(word))
    while length > 0:
        if not has_word(text, word, length):
            return False
        length = next_word(&words, word, sizeof(word))
    return True


cdef int enable_in(int directory, Place *place, Failure *failure, bint anyway) noexcept nogil:
    """Hand the controllers that are wanted on to what is below `directory`. What is only wanted may be refused.
    `anyway`: also those of which it says that they are."""
    cdef char enabled[512]
    cdef char word[32]
    cdef const char *words = place.wanted
    cdef int error
    cdef size_t length
    cdef long got = read_file(directory, b"cgroup.subtree_control", enabled, sizeof(enabled))
    if got < 0:
        return <int> got
    word[0] = c'+'
    length = next_word(&words, word + 1, sizeof(word) - 1)
    while length > 0:
        if anyway or not has_word(enabled, word + 1, length):
            error = write_file(directory, b"cgroup.subtree_control", word, length + 1)
            if error < 0 and has_word(place.needed, word + 1, length):
                memcpy(failure.value, word, length + 2)
                return error
        length = next_word(&words, word + 1, sizeof(word) - 1)
    return 0


cdef int enable(Place *place, Failure *failure, bint anyway) noexcept nogil:
    """From the mount down, every parent hands the controllers on, unless the cgroup has them already."""
    cdef char offered[512]
    cdef char prefix[LONGEST]
    cdef int parent, error = 0
    cdef size_t index, length = strlen(place.path)
    cdef long got = read_file(place.directory, b"cgroup.controllers", offered, sizeof(offered))
    if got < 0 or (has_all(offered, place.wanted) and not anyway):
        return <int> min(got, 0)
    memcpy(prefix, place.path, length + 1)
    for index in range(length):
        if index > 0 and prefix[index] != c'/':
            continue
        prefix[index] = 0
        parent = open_directory(place.root, prefix) if index > 0 else open_directory(place.root, b".")
        error = enable_in(parent, place, failure, anyway) if parent >= 0 else parent
        prefix[index] = place.path[index]
        if parent >= 0:
            close(parent)
        if error < 0:
            failure.file, failure.above = b"cgroup.subtree_control", <long> index
            return error
    return 0


# --- limits ----------------------------------------------------------------------------------------------------------

cdef int write_one(Place *place, int index, Failure *failure) noexcept nogil:
    """One value, if it is due: an alternative is when the file of the one before is missing.

    While a neighbour makes a parent hand a controller on, the parent says that it does before the files are there. The
    same word again waits until they are."""
    cdef Write *each = &place.writes[index]
    cdef Failure other
    cdef int error
    if each.done:
        return 0
    error = write_file(place.directory, each.file, each.value, each.length)
    if error == -ENOENT and place.unified and place.made and not place.settled:
        place.settled = True
        enable(place, &other, True)
        error = write_file(place.directory, each.file, each.value, each.length)
    if error == -ENOENT and index + 1 < place.count and each[1].instead:
        error = 0
        if each[1].file[0]:
            error = write_file(place.directory, each[1].file, each[1].value, each[1].length)
            each = &each[1]
    if error < 0:
        failure.file, failure.write = each.file, each
    return error


cdef public int write_all(Place *place, Failure *failure) noexcept nogil:
    """The values in their order. What is refused as invalid may only be so beside another file's old value (memory and
    memory with swap, quota and burst, shares of an idle group): it is tried again as long as others go through."""
    cdef int index, error, first = -1
    cdef bint some = True         # were written in this round
    cdef Failure other
    for index in range(place.count):
        place.writes[index].done = place.writes[index].instead
    while some and first != 0:
        some, first = False, 0
        for index in range(place.count):
            error = write_one(place, index, failure if first == 0 else &other)
            if error == 0:
                some, place.writes[index].done = some or not place.writes[index].done, True
            elif error != -EINVAL:
                if first != 0:
                    failure.file, failure.write = other.file, other.write
                return error
            elif first == 0:
                first = error
    return first


cdef int make_place(Place *place, Failure *failure) noexcept nogil:
    """The directory, with its controllers."""
    cdef int error = open_root(place)
    if error >= 0:
        error = make_directory(place) if (error == 1) == place.unified else -EOPNOTSUPP
    if error >= 0 and place.cpuset:
        error = inherit(place)
    return enable(place, failure, False) if error >= 0 and place.unified else error


cdef int limit_place(Place *place, Failure *failure) noexcept nogil:
    """Limits, and for v1 a descriptor through which the init enters."""
    cdef int error = write_all(place, failure)
    if error >= 0 and place.devices is not NULL:
        error = attach_devices(place.directory, place.devices, place.devices_length)
        if error < 0:
            failure.file = b"(its device program)"
    if error < 0 or place.unified:
        return error
    failure.file = b"tasks"
    place.tasks = openat(place.directory, failure.file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW)
    return 0 if place.tasks >= 0 else -errno


cdef void begin(Failure *failure, int index) noexcept nogil:
    failure.place, failure.file, failure.write, failure.above, failure.value[0] = index, NULL, NULL, -1, 0


cdef public int make_all(Place *places, int count, Failure *failure) noexcept nogil:
    """Every hierarchy's directory, or none: what was made is gone again after a failure."""
    cdef int index, error = 0
    for index in range(count):
        begin(failure, index)
        error = make_place(&places[index], failure)
        if error < 0:
            unmake_all(places, index + 1)
            break
    return error


cdef public int limit_all(Place *places, int count, Failure *failure) noexcept nogil:
    """What is written there. After a failure what was made is gone again; the values in what was there before are the
    caller's to put back. Devices are last: which of them were denied before, v1 does not tell."""
    cdef int index, error = 0
    for index in range(2 * count):
        if places[index % count].late != (index >= count):
            continue
        begin(failure, index % count)
        error = limit_place(&places[index % count], failure)
        if error < 0:
            unmake_all(places, count)
            break
    return error


cdef public void unmake_all(Place *places, int count) noexcept nogil:
    cdef int index
    for index in range(count - 1, -1, -1):
        if places[index].made:
            remove_place(&places[index], now_us() + PATIENCE_US)
        elif places[index].root >= 0:
            remove_parents(&places[index])


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


cdef public int remove_all(Place *places, int count, int *at) noexcept nogil:
    """Every hierarchy's that can be; the errno of the last that could not, and which it was."""
    cdef int index, result, error = 0
    cdef long deadline = now_us() + PATIENCE_US
    for index in range(count):
        result = remove_place(&places[index], deadline)
        if result < 0:
            at[0], error = index, result
    return error


cdef public int remove_within(Place *places, int count, int namespace) noexcept nogil:
    """The same in a user namespace, by a process of its own: what is owned there by other users may be removed there.
    It tells nothing: who asks `remove_all` afterwards hears what is left."""
    cdef sigset_t all_signals, before
    cdef int at, status, child
    sigfillset(&all_signals)      # a handler would be the parent's, and write to what it listens to
    pthread_sigmask(SIG_SETMASK, &all_signals, &before)
    child = fork()
    if child == 0:                # no other thread is there any more: system calls only
        if setns(namespace, CLONE_NEWUSER) == 0:
            remove_all(places, count, &at)
        _exit(0)
    status = errno
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    if child < 0:
        return -status
    while waitpid(child, &status, 0) < 0 and errno == EINTR:
        pass
    return 0
