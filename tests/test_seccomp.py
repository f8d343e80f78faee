"""Filters: what the kernel does with them, and that they say what their rules say."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from cycontainer._seccomp import compile_filter, filter_flags, version
from cycontainer.config import Seccomp, SyscallArgument, SyscallRule
from cycontainer.errors import ConfigError, HostError
from cycontainer.seccomp_profile import DEFAULT

MACHINE = os.uname().machine
x86_64_only = pytest.mark.skipif(MACHINE != "x86_64", reason="numbers of x86_64")

X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7  # AUDIT_ARCH_*, linux/audit.h
X32 = 0x40000000
ALLOW, LOG, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x7FFC0000, 0x00050000, 0x80000000
GETPPID, GETUID, SOCKET, CLONE, CLONE3, PERSONALITY = 110, 102, 41, 56, 435, 135
PR_SET_NO_NEW_PRIVS, SET_MODE_FILTER, SECCOMP = 38, 1, {"x86_64": 317, "aarch64": 277}

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


def rule(names: str, action: str = "ERRNO", number: int | None = None, *args: SyscallArgument) -> SyscallRule:
    return SyscallRule(names=tuple(names.split()), action=f"SCMP_ACT_{action}", errno=number, args=args)


def where(index: int, op: str, value: int, value_two: int = 0) -> SyscallArgument:
    return SyscallArgument(position=index, op=f"SCMP_CMP_{op}", value=value, value_two=value_two)


def denies(*rules: SyscallRule, **fields: object) -> Seccomp:
    """A filter that allows what no rule speaks of."""
    return Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=rules, **fields)  # type: ignore[arg-type]  # by name


def allows(*rules: SyscallRule, **fields: object) -> Seccomp:
    """A filter that refuses what no rule speaks of."""
    return Seccomp(default_action="SCMP_ACT_ERRNO", syscalls=rules, **fields)  # type: ignore[arg-type]  # by name


# --- the kernel's answers


def load(seccomp: Seccomp) -> int:
    """Load a filter into this process; what seccomp(2) returns, or minus the errno."""
    program = compile_filter(seccomp, MACHINE)
    described = struct.pack("HxxxxxxP", len(program) // 8, ctypes.cast(ctypes.c_char_p(program), ctypes.c_void_p).value)
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return call(SECCOMP[MACHINE], SET_MODE_FILTER, filter_flags(seccomp), described)


def call(number: int, *args: object) -> int:
    """A system call's result, or minus its errno. The arguments are the whole registers'."""
    whole = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in args]
    result: int = LIBC.syscall(ctypes.c_long(number), *whole)
    return -ctypes.get_errno() if result == -1 else result


def under(seccomp: Seccomp, act: Callable[[], int]) -> int:
    """What `act` returns in a process under a filter; or 1000 and the number of the signal that killed it."""
    compile_filter(seccomp, MACHINE)  # so that an error is raised here
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            loaded = load(seccomp)
            os.write(writer, struct.pack("q", act() if loaded >= 0 else 10000 - loaded))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        answer = answers.read()
    _, status = os.waitpid(child, 0)
    return 1000 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else int(struct.unpack("q", answer)[0])


@pytest.mark.parametrize("number", [None, 0, 1, 5, 4094])
def test_a_refused_call_fails_with_the_errno_asked_for(number: int | None) -> None:
    expected = -errno.EPERM if number is None else -number
    assert under(denies(rule("getppid", "ERRNO", number)), lambda: call(sysno("getppid"))) == expected


def test_filters_that_differ_in_an_errno_alone_are_not_confused() -> None:
    made = {number: compile_filter(denies(rule("getppid", "ERRNO", number)), MACHINE) for number in (0, 1, 2, None)}
    assert made[None] == made[1]
    assert len({made[0], made[1], made[2]}) == 3
    defaults = {compile_filter(allows(rule("read", "ALLOW"), default_errno=number), MACHINE) for number in (0, 5, 13)}
    assert len(defaults) == 3


@pytest.mark.parametrize("action", ["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP"])
def test_a_forbidden_call_ends_the_program_with_sigsys(action: str) -> None:
    assert under(denies(rule("getppid", action)), lambda: call(sysno("getppid"))) == 1000 + signal.SIGSYS


def test_a_trapped_call_can_be_handled() -> None:
    def act() -> int:
        seen: list[int] = []
        signal.signal(signal.SIGSYS, lambda number, frame: seen.append(number))
        call(sysno("getppid"))
        return seen[0]

    assert under(denies(rule("getppid", "TRAP")), act) == signal.SIGSYS


def test_a_logged_call_works() -> None:
    assert under(denies(rule("getppid", "LOG")), lambda: call(sysno("getppid"))) == os.getpid()
    with_flag = denies(rule("getppid", "ALLOW"), flags=("SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"))
    assert under(with_flag, lambda: call(sysno("getppid"))) == os.getpid()


def test_a_traced_call_does_not_exist_without_a_tracer() -> None:
    assert under(denies(rule("getppid", "TRACE", 7)), lambda: call(sysno("getppid"))) == -errno.ENOSYS


def test_a_tracer_is_told_the_number_of_the_rule() -> None:
    """ptrace(2): TRACEME 0, SETOPTIONS 0x4200 with O_TRACESECCOMP 0x80 and O_EXITKILL, CONT 7, GETEVENTMSG 0x4201."""
    seccomp = denies(rule("getppid", "TRACE", 4242))
    compile_filter(seccomp, MACHINE)
    child = os.fork()
    if child == 0:
        LIBC.ptrace(0, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        load(seccomp)
        os._exit(0 if call(sysno("getppid")) > 0 else 1)
    os.waitpid(child, 0)
    message, void = ctypes.c_ulong(), ctypes.c_void_p
    LIBC.ptrace(0x4200, child, void(0), void(0x100080))
    LIBC.ptrace(7, child, void(0), void(0))
    _, status = os.waitpid(child, 0)
    assert status >> 8 == signal.SIGTRAP | 7 << 8  # PTRACE_EVENT_SECCOMP
    LIBC.ptrace(0x4201, child, void(0), ctypes.byref(message))
    LIBC.ptrace(7, child, void(0), void(0))
    assert (message.value, os.waitpid(child, 0)[1]) == (4242, 0)


def test_who_notifies_gets_a_descriptor_to_answer_by() -> None:
    seccomp = denies(rule("getppid", "NOTIFY"), listener_path="/run/agent", flags=())
    assert filter_flags(seccomp) == 8
    child = os.fork()
    if child == 0:
        os._exit(0 if "seccomp notify" in os.readlink(f"/proc/self/fd/{load(seccomp)}") else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("condition", "matches", "differs"),
    [
        (where(0, "EQ", 7), [7], [6, 8, 7 | 1 << 32]),
        (where(1, "NE", 7), [6, 7 | 1 << 32], [7]),
        (where(2, "LT", 1 << 40), [0, (1 << 40) - 1], [1 << 40, 1 << 63]),
        (where(3, "LE", 1 << 40), [1 << 40, 5], [(1 << 40) + 1]),
        (where(4, "GE", 1 << 40), [1 << 40, 2**64 - 1], [(1 << 40) - 1, 9]),
        (where(5, "GT", 1 << 40), [(1 << 40) + 1], [1 << 40, 0]),
        (where(0, "MASKED_EQ", 0xF0000000F0, 0x10), [0x10, 0x1F, 0xF00000001F & ~(0xF << 36)], [0x20, 0x1000000010]),
    ],
)
def test_a_condition_is_compared_with_the_whole_argument(
    condition: SyscallArgument, matches: list[int], differs: list[int]
) -> None:
    seccomp = denies(rule("getppid", "ERRNO", 99, condition))
    answers = [refused(seccomp, *[3] * condition.position, value) for value in matches + differs]
    assert answers == [True] * len(matches) + [False] * len(differs)


def test_all_conditions_of_a_rule_must_hold() -> None:
    seccomp = denies(rule("getppid", "ERRNO", 99, where(0, "EQ", 1), where(1, "GT", 5)))
    assert [refused(seccomp, *args) for args in ((1, 6), (1, 5), (2, 6))] == [True, False, False]


def test_two_conditions_on_one_argument_are_alternatives() -> None:
    seccomp = denies(rule("getppid", "ERRNO", 99, where(0, "EQ", 1), where(0, "EQ", 5)))
    assert [refused(seccomp, value) for value in (1, 5, 2)] == [True, True, False]


def refused(seccomp: Seccomp, *args: int) -> bool:
    return under(seccomp, lambda: call(sysno("getppid"), *args)) == -99


def test_a_call_newer_than_the_profile_does_not_exist() -> None:
    assert under(DEFAULT, lambda: call(900)) == -errno.ENOSYS
    assert under(DEFAULT.replace(default_errno=errno.EACCES), lambda: call(900)) == -errno.ENOSYS
    assert answer(compile_filter(DEFAULT, MACHINE), ARCHITECTURE, sysno("unshare")) == ERRNO | errno.EPERM


def test_a_call_newer_than_the_profile_is_not_spared_where_the_default_is_to_kill() -> None:
    seccomp = DEFAULT.replace(default_action="SCMP_ACT_KILL_PROCESS", default_errno=None)
    assert under(seccomp, lambda: call(900)) == 1000 + signal.SIGSYS


# --- the other architectures of x86_64


def int80(number: int, *args: int) -> int:
    """A system call as i386 makes it: push rbx; eax ebx ecx edx = the four arguments; int 0x80; pop rbx; ret."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("53 89f8 89f3 89d7 89ca 89f9 cd80 5b c3"))
    entry = ctypes.addressof(ctypes.c_char.from_buffer(code))
    function = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 4)(entry)
    return int(function(number, *args, *[0] * (3 - len(args))))


