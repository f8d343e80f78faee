"""The plan: what its writer and the init share, once.

A plan is one block of bytes: a Header; data that the steps point to by its offset from the plan's start, strings that
end with NUL and arrays aligned to 8 bytes; the Steps. The launcher appends what differs from one launch to the next
(arguments, environment, candidates) and fills in the rest of the Header.

A plan holds no inode, no descriptor number and no resolved path. Descriptors that the launcher passes are *slots*:
slot n is descriptor `Header.base + FIRST_SLOT + n` in the init.
"""

cdef enum:
    PLAN_MAGIC = 0x314C5043           # "CPL1"
    SYNC_DESCRIPTOR = 0               # from Header.base on: the socket to the launcher,
    PLAN_DESCRIPTOR = 1               # the plan,
    FIRST_SLOT = 2                    # and the slots

# A container that waits for `start` has two FIFOs of its state directory in its first slots: `start` writes one byte to
# the first, and reads the second to its end, which is the program's execve, or a Message that says what failed.
cdef enum:
    GO_SLOT = 0
    OUTCOME_SLOT = 1
    START_SLOTS = 2

cdef enum:
    MOST_KEPT = 64                    # mounts that one plan keeps for later

cdef struct Header:
    long magic
    long size            # of the whole plan, in bytes
    long steps           # how many
    long first           # offset of the first
    long base            # the first descriptor that is the init's; those below are the program's
    long argv            # offsets of arrays of offsets, each with 0 at its end: the program's arguments,
    long envp            # its environment,
    long candidates      # and the paths that it may stand at, the first executable one is taken
    long cgroup          # string: the container's cgroup, below each hierarchy's prefix

cdef struct Step:
    long op
    long arg[5]          # numbers, or offsets

# What each takes stands with its method in _plan.pyx, what each does in init/.
cdef enum Op:
    # the process itself
    OP_PRCTL = 1
    OP_SETSID
    OP_UMASK
    OP_WRITE_SLOT
    OP_CLOSE_SLOTS
    OP_SYNC
    OP_SETNS
    OP_UNSHARE
    OP_CLONE
    OP_FORK
    OP_FRESH_SIGNALS
    OP_CHDIR
    OP_LOOK_UP
    OP_READY
    OP_EXECUTE
    OP_AWAIT_START
    OP_OPEN_TERMINAL
    OP_TAKE_TERMINAL
    OP_GO_ON
    OP_OWN_NULL
    # the system as the container sees it
    OP_SET_HOST_NAME = 32
    OP_SET_DOMAIN_NAME
    OP_LOOPBACK_UP
    OP_OPEN_PROC
    OP_WRITE_PROC
    # identity and limits
    OP_SET_GROUPS = 48
    OP_SET_GID
    OP_SET_UID
    OP_DROP_BOUNDING
    OP_SET_CAPABILITIES
    OP_RAISE_AMBIENT
    OP_SET_RLIMIT
    OP_JOIN_KEYRING
    OP_SET_PERSONALITY
    OP_SET_SCHEDULER
    OP_SET_IO_PRIORITY
    OP_SET_MEMORY_POLICY
    OP_SET_AFFINITY
    OP_LOAD_SECCOMP
    # the file tree
    OP_SET_PROPAGATION = 64
    OP_ROOT
    OP_SOURCE_TREE
    OP_SOURCE_INSIDE
    OP_SOURCE_SLOT
    OP_SOURCE_CGROUP
    OP_FS_OPEN
    OP_FS_SET
    OP_FS_SET_SLOT
    OP_FS_MOUNT
    OP_SET_ATTRIBUTES
    OP_HOLD
    OP_TARGET
    OP_COPY_UP
    OP_ATTACH
    OP_MAKE_NODE
    OP_MAKE_LINK
    OP_MASK
    OP_MAKE_READONLY
    OP_PIVOT
    OP_CHROOT
    OP_ROOT_ATTRIBUTES
    OP_HAND_OVER
    OP_KEEP
    OP_KEEP_NULL
    OP_SOURCE_KEPT
    OP_SET_LABEL
    OP_MAKE_DIRECTORY

# OP_TARGET: what to make of a target, arg[1]
cdef enum Target:
    TARGET_LIKE_SOURCE = 0   # a directory if the source is one, else a file
    TARGET_DIRECTORY = 1
    TARGET_NO_LINKS = 2      # no component may be a symbolic link
    TARGET_IN_PROC = 4       # may lie in a procfs
    TARGET_TAKE_MODE = 8     # an existing directory gives its mode to the file system on top

# What the init says on its socket, one packet each; the launcher answers a MESSAGE_SYNC with one byte.
cdef enum MessageKind:
    MESSAGE_FAILED = 1   # step, error
    MESSAGE_SYNC = 2     # step; waits for the answer and its descriptors
    MESSAGE_READY = 3    # all is done but execve
    MESSAGE_ENDED = 4    # the program's wait status; pid 1 exits next
    MESSAGE_CLONED = 5   # the second process is there; its pidfd comes with it
    MESSAGE_TERMINAL = 6  # the terminal's master comes with it
    MESSAGE_MOUNT = 7    # an errand's mount comes with it
    MESSAGE_PROGRAM = 8  # a pidfd of the process that will execute the program comes with it, and next
    MESSAGE_GATE = 9     # the end of a full pipe: when it has been emptied, that process goes on
    MESSAGE_LISTENER = 10  # error: the number of its seccomp listener there; tasks: the pipe's, unless it was sent

cdef struct Message:
    int kind
    int step             # from 0
    int error            # errno, or the wait status of MESSAGE_ENDED
    int tasks            # MESSAGE_ENDED: processes and threads that were started; 0 unknown
    long user_us         # MESSAGE_ENDED: CPU time of all of them that have been waited for
    long system_us
    long peak_kb         # MESSAGE_ENDED: the largest resident set of one of them
