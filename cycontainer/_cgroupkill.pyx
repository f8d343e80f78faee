"""Holding and killing what is in a cgroup. Hot; no Python."""

from libc.stdlib cimport free
from libc.string cimport strcmp, strlen, strstr

from cycontainer._cgroup_parts cimport (Numbers, Place, collect, holds, nap, now_us, put_in_order, read_file, thaw_tree,
                                        write_file)
from cycontainer._sys cimport (EBUSY, EDEADLK, EMFILE, ENODEV, ENOENT, ESRCH, O_CLOEXEC, O_NOFOLLOW, O_RDONLY, POLLIN,
                               POLLPRI, SIGKILL, SYS_pidfd_open, SYS_pidfd_send_signal, close, errno, getpid, openat,
                               poll, pollfd, pread, syscall)

cdef enum:
    AT_ONCE = 256                 # processes that are killed together
    MOST_RESTS = 10               # looks at those that were killed, and are not gone


# --- killing -------------------------------------------------------------------------------------------------------

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


# --- v2: one file freezes, one kills, and a third tells of it --------------------------------------------------------

cdef bint tells(const char *text, const char *key, char value) noexcept nogil:
    """Whether a line "key 0" or "key 1" of cgroup.events has this value."""
    cdef const char *at = strstr(text, key)
    return at is not NULL and at[strlen(key)] == c' ' and at[strlen(key) + 1] == value