def has_i386() -> bool:
    """Whether this kernel takes i386's calls; getppid is 64 there."""
    return MACHINE == "x86_64" and under(denies(architectures=("SCMP_ARCH_X86",)), lambda: int80(64)) == os.getpid()


def test_an_architecture_that_is_not_listed_is_killed() -> None:
    if not has_i386():
        pytest.skip("this kernel takes no calls of i386")
    assert under(denies(rule("getppid")), lambda: int80(64)) == 1000 + signal.SIGSYS


def test_the_rules_hold_for_listed_architectures_too() -> None:
    if not has_i386():
        pytest.skip("this kernel takes no calls of i386")
    seccomp = denies(rule("getppid", "ERRNO", 99), architectures=("SCMP_ARCH_X86",))
    assert under(seccomp, lambda: int80(64)) == -99
    assert under(seccomp, lambda: call(GETPPID)) == -99
    assert under(seccomp, lambda: int80(20)) > 0
    assert under(DEFAULT, lambda: int80(900)) == -errno.ENOSYS
    assert under(DEFAULT, lambda: int80(310)) == -errno.EPERM  # unshare


@x86_64_only
def test_x32_is_killed_unless_it_is_listed() -> None:
    assert under(denies(rule("getppid", "ERRNO", 99)), lambda: call(X32 | GETPPID)) == 1000 + signal.SIGSYS
    assert under(DEFAULT, lambda: call(X32 | GETPPID)) == 1000 + signal.SIGSYS
    listed = denies(rule("getppid", "ERRNO", 99), architectures=("SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_X86"))
    assert under(listed, lambda: call(X32 | GETPPID)) == -99
    assert under(listed, lambda: call(GETPPID)) == -99
    program = compile_filter(DEFAULT.replace(architectures=("SCMP_ARCH_X32",)), "x86_64")
    assert answer(program, X86_64, X32 | 900) == ERRNO | errno.ENOSYS
    assert answer(program, X86_64, 900) == ERRNO | errno.ENOSYS
    assert answer(program, X86_64, X32 | GETPPID) == ALLOW


