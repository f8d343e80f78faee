# Holding and killing what is in a cgroup.

from cycontainer._cgroupfs cimport Place
from cycontainer._cgrouptree cimport Numbers

cdef int freeze_place(Place *place, long deadline) noexcept nogil
cdef int thaw_place(Place *place) noexcept nogil
cdef int collect_all(Place *places, int count, Numbers *found) noexcept nogil
cdef int kill_all(Place *places, int count, long deadline) noexcept nogil
