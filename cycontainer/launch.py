"""Launching a plan: what the launcher does before, beside and after the init. Lifecycle: it opens, writes, spawns.

Only this file knows how descriptors become slots, and what the init's messages ask for.
"""

from __future__ import annotations

import errno
import os

from cycontainer import _clone, _fd, _nsenter, _plan, _wait
from cycontainer.errors import (
    CgroupError,
    ConfigError,
    HostError,
    LaunchError,
    ProgramError,
    StatusUnknown,
    errno_of,
    reason_of,
)
from cycontainer.init_process import abandon as abandon
from cycontainer.init_process import adopt_second, init_descriptor, plan_file
from cycontainer.init_process import kill as kill
from cycontainer.plan import candidates
from cycontainer.record import Record
from cycontainer.tables import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence
    from typing import Final, Protocol

    from cycontainer._clone import Child
    from cycontainer.plan import Plan

CLONE_NEWUSER = NAMESPACES["user"][0]
SIGSYS = 31
NO_BIRTH: Final = (errno.EOPNOTSUPP, errno.EBUSY, errno.EACCES)  # what clone3 says of a cgroup


def _plan_descriptor(plan: Plan, base: int, args: Sequence[str], env: Sequence[str], cgroup: str | None) -> int:
    """The complete plan, in a file of its own."""
    names = candidates(plan.program or args[0], tuple(env))
    data = _plan.assemble(
        plan.data,
        base,
        tuple(map(os.fsencode, args)),
        tuple(map(os.fsencode, env)),
        tuple(map(os.fsencode, names)),
        None if cgroup is None else os.fsencode(cgroup),
    )
    return plan_file(data)


def _open_namespaces(plan: Plan) -> list[int]:
    opened: list[int] = []
    for namespace in plan.namespaces:
        assert namespace.path is not None
        try:
            opened.append(_nsenter.open_namespace(os.fsencode(namespace.path), NAMESPACES[namespace.type][0]))
        except OSError as error:
            _fd.close_all(opened)
            no = error.errno == errno.EINVAL
            what = f"is no {namespace.type} namespace" if no else f"cannot be opened: {reason_of(error)}"
            raise ConfigError(f"linux.namespaces[{namespace.place}].path", f"{namespace.path} {what}") from None
    return opened


def _carry_out_errands(plan: Plan, namespaces: list[int], made: list[int]) -> None:
    """Add each errand's mount to `made`."""
    if plan.errands:
        from cycontainer.errands import carry_out

        kinds = [namespace.type for namespace in plan.namespaces]
        for errand in plan.errands:
            made.append(carry_out(errand, tuple(namespaces[kinds.index(kind)] for kind in errand.namespaces)))


if TYPE_CHECKING:

    class WaysIn(Protocol):
        """What leads into a cgroup."""

        @property
        def tasks(self) -> tuple[int, ...]: ...
        @property
        def birthplace(self) -> int: ...


class Ready(Record):
    """What a template has ready for a launch: descriptors.

    Attributes:
        tree: the mount namespace that is copied.
        namespaces: those that are joined, in the order of the plan's.
    """

    tree: int
    namespaces: tuple[int, ...]


