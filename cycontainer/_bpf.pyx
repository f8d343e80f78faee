"""Device rules as an eBPF program for cgroup v2: written, loaded, attached, replaced. Hot.

The kernel asks the program at each open and mknod of a device; 1 lets it pass. A letter of rwm is decided by the last
rule that speaks of it, as by v1's controller, and denied when none does. So the program asks from the last rule to
the first, and strikes out the letters that are allowed. Sources: linux/bpf.h; bpf(2);
Documentation/bpf/standardization.
"""

from libc.string cimport memcpy, memset, strcmp

from cycontainer._sys cimport SYS_bpf, close, errno, syscall

cdef enum:
    MKNOD = 1                     # BPF_DEVCG_ACC_*
    READ = 2
    WRITE = 4
    EVERY = 7
    BLOCK = 1                     # BPF_DEVCG_DEV_*
    CHARACTER = 2
    TYPE_CGROUP_DEVICE = 15       # BPF_PROG_TYPE_CGROUP_DEVICE
    AT_CGROUP_DEVICE = 6          # BPF_CGROUP_DEVICE
    ALLOW_MULTI = 2               # BPF_F_*
    REPLACE = 4
    MOST_PROGRAMS = 64            # BPF_CGROUP_MAX_PROGS

cdef enum:                        # commands, BPF_*
    PROG_LOAD = 5
    PROG_ATTACH = 8
    PROG_GET_FD_BY_ID = 13
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16

cdef enum:                        # registers: what is asked, and what is left to decide
    RESULT = 0
    CONTEXT = 1
    TYPE = 2
    LETTERS = 3
    MAJOR = 4
    MINOR = 5

cdef enum:                        # instructions, of 32 bits but for the loads: linux/bpf_common.h, linux/bpf.h
    LOAD_WORD = 0x61              # BPF_LDX | BPF_MEM | BPF_W
    MOVE = 0xBC
    MOVE_NUMBER = 0xB4
    AND_NUMBER = 0x54
    SHIFT_RIGHT = 0x74
    JUMP_IF = 0x16
    JUMP_UNLESS = 0x56
    EXIT = 0x95

cdef struct Instruction:          # struct bpf_insn
    unsigned char code
    unsigned char registers       # the destination in the low half, the source in the high one
    short offset
    int number

cdef union Attributes:            # union bpf_attr, of each command what we use
    unsigned char room[120]
    unsigned int words[30]
    unsigned long longs[15]


# --- the program's text ----------------------------------------------------------------------------------------------

cdef bytes instruction(int code, int to=0, int source=0, int offset=0, unsigned int number=0):
    cdef Instruction made = Instruction(<unsigned char> code, <unsigned char> (to | source << 4), <short> offset,
                                        <int> number)
    return (<char *> &made)[:sizeof(made)]


cdef list condition(object rule):
    """The instructions that decide by one rule; -1 stands for the way to the next one's."""
    cdef unsigned int letters = 0
    for letter in rule.access:
        letters |= {"r": READ, "w": WRITE, "m": MKNOD}[letter]
    parts = []
    if rule.type != "a":
        parts.append((JUMP_UNLESS, TYPE, -1, BLOCK if rule.type == "b" else CHARACTER))
    if rule.major is not None:
        parts.append((JUMP_UNLESS, MAJOR, -1, rule.major))
    if rule.minor is not None:
        parts.append((JUMP_UNLESS, MINOR, -1, rule.minor))
    if rule.allow and letters != EVERY:       # strike them out; if none is left, it may pass
        parts += [(AND_NUMBER, LETTERS, 0, EVERY & ~letters), (JUMP_UNLESS, LETTERS, -1, 0)]
    elif letters != EVERY:
        parts += [(MOVE, RESULT, 0, 0), (AND_NUMBER, RESULT, 0, letters), (JUMP_IF, RESULT, -1, 0)]
    parts += [(MOVE_NUMBER, RESULT, 0, 1 if rule.allow else 0), (EXIT, 0, 0, 0)]
    return parts


