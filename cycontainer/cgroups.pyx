"""A container's cgroups over its hierarchies: made, limited, read, frozen, killed, removed. Hot.

Each verb is one call with the GIL released, by descriptors only.
"""

from libc.stdlib cimport calloc, free, malloc

from cycontainer._cgroupfs cimport PATIENCE_US, Failure, Place, Write, make_all, open_root, remove_place, write_all
from cycontainer._cgroupkill cimport collect_all, freeze_place, kill_all
from cycontainer._cgrouptree cimport LONGEST, Numbers, now_us, open_directory, read_file, read_files, write_file
from cycontainer._sys cimport EBUSY, EDEADLK, ENODEV, ENOENT, EOPNOTSUPP, close, getpid

import os

from cycontainer.errors import CgroupError, ConfigError

cdef enum:
    READ_AT_ONCE = 262144         # bytes


# --- what Python sees ----------------------------------------------------------------------------------------------

def check_path(str path not None) -> str:
    """`path`, below a hierarchy's mount, without a slash in front. Raises ConfigError for what could lead away."""
    parts = path.removeprefix("/").split("/")
    if "\0" in path or "" in parts or "." in parts or ".." in parts:
        raise ConfigError("linux.cgroupsPath", f"{path!r} must be names between slashes, none of them empty, . or ..")
    if len(path.encode(errors="surrogateescape")) >= LONGEST:
        raise ConfigError("linux.cgroupsPath", f"is longer than {LONGEST - 1} bytes")
    return path.removeprefix("/")


