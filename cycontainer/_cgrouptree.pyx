"""Files and trees of the cgroup file systems: reading, writing, walking, emptying. Hot; by descriptor, no Python."""

from libc.stdlib cimport bsearch, free, qsort, realloc
from libc.string cimport memcpy, strcmp, strlen

from cycontainer._cgroup_parts cimport Numbers
from cycontainer._sys cimport (AT_REMOVEDIR, CLOCK_MONOTONIC, DT_DIR, EBUSY, EINTR, ENODEV, ENOENT, ENOMEM, ENOTEMPTY,
                               EOPNOTSUPP, O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_RDONLY, O_WRONLY, SYS_getdents64,
                               SYS_openat2, clock_gettime, close, errno, lseek, openat, ppoll, read, syscall, timespec,
                               unlinkat, write)

cdef enum:
    RESOLVE_WITHIN = 0x1 | 0x4    # RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS

cdef struct Entry:                # struct linux_dirent64, getdents64(2)
    unsigned long inode
    long offset
    unsigned short length
    unsigned char type
    char name[1]


# --- files ---------------------------------------------------------------------------------------------------------

cdef public long now_us() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec * 1000000 + time.tv_nsec // 1000


cdef public long nap(long us) noexcept nogil:
    """Sleep, or until a signal; returns the next nap's length."""
    cdef timespec time
    time.tv_sec, time.tv_nsec = 0, us * 1000
    ppoll(NULL, 0, &time, NULL)
    return min(2 * us, 10000)


cdef public int write_file(int directory, const char *file, const char *value, size_t length) noexcept nogil:
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


cdef long read_some(int fd, char *text, size_t room) noexcept nogil:
    """read(2), and again when a signal came; a negative errno."""
    cdef long got = read(fd, text, room)
    while got < 0 and errno == EINTR:
        got = read(fd, text, room)
    return got if got >= 0 else -errno


cdef public long read_file(int directory, const char *file, char *text, size_t room) noexcept nogil:
    """As much as fits, and a NUL; the length without it, or a negative errno."""
    cdef long got, length = 0
    cdef int fd = openat(directory, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    if fd < 0:
        return -errno
    got = 1
    while got > 0 and length < <long> room - 1:
        got = read_some(fd, text + length, room - 1 - <size_t> length)
        length = length + got if got >= 0 else got
    close(fd)
    if length >= 0:
        text[length] = 0
    return length


cdef public int open_directory(int root, const char *path) noexcept nogil:
    """A descriptor of what is in the same file system; -ENOENT when it is missing."""
    cdef unsigned long how[3]
    cdef long fd
    how[0], how[1], how[2] = <unsigned long> (O_RDONLY | O_DIRECTORY | O_CLOEXEC), 0, RESOLVE_WITHIN
    fd = syscall(SYS_openat2, root, path, how, sizeof(how))
    return <int> fd if fd >= 0 else -errno


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


cdef public int append_to(Numbers *numbers, long item) noexcept nogil:
    cdef long *grown
    if numbers.count == numbers.room:
        grown = <long *> realloc(numbers.items, <size_t> (2 * numbers.room + 64) * sizeof(long))
        if grown is NULL:
            return -ENOMEM
        numbers.items, numbers.room = grown, 2 * numbers.room + 64
    numbers.items[numbers.count] = item
    numbers.count += 1
    return 0


cdef int read_processes(int directory, void *numbers) noexcept nogil:
    """Add the pids of cgroup.procs; 0 is one of another pid namespace. A cgroup that has just gone has none; those of
    threads (v2) stand in the one above that is no such cgroup."""
    cdef char text[4096]
    cdef Numbers *found = <Numbers *> numbers
    cdef long got, index, pid = -1
    cdef int error = 0, fd = openat(directory, b"cgroup.procs", O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    if fd < 0:
        return 0 if errno == ENOENT or errno == ENODEV else -errno
    got = read_some(fd, text, sizeof(text))
    while got > 0 and error >= 0:
        for index in range(got):
            if text[index] != c'\n':
                pid = max(pid, 0) * 10 + text[index] - c'0'
            elif error >= 0:
                error = append_to(found, pid)
                pid = -1
        got = read_some(fd, text, sizeof(text))
    if got < 0 and got != -ENODEV and got != -EOPNOTSUPP:
        error = <int> got
    close(fd)
    return error


cdef int thaw_one(int directory, void *unused) noexcept nogil:
    cdef int error = write_file(directory, b"freezer.state", b"THAWED", 6)
    return 0 if error == -ENOENT or error == -ENODEV else error


cdef public int collect(int top, Numbers *found) noexcept nogil:
    """All processes in `top` and below it. Who comes or goes meanwhile may be missed."""
    return visit(top, read_processes, found)


cdef public int thaw_tree(int top) noexcept nogil:
    """Thaw a v1 freezer with all below: what a container has frozen itself stays so when those above are thawed."""
    return visit(top, thaw_one, NULL)


cdef bint is_gone() noexcept nogil:
    """Whether what could not be opened has just been removed."""
    return errno == ENOENT or errno == ENODEV


cdef int visit(int top, int (*act)(int, void *) noexcept nogil, void *argument) noexcept nogil:
    """Call `act` with a descriptor of `top`, and of each directory below it."""
    cdef Numbers path             # for each level, where to go on in the one above
    cdef char name[256]
    cdef long offset
    cdef int following, error, current = openat(top, b".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    if current < 0:
        return 0 if errno == ENOENT or errno == ENODEV else -errno
    path.items, path.count, path.room = NULL, 0, 0
    error = act(current, argument)
    while error >= 0:
        offset = next_directory(current, name)
        if offset > 0:
            following = openat(current, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
            if following < 0 and is_gone():
                continue
            if following < 0:
                error = -errno
                break
            error = append_to(&path, offset)
            error = act(following, argument) if error >= 0 else error
        elif path.count == 0:
            break
        else:
            following = openat(current, b"..", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            if following < 0:
                error = 0 if is_gone() else -errno      # removed under us, with all above: its processes are gone
                break
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


cdef public int remove_below(int top, long deadline) noexcept nogil:
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
            if following < 0 and is_gone():
                continue          # removed by someone else
            if following < 0:
                result = -errno
                break
            depth += 1
            entered = True
        else:
            if entered and result == 0:     # nothing is below, and yet it stayed: a process is in it, or just was
                length = nap(length)
            following = openat(current, b"..", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            if following < 0:
                result = result if is_gone() else -errno
                break
            depth -= 1
            entered = False
        close(current)
        current = following
    close(current)
    return <int> min(result, 0) if result < 0 or depth == 0 else -EBUSY


# --- numbers, each once and in order -------------------------------------------------------------------------------

cdef int compare(const void *one, const void *other) noexcept nogil:
    cdef long first = (<const long *> one)[0], second = (<const long *> other)[0]
    return (first > second) - (first < second)


cdef public void put_in_order(Numbers *numbers) noexcept nogil:
    cdef long index, count = 0
    if numbers.count == 0:
        return
    qsort(numbers.items, <size_t> numbers.count, sizeof(long), compare)
    for index in range(numbers.count):
        if count == 0 or numbers.items[count - 1] != numbers.items[index]:
            numbers.items[count] = numbers.items[index]
            count += 1
    numbers.count = count


cdef public int holds(const Numbers *numbers, long item) noexcept nogil:
    """Whether it is among them, which are in order."""
    if numbers.count == 0:
        return False
    return bsearch(&item, numbers.items, <size_t> numbers.count, sizeof(long), compare) is not NULL
