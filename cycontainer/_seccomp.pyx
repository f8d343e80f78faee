"""Seccomp filters, compiled by libseccomp as a search tree. Hot.

The library is opened when the first filter is made: who needs none does not need it. Source: seccomp(2),
libseccomp's seccomp_rule_add(3), runtime-spec config-linux.md "Seccomp".
"""

import errno as errno_names
import os

from cycontainer import _fd
from cycontainer.errors import ConfigError, HostError

from libc.stdint cimport uint32_t, uint64_t

from cycontainer._sys cimport RTLD_NOW, dlopen, dlsym

cdef struct Version:
    unsigned int major, minor, micro

cdef struct Comparison:           # struct scmp_arg_cmp
    unsigned int arg
    int op
    uint64_t datum_a, datum_b

ctypedef void *(*Init)(uint32_t) noexcept nogil
ctypedef void (*Release)(void *) noexcept nogil
ctypedef int (*ArchAdd)(void *, uint32_t) noexcept nogil
ctypedef int (*Attribute)(void *, int, uint32_t) noexcept nogil
ctypedef int (*Resolve)(const char *) noexcept nogil
ctypedef uint32_t (*ResolveArch)(const char *) noexcept nogil
ctypedef int (*AddRule)(void *, uint32_t, int, unsigned int, const Comparison *) noexcept nogil
ctypedef int (*Export)(void *, int) noexcept nogil
ctypedef const Version *(*GetVersion)() noexcept nogil

cdef struct Library:
    void *handle
    Init init
    Release release
    ArchAdd arch_add
    Attribute attribute
    Resolve resolve
    ResolveArch resolve_arch
    AddRule add_rule
    Export export
    GetVersion version

cdef Library lib
lib.handle = NULL

cdef enum:
    ATTRIBUTE_BAD_ARCH = 2        # SCMP_FLTATR_ACT_BADARCH
    ATTRIBUTE_NO_NEW_PRIVS = 3    # SCMP_FLTATR_CTL_NNP
    ATTRIBUTE_OPTIMIZE = 8        # SCMP_FLTATR_CTL_OPTIMIZE
    KILL_PROCESS = 0x80000000