cdef class Cgroup:
    """One container's cgroup, over all its hierarchies. Owns the descriptors of its directories, and closes them.

    Attributes:
        paths: the directories, a path for each hierarchy.
        unified: all of it is in one cgroup v2 hierarchy.
        tasks: descriptors of their `tasks` files, open for the init to write "0" to; see `release_tasks`.
    """

    cdef readonly tuple paths, tasks
    cdef tuple _controllers, _texts
    cdef Place *_places
    cdef Write *_writes
    cdef int _count
    cdef int _in_use              # by how many calls without the GIL: another's descriptors are not closed
    cdef bint _updating
    cdef readonly bint unified

    def __cinit__(self):
        self.paths, self.tasks, self._controllers, self._texts = (), (), (), ()
        self._places, self._writes, self._count, self._updating = NULL, NULL, 0, False
        self._in_use, self.unified = 0, False

    def __dealloc__(self):
        self._close()
        free(self._places)
        free(self._writes)

    cdef void _close(self) noexcept:
        cdef int index
        cdef Place *place
        for index in range(self._count):
            place = &self._places[index]
            for fd in (place.root, place.directory, place.tasks):
                if fd >= 0:
                    close(fd)
            place.root = place.directory = place.tasks = -1

    cdef int _lay_out(self, tuple hierarchies, tuple paths) except -1:
        """A Place for each hierarchy; nothing is opened yet."""
        cdef int index
        cdef Place *place
        if len(hierarchies) != len(paths):
            raise ValueError("a path for each hierarchy")
        self._places = <Place *> calloc(max(1, len(paths)), sizeof(Place))
        if self._places is NULL:
            raise MemoryError
        self._texts = tuple([
            (os.fsencode(hierarchy.mount), os.fsencode(check_path(path)))
            for hierarchy, path in zip(hierarchies, paths)
        ])
        self._controllers = tuple([hierarchy.controllers for hierarchy in hierarchies])
        self.paths = tuple([os.fsdecode(mount + b"/" + path) for mount, path in self._texts])
        for index in range(<int> len(paths)):
            place = &self._places[index]
            place.root = place.directory = place.tasks = -1
            place.mount, place.path = self._texts[index][0], self._texts[index][1]
            names = self._controllers[index]
            place.cpuset, place.freezer, place.pids = "cpuset" in names, "freezer" in names, "pids" in names
        self._count = len(paths)
        return 0

    cdef int _fill_in(self, dict wanted) except -1:
        """The writes of each place, whose bytes the caller keeps: {place: ((file, value), ...)}."""
        cdef int index, at = 0
        cdef Write *each
        free(self._writes)
        self._writes = <Write *> calloc(1 + sum(map(len, wanted.values())), sizeof(Write))
        if self._writes is NULL:
            raise MemoryError
        for index in range(self._count):
            writes = wanted.get(index, ())
            self._places[index].writes, self._places[index].count = &self._writes[at], len(writes)
            for file, value in writes:
                if b"/" in file or b"\0" in file:
                    raise ValueError(f"{file!r} is no file of a cgroup")
                each = &self._writes[at]
                each.file, each.value, each.length = file, value, len(value)
                at += 1
        return 0

    cdef object _error(self, const Failure *failure, int code):
        path, value = self.paths[failure.place], None
        if failure.file is not NULL:
            path = f"{path}/{failure.file.decode()}"
        if failure.write is not NULL:
            value = os.fsdecode(failure.write.value[:failure.write.length])
        return CgroupError(path, -code, value)

    @staticmethod
    def create(plan, tuple paths not None) -> Cgroup:
        """Make the cgroup, write its limits, open its `tasks` files. `paths`: below each hierarchy's mount.

        One that exists is taken over when no process is in it.

        Raises:
            ConfigError: a path could lead elsewhere.
            CgroupError: which file or directory refused which value; EBUSY when processes are in it. What had been
                made is gone again, parents included.
        """
        cdef Cgroup cgroup = Cgroup.__new__(Cgroup)
        cdef Failure failure
        cdef int error, index
        cgroup._lay_out(plan.hierarchies, paths)
        wanted = {index: hierarchy.writes for index, hierarchy in enumerate(plan.hierarchies)}
        cgroup._fill_in(wanted)
        with nogil:
            error = make_all(cgroup._places, cgroup._count, &failure)
        if error < 0:
            raise cgroup._error(&failure, error)
        cgroup.tasks = tuple([cgroup._places[index].tasks for index in range(cgroup._count)])
        return cgroup

    @staticmethod
    def open(tuple hierarchies not None, tuple paths not None) -> Cgroup:
        """One that exists. Where it is missing, or a part of it, there is nothing to kill and nothing to remove.

        `hierarchies`: those of a CgroupPlan or of a CgroupLayout.

        Raises:
            CgroupError: a hierarchy cannot be opened, or is no cgroup file system.
        """
        cdef Cgroup cgroup = Cgroup.__new__(Cgroup)
        cdef int index, error
        cgroup._lay_out(hierarchies, paths)
        for index in range(cgroup._count):
            error = open_root(&cgroup._places[index])
            if error < 0:
                raise CgroupError(hierarchies[index].mount, -error)
            error = open_directory(cgroup._places[index].root, cgroup._places[index].path)
            cgroup._places[index].directory = max(error, -1)
            if error < 0 and error != -ENOENT:
                raise CgroupError(cgroup.paths[index], -error)
        return cgroup

    def release_tasks(self) -> None:
        """Close the `tasks` descriptors: the init has its own."""
        cdef int index
        for index in range(self._count):
            if self._places[index].tasks >= 0:
                close(self._places[index].tasks)
            self._places[index].tasks = -1
        self.tasks = ()

    def update(self, plan) -> None:
        """Write other limits, all of them or none. A hierarchy that the plan leaves out stays as it is.

        Raises:
            CgroupError: which file refused which value; what was there before is put back. What cannot be put back is
                a note on it. ENOENT: the container has no cgroup in a hierarchy of the plan.
        """
        from cycontainer.cgroup_restore import steps    # a container is seldom updated

        wanted = {}
        for hierarchy in plan.hierarchies:
            if hierarchy.writes and hierarchy.controllers not in self._controllers:
                raise CgroupError(hierarchy.mount, ENOENT)
            if hierarchy.writes:
                wanted[self._controllers.index(hierarchy.controllers)] = hierarchy.writes
        if self._updating:                    # by another thread, which reads what would be freed now
            raise CgroupError(self.paths[0], EBUSY)
        self._updating = True
        try:
            found = {index: steps(writes, lambda file, index=index: self._read_from(index, file))
                     for index, writes in wanted.items()}
            try:
                self._write_all({index: forth for index, (forth, _) in found.items()})
            except CgroupError as error:
                self._put_back({index: back for index, (_, back) in found.items()}, error)
                raise
        finally:
            self._updating = False

    cdef int _write_all(self, dict wanted) except -1:
        cdef Failure failure
        cdef int index, error = 0
        self._fill_in(wanted)
        self._in_use += 1
        with nogil:
            for index in range(self._count):
                failure.place, failure.file, failure.write = index, NULL, NULL
                error = write_all(&self._places[index], &failure) if self._places[index].directory >= 0 else -ENOENT
                if error < 0:
                    break
        self._in_use -= 1
        if error < 0:
            raise self._error(&failure, error)
        return 0

    cdef int _put_back(self, dict before, object error) except -1:
        for index, writes in before.items():
            try:
                self._write_all({index: writes})
            except CgroupError as failure:
                error.add_note(f"could not put the old value back: {failure}")
        return 0

    cdef int _find(self, str file) except -2:
        """The hierarchy that has a file, by the controller in its name, or -1; any has `tasks` and `cgroup.procs`."""
        cdef int index
        controller = file.partition(".")[0]
        if "/" in file or "\0" in file or file in ("", ".", ".."):
            raise ValueError(f"{file!r} is no file of a cgroup")
        for index in range(self._count):
            if controller in self._controllers[index] or file in ("tasks", "cgroup.procs"):
                return index
        return -1

    cdef int _place_of(self, str file) except -1:
        cdef int index = self._find(file)
        if index < 0:
            raise CgroupError(file, ENOENT)
        return index

    cdef bytes _read_from(self, int index, bytes name):
        cdef char text[65536]
        cdef int directory = self._places[index].directory
        cdef const char *each = name
        cdef long length
        self._in_use += 1
        with nogil:
            length = read_file(directory, each, text, sizeof(text)) if directory >= 0 else -ENOENT
        self._in_use -= 1
        if length < 0:
            raise CgroupError(f"{self.paths[index]}/{name.decode()}", -length)
        return text[:length]

    def read(self, str file not None) -> bytes:
        """The first 64 KB of a file, "memory.usage_in_bytes". Raises CgroupError."""
        return self._read_from(self._place_of(file), file.encode())

    def read_all(self, tuple files not None) -> list[bytes | None]:
        """Each file's text in one go, 256 KB together at most; None for what is not there or not switched on.

        Raises:
            CgroupError: a file is there and cannot be read.
        """
        cdef int index, count = len(files)
        cdef char *text = <char *> malloc(READ_AT_ONCE)
        cdef int *directories = <int *> calloc(<size_t> count + 1, sizeof(int))
        cdef const char **names = <const char **> calloc(<size_t> count + 1, sizeof(char *))
        cdef long *lengths = <long *> calloc(<size_t> count + 1, sizeof(long))
        cdef long at = 0
        cdef list kept = [file.encode() for file in files], found = []
        try:
            if text is NULL or directories is NULL or names is NULL or lengths is NULL:
                raise MemoryError
            for index in range(count):
                place = self._find(files[index])
                names[index] = kept[index]
                directories[index] = self._places[<int> place].directory if place >= 0 else -1
            self._in_use += 1
            with nogil:
                read_files(directories, names, lengths, count, text, READ_AT_ONCE)
            self._in_use -= 1
            for index in range(count):
                if lengths[index] < 0 and lengths[index] not in (-ENOENT, -EOPNOTSUPP, -ENODEV):
                    raise CgroupError(files[index], -lengths[index])
                found.append(text[at:at + lengths[index]] if lengths[index] >= 0 else None)
                at += max(lengths[index], 0)
        finally:
            free(text)
            free(directories)
            free(names)
            free(lengths)
        return found

    def write(self, str file not None, bytes value not None) -> None:
        """Write a value to a file. Raises CgroupError."""
        cdef int error, index = self._place_of(file), directory = self._places[index].directory
        cdef bytes name = file.encode()
        cdef const char *each = name
        cdef const char *text = value
        cdef size_t length = len(value)
        self._in_use += 1
        with nogil:
            error = write_file(directory, each, text, length) if directory >= 0 else -ENOENT
        self._in_use -= 1
        if error < 0:
            raise CgroupError(f"{self.paths[index]}/{file}", -error, os.fsdecode(value))

    def _has(self, str controller) -> bool:
        return any([controller in names for names in self._controllers])

    def memory_peak(self) -> int | None:
        """Bytes that were held at once at most; None without a memory hierarchy. Raises CgroupError."""
        return int(self.read("memory.max_usage_in_bytes")) if self._has("memory") else None

    def oom_kills(self) -> int | None:
        """Processes that were killed for exceeding the memory limit, sub-cgroups' left out; None without a memory
        hierarchy. Raises CgroupError."""
        if not self._has("memory"):
            return None
        words = self.read("memory.oom_control").split()
        return int(words[words.index(b"oom_kill") + 1])

    def processes(self) -> list[int]:
        """The pids that are in it, in any hierarchy and at any depth; 0 stands for those of another pid namespace.

        Raises CgroupError.
        """
        cdef Numbers found
        cdef int error
        cdef long index
        found.items, found.count, found.room = NULL, 0, 0
        self._in_use += 1
        with nogil:
            error = collect_all(self._places, self._count, &found)
        self._in_use -= 1
        pids = sorted({found.items[index] for index in range(found.count)})
        free(found.items)
        if error < 0:
            raise CgroupError(self.paths[0], -error)
        return pids

    def kill(self, double timeout=5.0) -> None:
        """SIGKILL every process until none is left.

        Raises:
            CgroupError: EBUSY when some are left after `timeout` seconds, EDEADLK when this process is one of them.
        """
        cdef int error
        self._in_use += 1
        with nogil:
            error = kill_all(self._places, self._count, now_us() + <long> (timeout * 1000000))
        self._in_use -= 1
        if error < 0:
            raise CgroupError(self.paths[0], -error)

    def freeze(self) -> None:
        """Stop every process where it is.

        Raises:
            CgroupError: EBUSY when one does not stop within two seconds (then all go on), EDEADLK when this process is
                one of them, ENOENT without a freezer hierarchy.
        """
        cdef int error, index = self._place_of("freezer.state")
        cdef Place *place = &self._places[index]
        if os.getpid() in self.processes():
            raise CgroupError(self.paths[index], EDEADLK)
        self._in_use += 1
        with nogil:
            error = freeze_place(place, now_us() + PATIENCE_US) if place.directory >= 0 else -ENOENT
            if error == -EBUSY:
                write_file(place.directory, b"freezer.state", b"THAWED", 6)
        self._in_use -= 1
        if error < 0:
            raise CgroupError(f"{self.paths[index]}/freezer.state", -error, "FROZEN")

    def thaw(self) -> None:
        """Let them go on. Raises CgroupError."""
        self.write("freezer.state", b"THAWED")

    def destroy(self) -> None:
        """Remove it with all that was made below, and the parents that were made for it. What is missing is fine.

        Raises:
            CgroupError: EBUSY when processes are still in it; the other hierarchies are gone.
        """
        cdef int index, result, error = 0, at = 0
        cdef long deadline = now_us() + PATIENCE_US
        self.release_tasks()
        self._in_use += 1
        with nogil:
            for index in range(self._count):
                result = remove_place(&self._places[index], deadline)
                if result < 0:
                    at, error = index, result
        self._in_use -= 1
        if error < 0:
            raise CgroupError(self.paths[at], -error)
        if self._in_use == 0:
            self._close()
