"""A seccomp supervisor: Python callables that answer chosen system calls of a container. Lifecycle.

The calls wait in the kernel, and a thread of ours takes them one by one. Source: seccomp_unotify(2).
"""

from __future__ import annotations

import errno
import os
import select

from cycontainer import _listener
from cycontainer._seccomp import call_names
from cycontainer.errors import CallGone, ConfigError
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
            return _listener.get_descriptor(pidfd, number)
        finally:
            os.close(pidfd)


def _process_of(thread: int) -> int:
    """The pid of a thread's process: pidfd_open takes no other before Linux 6.9."""
    with open(f"/proc/{thread}/status") as status:
        return next(int(line[5:]) for line in status if line.startswith("Tgid:"))


class Supervisor:
    """Answers the system calls of one container. `begin` once, `close` in any case.

    Attributes:
        calls: the names of the system calls that are answered.
        error: what a callable has raised; from then on every call fails with EPERM.
    """

    def __init__(self, callables: Mapping[str, Callable[[Call], Answer]], machine: str) -> None:
        """Raises ConfigError: a name is no system call's."""
        self.calls, self.error = tuple(callables), None
        self._callables = dict(callables)
        try:
            self._names = call_names(self.calls, machine)
        except KeyError as unknown:
            raise ConfigError("supervisor", f"{unknown.args[0]} is no system call of {machine}") from None
        self._listener = self._stop = -1
        self._thread: threading.Thread | None = None

    error: BaseException | None

    def begin(self, listener: int, on_error: Callable[[], None]) -> None:
        """Answer from now on, in a thread, until the last process of the container has ended.

        Args:
            listener: of the container's filter; it becomes this object's.
            on_error: called in the thread when a callable has raised: to end the container.
        """
        import threading

        self._listener, self._stop = listener, os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(
            target=self._serve, args=(on_error,), name="cycontainer supervisor", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Answer nothing any more: what still waits, or comes, fails with ENOSYS."""
        if self._thread is None:
            return
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self._thread = None
        os.close(self._listener)
        os.close(self._stop)

    def raise_error(self) -> None:
        """Raise what a callable has raised, if one has."""
        if self.error is not None:
            raise self.error

    def _serve(self, on_error: Callable[[], None]) -> None:
        watch = select.poll()
        watch.register(self._listener, select.POLLIN)
        watch.register(self._stop, select.POLLIN)
        while True:
            events = dict(watch.poll())
            if self._stop in events or not events[self._listener] & select.POLLIN:
                return  # POLLHUP: nobody has the filter any more
            received = _listener.receive(self._listener)
            if received is None:
                continue
            if self.error is None:
                with _Kept(self):
                    self._ask(received)
                if self.error is None:
                    continue
                on_error()
            self._answer(received[0], Errno(code=errno.EPERM))

    def _ask(self, received: tuple[int, int, int, int, tuple[int, ...]]) -> None:
        """Answer one call as its callable says. What i386 hides in `socketcall` and `ipc` is refused."""
        name = self._names.get(received[2:4], "")
        try:
            call = Call(self._listener, name, received)
            self._answer(received[0], self._callables[name](call) if name else Errno(code=errno.ENOSYS))
        except CallGone:
            return

    def _answer(self, call: int, answer: Answer) -> None:
        if isinstance(answer, Continue):
            _listener.let_go_on(self._listener, call)
        elif isinstance(answer, Errno):
            _listener.answer(self._listener, call, 0, answer.code)
        elif isinstance(answer, Value):
            _listener.answer(self._listener, call, answer.number, 0)
        elif isinstance(answer, Descriptor):
            self._give(call, answer)
        else:
            raise TypeError(f"a supervisor's callable must return Continue, Errno, Value or Descriptor, not {answer!r}")

    def _give(self, call: int, answer: Descriptor) -> None:
        try:
            _listener.add_descriptor(self._listener, call, answer.fd, answer.close_on_exec)
        except OSError as error:
            if error.errno == errno.EBADF:
                raise  # it is none of ours
            _listener.answer(self._listener, call, 0, error.errno or errno.EIO)  # EMFILE: the caller has too many


class _Kept:
    """What is raised in the block is kept, to be raised where someone waits for it."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self._supervisor.error = error
        return error is not None