cdef dict ACTIONS = {             # seccomp.h
    "SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_THREAD": 0, "SCMP_ACT_KILL_PROCESS": 0x80000000, "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_NOTIFY": 0x7FC00000, "SCMP_ACT_LOG": 0x7FFC0000, "SCMP_ACT_ALLOW": 0x7FFF0000,
}
cdef dict NUMBERED = {"SCMP_ACT_ERRNO": 0x00050000, "SCMP_ACT_TRACE": 0x7FF00000}
cdef dict OPERATORS = {
    "SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
cdef dict FLAGS = {               # linux/seccomp.h; TSYNC means nothing to the init's only thread
    "SECCOMP_FILTER_FLAG_TSYNC": 0, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
}

cdef dict _cache = {}


cdef void *symbol(const char *name) except NULL:
    cdef void *found = dlsym(lib.handle, name)
    if found is NULL:
        raise HostError(f"libseccomp has no {name.decode()}: 2.5 or newer is needed")
    return found


cdef int load() except -1:
    """Open the library, once."""
    if lib.handle is not NULL:
        return 0
    lib.handle = dlopen(b"libseccomp.so.2", RTLD_NOW)
    if lib.handle is NULL:
        raise HostError("seccomp filters need libseccomp: install libseccomp2 (Debian, Ubuntu) or libseccomp (Fedora)")
    try:
        lib.init, lib.release = <Init> symbol(b"seccomp_init"), <Release> symbol(b"seccomp_release")
        lib.arch_add, lib.attribute = <ArchAdd> symbol(b"seccomp_arch_add"), <Attribute> symbol(b"seccomp_attr_set")
        lib.resolve = <Resolve> symbol(b"seccomp_syscall_resolve_name")
        lib.resolve_arch = <ResolveArch> symbol(b"seccomp_arch_resolve_name")
        lib.add_rule, lib.export = <AddRule> symbol(b"seccomp_rule_add_array"), <Export> symbol(b"seccomp_export_bpf")
        lib.version = <GetVersion> symbol(b"seccomp_version")
        if (lib.version().major, lib.version().minor) < (2, 5):
            raise HostError("libseccomp is older than 2.5, which makes the filter a search tree")
    except HostError:
        lib.handle = NULL
        raise
    return 0


def version() -> tuple:
    """libseccomp's, as three integers. Raises HostError when it is missing."""
    load()
    return lib.version().major, lib.version().minor, lib.version().micro


cdef uint32_t action(str name, object number) except? 1:
    if name in NUMBERED:
        return <uint32_t> NUMBERED[name] | <uint32_t> (1 if number is None else number)      # EPERM
    return ACTIONS[name]


cdef int add(void *filter, uint32_t what, int call, list arguments) except -1:
    """One rule. Conditions on the same argument are alternatives, as engines expect: a rule each."""
    cdef Comparison comparisons[6]
    cdef int error, index, count = len(arguments)
    indices = [argument.index for argument in arguments]
    if len(set(indices)) != len(indices):
        for argument in arguments:
            add(filter, what, call, [argument])
        return 0
    for index in range(count):
        argument = arguments[index]
        comparisons[index].arg, comparisons[index].op = argument.index, OPERATORS[argument.op]
        comparisons[index].datum_a, comparisons[index].datum_b = argument.value, argument.value_two
    with nogil:
        error = lib.add_rule(filter, what, call, <unsigned int> count, comparisons)
    if error < 0 and error != -17 and error != -33:     # EEXIST: there already; EDOM: not on this architecture
        raise ConfigError("linux.seccomp.syscalls", f"libseccomp refused a rule: {errno_names.errorcode.get(-error, error)}")
    return 0


cdef bytes exported(void *filter):
    cdef int fd = _fd.data_file(b"cycontainer-seccomp"), error
    try:
        with nogil:
            error = lib.export(filter, fd)
        if error < 0:
            raise ConfigError("linux.seccomp", f"libseccomp could not compile it: {os.strerror(-error)}")
        size = os.fstat(fd).st_size
        if size // 8 > 4096:
            raise ConfigError("linux.seccomp", f"the filter has {size // 8} instructions, the kernel takes 4096")
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


cdef int build(void *filter, seccomp) except -1:
    cdef uint32_t default = action(seccomp.default_action, seccomp.default_errno), what
    cdef int call, error
    cdef bytes name
    cdef const char *text
    if lib.attribute(filter, ATTRIBUTE_OPTIMIZE, 2) < 0 or lib.attribute(filter, ATTRIBUTE_NO_NEW_PRIVS, 0) < 0:
        raise HostError("libseccomp cannot make a search tree")
    if lib.attribute(filter, ATTRIBUTE_BAD_ARCH, KILL_PROCESS) < 0:
        raise HostError("libseccomp cannot kill on other architectures")
    for architecture in seccomp.architectures:
        name = architecture.removeprefix("SCMP_ARCH_").lower().encode()
        text = name
        error = lib.arch_add(filter, lib.resolve_arch(text))
        if error < 0 and error != -17:
            raise ConfigError("linux.seccomp.architectures", f"libseccomp does not know {architecture} here")
    for rule in seccomp.syscalls:
        what = action(rule.action, rule.errno)
        if what == default:
            continue
        for call_name in rule.names:
            name = call_name.encode()
            text = name
            call = lib.resolve(text)
            if call != -1:                # __NR_SCMP_ERROR: a name of another kernel or architecture
                add(filter, what, call, list(rule.args))
    return 0


def compile_filter(seccomp, str machine not None) -> bytes:
    """The kernel's program for a filter: an array of struct sock_filter, 8 bytes each. Kept by all it depends on.

    Raises:
        HostError: libseccomp is missing or too old.
        ConfigError: libseccomp refused a rule, or the program is too long.
    """
    cdef void *filter
    load()
    key = (seccomp, machine, version())
    if key in _cache:
        return _cache[key]
    filter = lib.init(action(seccomp.default_action, seccomp.default_errno))
    if filter is NULL:
        raise ConfigError("linux.seccomp.defaultAction", f"libseccomp refused {seccomp.default_action}")
    try:
        build(filter, seccomp)
        program = exported(filter)
    finally:
        lib.release(filter)
    _cache[key] = program
    return program


def filter_flags(seccomp) -> int:
    """The flags of seccomp(2) for a filter.

    Raises:
        ConfigError: a rule asks a supervisor, which this version does not connect.
    """
    if any(rule.action == "SCMP_ACT_NOTIFY" for rule in seccomp.syscalls):
        raise ConfigError("linux.seccomp.syscalls", "SCMP_ACT_NOTIFY: no supervisor can be connected in this version")
    unknown = [flag for flag in seccomp.flags if flag not in FLAGS]
    if unknown:
        raise ConfigError("linux.seccomp.flags", f"{unknown[0]} goes with a supervisor, which this version lacks")
    flags = 0
    for flag in seccomp.flags:
        flags |= FLAGS[flag]
    return flags