def launch(
    plan: Plan,
    *,
    descriptors: tuple[int, ...],
    args: Sequence[str] | None = None,
    env: Sequence[str] | None = None,
    cgroup: WaysIn | None = None,
    cgroup_path: str | None = None,
    first: tuple[int, ...] = (),
    ready: Ready | None = None,
) -> Child:
    """Start a container's first process and return at once; `attend` answers what its init asks.

    Args:
        descriptors: the program's, as its 0, 1, 2 and so on; they stay the caller's.
        args, env: instead of the plan's.
        cgroup: a Cgroup that was made for this, or the Entry of one: its `tasks` descriptors are the plan's next slots,
            its `birthplace` is the child's.
        cgroup_path: where it is, below each hierarchy's mount.
        first: descriptors for the plan's first slots: FIFOs of one that waits for start, or a pidfd to join.
        ready: what a template has; its descriptors stay the caller's.

    Raises:
        ConfigError: a namespace's path is none.
        CgroupError: no process may be born in the cgroup.
        LaunchError: clone3 refused for another reason, or a descriptor could not be had.
    """
    tasks = cgroup.tasks if cgroup is not None else ()
    namespaces = _open_namespaces(plan) if ready is None else []
    made: list[int] = []
    plan_fd = -1
    pad: tuple[int, ...] = ()
    try:
        if ready is not None:
            pad = (*ready.namespaces, ready.tree)
        elif plan.padded:
            from cycontainer.launch_pad import pad_descriptor

            pad = (pad_descriptor(),)
        _carry_out_errands(plan, namespaces, made)
        plan_fd = _plan_descriptor(
            plan, len(descriptors), args or plan.args, plan.env if env is None else env, cgroup_path
        )
        return _clone.spawn(
            init_descriptor(),
            plan_fd,
            descriptors,
            (*first, *tasks, *namespaces, *made, *pad),
            plan.clone_flags,
            cgroup.birthplace if cgroup is not None else -1,
            bool(plan.clone_flags & CLONE_NEWUSER),
        )
    except OSError as error:
        code = errno_of(error)
        if code == errno.ENOSYS:
            raise not_launched(error) from None
        if error.strerror == "clone3" and code in NO_BIRTH and cgroup is not None and cgroup.birthplace >= 0:
            raise CgroupError(f"{os.readlink(f'/proc/self/fd/{cgroup.birthplace}')}/cgroup.procs", code) from None
        kinds = [kind for kind, (flag, _) in NAMESPACES.items() if plan.clone_flags & flag]
        new = f" in new {', '.join(kinds)} namespaces" if kinds else ""
        raise LaunchError(f"start the first process{new} ({error.strerror})", code, 0, len(plan.attempts)) from None
    finally:
        _fd.close_all((*namespaces, *made, *((plan_fd,) if plan_fd >= 0 else ())))


def send_program(
    child: Child, plan: Plan, descriptors: tuple[int, ...], args: Sequence[str], env: Sequence[str] | None
) -> None:
    """Let a container that waits for a program go on with one. Raises OSError: EPIPE when it has ended.

    Args:
        plan: of `compile_program`.
        descriptors: the program's 0, 1 and 2; they stay the caller's.
    """
    file = _plan_descriptor(plan, len(descriptors), args, plan.env if env is None else env, None)
    try:
        child.answer(0, (file, *descriptors))
        child.heard = -1
    finally:
        os.close(file)


def failure(plan: Plan, step: int, code: int) -> LaunchError:
    """The error for a step, numbered from 0; -1 is the init's own start. `code`: an errno, or minus a signal."""
    steps = len(plan.attempts)
    if code < 0:
        return died(plan, code, step)
    if step < 0:
        return LaunchError("execute the init", code, 0, steps)
    if plan.program_step <= step in (plan.program_step, steps - 1):
        program = plan.program or (plan.args[0] if plan.args else "")
        return ProgramError(plan.attempts[step], code, step + 1, steps, program, step != plan.program_step)
    return LaunchError(plan.attempts[step], code, step + 1, steps)


def died(plan: Plan, code: int, step: int = -1) -> LaunchError:
    """The error for an init that ended, and how, before it executed the program; `step` as for `failure`."""
    how = f"signal {-code}" if code < 0 else f"status {code}"
    why = ", as its seccomp filter asks" if code == -SIGSYS else ""
    program = plan.program or (plan.args[0] if plan.args else "")
    return LaunchError(f"execute {program}: its init ended with {how}{why}", 0, step + 1, len(plan.attempts))


def attend(
    plan: Plan,
    child: Child,
    message: tuple[int, ...],
    duties: Mapping[str, Callable[[Child], int | None]] | None = None,
) -> None:
    """Do what a message of the init asks for.

    Args:
        duties: what a sync of that name (`Plan.syncs`) takes, beside "maps", which is known here; a mount that one
            returns goes to the init, and is closed. "terminal": called
            with a `Child` whose `terminal` is the master's descriptor, which is then the callee's. "listener": the
            same with its `listener`, when the filter notifies.

    Raises:
        LaunchError: it says that a step failed, or our part of one did.
    """
    kind, step, code, *_ = message
    _check_message(plan, child, kind, step, duties or {})
    if kind == _clone.FAILED:
        raise failure(plan, step, code)
    if kind == _clone.CLONED:
        adopt_second(child)
    elif kind == _clone.TERMINAL:
        child.terminal = child.take_descriptor()
    elif kind == _clone.PROGRAM:
        child.program = child.take_descriptor()
    elif kind == _clone.GATE:
        child.gate = child.take_descriptor()
    elif kind == _clone.LISTENER:
        _take_listener(plan, child, step, code, duties or {})
    elif kind == _clone.SYNC:
        _do_duty(plan, child, step, duties or {})


