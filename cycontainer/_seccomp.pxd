# libseccomp's functions and the kernel's filters, as `_seccomp.pyx` uses them: seccomp.h, linux/filter.h.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef struct Version:              # struct scmp_version
    unsigned int major, minor, micro

cdef struct Comparison:           # struct scmp_arg_cmp
    unsigned int arg
    int op
    uint64_t datum_a, datum_b

cdef struct Rule:
    uint32_t action
    int call                      # its number on the machine that we run on, as libseccomp wants it
    unsigned int count
    Comparison comparisons[6]

cdef struct Instruction:          # struct sock_filter
    uint16_t code
    uint8_t jt, jf
    uint32_t k

ctypedef void *(*Start)(uint32_t) noexcept nogil
ctypedef void (*Release)(void *) noexcept nogil
ctypedef uint32_t (*Native)() noexcept nogil
ctypedef int (*Architecture)(void *, uint32_t) noexcept nogil
ctypedef int (*Attribute)(void *, int, uint32_t) noexcept nogil
ctypedef int (*Resolve)(const char *) noexcept nogil
ctypedef int (*ResolveOn)(uint32_t, const char *) noexcept nogil
ctypedef uint32_t (*ResolveArchitecture)(const char *) noexcept nogil
ctypedef int (*AddRule)(void *, uint32_t, int, unsigned int, const Comparison *) noexcept nogil
ctypedef int (*Export)(void *, int) noexcept nogil
ctypedef const Version *(*GetVersion)() noexcept nogil

cdef struct Library:
    Start start
    Release release
    Native native
    Architecture add_architecture, remove_architecture
    Attribute attribute
    Resolve resolve
    ResolveOn resolve_on
    ResolveArchitecture resolve_architecture
    AddRule add_rule
    Export export
    GetVersion version

cdef enum:
    ATTRIBUTE_BAD_ARCHITECTURE = 2    # SCMP_FLTATR_ACT_BADARCH
    ATTRIBUTE_NO_NEW_PRIVS = 3        # SCMP_FLTATR_CTL_NNP
    ATTRIBUTE_OPTIMIZE = 8            # SCMP_FLTATR_CTL_OPTIMIZE; 2 is a search tree
    UNKNOWN_CALL = -1                 # __NR_SCMP_ERROR
    X32_BIT = 0x40000000
    LOAD = 0x20                       # BPF_LD | BPF_W | BPF_ABS
    JUMP = 0x05                       # BPF_JMP | BPF_JA
    JUMP_IF_EQUAL = 0x15              # BPF_JMP | BPF_JEQ | BPF_K
    JUMP_IF_ABOVE = 0x25              # BPF_JMP | BPF_JGT | BPF_K
    JUMP_IF_LEAST = 0x35              # BPF_JMP | BPF_JGE | BPF_K
    MASK = 0x54                       # BPF_ALU | BPF_AND | BPF_K
    RETURN = 0x06                     # BPF_RET | BPF_K
    NUMBER_AT = 0                     # where they stand in struct seccomp_data
    ARCHITECTURE_AT = 4
    ARGUMENTS_AT = 16
    MOST_INSTRUCTIONS = 4096          # BPF_MAXINSNS
    MOST_KEPT = 64                    # programs of some 10 KB each
    NEW_LISTENER = 8                  # SECCOMP_FILTER_FLAG_NEW_LISTENER


cdef inline bytes jump(uint16_t code, uint32_t k, uint8_t jt, uint8_t jf):
    """One instruction; a jump or not."""
    cdef Instruction made = Instruction(code, jt, jf, k)
    return (<char *> &made)[:sizeof(Instruction)]