def test_architectures_of_other_machines_change_nothing() -> None:
    more = DEFAULT.replace(architectures=(*DEFAULT.architectures, "SCMP_ARCH_MIPS", "SCMP_ARCH_S390X"))
    assert compile_filter(more, MACHINE) == compile_filter(DEFAULT, MACHINE)


# i386's socketcall(2) hides what it is asked for; 102, and SYS_SOCKET is 1, SYS_BIND 2
def test_what_cannot_be_seen_through_socketcall_is_refused() -> None:
    program = compile_filter(DEFAULT, "x86_64")
    assert answer(program, I386, 102, 1) == ERRNO | errno.EPERM
    assert answer(program, I386, 102, 2) == ALLOW
    assert answer(program, I386, 359, 1) == ALLOW  # socket itself
    assert answer(program, I386, 359, 40) == ERRNO | errno.EPERM
    if has_i386():
        assert under(DEFAULT, lambda: int80(102, 1, 0)) == -errno.EPERM


def test_what_has_no_conditions_is_answered_alike_by_itself_and_through_its_multiplexer() -> None:
    rules = (rule("bind", "ALLOW"), rule("send", "ERRNO", 97), rule("shmget", "KILL_PROCESS"))
    program = compile_filter(allows(*rules, architectures=("SCMP_ARCH_X86",)), "x86_64")
    assert answer(program, I386, 102, 2) == answer(program, I386, 361) == ALLOW
    assert answer(program, I386, 102, 9) == ERRNO | 97  # send(2) is nothing by itself there
    assert answer(program, I386, 117, 23) == answer(program, I386, 395) == KILL_PROCESS
    assert answer(program, I386, 102, 3) == answer(program, I386, 362) == ERRNO | errno.EPERM
    assert answer(program, I386, 396) == ERRNO | errno.ENOSYS  # newer than all that is named