cdef int await_event(int directory, const char *key, char value, long deadline) noexcept nogil:
    """Until cgroup.events says so: the kernel wakes us at each change. -EBUSY at the deadline; a cgroup that goes
    meanwhile is empty, and no one in it runs."""
    cdef char text[256]
    cdef pollfd entry
    cdef long got, left
    cdef int error = 0
    entry.fd, entry.events = openat(directory, b"cgroup.events", O_RDONLY | O_CLOEXEC | O_NOFOLLOW), POLLPRI
    if entry.fd < 0:
        return 0 if errno == ENOENT or errno == ENODEV else -errno
    while True:
        got = pread(entry.fd, text, sizeof(text) - 1, 0)
        if got < 0:
            error = 0 if errno == ENODEV else -errno
            break
        text[got] = 0
        if tells(text, key, value):
            break
        left = deadline - now_us()
        if left <= 0:
            error = -EBUSY
            break
        poll(&entry, 1, <int> (left // 1000 + 1))
    close(entry.fd)
    return error


cdef int freeze_unified(Place *place, long deadline) noexcept nogil:
    cdef int error = write_file(place.directory, b"cgroup.freeze", b"1", 1)
    return await_event(place.directory, b"frozen", c'1', deadline) if error >= 0 else error


cdef public int thaw_place(Place *place) noexcept nogil:
    if place.unified:
        return write_file(place.directory, b"cgroup.freeze", b"0", 1)
    return write_file(place.directory, b"freezer.state", b"THAWED", 6)


cdef int kill_unified(Place *place, long deadline) noexcept nogil:
    """All of them at once, the frozen and those just being forked too."""
    cdef int error = write_file(place.directory, b"cgroup.kill", b"1", 1)
    if error == -ENOENT or error == -ENODEV:
        return 0
    return await_event(place.directory, b"populated", c'0', deadline) if error >= 0 else error


# --- v1 --------------------------------------------------------------------------------------------------------------

cdef int freeze_v1(Place *place, long deadline) noexcept nogil:
    """Wait until all are frozen; -EBUSY at the deadline. v1 may get stuck half-way: thaw for a moment, begin again."""
    cdef char state[32]
    cdef long got, length = 100, round = 0
    cdef int error = write_file(place.directory, b"freezer.state", b"FROZEN", 6)
    while error >= 0:
        got = read_file(place.directory, b"freezer.state", state, sizeof(state))
        if got < 0:
            return <int> got
        if strcmp(state, b"FROZEN\n") == 0:
            return 0
        if now_us() > deadline:
            return -EBUSY
        length = nap(length)
        round += 1
        if round % 20 == 0:
            error = write_file(place.directory, b"freezer.state", b"THAWED", 6)
            nap(100)
            error = write_file(place.directory, b"freezer.state", b"FROZEN", 6) if error >= 0 else error
    return error


cdef public int freeze_place(Place *place, long deadline) noexcept nogil:
    return freeze_unified(place, deadline) if place.unified else freeze_v1(place, deadline)


cdef public int collect_all(Place *places, int count, Numbers *found) noexcept nogil:
    """The processes in any hierarchy, each once and in order."""
    cdef int index, error
    found.count = 0
    for index in range(count):
        if places[index].directory >= 0:
            error = collect(places[index].directory, found)
            if error < 0:
                return error
    put_in_order(found)
    return 0


cdef int kill_round(Place *places, int count, Numbers *found, Numbers *members, long deadline) noexcept nogil:
    """SIGKILL to all of `found` that are still there, and wait for the last of them."""
    cdef pollfd batch[AT_ONCE]
    cdef long pids[AT_ONCE]
    cdef long start = 0
    cdef int opened, error = 0
    while start < found.count and error >= 0:
        opened = open_processes(found, start, batch, pids)
        if opened < 0:
            return opened
        error = collect_all(places, count, members)
        error = kill_opened(batch, pids, opened, members) if error >= 0 else error
        start += AT_ONCE
        await_opened(batch, opened, deadline if start >= found.count and error >= 0 else 0)
    return error


cdef int kill_held(Place *places, int count, Numbers *found, Numbers *members, long deadline) noexcept nogil:
    """One round while nobody can fork: frozen, or with no process allowed to begin."""
    cdef char most[32]
    cdef Place *freezer = NULL
    cdef Place *pids = NULL
    cdef int index, error
    cdef long length = 0
    for index in range(count):
        if places[index].directory >= 0 and places[index].freezer:
            freezer = &places[index]
        elif places[index].directory >= 0 and places[index].pids:
            pids = &places[index]
    if pids is not NULL:
        length = read_file(pids.directory, b"pids.max", most, sizeof(most))
        if length > 0:
            write_file(pids.directory, b"pids.max", b"0", 1)
    if freezer is not NULL:       # as far as it gets: a process that cannot be frozen can still be killed
        freeze_v1(freezer, min(deadline, now_us() + 100000))
    error = collect_all(places, count, found)
    if error >= 0:                # a frozen process dies when it is thawed: so that is not waited for
        error = kill_round(places, count, found, members, 0 if freezer is not NULL else deadline)
    if freezer is not NULL:
        index = thaw_tree(freezer.directory)
        error = index if error >= 0 else error
    if length > 0:
        write_file(pids.directory, b"pids.max", most, <size_t> length)
    return error


cdef bint are_among(const Numbers *some, const Numbers *others) noexcept nogil:
    cdef long index
    for index in range(some.count):
        if not holds(others, some.items[index]):
            return False
    return True


cdef public int kill_all(Place *places, int count, long deadline) noexcept nogil:
    """Until none is left; -EBUSY at the deadline, -EDEADLK when we are one of them. Who was killed is given time to die
    as long as they become fewer."""
    cdef Numbers found, members, killed
    cdef long length = 100, fewest = 0
    cdef int error, rests = 0
    found.items, found.count, found.room = NULL, 0, 0
    members, killed = found, found
    error = collect_all(places, count, &found)
    while error >= 0 and found.count > 0:
        if found.count < fewest:
            fewest, rests = found.count, 0
        if holds(&found, getpid()):
            error = -EDEADLK
        elif now_us() > deadline:
            error = -EBUSY
        elif rests < MOST_RESTS and are_among(&found, &killed):
            rests += 1
        elif places[0].unified:
            error = kill_unified(&places[0], deadline)
        else:                     # also on a hybrid machine: what a v1 freezer holds does not die of cgroup.kill
            error = kill_held(places, count, &found, &members, deadline)
            found, killed = killed, found
            fewest, rests, length = killed.count, 0, 100
        if error >= 0:
            length = nap(length)
            error = collect_all(places, count, &found)
    free(found.items)
    free(members.items)
    free(killed.items)
    return error
