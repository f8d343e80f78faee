"""Device rules as the text of an eBPF program for cgroup v2; _cgroupdevices.pyx loads it. Hot; pure.

The kernel asks the program at each open and mknod of a device; 1 lets it pass. A letter of rwm is decided by the last
rule that speaks of it, as by v1's controller, and denied when none does. So the program asks from the last rule to
the first, and strikes out the letters that are allowed. Sources: linux/bpf.h;
Documentation/bpf/standardization.
"""

cdef enum:
    MKNOD = 1                     # BPF_DEVCG_ACC_*
    READ = 2
    WRITE = 4
    EVERY = 7
    BLOCK = 1                     # BPF_DEVCG_DEV_*
    CHARACTER = 2

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