def test_a_profile_that_names_socketcall_decides_for_it() -> None:
    rules = (rule("socketcall", "ALLOW"), rule("socket", "ALLOW", None, where(0, "NE", 40)))
    assert answer(compile_filter(allows(*rules, architectures=("SCMP_ARCH_X86",)), "x86_64"), I386, 102, 1) == ALLOW


@pytest.mark.parametrize("of", ["socketcall", "ipc"])
def test_a_multiplexer_that_is_refused_as_all_else_is_lets_nothing_through(of: str) -> None:
    """The rule says no more than the default, but it names the call: what is allowed by itself is not, there."""
    allowed = (rule("bind", "ALLOW"), rule("connect", "ALLOW", None, where(0, "EQ", 1)), rule("shmget", "ALLOW"))
    rules = (rule(of, "ERRNO", errno.EPERM), *allowed)
    program = compile_filter(allows(*rules, architectures=("SCMP_ARCH_X86",)), "x86_64")
    sockets = {answer(program, I386, 102, number) for number in (2, 3)}
    refused, let_through = {ERRNO | errno.EPERM}, {ERRNO | errno.EPERM, ALLOW}
    assert sockets == (refused if of == "socketcall" else let_through)  # connect's condition cannot be seen
    assert answer(program, I386, 117, 23) == (ALLOW if of == "socketcall" else ERRNO | errno.EPERM)
    assert answer(program, I386, 361) == answer(program, I386, 395) == ALLOW  # by themselves


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_what_is_refused_by_its_own_name_is_refused_by_an_allowed_multiplexer_too(number: int) -> None:
    """Whether the refusal is the default's or another."""
    rules = (rule("socketcall", "ALLOW"), rule("bind", "ALLOW"), rule("socket", "ERRNO", number))
    program = compile_filter(allows(*rules, architectures=("SCMP_ARCH_X86",)), "x86_64")
    assert answer(program, I386, 102, 1) == answer(program, I386, 359) == ERRNO | number
    assert answer(program, I386, 102, 2) == answer(program, I386, 102, 3) == ALLOW


def test_a_refusal_with_a_condition_is_whole_where_the_condition_cannot_be_seen() -> None:
    rules = (rule("socket", "ERRNO", 97, where(2, "EQ", 9)), rule("semget", "KILL_PROCESS", None, where(0, "EQ", 9)))
    program = compile_filter(denies(*rules, architectures=("SCMP_ARCH_X86",)), "x86_64")
    assert answer(program, I386, 102, 1) == ERRNO | 97
    assert answer(program, I386, 117, 2) == answer(program, I386, 117, 0x10002) == KILL_PROCESS  # a version above it
    assert answer(program, I386, 117, 1) == ALLOW


# --- the program, by an interpreter of our own: any architecture, any number


def instructions(program: bytes) -> list[tuple[int, int, int, int]]:
    return [(code, jt, jf, k) for code, jt, jf, k in struct.iter_unpack("HBBI", program)]


def follow(program: bytes, architecture: int, number: int, *args: int) -> tuple[int, int]:
    """What a program returns for a call, and how many instructions that took. Source: seccomp(2), "Filters"."""
    data = struct.unpack("16I", struct.pack("IIQ6Q", number, architecture, 0, *args, *[0] * (6 - len(args))))
    listed, at, accumulator = instructions(program), 0, 0
    for steps in range(1, len(listed) + 1):
        code, jt, jf, k = listed[at]
        if code == 0x06:
            return k, steps
        if code == 0x20:
            accumulator = data[k // 4]
        elif code == 0x54:
            accumulator &= k
        elif code == 0x05:
            at += k
        else:
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}
            at += jt if holds[code] else jf
        at += 1
    raise AssertionError("jumps in a filter only go on")


