"""tmpcopyup: what an image has where a tmpfs goes, copied onto that tmpfs."""

from cycontainer._steps cimport *
from cycontainer.init.state cimport State
from cycontainer.init.sys cimport *


cdef public long copy_up(State *state, const Step *step) noexcept nogil:
    return -ENOSYS
