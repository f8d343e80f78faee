"""Lets the n-th system call of one process of a launch fail, or kills that process in front of it: ptrace(2).

As SQLite does it: n = 1, 2, 3 ... until there is no n-th, and each time one looks at what came of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import platform
import signal
import warnings
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple, NoReturn

from guard import children, descriptors

AVAILABLE = platform.machine() == "x86_64"  # the registers are this machine's
KEPT_FOR_LIFE = "/mountinfo"
PATIENCE = 15  # seconds that one launch may take, whatever fails
KILLED, INTERRUPTED = -signal.SIGKILL, -signal.SIGINT  # as faults

PTRACE_TRACEME, PTRACE_POKEUSER, PTRACE_CONT, PTRACE_SYSCALL = 0, 6, 7, 24
PTRACE_SETOPTIONS, PTRACE_GETEVENTMSG, PTRACE_GET_SYSCALL_INFO = 0x4200, 0x4201, 0x420E
FORKED, VFORKED, CLONED, EXECUTED = 1, 2, 3, 4  # PTRACE_EVENT_*
OPTIONS = 1 | 1 << EXECUTED | 1 << 20  # PTRACE_O_TRACESYSGOOD, TRACEEXEC, EXITKILL
FOLLOW = 1 << FORKED | 1 << VFORKED | 1 << CLONED
SYSCALL_STOP = signal.SIGTRAP | 0x80
WALL = 0x40000000
RAX, ORIG_RAX = 10 * 8, 15 * 8

CLOSE, RT_SIGRETURN, GETPID, EXIT, KILL, UMASK, FUTEX, EXIT_GROUP = 3, 15, 39, 60, 62, 95, 202, 231
IDS = {102, 104, 107, 108}  # getuid, getgid, geteuid, getegid
CANNOT_FAIL = {RT_SIGRETURN, GETPID, EXIT, UMASK, FUTEX, EXIT_GROUP, *IDS}
FAILS_WHEN_DONE = {CLOSE}  # the descriptor is gone whatever close(2) says

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class SyscallInfo(ctypes.Structure):
    """struct ptrace_syscall_info: op is 1 in front of the call and 2 behind it; number only in front."""

    _fields_ = [
        ("op", ctypes.c_uint8),
        ("arch", ctypes.c_uint32),
        ("pointers", ctypes.c_uint64 * 2),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    ]


class Outcome(NamedTuple):
    """What came of a launch of which one system call failed.

    Attributes:
        call: the number of the system call; -1 when there was no n-th.
        value, error: what the function returned or raised; None and None when its process was killed.
        left: the descriptors that it left open, and its children.
        hung: it had not ended in time.
    """

    call: int
    value: object
    error: BaseException | None
    left: list[str]
    hung: bool


def ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    """ptrace(2); a process that has just been killed is no error: waitpid tells of it."""
    result: int = _libc.ptrace(request, pid, address, data)
    if result < 0 and ctypes.get_errno() != errno.ESRCH:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")
    return result


class Trial:
    """One call of `function`, which launches, in a forked child; its `n`-th system call fails.

    Args:
        role: whose call: 0 is the launching thread, 1 the first process that it makes, and so on by birth.
        n: from 1; system calls that cannot fail are not counted, nor what the program does after its execve.
        fault: an errno, or minus a signal's number, which the process gets in front of the call.
        prepare: called before counting begins.
        follow: trace its children, and wait for their end; else they may live on.
        programs: the paths of those that `function` executes, one by the other, whose calls count, too.
    """

    def __init__(
        self,
        function: Callable[[], object],
        role: int,
        n: int,
        fault: int,
        prepare: Callable[[], object] | None = None,
        *,
        follow: bool = True,
        programs: tuple[str, ...] = (),
    ) -> None:
        self.programs = programs
        self.options = OPTIONS | (FOLLOW if follow else 0)
        self.function, self.role, self.left_to_count, self.fault, self.prepare = function, role, n, fault, prepare
        self.roles: dict[int, int] = {}  # pid: role
        self.gone: set[int] = set()
        self.early: dict[int, int] = {}  # pid: wait status of a process whose birth we have not heard of yet
        self.born = 1  # the role of the next
        self.armed = False
        self.call = -1
        self.failing = 0  # the process that stands in the call that is to fail
        self.info = SyscallInfo()

    def run(self) -> Outcome:
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: of threads at fork
            driver = os.fork()
        if driver == 0:
            self._be_traced(writer)
        os.close(writer)
        self.roles[driver] = 0
        hung = self._trace_all(driver)
        with open(reader, "rb") as pipe:
            answer = pipe.read()
        value, error, left = pickle.loads(answer) if answer else (None, None, [])
        return Outcome(self.call, value, error, left, hung)

    def _be_traced(self, writer: int) -> NoReturn:
        """In the child; SIGSTOP says where counting begins and ends."""
        try:
            ptrace(PTRACE_TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)  # lets the tracer set its options
            if self.prepare is not None:
                self.prepare()
            before, value, error = descriptors() | children(), None, None
            try:
                os.kill(os.getpid(), signal.SIGSTOP)
                try:
                    value = self.function()
                finally:
                    os.kill(os.getpid(), signal.SIGSTOP)
            except BaseException as failure:
                error = failure.with_traceback(None)
                error.__context__ = None
            left = {each for each in (descriptors() | children()) - before if not each.endswith(KEPT_FOR_LIFE)}
            with open(writer, "wb") as pipe:
                pipe.write(pickle.dumps((value, error, sorted(left))))
        finally:
            os._exit(0)

    def _trace_all(self, driver: int) -> bool:
        """Until every traced process has ended. Returns whether it had to be ended by us."""
        hung = False

        def too_late(_number: int, _frame: FrameType | None) -> None:
            nonlocal hung
            hung = True
            for pid in self.roles:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue

        handler = signal.signal(signal.SIGALRM, too_late)
        signal.alarm(PATIENCE)
        stops = 0
        try:
            while self.roles:
                pid, status = os.waitpid(-1, WALL)
                if pid == driver and os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGSTOP:
                    stops += 1
                    self.armed = stops == 2
                    if stops == 1:
                        ptrace(PTRACE_SETOPTIONS, pid, 0, self.options)
                if pid in self.roles:
                    self._hear(pid, status)
                    continue
                self.early[pid] = status
                if self.call >= 0:  # its parent may have been killed before it could tell of it
                    self._know(pid)
        except ChildProcessError:
            pass  # all are gone: one was heard of twice
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, handler)
        return hung

    def _hear(self, pid: int, status: int) -> None:
        """What waitpid said of a process that we know."""
        if os.WIFSTOPPED(status):
            self._go_on(pid, self._look(pid, os.WSTOPSIG(status), status >> 16))
        else:
            del self.roles[pid]
            self.gone.add(pid)

    def _know(self, pid: int) -> None:
        """A new process: the next role is its."""
        if pid in self.gone:
            return  # known and gone before its parent told of it
        if pid not in self.roles:
            self.roles[pid] = self.born
            self.born += 1
        if pid in self.early:
            self._hear(pid, self.early.pop(pid))

    def _look(self, pid: int, number: int, event: int) -> int:
        """At a process that has stopped. Returns the signal that it is to get."""
        if event in (FORKED, VFORKED, CLONED):
            born = ctypes.c_ulong()
            ptrace(PTRACE_GETEVENTMSG, pid, 0, ctypes.addressof(born))
            self._know(born.value)
        elif event == EXECUTED:
            if self.roles.get(pid) == self.role and not is_init(pid) and not self._is_program(pid):
                self.armed = False  # that is the program, and no longer ours
        elif number == SYSCALL_STOP:
            self._at_call(pid)
        elif number not in (signal.SIGSTOP, signal.SIGTRAP):
            return number
        return 0

    def _is_program(self, pid: int) -> bool:
        return bool(self.programs) and os.readlink(f"/proc/{pid}/exe") in self.programs

    def _at_call(self, pid: int) -> None:
        ptrace(PTRACE_GET_SYSCALL_INFO, pid, ctypes.sizeof(self.info), ctypes.addressof(self.info))
        if self.failing == pid and self.info.op == 2:
            ptrace(PTRACE_POKEUSER, pid, RAX, -self.fault & 0xFFFFFFFFFFFFFFFF)
            self.failing = 0
        if self.call >= 0 or self.info.op != 1 or self.info.number in CANNOT_FAIL:
            return
        if self.info.number == KILL and self.info.arguments[1] == signal.SIGSTOP:
            return  # our own sign
        self.left_to_count -= 1
        if self.left_to_count == 0:
            self.call = self.info.number
            if self.fault < 0:
                os.kill(pid, -self.fault)
                return
            self.failing = pid
            if self.call not in FAILS_WHEN_DONE:
                ptrace(PTRACE_POKEUSER, pid, ORIG_RAX, 0xFFFFFFFFFFFFFFFF)

    def _go_on(self, pid: int, number: int) -> None:
        counting = self.armed and self.call < 0 and self.roles.get(pid) == self.role
        ptrace(PTRACE_SYSCALL if counting or self.failing == pid else PTRACE_CONT, pid, 0, number)


def is_init(pid: int) -> bool:
    return os.readlink(f"/proc/{pid}/exe").startswith("/memfd:cycontainer-init")
