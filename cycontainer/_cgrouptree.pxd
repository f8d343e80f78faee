# Files and trees of the cgroup file systems.

cdef enum:
    LONGEST = 4096                # PATH_MAX

cdef struct Numbers:
    long *items
    long count, room

cdef long now_us() noexcept nogil
cdef long nap(long us) noexcept nogil
cdef int write_file(int directory, const char *file, const char *value, size_t length) noexcept nogil
cdef long read_file(int directory, const char *file, char *text, size_t room) noexcept nogil
cdef list read_texts(list directories, list names)
cdef int open_directory(int root, const char *path) noexcept nogil
cdef int collect(int top, Numbers *found) noexcept nogil
cdef int remove_below(int top, long deadline) noexcept nogil
cdef bint holds(const Numbers *numbers, long item) noexcept nogil