def answer(program: bytes, architecture: int, number: int, *args: int) -> int:
    return follow(program, architecture, number, *args)[0]


ARCHITECTURE = {"x86_64": X86_64, "aarch64": AARCH64}[MACHINE]


def sysno(name: str) -> int:
    """A call's number on this machine."""
    known = {"x86_64": {"getppid": 110, "unshare": 272}, "aarch64": {"getppid": 173, "unshare": 97}}
    return known[MACHINE][name]


HOLDS: dict[str, Callable[[int, SyscallArgument], bool]] = {
    "SCMP_CMP_NE": lambda value, condition: value != condition.value,
    "SCMP_CMP_LT": lambda value, condition: value < condition.value,
    "SCMP_CMP_LE": lambda value, condition: value <= condition.value,
    "SCMP_CMP_EQ": lambda value, condition: value == condition.value,
    "SCMP_CMP_GE": lambda value, condition: value >= condition.value,
    "SCMP_CMP_GT": lambda value, condition: value > condition.value,
    "SCMP_CMP_MASKED_EQ": lambda value, condition: value & condition.value == condition.value_two,
}
NAMES = ["read", "write", "open", "close", "stat", "fstat", "lstat", "poll", "lseek", "mmap"]  # 0 to 9 on x86_64
CODES = {"ALLOW": ALLOW, "LOG": LOG, "KILL_PROCESS": KILL_PROCESS, "TRAP": 0x30000, "KILL": 0}
VALUES = (0, 1, 2, 7, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, 1 << 63, 2**64 - 1)


def model(seccomp: Seccomp, number: int, args: list[int]) -> int:
    """The rules, read as the runtime-spec has them; a call's rules all do the same, so order tells nothing."""
    for each in seccomp.syscalls:
        indices = [condition.position for condition in each.args]
        holds = [HOLDS[condition.op](args[condition.position], condition) for condition in each.args]
        matches = all(holds) if len(set(indices)) == len(indices) else any(holds)
        if NAMES[number] in each.names and matches:
            return code_of(each.action, each.errno)
    return code_of(seccomp.default_action, seccomp.default_errno)


def code_of(action: str, number: int | None) -> int:
    name = action.removeprefix("SCMP_ACT_")
    return ERRNO | (1 if number is None else number) if name == "ERRNO" else CODES[name]


def some_filter(dice: random.Random) -> Seccomp:
    """A filter whose calls have one action each, under up to three rules with up to three conditions."""
    rules = []
    for name in dice.sample(NAMES, dice.randint(0, len(NAMES))):
        action = dice.choice([*CODES, "ERRNO"])
        number = dice.choice([None, 0, 22, 4094]) if action == "ERRNO" else None
        for _ in range(dice.randint(1, 3)):
            rules.append(rule(name, action, number, *some_conditions(dice)))
    default = dice.choice([*CODES, "ERRNO"])
    return Seccomp(default_action=f"SCMP_ACT_{default}", syscalls=tuple(rules))


def some_conditions(dice: random.Random) -> list[SyscallArgument]:
    conditions = []
    for _ in range(dice.randint(0, 3)):
        op = dice.choice([*HOLDS]).removeprefix("SCMP_CMP_")
        value = dice.choice(VALUES)
        conditions.append(where(dice.randrange(6), op, value, dice.choice(VALUES) & value))
    return conditions


@pytest.mark.parametrize("seed", range(60))
def test_a_program_says_what_its_rules_say(seed: int) -> None:
    dice = random.Random(seed)
    seccomp = some_filter(dice)
    program = compile_filter(seccomp, "x86_64")
    for _ in range(300):
        number, args = dice.randrange(len(NAMES)), [dice.choice(VALUES) for _ in range(6)]
        listed = [name for each in seccomp.syscalls for name in each.names]
        newer = code_of(seccomp.default_action, None) >> 16 == 5 and number > max(map(NAMES.index, listed), default=99)
        expected = ERRNO | errno.ENOSYS if newer else model(seccomp, number, args)
        assert answer(program, X86_64, number, *args) == expected, (seccomp, number, args)
    assert answer(program, I386, 3) == KILL_PROCESS


