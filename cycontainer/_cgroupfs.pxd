# One hierarchy's part of a cgroup: made, limited, removed.

cdef enum:
    PATIENCE_US = 2000000         # how long an emptied cgroup may stay busy, and a process take to freeze

cdef struct Write:
    const char *file
    const char *value
    size_t length
    bint done                     # it has been written

cdef struct Place:                # one hierarchy's part of a cgroup; the texts are held by who made it
    const char *mount
    const char *path              # below the mount, without a slash in front
    Write *writes
    int count
    bint cpuset, freezer, pids
    bint made                     # the directory was not there before
    int root, directory, tasks    # -1 is none

cdef struct Failure:              # what refused
    int place
    const char *file              # NULL: the directory itself
    const Write *write            # NULL: nothing was written

cdef int open_root(Place *place) noexcept nogil
cdef int write_all(Place *place, Failure *failure) noexcept nogil
cdef int make_all(Place *places, int count, Failure *failure) noexcept nogil
cdef int remove_place(Place *place, long deadline) noexcept nogil
