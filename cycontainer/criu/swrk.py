"""One `criu swrk` process: started by our own launcher, asked, answered, never killed, always waited for.

Our launcher, so that criu (and all that it forks, a restored container among it) is born in the container's cgroup, in
a session and a session keyring of its own, and inherits nothing of ours but the descriptors that it is given. It is
never killed: after its network lock a killed criu leaves the container without network. Source: criu's cr-service.c.
"""

from __future__ import annotations

import _socket
import errno
import os
from struct import iter_unpack

from cycontainer._plan import PlanWriter
from cycontainer.criu import log as criu_log
from cycontainer.criu.rpc import REQUEST, REQUESTS, RESPONSE, Malformed, decode, encode
from cycontainer.errors import CriuError, HostError, ProgramError, StatusUnknown, name_of
from cycontainer.identity import PR_SET_NO_NEW_PRIVS
from cycontainer.launch import abandon, end_of, launch
from cycontainer.mount_options import AT_RECURSIVE, MS_PRIVATE, MS_SLAVE, OPEN_TREE_CLONE
from cycontainer.plan import Plan
from cycontainer.process import settle
from cycontainer.tables import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final, Self

    from cycontainer._clone import Child
    from cycontainer.cgroups import Cgroup

    Notified = Callable[[str, int, int], Mapping[str, Any] | None]

OLDEST: Final = (3, 15, 0)  # status-ready, external pid namespaces, freezing by a v2 cgroup
INSTALL: Final = (
    "install criu 3.15 or newer and have it in PATH (Debian, Ubuntu, Fedora: package criu);"
    " Linux 6.16 and newer need criu 4.2 or newer"
)
SILENCE_MS: Final = 200
LONG_SILENCE_MS: Final = 1000
LONGEST: Final = 1 << 16  # bytes of one message
MOST_DESCRIPTORS: Final = 4
SOCKET: Final = 3  # criu's end of the socket, in criu
FIRST_INHERITED: Final = 4
ATTEMPTS: Final = {
    "DUMP": "checkpoint",
    "SINGLE_PRE_DUMP": "pre-dump",
    "RESTORE": "restore",
    "FEATURE_CHECK": "look at this kernel",
    "VERSION": "say its version",
}
KEPT: Final = ("PATH", "HOME")  # of the environment, and criu's own variables


def _environment() -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in os.environ.items() if name in KEPT or name.startswith("CRIU_"))


def _compile(
    cgroup_mounts: tuple[str, ...],
    root: tuple[str, str] | None,
    *,
    moved: bool,
    own_cgroup_root: bool,
    own_session: bool,
    no_new_privileges: bool,
) -> Plan:
    """A plan that enters cgroups, or waits to be `moved` there, binds the root, and executes criu."""
    plan = PlanWriter()
    if moved:
        plan.synchronise("let systemd move criu to the container's unit")
    for slot, mount in enumerate(cgroup_mounts):
        plan.enter_cgroup(slot, mount)
    if own_cgroup_root:
        plan.unshare("cgroup", NAMESPACES["cgroup"][0])
    if root is not None:
        plan.unshare("mount", NAMESPACES["mount"][0])
        plan.set_propagation("keep mounts from going back to the host", MS_SLAVE, AT_RECURSIVE)
        plan.take_tree(root[0], OPEN_TREE_CLONE | AT_RECURSIVE)
        plan.set_attributes("make the root's mounts private", 0, 0, MS_PRIVATE, AT_RECURSIVE)
        plan.enter_root_at(root[1])
    plan.join_keyring()
    plan.set_umask(0o022 if root is not None else 0o077)  # images are for us alone
    plan.close_slots(False)
    if own_session:
        plan.set_session()
    plan.fresh_signals()
    if no_new_privileges:
        plan.prctl("set no_new_privs", PR_SET_NO_NEW_PRIVS, 1)
    program_step = len(plan.attempts)
    plan.look_up()
    plan.execute()
    return Plan(
        data=plan.finish(),
        attempts=tuple(plan.attempts),
        program_step=program_step,
        syncs={0: "unit"} if moved else {},
        args=("criu", "swrk", str(SOCKET)),
        env=_environment(),
    )


