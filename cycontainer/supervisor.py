"""A seccomp supervisor: Python callables that answer chosen system calls of a container. Lifecycle.

The calls wait in the kernel, and a thread of ours takes them one by one. Source: seccomp_unotify(2).
"""

from __future__ import annotations

import errno
import os
import select

from cycontainer import _listener
from cycontainer._fd import close_all
from cycontainer._seccomp import call_names
from cycontainer.errors import CallGone, ConfigError, Error
from cycontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping
    from typing import Final

PAGE: Final = 4096
PATH_MAX: Final = 4096


class Continue(Record):
    """The kernel carries the call out, as if nobody had been asked.

    Never to enforce anything: after the callable has looked at the caller's memory, another thread of the container
    may change it before the kernel looks. What must not happen takes an errno.
    """


class Errno(Record):
    """The call fails with the errno `code`, positive."""

    code: int


class Value(Record):
    """The call is not carried out, and returns `number`."""

    number: int


class Descriptor(Record):
    """The caller gets a duplicate of our descriptor `fd`, and the call returns its number there.

    With `close_on_exec`, the caller's next execve closes it.
    """

    fd: int
    close_on_exec: bool = True


Answer = Continue | Errno | Value | Descriptor


class Call:
    """A system call that waits for its answer.

    Attributes:
        name: of the system call.
        args: its six arguments as the kernel has them: unsigned, pointers as addresses in the caller's memory.
        pid: of the calling thread, in our pid namespace.
        architecture: AUDIT_ARCH_* of linux/audit.h.
    """

    def __init__(self, listener: int, name: str, received: tuple[int, int, int, int, tuple[int, ...]]) -> None:
        self._listener = listener
        self._id, self.pid, self.architecture, self.number, self.args = received
        self.name = name

    def __repr__(self) -> str:
        return f"Call({self.name}, pid={self.pid}, args={self.args})"

    def is_waiting(self) -> bool:
        """Whether the caller still waits. If not, its pid may be another's by now."""
        return _listener.is_waiting(self._listener, self._id)

    def check(self) -> None:
        """Raises CallGone when nobody waits any more."""
        if not self.is_waiting():
            raise CallGone(self.name)

    def _read(self, memory: int, address: int, size: int) -> bytes:
        if address >= 1 << 63:
            raise OSError(errno.EFAULT, "no address of a program")
        data = os.pread(memory, size, address)
        self.check()  # else it may be what the caller, already elsewhere, has put there since
        return data

    def _open_memory(self) -> int:
        try:
            memory = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            raise CallGone(self.name) from None
        except PermissionError:  # one that has exited belongs to root until it is reaped
            self.check()
            raise
        if not self.is_waiting():
            os.close(memory)
            raise CallGone(self.name)
        return memory  # of the caller: it has waited since before this was opened

    def read(self, address: int, size: int) -> bytes:
        """What stands in the caller's memory, up to `size` bytes; fewer where it ends.

        Raises:
            OSError: EIO, EFAULT: there is nothing.
            CallGone: nobody waits for the answer any more.
        """
        memory = self._open_memory()
        try:
            return self._read(memory, address, size)
        finally:
            os.close(memory)

    def text(self, address: int, most: int = PATH_MAX) -> bytes:
        """A string in the caller's memory without its NUL.

        Raises:
            OSError: as `read`; ENAMETOOLONG: it has no NUL among `most` bytes.
            CallGone: as `read`.
        """
        memory = self._open_memory()
        data = b""
        try:
            while len(data) < most:
                start = address + len(data)
                part = self._read(
                    memory, start, min(PAGE - start % PAGE, most - len(data))
                )  # the next page may be none
                before, end, _ = part.partition(b"\0")
                data += before
                if end or not part:
                    return data
        finally:
            os.close(memory)
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))

    def descriptor(self, number: int) -> int:
        """A duplicate of the caller's descriptor, close-on-exec, which is yours. pidfd_getfd(2).

        Raises:
            OSError: EBADF: it has none of that number.
            CallGone: nobody waits for the answer any more.
        """
        try:
            pidfd = os.pidfd_open(_process_of(self.pid))
        except (FileNotFoundError, ProcessLookupError):
            raise CallGone(self.name) from None
        try:
            self.check()
            number &= 0xFFFFFFFF  # what the kernel reads of it
            if number >> 31:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            return _listener.get_descriptor(pidfd, number)
        finally:
            os.close(pidfd)


def _process_of(thread: int) -> int:
    """The pid of a thread's process: pidfd_open takes no other before Linux 6.9."""
    with open(f"/proc/{thread}/status") as status:
        return next(int(line[5:]) for line in status if line.startswith("Tgid:"))


