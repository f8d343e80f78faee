"""Holding, signalling and killing what is in a cgroup. Hot; no Python."""

from libc.stdlib cimport free
from libc.string cimport strcmp, strlen, strstr

from cycontainer._cgroup_parts cimport (PATIENCE_US, Numbers, Place, append_to, collect, holds, nap, now_us,
                                        put_in_order, read_file, thaw_tree, write_file)
from cycontainer._sys cimport (EACCES, EBUSY, EDEADLK, EINVAL, EMFILE, ENODEV, ENOENT, EPERM, ESRCH, EXDEV, O_CLOEXEC,
                               O_NOFOLLOW, O_RDONLY, POLLIN, POLLPRI, SIG_SETMASK, SIGKILL, SYS_close_range,
                               SYS_pidfd_open, SYS_pidfd_send_signal, SYS_unshare, close, errno, getpid, openat, poll,
                               pollfd, pread, pthread_create, pthread_join, pthread_sigmask, pthread_t, sigfillset,
                               sigset_t, syscall)

cdef enum:
    AT_ONCE = 256                 # processes that are signalled together
    SPARE = 3                     # descriptors that a look at the members takes
    HOLD_US = 100000              # how long a round waits for all to be held
    MOST_RESTS = 10               # looks at those that were killed, and are not gone
    CLONE_FILES = 0x400


# --- where no descriptor is free -------------------------------------------------------------------------------------

cdef struct Work:                 # for a thread that has a table of descriptors to itself
    int (*act)(Place *, int, long) noexcept nogil
    Place *places
    int count
    long argument
    int result