def _check_message(plan: Plan, child: Child, kind: int, step: int, duties: Container[str]) -> None:
    """Refuse what an init of this plan does not say. Who may trace it may speak in its place."""
    once = {_clone.TERMINAL: child.terminal, _clone.PROGRAM: child.program, _clone.GATE: child.gate}
    if (
        not -1 <= step < len(plan.attempts)
        or (kind == _clone.SYNC and (step not in plan.syncs or step <= child.heard))
        or (kind == _clone.CLONED and plan.processes < 2)
        or once.get(kind, -1) >= 0
        or (kind == _clone.LISTENER and "listener" not in duties)
    ):
        raise LaunchError("hear the init, which says what it cannot", errno.EBADMSG, 0, len(plan.attempts))


def _do_duty(plan: Plan, child: Child, step: int, duties: Mapping[str, Callable[[Child], int | None]]) -> None:
    """What the init waits for, and the answer."""
    duty, child.heard = plan.syncs[step], step
    trees: tuple[int, ...] = ()
    try:
        if duty in ("maps", "mount"):
            from cycontainer.id_maps import make_tree, write_id_maps
        if duty == "maps" and plan.maps:
            write_id_maps(child.pid, plan.maps)
        elif duty == "mount":
            trees = (make_tree(child.pid, plan.trees[step]),)
        elif duty in duties:
            made = duties[duty](child)
            trees = () if made is None else (made,)
        child.answer(0, trees)
    except OSError as error:
        raise _our_part(plan, child, step, error) from None
    finally:
        _fd.close_all(trees)


def _our_part(plan: Plan, child: Child, step: int, error: OSError) -> LaunchError:
    """The launcher's part of a step failed: for a reason of its own, or because the init had given up."""
    code = errno_of(error)
    message = child.receive()
    if message and message[0] == _clone.FAILED:
        return failure(plan, message[1], message[2])
    name = f" ({os.fsdecode(error.filename)})" if error.filename else ""
    return LaunchError(f"{plan.attempts[step]}{name}", code, step + 1, len(plan.attempts))


def _take_listener(
    plan: Plan, child: Child, step: int, number: int, duties: Mapping[str, Callable[[Child], int | None]]
) -> None:
    """The seccomp listener that the init has just made, for whoever answers; then the init goes on."""
    from cycontainer._listener import get_descriptor

    try:
        child.listener = get_descriptor(child.program, number)
        duties["listener"](child)
        open_gate(child.gate)
    except OSError as error:
        raise LaunchError(plan.attempts[step], errno_of(error), step + 1, len(plan.attempts)) from None


def open_gate(pipe: int) -> None:
    """Empty the full pipe that an init waits at, up to its own byte, which is not 0. Raises OSError."""
    data = os.read(pipe, 1 << 16)
    while data and not data.strip(b"\0"):  # at the end of the pipe the init is dead
        data = os.read(pipe, 1 << 16)


def not_launched(error: OSError) -> LaunchError | HostError:
    """What the kernel's refusal of something that the launcher itself does says to the caller."""
    code = errno_of(error)
    if code == errno.ENOSYS:
        return HostError("clone3 is missing: cycontainer needs Linux 5.14 or newer, not blocked by seccomp")
    what = error.filename or ("" if error.strerror == os.strerror(code) else error.strerror)
    return LaunchError(f"prepare the container ({what})" if what else "prepare the container", code, 0, 0)


# --- the end


def end_of(child: Child, ended: tuple[int, ...] | None) -> tuple[int, float, float, int]:
    """How a child ended: (returncode, user seconds, system seconds, largest resident set in bytes).

    `ended` is the init's report, if it made one: it knows the program's status whoever has waited for us.

    Raises:
        StatusUnknown: this process lets others wait for its children, and there is no other witness.
    """
    try:
        code, user, system, peak = _wait.reap(child.pidfd)
    except ChildProcessError:
        status = _wait.exit_status(child.pidfd)
        if ended is None and status is None:
            raise StatusUnknown(
                "the exit status was taken: something here ignores SIGCHLD or waits for any child"
            ) from None
        code, user, system, peak = _code(status or 0), 0.0, 0.0, 0
        if ended is not None:
            user, system = ended[4] / 1e6, ended[5] / 1e6
    if ended is not None:  # the first process's own peak is ours: it began in our memory, setmax_mm_hiwater_rss()
        code, peak = _code(ended[2]), ended[6] * 1024
    return code, user, system, peak


def _code(status: int) -> int:
    return -(status & 127) if status & 127 else status >> 8 & 255
