"""Hooks: programs that the configuration wants run at points of a container's life. Lifecycle: it launches them.

Source: runtime-spec config.md, "POSIX-platform Hooks"; runtime.md, "Lifecycle". Hooks of the host are launched as
everything else is, so that they inherit nothing of ours; those for the container's namespaces join them.
"""

from __future__ import annotations

import os

from cycontainer import _clone, _fd, _wait
from cycontainer.errors import HookError, LaunchError
from cycontainer.hook_plan import compile_hook
from cycontainer.json_text import to_json
from cycontainer.launch import abandon, attend, end_of, launch
from cycontainer.state import oci_state
from cycontainer.tables import HOOK_KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Final

    from cycontainer._clone import Child
    from cycontainer.config import Config, Hook
    from cycontainer.launch import WaysIn
    from cycontainer.plan import Plan
    from cycontainer.state_text import State

    Duties = Mapping[str, Callable[[Child], None]]

SIGKILL: Final = 9
LOOKING_MS: Final = 100  # between two looks at a hook's deadline
MOST_OUTPUT: Final = 4096  # bytes at the end of what a hook says that an error carries


def run_hooks(
    kind: str,
    config: Config,
    state: State,
    status: str,
    *,
    inside: int = -1,
    needed_by: int = -1,
    directory: str = "/",
) -> None:
    """Run the hooks of one kind, in their order.

    Args:
        kind: a key of HOOK_KINDS.
        status: what their state says.
        inside: a pidfd of the container's first process: they join its namespaces; -1 is the host.
        needed_by: a pidfd of the process that waits for them: when it has ended, a hook is killed; -1 is none.
        directory: where they begin.

    Raises:
        HookError: the first that failed; those after it were not run.
    """
    for error in _failures(kind, config, state, status, directory, inside=inside, needed_by=needed_by):
        raise error


def run_poststop(config: Config, state: State) -> None:
    """The hooks after a container's end: all of them, whatever becomes of one. config.md, "Poststop".

    Raises:
        HookError: the first that failed; the others that did are its notes.
    """
    failures = list(_failures("poststop", config, state.replace(pid=0), "stopped", state.bundle))
    for error in failures[1:]:
        failures[0].add_note(str(error))
    if failures:
        raise failures[0]


def _failures(
    kind: str, config: Config, state: State, status: str, directory: str, *, inside: int = -1, needed_by: int = -1
) -> Iterator[HookError]:
    """Run the hooks of one kind, in their order, and tell of each that fails before the next is run."""
    hooks: tuple[Hook, ...] = getattr(config.hooks, HOOK_KINDS[kind])
    text = to_json(oci_state(state, status)).encode() if hooks else b""
    for number, hook in enumerate(hooks):
        plan = compile_hook(hook, directory, config if inside >= 0 else None)
        first = (inside,) if inside >= 0 else ()
        problem, output = run_program(plan, text, hook.timeout, first, needed_by=needed_by)
        if problem:
            yield HookError(kind, number, problem, output)


def run_program(
    plan: Plan,
    text: bytes,
    timeout: int | None,
    first: tuple[int, ...],
    duties: Duties | None = None,
    cgroup: WaysIn | None = None,
    *,
    needed_by: int = -1,
) -> tuple[str, str]:
    """Run a hook's plan with `text` on its standard input: how it failed ("" when it did not), and what it said."""
    files: list[int] = []
    try:
        for _ in ("its input", "what it says"):
            files.append(_fd.data_file(b"cycontainer-hook"))
        os.pwrite(files[0], text, 0)
        problem = _run(plan, (files[0], files[1], files[1]), timeout, first, duties, cgroup, needed_by=needed_by)
        size = os.fstat(files[1]).st_size
        output = os.pread(files[1], MOST_OUTPUT, max(0, size - MOST_OUTPUT))
    finally:
        _fd.close_all(files)
    return problem, output.decode("utf-8", "replace")


def _run(
    plan: Plan,
    descriptors: tuple[int, ...],
    timeout: int | None,
    first: tuple[int, ...],
    duties: Duties | None,
    cgroup: WaysIn | None,
    *,
    needed_by: int,
) -> str:
    try:
        child = launch(plan, descriptors=descriptors, first=first, cgroup=cgroup)
    except LaunchError as error:
        return str(error)
    try:
        return _wait_for(plan, child, timeout, duties, needed_by)
    except LaunchError as error:
        abandon(child)
        return str(error)
    except BaseException:
        abandon(child)
        raise
    finally:
        child.close()


def _wait_for(plan: Plan, child: Child, timeout: int | None, duties: Duties | None, needed_by: int) -> str:
    waiter = _wait.Waiter(child, -1, -1, -1, b"", float("inf") if timeout is None else timeout)
    while (event := _event(waiter, needed_by)) == _wait.MESSAGE:
        message = child.receive()
        if message:
            attend(plan, child, message, duties)
        if message and message[0] == _clone.CLONED:
            waiter.watch()
    if event in (_wait.DEADLINE, _wait.NOTHING):
        _kill_session(child.pid)
        abandon(child)
        late = f"took longer than its timeout, {timeout} seconds"
        return late if event == _wait.DEADLINE else "was killed: who waited for it has ended"
    message = child.receive()
    if message:
        attend(plan, child, message)
    code = end_of(child, None)[0]
    if code == -31:
        return "bad system call"
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}" if code else ""


def _event(waiter: _wait.Waiter, needed_by: int) -> int:
    """The next one; NOTHING when who waits for the hook has ended."""
    if needed_by < 0:
        return waiter.wait()
    import select

    watch = select.poll()
    watch.register(needed_by, select.POLLIN)
    watch.register(waiter.descriptor(), select.POLLIN)
    while (event := waiter.step()) == _wait.NOTHING:
        if needed_by in dict(watch.poll(LOOKING_MS)):
            break
    return event


def _kill_session(pid: int) -> None:
    """Kill what a hook has started, too: it has a session of its own, and its pid until we wait for it."""
    try:
        os.killpg(pid, SIGKILL)
    except ProcessLookupError:
        return  # its init had not come that far
