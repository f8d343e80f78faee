"""Device programs of cgroup v2: loaded, attached, replaced. Hot; no Python. _bpf.pyx writes them.

Sources: linux/bpf.h; bpf(2).
"""

from libc.string cimport memcpy, memset, strcmp

from cycontainer._sys cimport SYS_bpf, close, errno, syscall

cdef enum:
    INSTRUCTION_BYTES = 8         # struct bpf_insn
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

cdef union Attributes:            # union bpf_attr, of each command what we use
    unsigned char room[120]
    unsigned int words[30]
    unsigned long longs[15]


cdef int bpf(int command, Attributes *attributes) noexcept nogil:
    cdef long result = syscall(SYS_bpf, command, attributes, sizeof(Attributes))
    return <int> result if result >= 0 else -errno


cdef int load(const char *program, size_t length) noexcept nogil:
    """A descriptor of the program; it is called cycontainer."""
    cdef Attributes attributes
    memset(&attributes, 0, sizeof(attributes))
    attributes.words[0], attributes.words[1] = TYPE_CGROUP_DEVICE, <unsigned int> (length // INSTRUCTION_BYTES)
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


cdef public int attach_devices(int directory, const char *program, size_t length) noexcept nogil:
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
