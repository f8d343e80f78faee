# One hierarchy's part of a cgroup: made, limited, removed.

cdef enum:
    PATIENCE_US = 2000000         # how long an emptied cgroup may stay busy, and a process take to freeze

cdef struct Write:
    const char *file
    const char *value
    size_t length
    bint instead                  # only where the file of the one before is missing; with no file: that is no error
    bint done                     # it has been written

cdef struct Place:                # one hierarchy's part of a cgroup; the texts are held by who made it
    const char *mount
    const char *path              # below the mount, without a slash in front
    Write *writes
    int count
    bint cpuset, freezer, pids    # v1
    bint unified                  # v2, and with it:
    const char *wanted            # controllers that it is to have if it can be: "cpu memory"
    const char *needed            # and those that it must have
    const char *devices           # a program, or NULL
    size_t devices_length
    bint occupied                 # one that exists is taken with the processes that are in it
    bint made                     # the directory was not there before
    int root, directory, tasks    # -1 is none

cdef struct Failure:              # what refused
    int place
    const char *file              # NULL: the directory itself
    const Write *write            # NULL: nothing was written
    long above                    # -1, or the length of the path of the parent that it is about
    char value[64]                # what a parent was to be given

cdef int open_root(Place *place) noexcept nogil
cdef int write_all(Place *place, Failure *failure) noexcept nogil
cdef int make_all(Place *places, int count, Failure *failure) noexcept nogil
cdef int remove_place(Place *place, long deadline) noexcept nogil