def test_conditions_are_met_on_i386_by_the_half_of_an_argument_that_it_has() -> None:
    conditions = [where(0, "EQ", 2**64 - 1), where(0, "LT", 5), where(1, "GE", 0x80000000)]
    rules = [rule("getppid", "ERRNO", 9, condition) for condition in conditions]
    program = compile_filter(denies(*rules, architectures=("SCMP_ARCH_X86",)), "x86_64")
    answers = [answer(program, I386, 64, *args) for args in ((0xFFFFFFFF, 0), (4, 0), (5, 0), (6, 0x80000000))]
    assert answers == [ERRNO | 9, ERRNO | 9, ALLOW, ERRNO | 9]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_longest_way_through_the_default_filter_is_short(machine: str) -> None:
    program = compile_filter(DEFAULT.replace(architectures=("SCMP_ARCH_X86", "SCMP_ARCH_X32")), machine)
    native = {"x86_64": X86_64, "aarch64": AARCH64}[machine]
    assert len(program) // 8 <= 4096
    assert max(follow(program, native, number)[1] for number in range(500)) <= 40


# --- the profile of run()


@x86_64_only
def test_the_default_filter_refuses_new_namespaces_however_asked_for() -> None:
    program = compile_filter(DEFAULT, "x86_64")
    for bit in (17, 25, 26, 27, 28, 29, 30):  # CLONE_NEW*
        assert answer(program, X86_64, CLONE, 1 << bit | signal.SIGCHLD) == ERRNO | errno.EPERM
        assert answer(program, I386, 120, 1 << bit | signal.SIGCHLD) == ERRNO | errno.EPERM
    assert answer(program, X86_64, CLONE, 0x3D0F00) == ALLOW  # a thread
    assert answer(program, X86_64, CLONE3) == ERRNO | errno.ENOSYS
    assert answer(program, I386, CLONE3) == ERRNO | errno.ENOSYS


@x86_64_only
def test_the_default_filter_looks_at_sockets_and_personalities() -> None:
    program = compile_filter(DEFAULT, "x86_64")
    assert [answer(program, X86_64, SOCKET, family) for family in (1, 2, 10, 16)] == [ALLOW] * 4
    assert answer(program, X86_64, SOCKET, 40) == ERRNO | errno.EPERM
    assert [answer(program, X86_64, PERSONALITY, value) for value in (0, 8, 0xFFFFFFFF)] == [ALLOW] * 3
    assert answer(program, X86_64, PERSONALITY, 0x0040000) == ERRNO | errno.EPERM  # ADDR_NO_RANDOMIZE