class Criu:
    """A criu that waits for a request. Use it with `with`: leaving it waits for criu's end.

    Attributes:
        pid: its pid; it is in the container's cgroup when it was started with one.
        version: (major, minor, sublevel).
        died: it has ended without an answer, and what it did stays as it was then.
    """

    def __init__(self, child: Child, ours: _socket.socket) -> None:
        self._child, self._socket = child, ours
        self._silent: Callable[[], object] | None = None
        self.pid = child.pid
        self.version = (0, 0, 0)
        self.died = False

    @classmethod
    def start(
        cls,
        *,
        inherited: tuple[int, ...] = (),
        cgroup: Cgroup | None = None,
        cgroup_mounts: tuple[str, ...] = (),
        enter: Callable[[int], object] | None = None,
        own_cgroup_root: bool = False,
        root: tuple[str, str] | None = None,
        terminal: int = -1,
        no_new_privileges: bool = False,
    ) -> Self:
        """Start it, and make sure that it is new enough.

        Args:
            inherited: descriptors that it gets, as FIRST_INHERITED and following; they stay the caller's.
            cgroup, cgroup_mounts: those that it is to be born in, and the mounts of their hierarchies, v1's first.
            enter: called with its pid while it waits, to put it into a cgroup that is made with it.
            own_cgroup_root: in a new cgroup namespace, for what it restores without making one.
            root: a root file system, and the directory that it is bound on, in a mount namespace of criu's own.
            terminal: its 0, 1 and 2, in the caller's session: for a shell job; -1: /dev/null, in a session of its own,
                so that nothing that criu says outside of its log lands in the container's output.
            no_new_privileges: those of what it restores: before 3.19 it does not see to that, but passes on its own.

        Raises:
            HostError: there is no criu, or it is too old, or we are not root.
        """
        if os.geteuid() != 0:
            raise HostError("criu needs root to save and to restore a container")
        entered = cgroup_mounts[: len(cgroup.tasks)] if cgroup is not None else ()  # v1's; in v2 it is born
        plan = _compile(
            entered,
            root,
            moved=enter is not None,
            own_cgroup_root=own_cgroup_root,
            own_session=terminal < 0,
            no_new_privileges=no_new_privileges,
        )
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            standard = (null if terminal < 0 else terminal,) * 3
            descriptors = (*standard, theirs.fileno(), *inherited)
            child = _started(plan, launch(plan, descriptors=descriptors, cgroup=cgroup), enter)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(null)
        criu = cls(child, ours)
        try:
            criu._check_version()
        except BaseException:
            criu.close()
            raise
        return criu

    def _check_version(self) -> None:
        found = self._one("VERSION", {"keep_open": True}).get("version", {})
        self.version = (found.get("major", 0), found.get("minor", 0), found.get("sublevel", 0))
        if self.version < OLDEST:
            raise HostError(f"criu {'.'.join(map(str, self.version))} is too old: {INSTALL}")

    def features(self, *names: str) -> dict[str, bool]:
        """Which of the features "mem_track", "lazy_pages", "pidfd_store" criu has on this kernel."""
        found = self._one("FEATURE_CHECK", {"keep_open": True, "features": dict.fromkeys(names, True)})
        return {name: bool(found.get("features", {}).get(name)) for name in names}

    def ask(
        self,
        kind: str,
        options: Mapping[str, Any],
        *,
        notified: Notified | None = None,
        silent: Callable[[], object] | None = None,
        log: str = "",
    ) -> dict[str, Any]:
        """Send the request, answer criu's notifications, and return its last answer.

        An exception here, or one that `notified` raises, makes criu undo what it did; it then goes on.

        Args:
            kind: a key of `rpc.REQUESTS`.
            notified: called with a notification's name, a pid (0 when it has none) and a descriptor (-1 when it has
                none), which is closed afterwards; what it returns are options for criu.
            silent: called whenever criu has said nothing for a while.
            log: the path of the log that criu writes.

        Raises:
            CriuError: criu failed or died.
        """
        self._silent = silent
        answer = self._one(kind, {"opts": options}, notified=notified, log=log)
        code = self._end()
        if code:
            self.died = True
            raise _failure(kind, _ended(code), log)
        return answer

    def _one(
        self, kind: str, fields: Mapping[str, Any], *, notified: Notified | None = None, log: str = ""
    ) -> dict[str, Any]:
        try:
            self._socket.send(encode({"type": REQUESTS[kind], **fields}, REQUEST))
            answer = self._converse(notified)
        except (EOFError, ConnectionError):
            self.died = True
            raise _failure(kind, _ended(self._end()), log) from None
        except Malformed as error:
            raise _failure(kind, f"its answer is none: {error}", log) from None
        if not answer.get("success"):
            code = answer.get("cr_errno", 0)
            raise _failure(kind, name_of(code) if code else "failed", log)
        return answer

    def _converse(self, notified: Notified | None) -> dict[str, Any]:
        waiting = False  # whether a notification has not been answered yet
        try:
            while True:
                answer, fds = self._receive()
                if "notify" not in answer:
                    _close(fds)
                    return answer
                waiting = True
                self._answer(True, _notify(notified, answer["notify"], fds))
                waiting = False
        except (EOFError, ConnectionError, Malformed):
            raise
        except BaseException:
            self._refuse(waiting)
            raise

    def _refuse(self, waiting: bool) -> None:
        """Make criu undo what it did: refuse one notification, and agree to those that follow.

        It may wait for an answer to what was interrupted on its way to us: after a while it is told that none comes.
        """
        if waiting:
            self._answer(False)
        refused = waiting
        try:
            while True:
                if not self._speaks(LONG_SILENCE_MS):
                    self._socket.shutdown(_socket.SHUT_WR)
                answer, fds = self._receive()
                _close(fds)
                if "notify" not in answer:
                    return
                self._answer(refused)
                refused = True
        except (EOFError, ConnectionError):
            return  # it has ended, and was about to

    def _answer(self, success: bool, options: Mapping[str, Any] | None = None) -> None:
        fields = {"type": REQUESTS["NOTIFY"], "notify_success": success, "opts": options or None}
        self._socket.send(encode(fields, REQUEST))

    def _await(self) -> None:
        """Until criu says something."""
        while self._silent is not None and not self._speaks(SILENCE_MS):
            self._silent()

    def _speaks(self, timeout_ms: int) -> bool:
        import select

        watch = select.poll()
        watch.register(self._socket.fileno(), select.POLLIN)
        return bool(watch.poll(timeout_ms))

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        """One message and the descriptors that came with it, which are the caller's."""
        self._await()
        room = _socket.CMSG_SPACE(MOST_DESCRIPTORS * 4)
        data, ancillary, flags, _ = self._socket.recvmsg(LONGEST, room, _socket.MSG_CMSG_CLOEXEC)
        fds: list[int] = []
        for level, what, body in ancillary:
            if (level, what) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                fds += [number for (number,) in iter_unpack("i", body[: len(body) // 4 * 4])]
        try:
            if not data:
                raise EOFError
            if flags & _socket.MSG_TRUNC:
                raise Malformed("it is too long")
            return decode(data, RESPONSE), fds
        except (EOFError, Malformed):
            _close(fds)
            raise

    def _end(self) -> int:
        """Hang up, and wait for its end: its status, as a returncode."""
        self._socket.close()
        try:
            return end_of(self._child, None)[0]
        except StatusUnknown:
            return 0
        finally:
            self._child.close()

    def close(self) -> None:
        """Hang up, if that has not happened, and wait for its end. What it was about to do, it undoes."""
        if self._socket.fileno() >= 0:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _started(plan: Plan, child: Child, enter: Callable[[int], object] | None) -> Child:
    """The child, once criu is executed in it."""

    def move(child: Child) -> None:
        if enter is not None:
            enter(child.pid)

    try:
        settle(plan, child, {"unit": move})
    except ProgramError as error:
        abandon(child)
        child.close()
        if error.errno == errno.ENOENT:
            raise HostError(f"criu is missing: {INSTALL}") from None
        raise
    except BaseException:
        abandon(child)
        child.close()
        raise
    return child


def _notify(notified: Notified | None, notification: Mapping[str, Any], fds: list[int]) -> Mapping[str, Any] | None:
    try:
        if notified is None:
            return None
        return notified(notification["script"], notification.get("pid", 0), fds[0] if fds else -1)
    finally:
        _close(fds)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _ended(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}" if code else "hung up"


def _failure(kind: str, problem: str, log: str) -> CriuError:
    lines = criu_log.excerpt(criu_log.lines_of(log)) if log else ()
    return CriuError(ATTEMPTS.get(kind, kind), problem, log, lines, criu_log.advice(lines, log) if log else ())
