"""Seccomp filters: libseccomp compiles a program for each architecture, and a prefix of ours joins them. Hot.

The library is opened when the first filter is made: who needs none does not need it. Each architecture is compiled
alone: libseccomp takes twice as long for three together (18 ms, not 7). The prefix is, without what is not needed,

    load the architecture; for each one: jump to its part
    return KILL_PROCESS                                     no part is for this architecture
    part: load the call's number
          x32's bit is set: jump to x32's part              it shares x86_64's architecture
          above the last call the profile names: ENOSYS     see `_last_call`
          an old call that stands for many: ...             see `hidden_calls` in `_seccomp_rules.pyx`
          a call with several rules with conditions: ...    see `_own_calls`
          libseccomp's program

and each part becomes a search tree (`_seccomp_tree.pyx`).

Source: seccomp(2), seccomp_rule_add(3), runtime-spec config-linux.md "Seccomp".
"""

import errno as errno_names
import os

from cycontainer import _fd, tables
from cycontainer._seccomp_rules import alternatives, hidden_calls
from cycontainer._seccomp_tree import as_tree
from cycontainer.errors import ConfigError, HostError

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free
from cycontainer._sys cimport RTLD_LOCAL, RTLD_NOW, dlopen, dlsym

cdef Library lib
cdef bint loaded = False

cdef uint32_t KILL_PROCESS = 0x80000000
cdef uint32_t RETURN_ENOSYS = 0x00050000 | 38

