"""A container's cgroups over the v1 hierarchies: made, written, read and removed by descriptor. Hot; GIL released."""

import os

from cycontainer._sys cimport close, errno, read, write
from cycontainer.errors import CgroupError

cdef extern from "<fcntl.h>" nogil:
    int openat(int directory, const char *path, int flags, ...)
    int O_PATH, O_DIRECTORY, O_NOFOLLOW, O_RDONLY, O_WRONLY, O_CLOEXEC, AT_REMOVEDIR

cdef extern from "<sys/stat.h>" nogil:
    int mkdirat(int directory, const char *path, unsigned int mode)

cdef extern from "<unistd.h>" nogil:
    int unlinkat(int directory, const char *path, int flags)
    int usleep(unsigned int us)

cdef extern from "<sys/vfs.h>" nogil:
    struct statfs:
        long f_type
    int fstatfs(int fd, statfs *status)

cdef enum:
    CGROUP_MAGIC = 0x27E0EB
    EEXIST_ = 17
    ENOENT_ = 2
    EBUSY_ = 16
    MOST_WAITS = 20000          # of 100 us each: how long an emptied cgroup may stay busy


cdef int write_file(int directory, const char *file, const char *value, size_t length) noexcept nogil:
    cdef int error = 0, fd = openat(directory, file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW)
    if fd < 0:
        return -errno
    if write(fd, value, length) < 0:
        error = -errno            # taken here: close() may set errno too
    close(fd)
    return error


cdef long read_file(int directory, const char *file, char *into, size_t room) noexcept nogil:
    """The bytes read, or a negative errno."""
    cdef ssize_t got
    cdef int fd = openat(directory, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    if fd < 0:
        return -errno
    got = read(fd, into, room)
    if got < 0:
        got = -errno
    close(fd)
    return got


cdef int inherit(int parent, int child, const char *file) noexcept nogil:
    """A new v1 cpuset is empty, and takes no task so: copy the parent's when there is such a file. cpusets.rst."""
    cdef char text[4096]
    cdef long length = read_file(child, file, text, sizeof(text))
    if length == -ENOENT_:
        return 0
    if length > 1 or length < 0:
        return <int> min(length, 0)
    length = read_file(parent, file, text, sizeof(text))
    if length <= 0:
        return <int> length
    return write_file(child, file, text, <size_t> length)


cdef int make_directory(int parent, const char *name) noexcept nogil:
    """A descriptor of `name`, made when missing."""
    cdef int fd, error
    cdef bint made = mkdirat(parent, name, 0o755) == 0
    if not made and errno != EEXIST_:
        return -errno
    fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    if fd < 0:
        return -errno
    if made:
        error = inherit(parent, fd, b"cpuset.cpus")
        if error == 0:
            error = inherit(parent, fd, b"cpuset.mems")
        if error < 0:
            close(fd)
            unlinkat(parent, name, AT_REMOVEDIR)
            return error
    return fd


cdef int open_hierarchy(const char *mount) noexcept nogil:
    """A verified cgroup file system's root."""
    cdef statfs status
    cdef int fd = openat(-100, mount, O_PATH | O_DIRECTORY | O_CLOEXEC)
    if fd < 0:
        return -errno
    if fstatfs(fd, &status) == 0 and status.f_type == CGROUP_MAGIC:
        return fd
    close(fd)
    return -22


cdef int remove_directory(int parent, const char *name) noexcept nogil:
    """rmdir, once the last task's exit has been counted."""
    cdef int waits = 0
    while unlinkat(parent, name, AT_REMOVEDIR) < 0:
        if errno == ENOENT_:
            return 0
        if errno != EBUSY_ or waits >= MOST_WAITS:
            return -errno
        usleep(100)
        waits += 1
    return 0


cdef class Cgroup:
    """The cgroups of one container, one in each hierarchy of its plan. It owns their descriptors.

    Attributes:
        paths: their directories.
        tasks: descriptors of their `tasks` files, open for the init to write 0 to, until `release_tasks`.
    """

    cdef readonly tuple paths, tasks
    cdef list _directories, _parents, _names

    def __cinit__(self):
        self.paths, self.tasks = (), ()
        self._directories, self._parents, self._names = [], [], []

    def __dealloc__(self):
        self.release()

    cdef void release(self) noexcept:
        cdef int fd
        for fd in (*self.tasks, *self._directories, *self._parents):
            close(fd)
        self.tasks, self._directories, self._parents = (), [], []

    @staticmethod
    def create(plan, tuple paths not None) -> Cgroup:
        """Make the cgroups at `paths`, one below each hierarchy's mount, and write their limits.

        Raises:
            CgroupError: with the file that refused, its value and the errno; what had been made is gone again.
        """
        cdef Cgroup cgroup = Cgroup.__new__(Cgroup)
        try:
            for hierarchy, path in zip(plan.hierarchies, paths, strict=True):
                cgroup.add(hierarchy.mount, path, hierarchy.writes)
        except BaseException as error:
            try:
                cgroup.destroy()
            except CgroupError as failure:
                error.add_note(f"could not remove the cgroup: {failure}")
            raise
        return cgroup

    cdef int add(self, str mount, str path, tuple writes) except -1:
        """One hierarchy."""
        cdef list names = [name.encode() for name in path.split("/") if name]
        cdef int fd = self.enter(mount, path, names)
        self._directories.append(fd)
        self.paths += (f"{mount}{path}",)
        for file, value in writes:
            self.put(fd, f"{mount}{path}", file, value)
        cdef int tasks = openat(fd, b"tasks", O_WRONLY | O_CLOEXEC | O_NOFOLLOW)
        if tasks < 0:
            raise CgroupError(f"{mount}{path}/tasks", errno)
        self.tasks += (tasks,)
        return 0

    cdef int enter(self, str mount, str path, list names) except -1:
        """The leaf's descriptor; its parents are made when missing, and may be removed by a neighbour meanwhile."""
        cdef bytes where = mount.encode(), name, last = names[len(names) - 1] if names else b""
        cdef const char *text = where
        cdef int parent, fd = -1, tries = 0
        if not names or b".." in names:
            raise CgroupError(f"{mount}{path}", 22)
        while tries < 100:
            parent = open_hierarchy(text)
            if parent < 0:
                raise CgroupError(mount, -parent)
            for name in names:
                text = name
                with nogil:
                    fd = make_directory(parent, text)
                if name is last and fd >= 0:
                    self._parents.append(parent)
                    self._names.append(name)
                    return fd
                close(parent)
                if fd < 0:
                    break
                parent = fd
            if fd != -ENOENT_:
                break
            tries, text = tries + 1, where
        raise CgroupError(f"{mount}{path}", -fd)

    cdef int put(self, int directory, str where, bytes file, bytes value) except -1:
        cdef const char *name = file
        cdef const char *text = value
        cdef size_t length = len(value)
        cdef int error
        with nogil:
            error = write_file(directory, name, text, length)
        if error < 0:
            raise CgroupError(f"{where}/{file.decode()}", -error, value.decode())
        return 0

    def release_tasks(self) -> None:
        """Close the `tasks` descriptors: the init has its own."""
        for fd in self.tasks:
            close(fd)
        self.tasks = ()

    def read(self, str file not None) -> bytes | None:
        """The first 4096 bytes of `file` in the first hierarchy that has it, or None."""
        cdef char text[4096]
        cdef bytes name = file.encode()
        cdef long length
        for directory in self._directories:
            length = read_file(directory, name, text, sizeof(text))
            if length >= 0:
                return text[:length]
            if length != -ENOENT_:
                raise CgroupError(file, -length)
        return None

    def memory_peak(self) -> int | None:
        """Bytes that were held at once at most; None without a memory hierarchy."""
        text = self.read("memory.max_usage_in_bytes")
        return None if text is None else int(text)

    def oom_kills(self) -> int | None:
        """Processes that were killed for exceeding the memory limit; None without a memory hierarchy."""
        text = self.read("memory.oom_control")
        if text is None:
            return None
        return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(b"oom_kill ")), None)

    def processes(self) -> list[int]:
        """The pids that are in it, in any hierarchy and at any depth."""
        found = set()
        for path in self.paths:
            for directory, _, _ in os.walk(path):
                with open(f"{directory}/cgroup.procs") as file:
                    found.update(map(int, file))
        return sorted(found)

    def destroy(self) -> None:
        """Remove the cgroups and all that was made below them. What is already gone is fine.

        Raises:
            CgroupError: EBUSY when processes are still in one.
        """
        cdef int parent, error
        cdef const char *text
        self.release_tasks()
        failure = None
        for directory in self._directories:
            close(directory)
        self._directories = []
        for parent, name, path in zip(self._parents, self._names, self.paths, strict=False):
            for below, _, _ in os.walk(path, topdown=False):
                if below != path:
                    os.rmdir(below)
            text = name
            with nogil:
                error = remove_directory(parent, text)
            if error < 0:
                failure = CgroupError(path, -error)
            close(parent)
        self._parents, self._names = [], []
        if failure is not None:
            raise failure


