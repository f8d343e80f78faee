"""The cgroup file systems: making, writing, walking and removing directories. Hot; GIL-free, by descriptor only.

Every path is below a descriptor that was verified to be a cgroup file system's. A directory that is made only to hold a
container's has the sticky bit: whoever removes the last one in it, in this process or another, knows from it that
cycontainer made it.
"""

from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, strcmp, strlen

from cycontainer._sys cimport (AT_FDCWD, AT_REMOVEDIR, CLOCK_MONOTONIC, DT_DIR, EBUSY, EEXIST, EINTR, EINVAL, ENODEV,
                               ENOENT, ENOMEM, ENOTEMPTY, EMFILE, EOPNOTSUPP, ESRCH, O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW,
                               O_PATH, O_RDONLY, O_WRONLY, POLLIN, S_ISVTX, SIGKILL, SYS_getdents64, SYS_openat2,
                               SYS_pidfd_open, SYS_pidfd_send_signal, clock_gettime, close, errno, filesystem, fstatat,
                               fstatfs, lseek, mkdirat, openat, poll, pollfd, ppoll, read, stat_result, syscall,
                               timespec, unlinkat, write)

cdef enum:
    CGROUP_MAGIC = 0x27E0EB       # CGROUP_SUPER_MAGIC and CGROUP2_SUPER_MAGIC, linux/magic.h
    CGROUP2_MAGIC = 0x63677270
    RESOLVE_WITHIN = 0x1 | 0x4    # RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS
    MOST_TRIES = 1000             # neighbours that remove a shared parent while we make something in it

cdef struct Entry:                # struct linux_dirent64, getdents64(2)
    unsigned long inode
    long offset
    unsigned short length
    unsigned char type
    char name[1]


# --- files ---------------------------------------------------------------------------------------------------------

cdef long now_us() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec * 1000000 + time.tv_nsec // 1000


cdef long nap(long us) noexcept nogil:
    """Sleep, or until a signal; returns the next nap's length."""
    cdef timespec time
    time.tv_sec, time.tv_nsec = 0, us * 1000
    ppoll(NULL, 0, &time, NULL)
    return min(2 * us, 10000)


cdef int write_file(int directory, const char *file, const char *value, size_t length) noexcept nogil:
    cdef int error = 0, fd = openat(directory, file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW)
    if fd < 0:
        return -errno
    while write(fd, value, length) < 0:     # a cgroup file takes all or nothing
        error = -errno                      # taken here: close() may set errno too
        if error != -EINTR:                 # memory.limit_in_bytes gives up for a signal
            break
        error = 0
    close(fd)
    return error