class Supervisor:
    """Answers the system calls of one container, whose processes may have several filters. `close` in any case.

    Attributes:
        calls: the names of the system calls that are answered.
        error: what a callable has raised; from then on every call fails with EPERM.
    """

    def __init__(self, callables: Mapping[str, Callable[[Call], Answer]]) -> None:
        """Raises ConfigError: a name is no system call's."""
        import threading

        self.calls, self.error = tuple(callables), None
        self._callables = dict(callables)
        try:
            self._names = call_names(self.calls, os.uname().machine)
        except KeyError as unknown:
            raise ConfigError("supervisor", f"{unknown.args[0]} is no system call here") from None
        self._lock = threading.Lock()
        self._listeners: dict[int, Callable[[], None]] = {}  # and what ends the container
        self._wake = -1
        self._thread: threading.Thread | None = None

    error: BaseException | None

    def begin(self, listener: int, on_error: Callable[[], None]) -> None:
        """Answer this filter from now on, in a thread, until the last process that has it has ended.

        Args:
            listener: of the filter; it stays the caller's.
            on_error: called in the thread when a callable has raised: to end the container.
        """
        import threading

        with self._lock:
            self._listeners[os.dup(listener)] = on_error
            if self._thread is not None:
                os.eventfd_write(self._wake, 1)
                return
            if self._wake < 0:
                self._wake = os.eventfd(0, os.EFD_CLOEXEC)
            self._thread = threading.Thread(target=self._serve, name="cycontainer supervisor", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Answer nothing any more: what still waits, or comes, fails with ENOSYS."""
        with self._lock:
            thread, ours = self._thread, list(self._listeners)
            self._listeners.clear()
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)
        if thread is not None:
            thread.join()
        close_all(ours)
        if self._wake >= 0:
            os.close(self._wake)
        self._wake = -1

    def raise_error(self) -> None:
        """Raise what a callable has raised, if one has."""
        if self.error is not None:
            raise self.error

    def _watched(self) -> list[int]:
        """The listeners; when there are none left, the thread is over."""
        with self._lock:
            if not self._listeners:
                self._thread = None
            return list(self._listeners)

    def _serve(self) -> None:
        while listeners := self._watched():
            watch = select.poll()
            for fd in (*listeners, self._wake):
                watch.register(fd, select.POLLIN)
            events = dict(watch.poll())
            if events.pop(self._wake, 0):
                os.eventfd_read(self._wake)
                continue
            for listener, event in events.items():
                if event & select.POLLIN:
                    self._take(listener)
                else:
                    self._drop(listener)  # POLLHUP: nobody has the filter any more

    def _drop(self, listener: int) -> None:
        with self._lock:
            ours = self._listeners.pop(listener, None) is not None
        if ours:
            os.close(listener)

    def _take(self, listener: int) -> None:
        received = _listener.receive(listener)
        if received is None:
            return
        if self.error is None:
            with _Kept(self):
                self._ask(listener, received)
            if self.error is None:
                return
            self._end(listener)
        self._answer(listener, received[0], Errno(code=errno.EPERM))

    def _end(self, listener: int) -> None:
        """End the container; what goes wrong with that is a note on what a callable has raised."""
        with self._lock:
            end = self._listeners.get(listener)
        try:
            if end is not None:
                end()
        except (OSError, Error) as failure:
            assert self.error is not None
            self.error.add_note(f"could not end the container: {failure}")

    def _ask(self, listener: int, received: tuple[int, int, int, int, tuple[int, ...]]) -> None:
        """Answer one call as its callable says. What i386 hides in `socketcall` and `ipc` is refused."""
        name = self._names.get(received[2:4], "")
        try:
            call = Call(listener, name, received)
            self._answer(listener, received[0], self._callables[name](call) if name else Errno(code=errno.ENOSYS))
        except CallGone:
            return

    def _answer(self, listener: int, call: int, answer: Answer) -> None:
        if isinstance(answer, Continue):
            _listener.let_go_on(listener, call)
        elif isinstance(answer, Errno):
            _listener.answer(listener, call, 0, answer.code)
        elif isinstance(answer, Value):
            _listener.answer(listener, call, answer.number, 0)
        elif isinstance(answer, Descriptor):
            _give(listener, call, answer)
        else:
            raise TypeError(f"a supervisor's callable must return Continue, Errno, Value or Descriptor, not {answer!r}")


def _give(listener: int, call: int, answer: Descriptor) -> None:
    try:
        _listener.add_descriptor(listener, call, answer.fd, answer.close_on_exec)
    except OSError as error:
        if error.errno == errno.EBADF:
            raise  # it is none of ours
        _listener.answer(listener, call, 0, error.errno or errno.EIO)  # EMFILE: the caller has too many


class _Kept:
    """What is raised in the block is kept, to be raised where someone waits for it."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self._supervisor.error = error
        return error is not None
