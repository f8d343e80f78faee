"""What other compiled modules may use of a launched child."""

cdef class Child:
    cdef readonly int pid, pidfd, socket
    cdef public int terminal, program, gate, listener    # what its init has sent; whoever takes one sets -1
    cdef public int heard       # the last step that its init waited for us with
    cdef int second             # a pidfd: the process that the init went on in, until it is adopted
    cdef int loose              # the last message's descriptor, until it is taken
    cdef int introduced         # how often the second was told of
    cdef void *stack            # what the child runs on until it executes the init
    cdef void *before           # its neighbours among all that there are; not owned
    cdef void *after

    cdef void release(self) noexcept
    cdef bint awaits_second(self) noexcept
    cdef void settle(self) noexcept