cdef dict ACTIONS = {             # linux/seccomp.h; what KILL has always killed is the thread
    "SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_THREAD": 0, "SCMP_ACT_KILL_PROCESS": KILL_PROCESS, "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_NOTIFY": 0x7FC00000, "SCMP_ACT_LOG": 0x7FFC0000, "SCMP_ACT_ALLOW": 0x7FFF0000,
}
cdef dict NUMBERED = {            # with the most that goes with each: libseccomp wants errnos below MAX_ERRNO
    "SCMP_ACT_ERRNO": (0x00050000, 4094), "SCMP_ACT_TRACE": (0x7FF00000, 65535),
}
cdef dict OPERATORS = {           # enum scmp_compare
    "SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}

cdef dict FLAGS = {**tables.FILTER_FLAGS, "SECCOMP_FILTER_FLAG_TSYNC": 0}  # TSYNC: init has one thread

cdef set WIDE = {"x86_64", "aarch64"}       # elsewhere an argument is its low half: libseccomp's rule, for x32, too

# What a process on this machine can be; the first is always in the filter, the others when the profile lists them.
# Others still may be listed, and would be parts that nothing ever reaches. In libseccomp's words.
cdef dict ARCHITECTURES = {"x86_64": ("x86_64", "x86", "x32"), "aarch64": ("aarch64", "arm")}

# From here on numbers are no new calls: x32's, and the few that only ARM has.
cdef dict OWN_NUMBERS = {"x86_64": X32_BIT, "arm": 0x0F0000}

cdef set MULTIPLEXED = {name for _, _, calls in tables.MULTIPLEXERS for name in calls}

cdef dict _kept = {}              # (Seccomp, machine, libseccomp's version): program


def compile_filter(seccomp, str machine not None) -> bytes:
    """The kernel's program for a filter: an array of struct sock_filter, 8 bytes each. Kept by all it depends on.

    Args:
        seccomp: a `config.Seccomp`.
        machine: what it is for, by uname(2)'s name; it need not be this one.

    Raises:
        HostError: libseccomp is missing or older than 2.5, or there is no such machine.
        ConfigError: two rules contradict each other, or the program is longer than the kernel takes.
    """
    key = (seccomp, machine, version())
    program = _kept.get(key)
    if program is not None:
        return program
    if machine not in ARCHITECTURES:
        raise HostError(f"no seccomp filter can be made for {machine}, only for {' and '.join(ARCHITECTURES)}")
    listed = [name.removeprefix("SCMP_ARCH_").lower() for name in seccomp.architectures]
    native, *others = ARCHITECTURES[machine]
    program = _joined(seccomp, [native, *(name for name in others if name in listed)])
    count = len(program) // <Py_ssize_t> sizeof(Instruction)
    if count > MOST_INSTRUCTIONS:
        raise ConfigError("linux.seccomp", f"makes {count} instructions, and the kernel takes {MOST_INSTRUCTIONS}")
    while len(_kept) >= MOST_KEPT:
        _kept.pop(next(iter(_kept), None), None)
    _kept[key] = program
    return program


def filter_flags(seccomp, bint supervised=False) -> int:
    """The flags that seccomp(2) is to load a filter with; with NEW_LISTENER it returns a descriptor.

    Args:
        supervised: the launcher itself answers.

    Raises:
        ConfigError: a rule notifies, and no `listener_path` says whom; or a flag goes with a listener, and none is.
    """
    cdef int flags = 0
    notifies = any(rule.action == "SCMP_ACT_NOTIFY" for rule in seccomp.syscalls)
    if notifies and not supervised and not seccomp.listener_path:
        raise ConfigError("linux.seccomp.listenerPath", "is missing: SCMP_ACT_NOTIFY needs someone who answers")
    for flag in seccomp.flags:
        if flag == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" and not notifies:
            raise ConfigError("linux.seccomp.flags", f"{flag} goes with SCMP_ACT_NOTIFY, and no rule has that")
        flags |= FLAGS[flag]
    return flags | (NEW_LISTENER if notifies else 0)


def call_names(names, str machine not None) -> dict[tuple[int, int], str]:
    """System calls by what a notification has: the kernel's number of the architecture, and its own.

    Args:
        names: of system calls, each of which `machine`, by uname(2)'s name, must have.

    Raises:
        HostError: as `compile_filter`.
        KeyError: a name is no system call's.
    """
    version()
    if machine not in ARCHITECTURES:
        raise HostError(f"no seccomp filter can be made for {machine}, only for {' and '.join(ARCHITECTURES)}")
    found = {}
    native = ARCHITECTURES[machine][0]
    for architecture in ARCHITECTURES[machine]:
        numbers = {name: _own_number(name, number) for name, number in _numbers(architecture, names).items()}
        if architecture == native and not all([numbers.get(name, UNKNOWN_CALL) >= 0 for name in names]):
            raise KeyError(next(name for name in names if numbers.get(name, UNKNOWN_CALL) < 0))
        token = _token(native if architecture == "x32" else architecture)    # x32 has but numbers of its own
        found.update({(token, number): name for name, number in numbers.items() if number >= 0})
    return found


def version() -> tuple[int, int, int]:
    """libseccomp's version. Raises HostError when it is missing or older than 2.5."""
    _load()
    return lib.version().major, lib.version().minor, lib.version().micro


# --- the library


cdef int _load() except -1:
    """Open the library, once. Two threads at once do the same, and the loader counts."""
    global lib, loaded
    cdef Library found
    cdef void *handle
    if loaded:
        return 0
    handle = dlopen(b"libseccomp.so.2", RTLD_NOW | RTLD_LOCAL)
    if handle is NULL:
        raise HostError("seccomp filters need libseccomp: install libseccomp2 (Debian, Ubuntu) or libseccomp (Fedora)")
    found.version = <GetVersion> _symbol(handle, b"seccomp_version")
    if (found.version().major, found.version().minor) < (2, 5):
        raise HostError("libseccomp is older than 2.5, the first that makes search trees: upgrade it")
    found.start, found.release = <Start> _symbol(handle, b"seccomp_init"), <Release> _symbol(handle, b"seccomp_release")
    found.native = <Native> _symbol(handle, b"seccomp_arch_native")
    found.add_architecture = <Architecture> _symbol(handle, b"seccomp_arch_add")
    found.remove_architecture = <Architecture> _symbol(handle, b"seccomp_arch_remove")
    found.attribute = <Attribute> _symbol(handle, b"seccomp_attr_set")
    found.resolve = <Resolve> _symbol(handle, b"seccomp_syscall_resolve_name")
    found.resolve_on = <ResolveOn> _symbol(handle, b"seccomp_syscall_resolve_name_arch")
    found.resolve_architecture = <ResolveArchitecture> _symbol(handle, b"seccomp_arch_resolve_name")
    found.add_rule = <AddRule> _symbol(handle, b"seccomp_rule_add_array")
    found.export = <Export> _symbol(handle, b"seccomp_export_bpf")
    lib = found
    loaded = True
    return 0


cdef void *_symbol(void *handle, const char *name) except NULL:
    cdef void *found = dlsym(handle, name)
    if found is NULL:
        raise HostError(f"libseccomp has no {name.decode()}: 2.5 or newer is needed")
    return found


# --- one architecture, by libseccomp


cdef uint32_t _action(str name, number, str path) except? 1:
    """What the kernel is to do, with its number: EPERM when none is given, as engines expect."""
    if name not in NUMBERED:
        return ACTIONS[name]
    code, most = NUMBERED[name]
    if number is None:
        number = errno_names.EPERM
    if not 0 <= number <= most:
        raise ConfigError(path, f"must be from 0 to {most}, not {number}")
    return code | number


cdef dict _rules(seccomp, uint32_t default):
    """By the name of each call that the profile has, a list (action, conditions): the rules that libseccomp is to have.

    A rule that does what is done anyway is left out. Conditions are all to hold; but where two of a rule look at one
    argument, each is a rule of its own: engines' profiles rely on it.
    """
    rules = {}
    for index, rule in enumerate(seccomp.syscalls):
        action = _action(rule.action, rule.errno, f"linux.seccomp.syscalls[{index}].errnoRet")
        indices = [argument.position for argument in rule.args]
        each = [rule.args] if len(set(indices)) == len(indices) else [(argument,) for argument in rule.args]
        made = [(action, conditions) for conditions in each if action != default]
        for name in rule.names:
            rules[name] = rules[name] + made if name in rules else made
    return rules


cdef bint _exists(str architecture, str name, int number):
    """Whether a call can be made there; `number` is libseccomp's for it."""
    return number >= 0 or (architecture == "x86" and name in MULTIPLEXED)


cdef bytes _compiled(str architecture, uint32_t default, dict rules_of, dict numbers):
    """libseccomp's program for one architecture: of the rules by the calls' names, which have these numbers there."""
    cdef Rule *rules
    cdef int error, at = -1, index, count, memory
    cdef uint32_t token = _token(architecture)
    cdef bytes text
    kept = [
        (name, action, conditions) for name, each in rules_of.items()
        if _exists(architecture, name, numbers.get(name, UNKNOWN_CALL)) for action, conditions in each
    ]
    count = len(kept)
    rules = <Rule *> calloc(count + 1, sizeof(Rule))
    if rules is NULL:
        raise MemoryError
    fd = -1
    try:
        for index in range(count):
            name, action, conditions = kept[index]
            text = name.encode()
            rules[index].action, rules[index].call = action, lib.resolve(text)
            _set_conditions(&rules[index], conditions)
        fd = _fd.data_file(b"cycontainer-seccomp")
        memory = fd
        with nogil:
            error = write_program(token, default, rules, count, memory, &at)
        if error < 0:
            what = f"the rules for {kept[at][0]} contradict each other" if at >= 0 else "libseccomp cannot compile it"
            raise ConfigError("linux.seccomp", f"{what}: {errno_names.errorcode.get(-error, -error)} ({architecture})")
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        free(rules)
        if fd >= 0:
            os.close(fd)


cdef int _set_conditions(Rule *rule, conditions) except -1:
    """Fill in a rule's comparisons: at most six, for no two are of one argument."""
    cdef int place
    rule.count = len(conditions)
    for place in range(<int> rule.count):
        rule.comparisons[place].arg = conditions[place].position
        rule.comparisons[place].op = OPERATORS[conditions[place].op]
        rule.comparisons[place].datum_a = conditions[place].value
        rule.comparisons[place].datum_b = conditions[place].value_two
    return 0


cdef int write_program(
    uint32_t token, uint32_t default, const Rule *rules, int count, int fd, int *at
) noexcept nogil:
    """Compile, and write the program to fd; 0, or a negative errno and the refused rule's index, if it was one."""
    cdef int error, index
    cdef const Rule *rule
    cdef void *filter = lib.start(default)
    if filter is NULL:
        return -22                    # EINVAL: it says no more
    error = prepare(filter, token, count)
    for index in range(count):
        if error < 0:
            break
        rule = &rules[index]
        error = lib.add_rule(filter, rule.action, rule.call, rule.count, rule.comparisons)
        if error < 0:
            at[0] = index
    if error >= 0:
        error = lib.export(filter, fd)
    lib.release(filter)
    return error


cdef int prepare(void *filter, uint32_t token, int count) noexcept nogil:
    """Make an empty filter one for a single architecture, and a tree; 0 or a negative errno."""
    cdef int error = 0
    if token != lib.native():
        error = lib.add_architecture(filter, token)
        if error == 0:
            error = lib.remove_architecture(filter, lib.native())
    if error == 0:
        error = lib.attribute(filter, ATTRIBUTE_NO_NEW_PRIVS, 0)      # init's to set, or not
    if error == 0:
        error = lib.attribute(filter, ATTRIBUTE_BAD_ARCHITECTURE, KILL_PROCESS)
    if error == 0 and count > 0:      # up to 2.5.4 a tree of nothing is not made right
        error = lib.attribute(filter, ATTRIBUTE_OPTIMIZE, 2)
    return error


cdef uint32_t _token(str architecture) except 0:
    """libseccomp's number of an architecture: the kernel's AUDIT_ARCH_*, but for x32."""
    cdef bytes text = architecture.encode()
    cdef uint32_t token = lib.resolve_architecture(text)
    if token == 0:
        raise HostError(f"this libseccomp does not know the architecture {architecture}")
    return token


# --- the prefix


cdef bytes _joined(seccomp, list architectures):
    """The whole program: a part for each architecture, and the way to it."""
    cdef uint32_t default = _action(seccomp.default_action, seccomp.default_errno, "linux.seccomp.defaultErrnoRet")
    rules = _rules(seccomp, default)
    parts = {name: _part(name, default, rules, _numbers(name, rules)) for name in architectures}
    x32 = parts.pop("x32", b"")
    if x32:                           # both parts begin after the number was loaded: `_part`
        reach = jump(JUMP_IF_LEAST, X32_BIT, 0, 1) + jump(JUMP, len(parts["x86_64"]) // sizeof(Instruction), 0, 0)
        parts["x86_64"] = reach + parts["x86_64"] + x32
    load = jump(LOAD, NUMBER_AT, 0, 0)
    way, program = jump(LOAD, ARCHITECTURE_AT, 0, 0), b""
    ahead = 2 * len(parts) + 1        # instructions from here to the first part
    for name, part in parts.items():
        ahead -= 2
        way += jump(JUMP_IF_EQUAL, _token(name), 0, 1)
        way += jump(JUMP, ahead + len(program) // sizeof(Instruction), 0, 0)
        program += load + part
    return way + jump(RETURN, KILL_PROCESS, 0, 0) + program


cdef dict _numbers(str architecture, names):
    """The calls' numbers on an architecture, negative where it has none; without those that no one knows."""
    cdef uint32_t token = _token(architecture)
    cdef bytes text
    cdef int number
    found = {}
    for name in names:
        text = name.encode()
        number = lib.resolve_on(token, text)
        if number != UNKNOWN_CALL:
            found[name] = number
    return found


cdef bytes _part(str architecture, uint32_t default, dict rules, dict numbers):
    """What comes after the number's loading for an architecture, as a search tree."""
    start = b""
    last = _last_call(architecture, default, numbers)
    if last >= 0 and architecture in OWN_NUMBERS:
        start += jump(JUMP_IF_LEAST, OWN_NUMBERS[architecture], 2, 0)
    if last >= 0:
        start += jump(JUMP_IF_ABOVE, last, 0, 1) + jump(RETURN, RETURN_ENOSYS, 0, 0)
    if architecture == "x86":
        start += hidden_calls(default, rules)
    own = _own_calls(architecture, rules, numbers)
    wide = architecture in WIDE
    start += b"".join([alternatives(wide, numbers[name], default, each) for name, each in own.items()])
    plain = _plain_calls(architecture, rules, numbers)
    asked = {name: each for name, each in rules.items() if name not in own and name not in plain}
    program = start + _compiled(architecture, default, asked, numbers)
    answers = {number: rules[name][0][0] for name, number in plain.items() if number != UNKNOWN_CALL}
    tree = as_tree(program, _token("x86_64" if architecture == "x32" else architecture), answers)    # they share it
    if tree is not None:
        return tree
    asked.update({name: rules[name] for name in plain})
    return start + _compiled(architecture, default, asked, numbers)


cdef dict _plain_calls(str architecture, dict rules, dict numbers):
    """The calls with one rule and no conditions, with their numbers: libseccomp takes 10 us for each, and is not asked.

    i386's multiplexers, and what they stand for when the profile names them, it joins itself.
    """
    cdef int number
    left, plain, names = set(), {}, {}
    for multiplexer, _, calls in tables.MULTIPLEXERS:
        left.add(multiplexer)
        if architecture == "x86" and rules.get(multiplexer):
            left.update(calls)
    for name, each in rules.items():
        if not each:
            continue
        number = numbers.get(name, UNKNOWN_CALL)
        other = names.setdefault(number, name)
        if other is not name:                 # two names of one call
            plain.pop(other, None)
        elif len(each) == 1 and not each[0][1] and name not in left and _exists(architecture, name, number):
            plain[name] = _own_number(name, number)
    return plain


cdef int _last_call(str architecture, uint32_t default, dict numbers):
    """The highest number that a profile which refuses by errno names on an architecture; -1: none is too new.

    A C library that tries a new system call falls back to older ones upon ENOSYS, and upon nothing else. A profile that
    is older than the call does not mean to refuse it with its EPERM, it has not heard of it. So numbers above all that
    it names are answered as by a kernel without them. Engines rely on it, since runc began (which does the same where
    the default is to kill or to trap; here what is to end a program does).
    """
    if default >> 16 != 0x0005 or default == RETURN_ENOSYS:
        return -1
    limit = OWN_NUMBERS.get(architecture, 2**31)
    found = [_own_number(name, number) for name, number in numbers.items()]
    return max([number for number in found if 0 <= number < limit], default=-1)


cdef int _own_number(str name, int number):
    """A call's number, where libseccomp has one below 0 for what a multiplexer stands for; or UNKNOWN_CALL."""
    return number if number >= 0 else tables.MULTIPLEXED_ALONE.get(name, UNKNOWN_CALL)


cdef dict _own_calls(str architecture, dict rules, dict numbers):
    """The calls that are our own work, with their rules: several, all with conditions, that all do the same.

    libseccomp 2.5.4 merges such rules, and may then compare an argument's low half with a value's high half: "at most
    2" and "at least 1 << 63" let 0xffffffff through. Where not all do the same, it alone knows which one wins.
    """
    return {
        name: each for name, each in rules.items()
        if len(each) > 1 and len({action for action, _ in each}) == 1 and all([conditions for _, conditions in each])
        and numbers.get(name, UNKNOWN_CALL) >= 0 and not (architecture == "x86" and name in MULTIPLEXED)
    }
