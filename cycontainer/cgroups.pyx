"""A container's cgroups over its hierarchies: made, limited, read, frozen, killed, removed. Hot.

Each verb is one call with the GIL released, by descriptors only.
"""

from libc.stdlib cimport calloc, free

from cycontainer._cgroup_parts cimport (PATIENCE_US, Failure, Numbers, Place, Write, attach_devices, collect_all,
                                        freeze_place, kill_all, limit_all, make_all, now_us, open_directory, open_root,
                                        read_file, remove_all, remove_within, signal_all, thaw_place, thaw_tree,
                                        unmake_all, write_all, write_file)
from cycontainer._sys cimport EBUSY, EDEADLK, ENODEV, ENOENT, EOPNOTSUPP, EXDEV, close

import os

from cycontainer.cgroup_place import MEMORY_FILES as _MEMORY_FILES
from cycontainer.cgroup_place import V1_FROZEN as _V1_FROZEN
from cycontainer.cgroup_place import V2_FROZEN as _V2_FROZEN
from cycontainer.cgroup_place import check_path, hand_over
from cycontainer.errors import CgroupError

cdef tuple FREEZERS = (_V1_FROZEN[0], _V2_FROZEN[0])

cdef class Cgroup:
    """One container's cgroup, over all its hierarchies. Owns the descriptors of its directories.

    Attributes:
        paths: the directories, a path for each hierarchy.
        unified: all of it is in one cgroup v2 hierarchy.
        birthplace: descriptor of the v2 directory, for clone3; -1 without one.
        tasks: descriptors of v1's `tasks` files, open for the init to write "0" to; see `release_tasks`.
    """

    cdef readonly tuple paths, tasks
    cdef tuple _controllers, _texts
    cdef Place *_places
    cdef Write *_writes
    cdef int _count
    cdef int _in_use              # by how many calls without the GIL: another's descriptors are not closed
    cdef bint _updating
    cdef readonly bint unified
    cdef readonly int birthplace

    def __cinit__(self):
        self.paths, self.tasks, self._controllers, self._texts = (), (), (), ()
        self._places, self._writes, self._count, self._updating = NULL, NULL, 0, False
        self._in_use, self.unified, self.birthplace = 0, False, -1

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
        self.birthplace = -1

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
            place.late = "devices" in names
        self._count = len(paths)
        return 0

    cdef void _mark_unified(self, int index) noexcept:
        cdef Place *place = &self._places[index]
        place.unified = True
        place.cpuset = place.freezer = place.pids = place.late = False
        self.unified = self._count == 1

    cdef int _demand(self, tuple hierarchies) except -1:
        """What v2 is to do beside writing values; the texts are kept."""
        cdef Place *place
        cdef bytes wanted, needed, devices
        for index, hierarchy in enumerate(hierarchies):
            place = &self._places[<int> index]
            if not hierarchy.unified:
                continue
            self._mark_unified(<int> index)
            wanted, needed = " ".join(hierarchy.controllers).encode(), " ".join(hierarchy.needed).encode()
            devices = hierarchy.devices
            self._texts = (*self._texts, wanted, needed, devices)
            place.wanted, place.needed = wanted, needed
            if devices:
                place.devices, place.devices_length = devices, len(devices)
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
                each.instead = file[:1] == b"|"
                each.file, each.value, each.length = (<const char *> file) + each.instead, value, len(value)
                at += 1
        return 0

    cdef object _error(self, const Failure *failure, int code):
        path, value = self.paths[failure.place], None
        if failure.above >= 0:
            mount, path = self._texts[failure.place]
            path = os.fsdecode(mount + b"/" + path[:failure.above]).rstrip("/")
            value = (<const char *> failure.value).decode()
        if failure.file is not NULL:
            path = f"{path}/{failure.file.decode()}"
        if failure.write is not NULL:
            value = os.fsdecode(failure.write.value[:failure.write.length])
        return CgroupError(path, -code, value)

    @staticmethod
    def create(plan, tuple paths not None, *, bint occupied=False) -> Cgroup:
        """Make the cgroup, write its limits, open its `tasks` files. `paths`: below each hierarchy's mount.

        One that exists is taken over when no process is in it; with `occupied` with those that are, as systemd made it.

        Raises:
            ConfigError: a path could lead elsewhere.
            CgroupError: which file or directory refused which value; EBUSY when processes are in it. What was made is
                gone again, parents included; what was there has its old values (not v1's devices if all were allowed).
        """
        cdef Cgroup cgroup = Cgroup.__new__(Cgroup)
        cdef Failure failure
        cdef int error, index
        cdef dict before = {}
        cgroup._lay_out(plan.hierarchies, paths)
        wanted = {index: hierarchy.writes for index, hierarchy in enumerate(plan.hierarchies)}
        cgroup._fill_in(wanted)
        cgroup._demand(plan.hierarchies)
        for index in range(cgroup._count):
            cgroup._places[index].occupied = occupied
        with nogil:
            error = make_all(cgroup._places, cgroup._count, &failure)
        if error >= 0:
            before = cgroup._values_before(wanted)
            with nogil:
                error = limit_all(cgroup._places, cgroup._count, &failure)
        if error < 0:
            from cycontainer.cgroup_restore import put_back

            raise put_back(cgroup, before, cgroup._error(&failure, error))
        cgroup.tasks = tuple([cgroup._places[index].tasks for index in range(cgroup._count)
                              if not cgroup._places[index].unified])
        cgroup._settle(plan.hierarchies)
        return cgroup

    cdef dict _values_before(self, dict wanted):
        """What puts back the values of those that we did not make; else what we have made is gone again."""
        cdef int index
        existing = {index: wanted[index] for index in range(self._count) if not self._places[index].made}
        if not any(existing.values()):
            return {}
        from cycontainer.cgroup_restore import values_before

        try:
            return values_before(self, existing)
        except BaseException:
            unmake_all(self._places, self._count)
            raise

    cdef int _settle(self, tuple hierarchies) except -1:
        """Where a process may be born, and to whom v2's part is handed."""
        cdef int index
        for index in range(self._count):
            if not self._places[index].unified:
                continue
            self.birthplace = self._places[index].directory
            if hierarchies[index].owner is not None:
                try:
                    hand_over(self.birthplace, self.paths[index], hierarchies[index].owner)
                except CgroupError:
                    self.destroy()
                    raise
        return 0

    @staticmethod
    def open(tuple hierarchies not None, tuple paths not None) -> Cgroup:
        """One that exists. Where it is missing, or a part of it, there is nothing to kill and nothing to remove.

        `hierarchies`: mount and controllers of each, of a CgroupPlan, a CgroupLayout or a State.

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
            if error == 1:
                cgroup._mark_unified(index)
            error = open_directory(cgroup._places[index].root, cgroup._places[index].path)
            cgroup._places[index].directory = max(error, -1)
            if error < 0 and error != -ENOENT:
                raise CgroupError(cgroup.paths[index], -error)
            if cgroup._places[index].unified:
                cgroup.birthplace = cgroup._places[index].directory
        return cgroup

    def attach(self, int pid) -> None:
        """Move a process into it, in one hierarchy after the other. The first write after a rest waits for the kernel,
        10 ms. Raises CgroupError."""
        for index in range(self._count):
            self._write_to(index, b"cgroup.procs", str(pid).encode())

    def release_tasks(self) -> None:
        """Close the `tasks` descriptors: the init has its own."""
        cdef int index
        for index in range(self._count):
            if self._places[index].tasks >= 0:
                close(self._places[index].tasks)
            self._places[index].tasks = -1
        self.tasks = ()

    def update(self, plan, beside=None) -> None:
        """Write other limits, all of them or none. A hierarchy that the plan leaves out stays as it is. When they are
        written, `beside` is called, and after it they are written once more; what it raises undoes them.

        Raises:
            CgroupError: which file refused which value; what was there before is put back. What cannot be put back is
                a note on it. ENOENT: the container has no cgroup in a hierarchy of the plan.
        """
        from cycontainer.cgroup_restore import update     # a container is seldom updated

        if self._updating:                    # by another thread, which reads what would be freed now
            raise CgroupError(self.paths[0], EBUSY)
        self._updating = True
        try:
            update(self, plan, beside)
        finally:
            self._updating = False

    def replace_devices(self, int index, bytes program not None) -> None:
        """Of v2: the program takes the place of the one before, or nothing is changed. Raises CgroupError."""
        cdef int error, directory = self._places[index].directory if 0 <= index < self._count else -1
        cdef const char *text = program
        cdef size_t length = len(program)
        self._in_use += 1
        with nogil:
            error = attach_devices(directory, text, length)
        self._in_use -= 1
        if error < 0:
            raise CgroupError(f"{self.paths[index]} (its device program)", -error)

    def index_of(self, str mount not None) -> int:
        """Which of `paths` is in a hierarchy, by where that is mounted. Raises CgroupError: ENOENT."""
        mounts = [each[0] for each in self._texts[:self._count]]
        index = mounts.index(os.fsencode(mount)) if os.fsencode(mount) in mounts else -1
        if index < 0 or self._places[<int> index].directory < 0:
            raise CgroupError(mount, ENOENT)
        return index

    def write_all(self, dict wanted not None) -> None:
        """Write values: {index in `paths`: ((file, value), ...)}. Raises CgroupError; those before keep theirs."""
        cdef Failure failure
        cdef int index, error = 0
        self._fill_in(wanted)
        self._in_use += 1
        with nogil:
            for index in range(self._count):
                failure.place, failure.file, failure.write, failure.above = index, NULL, NULL, -1
                error = write_all(&self._places[index], &failure) if self._places[index].directory >= 0 else -ENOENT
                if error < 0:
                    break
        self._in_use -= 1
        if error < 0:
            raise self._error(&failure, error)

    cdef int _find(self, str file) except -2:
        """The hierarchy that has a file, by the controller in its name, or -1; any has `tasks` and `cgroup.procs`."""
        cdef int index
        controller = file.partition(".")[0]
        if "/" in file or "\0" in file or file in ("", ".", ".."):
            raise ValueError(f"{file!r} is no file of a cgroup")
        for index in range(self._count):
            if controller in self._controllers[index] or file in ("tasks", "cgroup.procs"):
                return index
        return self._count - 1 if self._count and self._places[self._count - 1].unified else -1

    cdef int _place_of(self, str file) except -1:
        cdef int index = self._find(file)
        if index < 0:
            raise CgroupError(file, ENOENT)
        return index

    cdef long _get(self, int index, bytes name, char *text, size_t room) except? -1:
        """A file's length, or a negative errno."""
        cdef int directory = self._places[index].directory if 0 <= index < self._count else -1
        cdef const char *each = name
        cdef long length
        self._in_use += 1
        with nogil:
            length = read_file(directory, each, text, room) if directory >= 0 else -ENOENT
        self._in_use -= 1
        return length

    def read_from(self, int index, bytes name not None) -> bytes:
        """The first 64 KB of a file in one of `paths`. Raises CgroupError."""
        cdef char text[65536]
        cdef long length = self._get(index, name, text, sizeof(text))
        if length < 0:
            raise CgroupError(f"{self.paths[index]}/{name.decode()}", -length)
        return text[:length]

    def read(self, str file not None) -> bytes:
        """The first 64 KB of a file, "memory.usage_in_bytes". Raises CgroupError."""
        return self.read_from(self._place_of(file), file.encode())

    def read_all(self, tuple files not None) -> list[bytes | None]:
        """The first 64 KB of each file; None for what is not there or not switched on. Raises CgroupError."""
        return [self._read_if_there(file) for file in files]

    cdef bytes _read_if_there(self, str file):
        """Without an exception for what is not there: that would cost as much as the rest."""
        cdef char text[65536]
        cdef int place = self._find(file)
        cdef long length = self._get(place, file.encode(), text, sizeof(text))
        if length >= 0:
            return text[:length]
        if length == -ENOENT or length == -EOPNOTSUPP or length == -ENODEV:
            return None
        raise CgroupError(f"{self.paths[place]}/{file}", -length)

    def write(self, str file not None, bytes value not None) -> None:
        """Write a value to a file. Raises CgroupError."""
        self._write_to(self._place_of(file), file.encode(), value)

    cdef int _write_to(self, int index, bytes name, bytes value) except -1:
        cdef int error, directory = self._places[index].directory
        cdef const char *each = name
        cdef const char *text = value
        cdef size_t length = len(value)
        self._in_use += 1
        with nogil:
            error = write_file(directory, each, text, length) if directory >= 0 else -ENOENT
        self._in_use -= 1
        if error < 0:
            raise CgroupError(f"{self.paths[index]}/{name.decode()}", -error, os.fsdecode(value))
        return 0

    def memory_report(self) -> tuple[int | None, int | None]:
        """Bytes that were held at once at most, and processes that were killed for exceeding the limit.

        None for what the kernel does not tell: without a memory controller, and of the peak on v2 before Linux 5.19.
        v1 leaves the kills in sub-cgroups out. Raises CgroupError.
        """
        cdef int index = self._find("memory.")
        if index < 0 or self._places[index].directory < 0:
            return None, None
        peak, events = self.read_all(_MEMORY_FILES[self._places[index].unified])
        words = (events or b"").split()
        return int(peak) if peak else None, int(words[words.index(b"oom_kill") + 1]) if words else None

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
        pids = [found.items[index] for index in range(found.count)]
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

    def signal(self, int number) -> None:
        """Send a signal to every process, once: to those too that are forked meanwhile.

        Raises:
            CgroupError: EDEADLK when this process is one of them, EXDEV when one lives in another pid namespace (but
                for SIGKILL on v2). Nobody has got it.
            OSError: EPERM when one was refused, EBUSY when for two seconds new ones begin faster than they get it.
        """
        cdef int error
        self._in_use += 1
        with nogil:
            error = signal_all(self._places, self._count, number)
        self._in_use -= 1
        if error in (-EDEADLK, -EXDEV):
            raise CgroupError(self.paths[0], -error)
        if error < 0:
            raise OSError(-error, os.strerror(-error))

    def freeze(self) -> None:
        """Stop every process where it is.

        Raises:
            CgroupError: all go on. EBUSY when one does not stop within two seconds, EDEADLK when this process is
                one of them, ENOENT without a freezer hierarchy.
        """
        cdef int error, index = self._freezer()
        cdef Place *place = &self._places[index]
        if os.getpid() in self.processes():
            raise CgroupError(self.paths[index], EDEADLK)
        self._in_use += 1
        with nogil:
            error = freeze_place(place, now_us() + PATIENCE_US) if place.directory >= 0 else -ENOENT
        self._in_use -= 1
        if error < 0:
            raise CgroupError(f"{self.paths[index]}/{FREEZERS[place.unified]}", -error, "1")

    cdef int _freezer(self) except -1:
        """The place that can freeze: v1's freezer, else v2's."""
        cdef int index
        for index in range(self._count):
            if self._places[index].directory >= 0 and (self._places[index].unified or self._places[index].freezer):
                return index
        raise CgroupError(FREEZERS[0], ENOENT)

    def thaw(self, *, bint below=False) -> None:
        """Let them go on; of one that is gone, nobody waits. `below`: what the container has frozen itself (v1), too.

        Raises CgroupError.
        """
        cdef int error, index = self._freezer()
        cdef Place *place = &self._places[index]
        self._in_use += 1
        with nogil:
            error = thaw_tree(place.directory) if below and place.freezer else thaw_place(place)
        self._in_use -= 1
        if error < 0 and error != -ENOENT and error != -ENODEV:
            raise CgroupError(f"{self.paths[index]}/{FREEZERS[place.unified]}", -error, "0")

    def destroy(self, *, int within=-1) -> None:
        """Remove it with all that was made below, and the parents that were made for it. What is missing is fine.

        `within`: descriptor of a user namespace whose users may have made what is below (v2).

        Raises:
            CgroupError: EBUSY when processes are still in it; the other hierarchies are gone.
        """
        cdef int error = 0, at = 0
        self.release_tasks()
        self._in_use += 1
        with nogil:
            if within >= 0:
                remove_within(self._places, self._count, within)
            error = remove_all(self._places, self._count, &at)
        self._in_use -= 1
        if error < 0:
            raise CgroupError(self.paths[at], -error)
        if self._in_use == 0:
            self._close()
