# What cgroups.pyx uses of the cgroup file systems.

from cycontainer._sys cimport pollfd

cdef enum:
    AT_ONCE = 256                 # processes that are killed together
    LONGEST = 4096                # PATH_MAX
    PATIENCE_US = 2000000         # how long an emptied cgroup may stay busy, and a process take to freeze

cdef struct Write:
    const char *file
    const char *value
    size_t length

cdef struct Place:                # one hierarchy's part of a cgroup; the texts are held by who made it
    const char *mount
    const char *path              # below the mount, without a slash in front
    const Write *writes
    int count
    bint cpuset, freezer, pids
    bint made                     # the directory was not there before
    int root, directory, tasks    # -1 is none

cdef struct Failure:              # what refused
    int place
    const char *file              # NULL: the directory itself
    const Write *write            # NULL: nothing was written

cdef struct Numbers:
    long *items
    long count, room

cdef long now_us() noexcept nogil
cdef long nap(long us) noexcept nogil
cdef int write_file(int directory, const char *file, const char *value, size_t length) noexcept nogil
cdef long read_file(int directory, const char *file, char *text, size_t room) noexcept nogil
cdef int open_root(Place *place) noexcept nogil
cdef int open_directory(int root, const char *path) noexcept nogil
cdef int write_all(Place *place, Failure *failure) noexcept nogil
cdef int make_all(Place *places, int count, Failure *failure) noexcept nogil
cdef int remove_place(Place *place, long deadline) noexcept nogil
cdef int collect(int top, Numbers *found) noexcept nogil
cdef bint holds(const Numbers *numbers, long item) noexcept nogil
cdef int open_processes(const Numbers *found, long start, pollfd *batch, long *pids) noexcept nogil
cdef int kill_opened(pollfd *batch, const long *pids, int count, const Numbers *members) noexcept nogil
cdef void await_opened(pollfd *batch, int count, long deadline) noexcept nogil
