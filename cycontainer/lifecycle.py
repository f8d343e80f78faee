"""A container's life from a bundle: for now, one run of it in the foreground. Lifecycle."""

from __future__ import annotations

import os

from cycontainer import _clone, _wait
from cycontainer.compile import Style, compile_plan
from cycontainer.errors import ConfigError
from cycontainer.host import current
from cycontainer.launch import abandon, attend, end_of, launch
from cycontainer.read_config import load_bundle
from cycontainer.resources import cgroup_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Final

    from cycontainer._clone import Child
    from cycontainer.cgroups import Cgroup
    from cycontainer.plan import Plan

ID_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
MOST_LETTERS: Final = 255
NOT_FORWARDED: Final = frozenset(  # what stops or kills us, what tells of our own faults, what is about us
    (4, 5, 6, 7, 8, 9, 11, 13, 17, 19, 23, 28)
)


def check_id(container_id: str) -> None:
    """A closed alphabet, bounded: an id becomes a name of directories."""
    if not 0 < len(container_id) <= MOST_LETTERS or container_id in (".", "..") or set(container_id) - ID_LETTERS:
        raise ConfigError("", f"invalid container ID format: {container_id[:MOST_LETTERS]!r}")


def _make_cgroup(plan: Plan, path: str) -> Cgroup | None:
    if plan.cgroup is None or not plan.cgroup.hierarchies:
        return None
    from cycontainer.cgroups import Cgroup

    return Cgroup.create(plan.cgroup, (path,) * len(plan.cgroup.hierarchies))


def _attend_all(plan: Plan, child: Child) -> None:
    """Wait for the end of a child, and answer its init."""
    waiter = _wait.Waiter(child, -1, -1, -1, b"", float("inf"))
    event = waiter.wait()
    while event != _wait.ENDED:
        message = child.receive()
        if message:
            attend(plan, child, message)
            if message[0] == _clone.CLONED:
                waiter.watch()
        event = waiter.wait()
    message = child.receive()
    if message:
        attend(plan, child, message)


def _forward_to(child: Child) -> dict[int, Any]:
    """Pass signals on to the container; what was set before, to be put back."""
    import signal

    def forward(number: int, frame: FrameType | None) -> None:
        try:
            child.send_signal(number)
        except ProcessLookupError:
            return  # it has just ended

    return {number: signal.signal(number, forward) for number in range(1, 32) if number not in NOT_FORWARDED}


def _restore(handlers: dict[int, Any]) -> None:
    import signal

    for number, handler in handlers.items():
        signal.signal(number, handler)


def _wait_in_foreground(plan: Plan, child: Child) -> int:
    before = _forward_to(child)
    try:
        _attend_all(plan, child)
    finally:
        _restore(before)
    code = end_of(child, None)[0]
    return 128 - code if code < 0 else code


def run_bundle(
    container_id: str,
    bundle: str,
    *,
    config: str | None = None,
    pid_file: str | None = None,
    pivot: bool = True,
    new_keyring: bool = True,
) -> int:
    """Run a bundle's container in the foreground; the program's exit status, or 128 and its signal's number.

    Raises:
        ConfigError: the id or the configuration is wrong; nothing was touched.
        LaunchError: a step failed; what had been made is gone again.
    """
    check_id(container_id)
    checked = load_bundle(bundle, os.path.abspath(config) if config else "config.json")
    _refuse_what_is_missing(checked)
    plan = compile_plan(checked, current(), Style(pivot=pivot, new_keyring=new_keyring))
    path = cgroup_path(checked.linux.cgroups_path, container_id)
    cgroup = _make_cgroup(plan, path)
    try:
        return _run(plan, cgroup, path, pid_file)
    finally:
        if cgroup is not None:
            cgroup.destroy()


def _run(plan: Plan, cgroup: Cgroup | None, path: str, pid_file: str | None) -> int:
    child = launch(plan, descriptors=(0, 1, 2), cgroup=cgroup, cgroup_path=path)
    try:
        if cgroup is not None:
            cgroup.release_tasks()
        if pid_file:
            with open(pid_file, "w") as file:
                file.write(str(child.pid))
        return _wait_in_foreground(plan, child)
    except BaseException:
        abandon(child)
        raise
    finally:
        child.close()


def _refuse_what_is_missing(config: object) -> None:
    """What this version cannot do yet is refused, never skipped."""
    from cycontainer.config import Config, Hooks

    assert isinstance(config, Config)
    process, linux = config.process, config.linux
    for path, value in (
        ("process.terminal", process and process.terminal),
        ("hooks", config.hooks != Hooks()),
        ("linux.netDevices", linux.net_devices),
        ("linux.intelRdt", linux.intel_rdt),
        ("linux.mountLabel", linux.mount_label),
    ):
        if value:
            raise ConfigError(path, "this version of cycontainer cannot do that yet")