def device_program(tuple rules not None) -> bytes:
    """The program for rules with `allow`, `type` ("a", "b", "c"), `major`, `minor` (None: all) and `access`, in their
    order. Pure. What no rule speaks of is denied."""
    cdef list program = [
        instruction(LOAD_WORD, TYPE, CONTEXT, 0),             # the letters above the type: struct bpf_cgroup_dev_ctx
        instruction(MOVE, LETTERS, TYPE),
        instruction(SHIFT_RIGHT, LETTERS, 0, 0, 16),
        instruction(AND_NUMBER, TYPE, 0, 0, 0xFFFF),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8),
    ]
    for rule in reversed(rules):
        parts = condition(rule)
        for place, (code, register, offset, number) in enumerate(parts):
            source = LETTERS if code == MOVE else 0
            offset = len(parts) - place - 1 if offset == -1 else 0
            program.append(instruction(code, register, source, offset, number))
        if len(parts) == 2:       # it decides all: the verifier refuses what can never be reached
            return b"".join(program)
    return b"".join(program + [instruction(MOVE_NUMBER, RESULT), instruction(EXIT)])


# --- the kernel's side -----------------------------------------------------------------------------------------------

cdef int bpf(int command, Attributes *attributes) noexcept nogil:
    cdef long result = syscall(SYS_bpf, command, attributes, sizeof(Attributes))
    return <int> result if result >= 0 else -errno


cdef int load(const char *program, size_t length) noexcept nogil:
    """A descriptor of the program; it is called cycontainer."""
    cdef Attributes attributes
    memset(&attributes, 0, sizeof(attributes))
    attributes.words[0], attributes.words[1] = TYPE_CGROUP_DEVICE, <unsigned int> (length // sizeof(Instruction))
    attributes.longs[1], attributes.longs[2] = <unsigned long> program, <unsigned long> <const char *> b"Apache-2.0"
    memcpy(&attributes.room[48], <const char *> b"cycontainer", 11)    # prog_name
    return bpf(PROG_LOAD, &attributes)


cdef int find(int directory) noexcept nogil:
    """A descriptor of our program at this cgroup itself, 0 when there is none. Others' are left alone: systemd's."""
    cdef Attributes query, open, info
    cdef unsigned int ids[MOST_PROGRAMS]
    cdef char found[256]
    cdef int error, fd, index
    memset(&query, 0, sizeof(query))
    query.words[0], query.words[1], query.longs[2] = <unsigned int> directory, AT_CGROUP_DEVICE, <unsigned long> ids
    query.words[6] = MOST_PROGRAMS
    error = bpf(PROG_QUERY, &query)
    if error < 0:
        return error
    for index in range(<int> min(query.words[6], <unsigned int> MOST_PROGRAMS)):
        memset(&open, 0, sizeof(open))
        open.words[0] = ids[index]
        fd = bpf(PROG_GET_FD_BY_ID, &open)
        if fd < 0:
            continue              # just gone
        memset(&info, 0, sizeof(info))
        memset(found, 0, sizeof(found))
        info.words[0], info.words[1], info.longs[1] = <unsigned int> fd, sizeof(found), <unsigned long> found
        error = bpf(OBJ_GET_INFO_BY_FD, &info)
        if error >= 0 and strcmp(found + 64, b"cycontainer") == 0:     # bpf_prog_info.name
            return fd
        close(fd)
    return 0


cdef int attach_devices(int directory, const char *program, size_t length) noexcept nogil:
    """Load a program and put it in the place of the one before, if any; 0, or a negative errno. It stays with the
    cgroup until that is removed."""
    cdef Attributes attach
    cdef int error, fd, former = find(directory)
    if former < 0:
        return former
    fd = load(program, length)
    if fd < 0:
        if former > 0:
            close(former)
        return fd
    memset(&attach, 0, sizeof(attach))
    attach.words[0], attach.words[1], attach.words[2] = <unsigned int> directory, <unsigned int> fd, AT_CGROUP_DEVICE
    attach.words[3], attach.words[4] = ALLOW_MULTI, 0
    if former > 0:
        attach.words[3], attach.words[4] = ALLOW_MULTI | REPLACE, <unsigned int> former
    error = bpf(PROG_ATTACH, &attach)
    close(fd)
    if former > 0:
        close(former)
    return error