@x86_64_only
def test_the_default_filter_keeps_the_kernel_out_of_reach() -> None:
    program = compile_filter(DEFAULT, "x86_64")
    refused = {
        **{
            "modify_ldt": 154,
            "pivot_root": 155,
            "chroot": 161,
            "acct": 163,
            "mount": 165,
            "umount2": 166,
            "swapon": 167,
        },
        **{"reboot": 169, "sethostname": 170, "iopl": 172, "ioperm": 173, "init_module": 175, "quotactl": 179},
        **{"add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298, "setns": 308},
        **{"open_by_handle_at": 304, "kcmp": 312, "finit_module": 313, "kexec_file_load": 320, "bpf": 321},
        **{"userfaultfd": 323, "io_uring_setup": 425, "io_uring_enter": 426, "open_tree": 428, "move_mount": 429},
        **{"fsopen": 430, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "syslog": 103},
    }
    assert {name: answer(program, X86_64, number) for name, number in refused.items() if number < 437} == {
        name: ERRNO | errno.EPERM for name, number in refused.items() if number < 437
    }
    assert not [name for name, number in refused.items() if answer(program, X86_64, number) == ALLOW]


PROGRAMS = """
import concurrent.futures, ctypes, mmap, multiprocessing, os, select, socket, sqlite3, subprocess, tempfile, threading
assert subprocess.run(["sh", "-c", "echo $((6*7)) | cat"], capture_output=True).stdout == b"42\\n"
with concurrent.futures.ProcessPoolExecutor(2) as pool: assert list(pool.map(abs, [-1, -2])) == [1, 2]
with socket.create_server(("127.0.0.1", 0)) as server: socket.create_connection(server.getsockname()).close()
sqlite3.connect(tempfile.mkdtemp() + "/db").execute("create table t(x)")
os.posix_spawnp("true", ["true"], os.environ); os.wait(); os.memfd_create("x"); select.epoll().close()
"""


def test_ordinary_programs_run_under_the_default_filter() -> None:
    def act() -> int:
        return subprocess.run([sys.executable, "-c", PROGRAMS]).returncode

    assert under(DEFAULT, act) == 0


def test_a_compiler_runs_under_the_default_filter(tmp_path: object) -> None:
    def act() -> int:
        source, target = "int main(void) { return 7; }", f"{tmp_path}/a.out"
        subprocess.run(["cc", "-xc", "-", "-o", target], input=source.encode(), check=True)
        return subprocess.run([target]).returncode

    assert under(DEFAULT, act) == 7


# --- compiling


def test_a_name_that_no_one_knows_is_left_out() -> None:
    known = denies(rule("getppid", "ERRNO", 99))
    assert compile_filter(denies(rule("no_such_call getppid", "ERRNO", 99)), MACHINE) == compile_filter(known, MACHINE)
    assert under(denies(rule("no_such_call")), lambda: call(sysno("getppid"))) == os.getpid()


def test_a_rule_that_changes_nothing_is_left_out() -> None:
    assert compile_filter(denies(rule("getppid", "ALLOW")), MACHINE) == compile_filter(denies(), MACHINE)
    assert under(denies(), lambda: call(sysno("getppid"))) == os.getpid()


def test_rules_that_contradict_each_other_are_refused() -> None:
    same = where(0, "EQ", 1)
    with pytest.raises(ConfigError, match="getppid contradict"):
        compile_filter(denies(rule("getppid", "ERRNO", 5, same), rule("getppid", "ERRNO", 6, same)), MACHINE)


def test_a_filter_that_the_kernel_would_not_take_is_refused() -> None:
    rules = [rule("getppid", "ERRNO", 5, where(0, "EQ", number << 32 | number)) for number in range(3000)]
    with pytest.raises(ConfigError, match="4096"):
        compile_filter(denies(*rules), MACHINE)


@pytest.mark.parametrize(("action", "number"), [("ERRNO", 4095), ("TRACE", 65536), ("ERRNO", -1)])
def test_a_number_that_does_not_fit_is_refused(action: str, number: int) -> None:
    with pytest.raises(ConfigError, match=r"syscalls\[0\]"):
        compile_filter(denies(rule("getppid", action, number)), MACHINE)


def test_a_machine_without_filters_is_an_error() -> None:
    with pytest.raises(HostError, match="vax"):
        compile_filter(DEFAULT, "vax")


def test_flags_become_those_of_the_system_call() -> None:
    every = ("SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW")
    assert filter_flags(denies(flags=every)) == 6
    killable = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    assert filter_flags(denies(rule("read", "NOTIFY"), flags=(killable,), listener_path="/run/agent")) == 40
    for lonely in (denies(flags=(killable,)), denies(rule("read", "NOTIFY"))):
        with pytest.raises(ConfigError):
            filter_flags(lonely)
    assert filter_flags(denies(listener_path="/run/agent")) == 0


def test_threads_compile_at_once() -> None:
    made: list[bytes] = []
    profiles = [DEFAULT.replace(listener_metadata=f"thread {number}") for number in range(8)]
    threads = [
        threading.Thread(target=lambda each=each: made.append(compile_filter(each, MACHINE))) for each in profiles
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [compile_filter(DEFAULT, MACHINE)] * 8


def test_a_filter_is_compiled_once() -> None:
    assert compile_filter(DEFAULT, MACHINE) is compile_filter(DEFAULT.replace(), MACHINE)
    assert version() >= (2, 5, 0)


@pytest.mark.root
def test_a_missing_library_is_said_with_its_packages() -> None:
    """In a mount namespace whose library directories lack it."""
    program = """
import cycontainer._seccomp as made
try:
    made.version()
except Exception as error:
    print(type(error).__name__, error)
"""
    found = subprocess.run(["sh", "-c", "ldconfig -p | sed -n 's/.*libseccomp.so.2.*=> //p'"], capture_output=True)
    hide = "".join(f"mount --bind /dev/null {path} && " for path in found.stdout.decode().split())
    command = ["unshare", "--mount", "sh", "-c", f'{hide}exec "$0" -c "$1"', sys.executable, program]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert text.startswith("HostError") and "libseccomp2" in text and "Fedora" in text