cdef void leave_only(const Place *places, int count) noexcept nogil:
    """Close all descriptors but these places'."""
    cdef int index, fd, least, at = 0
    while True:
        least = 0x7FFFFFFF
        for index in range(2 * count):
            fd = places[index // 2].root if index % 2 else places[index // 2].directory
            if at <= fd < least:
                least = fd
        if least > at:
            syscall(SYS_close_range, at, least - 1, 0)
        if least == 0x7FFFFFFF:
            return
        at = least + 1


cdef void *go_apart(void *argument) noexcept nogil:
    cdef Work *work = <Work *> argument
    if syscall(SYS_unshare, CLONE_FILES) == 0:
        leave_only(work.places, work.count)
        work.result = work.act(work.places, work.count, work.argument)
    return NULL


cdef int with_descriptors(int (*act)(Place *, int, long) noexcept nogil, Place *places, int count,
                          long argument) noexcept nogil:
    """What `act` returns. When no descriptor is free, a thread does it that has a table of its own: what is to be
    killed must not live on because its killer has too much open."""
    cdef Work work
    cdef pthread_t thread
    cdef sigset_t all_signals, before
    cdef int error
    work.act, work.places, work.count, work.argument = act, places, count, argument
    work.result = act(places, count, argument)
    if work.result == -EMFILE:
        sigfillset(&all_signals)  # a handler would find none of its descriptors there
        pthread_sigmask(SIG_SETMASK, &all_signals, &before)
        error = pthread_create(&thread, NULL, go_apart, &work)
        pthread_sigmask(SIG_SETMASK, &before, NULL)
        if error == 0:
            pthread_join(thread, NULL)
    return work.result


# --- signals ---------------------------------------------------------------------------------------------------------

cdef int open_processes(const Numbers *found, long *at, pollfd *batch, long *pids) noexcept nogil:
    """Up to AT_ONCE pidfds of those from `at` on; how many, or a negative errno. SPARE descriptors stay free."""
    cdef int index, count = 0, error = 0
    cdef long fd = 0
    cdef int spare[SPARE]
    for index in range(SPARE):
        spare[index] = <int> syscall(SYS_pidfd_open, getpid(), 0)
        error = -errno if spare[index] < 0 else error
    while error == 0 and at[0] < found.count and count < AT_ONCE:
        if found.items[at[0]] > 0:            # 0 is one of another pid namespace
            fd = syscall(SYS_pidfd_open, found.items[at[0]], 0)
            if fd >= 0:
                batch[count].fd, batch[count].events, batch[count].revents = <int> fd, POLLIN, 0
                pids[count] = found.items[at[0]]
                count += 1
            elif errno not in (ESRCH, ENOENT, EINVAL):        # gone, or its number is a thread's by now
                error = -errno
                break
        at[0] += 1
    for index in range(SPARE):
        if spare[index] >= 0:
            close(spare[index])
    return error if count == 0 else count


cdef int signal_opened(pollfd *batch, const long *pids, int count, const Numbers *members, int number) noexcept nogil:
    """Only to who is still a member after its pidfd was opened: so the pid was not someone else's before. 0, or the
    errno of the first that was refused."""
    cdef int index, error = 0
    for index in range(count):
        if holds(members, pids[index]) and syscall(SYS_pidfd_send_signal, batch[index].fd, number, NULL, 0) < 0 \
                and errno != ESRCH and error == 0:
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


cdef int freeze_or_thaw(Place *place, int count, long deadline) noexcept nogil:
    cdef int error = freeze_unified(place, deadline) if place.unified else freeze_v1(place, deadline)
    if error < 0:
        thaw_place(place)
    return error


cdef public int freeze_place(Place *place, long deadline) noexcept nogil:
    """Wait until all are frozen; -EBUSY at the deadline. Whatever fails, all go on."""
    return with_descriptors(freeze_or_thaw, place, 1, deadline)


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


cdef int signal_round(Place *places, int count, const Numbers *found, Numbers *members, int number,
                      long deadline) noexcept nogil:
    """A signal to all of `found` that are still there; the errno of the first that was refused. Until the deadline the
    end of the last of them is waited for."""
    cdef pollfd batch[AT_ONCE]
    cdef long pids[AT_ONCE]
    cdef long at = 0
    cdef int opened, each, error = 0
    while at < found.count:
        opened = open_processes(found, &at, batch, pids)
        if opened < 0:
            return opened
        each = collect_all(places, count, members)
        if each >= 0:
            each = signal_opened(batch, pids, opened, members, number)
        await_opened(batch, opened, deadline if at >= found.count and each >= 0 else 0)
        error = each if error == 0 else error
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
        freeze_v1(freezer, min(deadline, now_us() + HOLD_US))
    error = collect_all(places, count, found)
    if error >= 0:                # a frozen process dies when it is thawed: so that is not waited for
        error = signal_round(places, count, found, members, SIGKILL, 0 if freezer is not NULL else deadline)
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


cdef int kill_until_none_is_left(Place *places, int count, long deadline) noexcept nogil:
    """Who was killed is given time to die as long as they become fewer."""
    cdef Numbers found, members, killed
    cdef long length = 100, fewest = 0
    cdef int error, rests = 0
    found.items, found.count, found.room = NULL, 0, 0
    members, killed = found, found
    error = collect_all(places, count, &found)
    if error == -EACCES and places[0].unified:          # a directory that we may not look into
        error = kill_unified(&places[0], deadline)
        found.count = 0
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


cdef public int kill_all(Place *places, int count, long deadline) noexcept nogil:
    """Until none is left; -EBUSY at the deadline, -EDEADLK when we are one of them."""
    return with_descriptors(kill_until_none_is_left, places, count, deadline)


# --- a signal to all -------------------------------------------------------------------------------------------------

cdef void leave_out(Numbers *found, const Numbers *others) noexcept nogil:
    cdef long index, count = 0
    for index in range(found.count):
        if not holds(others, found.items[index]):
            found.items[count] = found.items[index]
            count += 1
    found.count = count


cdef int may_signal(Place *places, int count, int number, Numbers *found) noexcept nogil:
    """1 when all have it already, 0 when they are to get it, and else nobody has got it: -EDEADLK when we are one of
    them, -EXDEV when one lives in another pid namespace."""
    cdef int error = collect_all(places, count, found)
    if error >= 0 and holds(found, getpid()):
        return -EDEADLK
    if error < 0 and error != -EACCES:
        return error
    if number == SIGKILL and places[0].unified and places[0].directory >= 0 \
            and write_file(places[0].directory, b"cgroup.kill", b"1", 1) >= 0:
        return 1
    return -EXDEV if error >= 0 and holds(found, 0) else error


cdef int signal_until_none_is_new(Place *places, int count, long number) noexcept nogil:
    """In rounds: who was forked while the others got it, gets it in the next. A process with a signal pending cannot
    fork, so they come to an end: fork(2) begins anew."""
    cdef Numbers found, members, reached
    cdef long index, deadline = now_us() + PATIENCE_US
    cdef int result, refused = 0
    found.items, found.count, found.room = NULL, 0, 0
    members, reached = found, found
    result = may_signal(places, count, <int> number, &found)
    if result == 0 and number == SIGKILL:
        refused = kill_held(places, count, &reached, &members, now_us() + HOLD_US)
    while result == 0:
        result = collect_all(places, count, &found)
        leave_out(&found, &reached)
        if result < 0 or found.count == 0:
            break
        if now_us() > deadline:
            result = -EBUSY
            break
        result = signal_round(places, count, &found, &members, <int> number, 0)
        if result == -EPERM:
            refused, result = result, 0
        for index in range(found.count):
            if result == 0:
                result = append_to(&reached, found.items[index])
        put_in_order(&reached)
    free(found.items)
    free(members.items)
    free(reached.items)
    return result if result < 0 else refused


cdef public int signal_all(Place *places, int count, int number) noexcept nogil:
    """A signal to each; once, unless descriptors run out meanwhile. -EDEADLK when we are one of them, -EXDEV when one
    lives in another pid namespace: then nobody has got it. -EPERM when one was refused, -EBUSY when new ones begin
    faster than they get it."""
    return with_descriptors(signal_until_none_is_new, places, count, number)
