# Device programs of cgroup v2.

cdef int attach_devices(int directory, const char *program, size_t length) noexcept nogil