_owner: tuple = (0, "")
_count = 0


def start_time(int pid) -> str:
    """When a process started, in clock ticks since boot: field 22 of /proc/PID/stat. Raises OSError."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b") ")[2].split()[19].decode()


def run_name() -> str:
    """A name for the next run's cgroup: run-PID-START-N, of this process."""
    global _owner, _count
    pid = os.getpid()
    if _owner[0] != pid:
        _owner, _count = (pid, start_time(pid)), 0
    _count += 1
    return f"run-{pid}-{_owner[1]}-{_count}"


def _abandoned(str name) -> bool:
    parts = name.split("-")
    if len(parts) != 4 or parts[0] != "run" or not all(part.isdigit() for part in parts[1:]):
        return False
    try:
        return start_time(int(parts[1])) != parts[2]
    except (FileNotFoundError, ProcessLookupError):
        return True


def sweep(layout) -> None:
    """Remove the cgroups of runs whose process no longer exists. Nothing else is touched."""
    for hierarchy in layout.v1:
        base = f"{hierarchy.mount}/cycontainer"
        try:
            names = os.listdir(base)
        except FileNotFoundError:
            continue
        for name in names:
            if _abandoned(name):
                for below, _, _ in os.walk(f"{base}/{name}", topdown=False):
                    try:
                        os.rmdir(below)
                    except OSError as error:      # still ending, or swept by another just now: the next run's
                        if error.errno not in (EBUSY_, ENOENT_):
                            raise