cdef long read_file(int directory, const char *file, char *text, size_t room) noexcept nogil:
    """As much as fits, and a NUL; the length without it, or a negative errno."""
    cdef long got, length = 0
    cdef int fd = openat(directory, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    if fd < 0:
        return -errno
    got = 1
    while got > 0 and length < <long> room - 1:
        got = read(fd, text + length, room - 1 - <size_t> length)
        if got < 0:
            length = -errno
            break
        length += got
    close(fd)
    if length >= 0:
        text[length] = 0
    return length


# --- one hierarchy's directory ----------------------------------------------------------------------------------------

cdef int open_root(Place *place) noexcept nogil:
    cdef filesystem status
    place.root = openat(AT_FDCWD, place.mount, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    if place.root < 0:
        return -errno
    if fstatfs(place.root, &status) < 0:
        return -errno
    return 0 if status.f_type == CGROUP_MAGIC or status.f_type == CGROUP2_MAGIC else -EOPNOTSUPP


cdef int open_directory(int root, const char *path) noexcept nogil:
    """A descriptor of what is in the same file system; -ENOENT when it is missing."""
    cdef unsigned long how[3]
    cdef long fd
    how[0], how[1], how[2] = <unsigned long> (O_RDONLY | O_DIRECTORY | O_CLOEXEC), 0, RESOLVE_WITHIN
    fd = syscall(SYS_openat2, root, path, how, sizeof(how))
    return <int> fd if fd >= 0 else -errno


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
    """The directory and its parents; an existing one is taken when no process is in it."""
    cdef int error = 0, _try
    cdef Numbers found
    for _try in range(MOST_TRIES):
        error = 0 if mkdirat(place.root, place.path, 0o755) == 0 else -errno
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
    """The values in their order. Memory may only be raised after memory and swap together: those two may change it."""
    cdef int index, error = 0
    cdef const Write *each
    cdef bint ahead = False       # this one was written before its predecessor
    for index in range(place.count):
        each = &place.writes[index]
        if ahead:
            ahead = False
            continue
        error = write_file(place.directory, each.file, each.value, each.length)
        if error == -EINVAL and index + 1 < place.count and strcmp(each.file, b"memory.limit_in_bytes") == 0 \
                and strcmp(place.writes[index + 1].file, b"memory.memsw.limit_in_bytes") == 0:
            ahead = write_file(place.directory, place.writes[index + 1].file, place.writes[index + 1].value,
                               place.writes[index + 1].length) == 0
            error = write_file(place.directory, each.file, each.value, each.length)
        if error < 0:
            failure.file, failure.write = each.file, each
            return error
    return 0


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
        if fstatat(place.root, prefix, &status, 0) < 0 or not status.st_mode & S_ISVTX:
            return
        if unlinkat(place.root, prefix, AT_REMOVEDIR) < 0:
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


# --- the trees below -----------------------------------------------------------------------------------------------
# What a container has made in its cgroup may be of any depth and width: two descriptors at a time, no recursion.

cdef long next_directory(int fd, char *name) noexcept nogil:
    """The next directory in `fd`: its name, and where to go on after it; 0 at the end, or a negative errno."""
    cdef char buffer[2048]
    cdef Entry *entry
    cdef long at, got = syscall(SYS_getdents64, fd, buffer, sizeof(buffer))
    while got > 0:
        at = 0
        while at < got:
            entry = <Entry *> (buffer + at)
            at += entry.length
            if entry.type == DT_DIR and strcmp(entry.name, b".") != 0 and strcmp(entry.name, b"..") != 0:
                memcpy(name, entry.name, strlen(entry.name) + 1)
                lseek(fd, entry.offset, 0)
                return entry.offset
        got = syscall(SYS_getdents64, fd, buffer, sizeof(buffer))
    return 0 if got == 0 else -errno


cdef int append(Numbers *numbers, long item) noexcept nogil:
    cdef long *grown
    if numbers.count == numbers.room:
        grown = <long *> realloc(numbers.items, <size_t> (2 * numbers.room + 64) * sizeof(long))
        if grown is NULL:
            return -ENOMEM
        numbers.items, numbers.room = grown, 2 * numbers.room + 64
    numbers.items[numbers.count] = item
    numbers.count += 1
    return 0


cdef int read_processes(int directory, Numbers *found) noexcept nogil:
    """The pids of cgroup.procs; 0 is one of another pid namespace. A cgroup that has just gone has none."""
    cdef char text[4096]
    cdef long got, index, pid = -1
    cdef int error = 0, fd = openat(directory, b"cgroup.procs", O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    if fd < 0:
        return 0 if errno == ENOENT or errno == ENODEV else -errno
    got = read(fd, text, sizeof(text))
    while got > 0 and error >= 0:
        for index in range(got):
            if text[index] != c'\n':
                pid = max(pid, 0) * 10 + text[index] - c'0'
            elif error >= 0:
                error = append(found, pid)
                pid = -1
        got = read(fd, text, sizeof(text))
    if got < 0 and errno != ENODEV:
        error = -errno
    close(fd)
    return error


cdef int collect(int top, Numbers *found) noexcept nogil:
    """All processes in `top` and below it. Who comes or goes meanwhile may be missed."""
    cdef Numbers path             # for each level, where to go on in the one above
    cdef char name[256]
    cdef long offset
    cdef int following, error, current = openat(top, b".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    if current < 0:
        return 0 if errno == ENOENT or errno == ENODEV else -errno
    path.items, path.count, path.room = NULL, 0, 0
    error = read_processes(current, found)
    while error >= 0:
        offset = next_directory(current, name)
        if offset > 0:
            following = openat(current, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
            if following < 0:
                continue          # just removed
            error = append(&path, offset)
            error = read_processes(following, found) if error >= 0 else error
        elif path.count == 0:
            break
        else:
            following = openat(current, b"..", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            if following < 0:
                break             # removed under us, with all above: its processes are gone
            path.count -= 1
            lseek(following, path.items[path.count], 0)
        close(current)
        current = following
    close(current)
    free(path.items)
    return error


cdef long remove_children(int fd, char *name) noexcept nogil:
    """Remove the empty ones in `fd`: how many; -EBUSY when one stays, and its name; or another negative errno."""
    cdef char each[256]
    cdef long count = 0, stays = 0
    lseek(fd, 0, 0)
    while next_directory(fd, each) > 0:
        if unlinkat(fd, each, AT_REMOVEDIR) == 0 or errno == ENOENT:
            count += 1
        elif errno == EBUSY or errno == ENOTEMPTY:
            memcpy(name, each, sizeof(each))
            stays = -EBUSY
        else:
            return -errno
    return stays if stays else count


cdef int remove_below(int top, long deadline) noexcept nogil:
    """All cgroups below `top`, the deepest first. -EBUSY when a process is in one."""
    cdef char name[256]
    cdef long depth = 0, length = 100, result
    cdef bint entered = True      # this directory was reached from above
    cdef int following, current = openat(top, b".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    if current < 0:
        return -errno
    while True:
        result = remove_children(current, name)
        if (result < 0 and result != -EBUSY) or (result >= 0 and depth == 0) or now_us() > deadline:
            break
        if result < 0:
            following = openat(current, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
            if following < 0:
                continue          # removed by someone else
            depth += 1
            entered = True
        else:
            if entered and result == 0:     # nothing is below, and yet it stayed: a process is in it, or just was
                length = nap(length)
            following = openat(current, b"..", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            if following < 0:
                break
            depth -= 1
            entered = False
        close(current)
        current = following
    close(current)
    return <int> min(result, 0) if result < 0 or depth == 0 else -EBUSY


# --- killing -------------------------------------------------------------------------------------------------------

cdef bint holds(const Numbers *numbers, long item) noexcept nogil:
    cdef long index
    for index in range(numbers.count):
        if numbers.items[index] == item:
            return True
    return False


cdef int open_processes(const Numbers *found, long start, pollfd *batch, long *pids) noexcept nogil:
    """Up to AT_ONCE pidfds of those that are left from `start` on; how many, or a negative errno."""
    cdef int count = 0
    cdef long index, fd
    for index in range(start, min(start + AT_ONCE, found.count)):
        fd = syscall(SYS_pidfd_open, found.items[index], 0) if found.items[index] > 0 else -1
        if fd >= 0:
            batch[count].fd, batch[count].events, batch[count].revents = <int> fd, POLLIN, 0
            pids[count] = found.items[index]
            count += 1
        elif found.items[index] > 0 and errno == EMFILE and count == 0:
            return -EMFILE
    return count


cdef int kill_opened(pollfd *batch, const long *pids, int count, const Numbers *members) noexcept nogil:
    """SIGKILL. Only to who is still a member after its pidfd was opened: so the pid was not someone else's before."""
    cdef int index, error = 0
    for index in range(count):
        if holds(members, pids[index]) and syscall(SYS_pidfd_send_signal, batch[index].fd, SIGKILL, NULL, 0) < 0 \
                and errno != ESRCH:
            error = -errno
    return error


cdef void await_opened(pollfd *batch, int count, long deadline) noexcept nogil:
    """Until all have ended, or the deadline; and close them."""
    cdef int index
    cdef long left
    for index in range(count):
        left = deadline - now_us()
        if left > 0:
            poll(&batch[index], 1, <int> min(left // 1000 + 1, 100000))
        close(batch[index].fd)


# --- holding and killing -------------------------------------------------------------------------------------------
