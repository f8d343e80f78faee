"""The plan's writer: one method a step. Hot; it touches nothing but the bytes that it writes.

What a step does stands in init/, under its OP_ name; what a plan looks like, in _steps.pxd.
"""

from cycontainer._steps cimport *

cdef extern from *:
    """
    struct cyc_attributes { unsigned long set, clear, propagation, userns; };
    """
    struct cyc_attributes:
        unsigned long set, clear, propagation, userns


cdef bytes PADDING = b"\0" * 7


cdef class PlanWriter:
    """Writes a plan. The same calls give the same bytes. `attempts[n]` says in words what step n is to do.

    Names and paths are text that config.py has checked: no NUL, no lone surrogate.
    """

    cdef readonly list attempts
    cdef bytearray _data, _steps
    cdef dict _known
    cdef str _held                # the directory that the last OP_HOLD has found

    def __cinit__(self):
        self.attempts, self._data, self._steps, self._known = [], bytearray(sizeof(Header)), bytearray(), {}
        self._held = None

    cdef long _block(self, bytes block) except -1:
        """Keep `block` on a border of 8 bytes, once; its offset."""
        if block in self._known:
            return self._known[block]
        self._data += PADDING[:-len(self._data) & 7]
        cdef long offset = len(self._data)
        self._data += block
        self._known[block] = offset
        return offset

    cdef long _text(self, str text) except -1:
        """Keep `text` and a NUL; its offset."""
        return self._block(text.encode("utf-8", "surrogateescape") + b"\0")

    cdef int _step(self, long op, str attempt, long a=0, long b=0, long c=0, long d=0, long e=0) except -1:
        cdef Step step
        step.op = op
        step.arg[0], step.arg[1], step.arg[2], step.arg[3], step.arg[4] = a, b, c, d, e
        self._steps += (<char *> &step)[:sizeof(step)]
        self.attempts.append(attempt)
        return 0

    def finish(self) -> bytes:
        """The plan; `assemble` makes it complete for one launch."""
        cdef Header header
        self._data += PADDING[:-len(self._data) & 7]
        header.magic, header.steps, header.first = PLAN_MAGIC, len(self.attempts), len(self._data)
        header.size = header.first + len(self._steps)
        header.base = header.argv = header.envp = header.candidates = header.cgroup = 0
        return (<char *> &header)[:sizeof(header)] + bytes(self._data[sizeof(Header):]) + bytes(self._steps)

    # --- the process itself

    def prctl(self, str attempt not None, long option, long value):
        """prctl(2) with one argument."""
        self._step(OP_PRCTL, attempt, option, value)

    def set_session(self):
        """setsid(2)."""
        self._step(OP_SETSID, "start a session")

    def set_umask(self, long mask):
        """umask(2)."""
        self._step(OP_UMASK, f"set the umask to {mask:04o}", mask)

    def enter_cgroup(self, long slot, str name not None):
        """Write 0 to a v1 hierarchy's `tasks`, open in `slot`: one thread alone takes no global lock for it."""
        self._step(OP_WRITE_SLOT, f"enter the {name} cgroup", slot, self._text("0"), 1)

    def close_slots(self, bint waits):
        """Close all that the launcher passed, but the socket and what a container that `waits` for start needs."""
        self._step(OP_CLOSE_SLOTS, "close what the launcher passed", START_SLOTS if waits else 0)

    def synchronise(self, str attempt not None):
        """Wait until the launcher has done `attempt`."""
        self._step(OP_SYNC, attempt, 0)

    def take_answer(self, str attempt not None):
        """Wait until the launcher has made a mount: it comes with the answer, and is the source."""
        self._step(OP_SYNC, attempt, 1)

    def hand_over(self):
        """The source goes to the launcher, in a plan that is an errand of its."""
        self._step(OP_HAND_OVER, "hand the mount over")

    def join(self, long slot, str kind not None, long flag):
        """setns(2) to the namespace that is open in `slot`; for a pid namespace, it is that of children."""
        self._step(OP_SETNS, f"join the {kind} namespace", slot, flag)

    def unshare(self, str kinds not None, long flags):
        """unshare(2)."""
        self._step(OP_UNSHARE, f"make new {kinds} namespaces", flags)

    def clone(self, str kinds not None, long flags):
        """Go on in a second process, in the pid and time namespaces that were set for children, and in new `flags`."""
        self._step(OP_CLONE, f"clone into {kinds} namespaces", flags)

    def fork(self, bint lingers):
        """The program's side goes on; pid 1 stays to reap, to pass signals on and to report; if it `lingers`, until
        the launcher has heard that."""
        self._step(OP_FORK, "fork the program from pid 1", lingers)

    def go_on(self):
        """Wait for another plan and the program's standard streams, and go on with that; this is the last step."""
        self._step(OP_GO_ON, "wait for a program")

    def fresh_signals(self):
        """Default dispositions, an empty mask."""
        self._step(OP_FRESH_SIGNALS, "reset the signals")

    def change_directory(self, str path not None):
        """chdir(2), verified to be below the root."""
        self._step(OP_CHDIR, f"change to the working directory {path}", self._text(path))

    def own_null(self):
        """Of 0, 1 and 2, what is the null device becomes the container's own /dev/null."""
        self._step(OP_OWN_NULL, "open the container's /dev/null in place of the host's")

    def look_up(self):
        """Take the first of the candidates that is an executable file."""
        self._step(OP_LOOK_UP, "look up the program")

    def ready(self):
        """Say that all is done but execve."""
        self._step(OP_READY, "report that all is ready")

    def await_start(self):
        """Read a byte from GO_SLOT; from now on a failure is told to OUTCOME_SLOT."""
        self._step(OP_AWAIT_START, "wait for start")

    def execute(self):
        """execve(2)."""
        self._step(OP_EXECUTE, "execute the program")

    def open_terminal(self, long rows, long columns, long uid):
        """A terminal of the container's devpts becomes 0, 1 and 2, owned by `uid`; its master goes to the launcher.

        The source is a mount of it, for /dev/console. A size of 0 by 0 is not set.
        """
        self._step(OP_OPEN_TERMINAL, "open a terminal in /dev/pts", rows, columns, uid)

    def take_terminal(self):
        """Make 0 the controlling terminal of this session, ioctl_tty(2)."""
        self._step(OP_TAKE_TERMINAL, "take the controlling terminal")

    # --- the system as the container sees it

    def set_host_name(self, str name not None):
        """sethostname(2); at most 64 bytes, which config.py saw to."""
        self._step(OP_SET_HOST_NAME, f"set the host name to {name}", self._text(name), len(name.encode()))

    def set_domain_name(self, str name not None):
        """setdomainname(2)."""
        self._step(OP_SET_DOMAIN_NAME, f"set the domain name to {name}", self._text(name), len(name.encode()))

    def bring_loopback_up(self):
        """Set IFF_UP on lo."""
        self._step(OP_LOOPBACK_UP, "bring the loopback up")

    def open_new_proc(self):
        """A detached procfs of this pid namespace, for `write_proc`."""
        self._step(OP_OPEN_PROC, "open a procfs", 1)

    def open_host_proc(self):
        """The procfs at /proc, verified to be one, for `write_proc`."""
        self._step(OP_OPEN_PROC, "open the host's /proc", 0)

    def write_proc(self, str attempt not None, str path not None, str value not None):
        """Write `value` to `path` below the procfs."""
        self._step(OP_WRITE_PROC, attempt, self._text(path), self._text(value), len(value.encode()))

    # --- identity and limits

    def set_groups(self, bytes groups not None):
        """setgroups(2); `groups` is an array of 32-bit ids."""
        self._step(OP_SET_GROUPS, f"set {len(groups) // 4} additional groups", self._block(groups), len(groups) // 4)

    def set_gid(self, long gid, str note not None=""):
        """setresgid(2), all three. `note`: what a reader of the attempt is to know."""
        self._step(OP_SET_GID, f"set the group id to {gid}{note}", gid)

    def set_uid(self, long uid, str note not None=""):
        """setresuid(2), all three."""
        self._step(OP_SET_UID, f"set the user id to {uid}{note}", uid)

    def drop_bounding(self, unsigned long keep, long last):
        """Drop all capabilities up to `last` but those of the mask `keep` from the bounding set."""
        self._step(OP_DROP_BOUNDING, f"keep {keep.bit_count()} capabilities in the bounding set", <long> keep, last)

    def set_capabilities(self, unsigned long effective, unsigned long permitted, unsigned long inheritable):
        """capset(2); masks."""
        cdef str attempt = f"set {effective.bit_count()} effective capabilities, {permitted.bit_count()} permitted"
        self._step(OP_SET_CAPABILITIES, attempt, <long> effective, <long> permitted, <long> inheritable)

    def raise_ambient(self, unsigned long mask):
        """Make `mask` the ambient set."""
        self._step(OP_RAISE_AMBIENT, f"raise {mask.bit_count()} ambient capabilities", <long> mask)

    def set_rlimit(self, str name not None, long resource, unsigned long soft, unsigned long hard):
        """prlimit(2)."""
        self._step(OP_SET_RLIMIT, f"set {name} to {soft}, at most {hard}", resource, <long> soft, <long> hard)

    def join_keyring(self):
        """A new, anonymous session keyring, keyctl(2)."""
        self._step(OP_JOIN_KEYRING, "start a session keyring")

    def set_personality(self, long persona):
        """personality(2)."""
        self._step(OP_SET_PERSONALITY, f"set the personality to {persona:#x}", persona)

    def set_scheduler(self, bytes attributes not None):
        """sched_setattr(2); `attributes` is its structure."""
        self._step(OP_SET_SCHEDULER, "set the scheduler", self._block(attributes))

    def set_io_priority(self, long priority):
        """ioprio_set(2)."""
        self._step(OP_SET_IO_PRIORITY, f"set the io priority to {priority:#x}", priority)

    def set_memory_policy(self, long mode, bytes nodes not None):
        """set_mempolicy(2); `nodes` is a mask of whole longs, empty for none."""
        self._step(OP_SET_MEMORY_POLICY, "set the memory policy", mode,
                   self._block(nodes) if nodes else 0, 8 * len(nodes) + 1 if nodes else 0)

    def set_affinity(self, bytes cpus not None):
        """sched_setaffinity(2); `cpus` is a mask of whole longs."""
        self._step(OP_SET_AFFINITY, "set the CPU affinity", self._block(cpus), len(cpus))

    def load_seccomp(self, bytes program not None, long flags):
        """seccomp(2); `program` is an array of struct sock_filter."""
        cdef str attempt = f"load a seccomp filter of {len(program) // 8} instructions"
        self._step(OP_LOAD_SECCOMP, attempt, self._block(program), len(program) // 8, flags)

    # --- the file tree

    def set_propagation(self, str attempt not None, long propagation, long flags):
        """mount_setattr(2) on what is / now."""
        cdef cyc_attributes attributes
        attributes.set, attributes.clear, attributes.propagation, attributes.userns = 0, 0, propagation, 0
        self._step(OP_SET_PROPAGATION, attempt, self._block((<char *> &attributes)[:sizeof(attributes)]), flags)

    def enter_root(self, str path not None=""):
        """The source, a detached mount, becomes the root, attached over /. `path`: what it is called in words."""
        self._step(OP_ROOT, f"attach the root {path}".rstrip())

    def enter_root_at(self, str path not None):
        """The source, a detached mount, becomes the root, attached at `path` of the host: hooks look for it there."""
        self._step(OP_ROOT, f"attach the root at {path}", 2, self._text(path))

    def use_root(self):
        """The source becomes the root where it is, in a mount namespace that is not ours."""
        self._step(OP_ROOT, "use the root", 1)

    def take_tree(self, str path not None, long flags, str target not None=""):
        """The source is what `path` is on the host: open_tree(2) with `flags`; OPEN_TREE_CLONE copies its mounts."""
        cdef str purpose = f" for {target}" if target else ""
        self._step(OP_SOURCE_TREE, f"take the file tree {path}{purpose}", self._text(path), flags)

    def keep(self, str what not None, long place):
        """Keep the source for `take_kept`: its path leads nowhere any more when it is needed."""
        if not 0 <= place < MOST_KEPT:
            raise ValueError(f"at most {MOST_KEPT} mounts can be kept")
        self._step(OP_KEEP, f"keep {what}", place)

    def keep_null(self):
        """Keep the null device, for `mask`."""
        self._step(OP_KEEP_NULL, "keep the null device")

    def take_kept(self, str what not None, long place):
        """The source is a mount that was kept."""
        self._step(OP_SOURCE_KEPT, f"take {what}", place)

    def take_inside(self, str path not None):
        """The source is the mount at `path` inside the root."""
        self._step(OP_SOURCE_INSIDE, f"find {path}", self._text(path))

    def take_slot(self, str what not None, long slot):
        """The source is a mount that an errand has made."""
        self._step(OP_SOURCE_SLOT, f"take {what} from the launcher", slot)

    def take_cgroup(self, str prefix not None):
        """The source is the container's directory in the cgroup hierarchy at `prefix`."""
        self._step(OP_SOURCE_CGROUP, f"take the cgroup below {prefix}", self._text(prefix))

    def open_file_system(self, str kind not None, str target not None):
        """The source is a new context: fsopen(2). `target`: what it is for, in words; so with the next three."""
        self._step(OP_FS_OPEN, f"open a {kind} file system for {target}", self._text(kind))

    def set_file_system(self, str key not None, str value, str target not None):
        """fsconfig(2): a flag when `value` is None."""
        cdef str attempt = f"set option {key if value is None else f'{key}={value}'} of the file system for {target}"
        self._step(OP_FS_SET, attempt, self._text(key), 0 if value is None else self._text(value))

    def set_file_system_namespace(self, str key not None, long slot, str target not None):
        """fsconfig(2): the namespace that is open in `slot`."""
        self._step(OP_FS_SET_SLOT, f"set option {key} of the file system for {target}", self._text(key), slot)

    def mount_file_system(self, str kind not None, long attributes, str target not None):
        """The context becomes a detached mount: fsmount(2)."""
        self._step(OP_FS_MOUNT, f"make the {kind} file system for {target}", attributes)

    def set_label(self, str path not None, str label not None):
        """The SELinux label of the source's top directory, with the NUL that it is kept with."""
        self._step(OP_SET_LABEL, f"label {path} {label}", self._text(label), len(label.encode()) + 1)

    def set_attributes(self, str attempt not None, long set, long clear, long propagation, long flags):
        """mount_setattr(2) on the source."""
        self._step(OP_SET_ATTRIBUTES, attempt, set, clear, propagation, flags)

    def hold(self, str path not None):
        """Find or make a directory inside the root, for what is then made in it."""
        if path != self._held:
            self._step(OP_HOLD, f"find or make the directory {path}", self._text(path))
            self._held = path

    cdef bint _is_below(self, str path):
        """Whether it is directly in the held directory."""
        parent, _, name = path.rpartition("/")
        return self._held is not None and parent == self._held and name not in ("", ".", "..")

    def find_target(self, str path not None, long rule):
        """Where the source goes, inside the root; made when missing. `rule`: Target in _steps.pxd."""
        held = self._is_below(path) and rule & TARGET_DIRECTORY and not rule & TARGET_NO_LINKS
        name = self._text(path.rpartition("/")[2]) if held else 0
        self._step(OP_TARGET, f"find or make {path}", self._text(path), rule, name)

    def copy_up(self, str path not None):
        """Copy what the image has at `path` to the source, a tmpfs."""
        self._step(OP_COPY_UP, f"copy the image's {path} to the tmpfs", self._text(path))

    def attach(self, str what not None, str path not None):
        """The source goes to the target: move_mount(2)."""
        self._step(OP_ATTACH, f"mount {what} on {path}")
        if not self._is_below(path):
            self._held = None         # it may lie over the directory, or over one above

    def make_working_directory(self, str path not None):
        """Find or make it inside the root; what cannot be made there is left to `change_directory`."""
        self._step(OP_MAKE_DIRECTORY, f"find or make the working directory {path}", self._text(path))

    def make_node(self, str parent not None, str name not None, long mode, long device, long uid, long gid):
        """mknod(2); `mode` with its file type, `device` as makedev(3) makes it."""
        self.hold(parent)
        self._step(OP_MAKE_NODE, f"make the node {parent}/{name}", self._text(name), mode, device, uid << 32 | gid)

    def make_link(self, str parent not None, str name not None, str text not None, long device=0):
        """symlink(2), unless the image has something there; with `device`, that has to be this link, or this device."""
        self.hold(parent)
        self._step(OP_MAKE_LINK, f"link {parent}/{name} to {text}", self._text(name), self._text(text), device)

    def mask(self, str path not None):
        """Make `path` read as empty, if it is there."""
        self._step(OP_MASK, f"mask {path}", self._text(path))

    def make_readonly(self, str path not None):
        """Make `path` and all below it read-only, if it is there."""
        self._step(OP_MAKE_READONLY, f"make {path} read-only", self._text(path))

    def pivot(self):
        """pivot_root(2), and detach what was the root."""
        self._step(OP_PIVOT, "pivot to the root")

    def change_root(self):
        """chroot(2), where the root cannot be pivoted."""
        self._step(OP_CHROOT, "change to the root without pivoting")

    def set_root_attributes(self, str attempt not None, long set, long clear, long propagation, long flags):
        """mount_setattr(2) on the root."""
        self._step(OP_ROOT_ATTRIBUTES, attempt, set, clear, propagation, flags)


def assemble(bytes plan not None, long base, tuple argv not None, tuple envp not None, tuple candidates not None,
             bytes cgroup) -> bytes:
    """The plan for one launch: with the program's arguments, environment and candidates, all bytes, appended.

    `base` is the first descriptor that is the init's own. `cgroup` is the container's path below each hierarchy.
    """
    cdef Header header
    cdef long size = len(plan), array
    cdef bytes text
    cdef list parts = []
    cdef list arrays = []
    cdef bytearray offsets = bytearray()
    if len(plan) < <long> sizeof(header):
        raise ValueError("not a plan")
    cdef const char *start = plan
    header = (<const Header *> start)[0]
    for texts in (argv, envp, candidates):
        arrays.append(len(offsets))
        for text in texts:
            parts.append(text)
            offsets += (<char *> &size)[:sizeof(size)]
            size += len(text) + 1
        array = 0
        offsets += (<char *> &array)[:sizeof(array)]
    if cgroup is not None:
        parts.append(cgroup)
        header.cgroup = size
        size += len(cgroup) + 1
    cdef bytes strings = b"\0".join(parts) + b"\0" + PADDING[:-size & 7]
    size += -size & 7
    header.argv, header.envp, header.candidates = size + arrays[0], size + arrays[1], size + arrays[2]
    header.size = size + len(offsets)
    header.base = base
    return b"".join(((<char *> &header)[:sizeof(header)], plan[sizeof(header):], strings, offsets))


def broken_at(bytes plan not None, long step) -> bytes:
    """The plan with step `step`, from 0, made one that no init knows: for tests of what happens when it fails."""
    cdef const char *start = plan
    cdef long at = (<const Header *> start).first + step * sizeof(Step)
    cdef long nothing = 9999
    return plan[:at] + (<char *> &nothing)[:sizeof(nothing)] + plan[at + sizeof(nothing):]


def held_at(bytes plan not None, long step) -> bytes:
    """The plan with an OP_SYNC in front of step `step`, from 0: for tests of what can be done to the init then."""
    cdef Header header
    cdef Step hold
    cdef const char *start = plan
    cdef long at = (<const Header *> start).first + step * sizeof(Step)
    header = (<const Header *> start)[0]
    header.steps += 1
    header.size += sizeof(Step)
    hold.op = OP_SYNC
    hold.arg[0] = hold.arg[1] = hold.arg[2] = hold.arg[3] = hold.arg[4] = 0
    return b"".join(((<char *> &header)[:sizeof(header)], plan[sizeof(header):at], (<char *> &hold)[:sizeof(hold)],
                     plan[at:]))
