"""Ending and removing a container, also half of one. Lifecycle: it kills, removes cgroups and the state directory."""

from __future__ import annotations

import errno
import os
import stat
import time

from cycontainer.errors import (
    CgroupError,
    ConfigError,
    ContainerNotFound,
    ContainerNotRunning,
    ContainerRunning,
    HookError,
    StateError,
    reason_of,
)
from cycontainer.handles import open_cgroup, open_first
from cycontainer.state import container_ids, is_frozen, is_later, load, status_of
from cycontainer.state_text import CgroupPlace, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from cycontainer.state import Directory

PATIENCE: Final = 10.0  # seconds that what was killed gets to be gone
ROUND: Final = 0.1  # seconds that killing takes while another is waited for
LISTENING_MS: Final = 20
SIGKILL: Final = 9
STILL_RUNS: Final = "cannot delete container that is not stopped: {}"


def kill_all(
    state: State,
    idle: Callable[[], object] | None = None,
    patience: float = PATIENCE,
    *,
    still: Callable[[], bool] = lambda: True,
) -> None:
    """Kill every process and wait until all are gone.

    Args:
        idle: called now and then meanwhile.
        patience: seconds that they get.
        still: whether the state holds, asked when the cgroup has been opened: what is found by a path may be another's.

    Raises:
        CgroupError: EBUSY when some are left after that.
    """
    try:
        first = open_first(state)
    except ContainerNotRunning:
        first = -1
    try:
        if first >= 0:
            _kill_first(first, state)
        if state.cgroups:
            cgroup = open_cgroup(state)
            if still():
                cgroup.kill(patience)
        if first >= 0 and not _ended(first, patience, idle):
            raise CgroupError(f"/proc/{state.pid}", errno.EBUSY)
    finally:
        if first >= 0:
            os.close(first)


def kill_meanwhile(directory: Directory, made: str = "") -> None:
    """SIGKILL for all that a container has while another program changes it, and may wait for just this end.

    Never for what another has that was made meanwhile: as long as the open directory has the state, nobody else has got
    the id, or was told that the cgroup is gone. What cannot be found or killed now will be by who has the lock.

    Args:
        made: as in `delete`.
    """
    try:
        state = directory.load()
        if state is None or is_later(state, made):
            return
        found = _made_of(state) if state.pid == 0 else state
        kill_all(found, patience=ROUND, still=lambda: directory.load() == state)
    except (OSError, CgroupError, StateError):
        return


def _kill_first(first: int, state: State) -> None:
    try:
        send(first, SIGKILL)
    except PermissionError:  # its AppArmor profile takes no signals; a v2 cgroup kills all the same
        if not state.cgroups:
            raise


def send(pidfd: int, number: int) -> bool:
    """Send a signal; False when it has ended."""
    from _signal import pidfd_send_signal  # type: ignore[import-not-found]  # `signal` would import enum: 4 ms

    try:
        pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def signal_first(state: State, number: int) -> None:
    """Send a signal to the first process; see `Container.signal`."""
    first = open_first(state)
    try:
        everyone = number == SIGKILL and bool(state.cgroups) and not is_first_of_namespace(state.pid)
        if everyone:
            signal_all(state, SIGKILL)  # no end of a pid namespace takes the others along
        if not send(first, number) and not everyone:
            raise ContainerNotRunning(state.id)
    finally:
        os.close(first)
    _let_die(state, number)


def signal_all(state: State, number: int) -> None:
    """Send a signal to all processes; see `Container.signal`."""
    if state.cgroups:
        open_cgroup(state).signal(number)
        _let_die(state, number)
        return
    try:
        signal_first(state, number)  # the others cannot be told from any other's: as runc
    except ContainerNotRunning:
        return


def _let_die(state: State, number: int) -> None:
    """On cgroup v1, what is frozen, also by the container itself further below, dies of SIGKILL when it goes on."""
    if number != SIGKILL or not (is_frozen(state) or has_freezer(state)):
        return
    try:
        open_cgroup(state).thaw(below=True)
    except CgroupError as error:
        if error.errno != errno.ENOENT:  # it has been removed meanwhile: they are gone
            raise


def has_freezer(state: State) -> bool:
    """Whether there is a v1 freezer that it is in."""
    freezers = [place for place in state.cgroups if "freezer" in place.controllers]
    return any(os.path.isdir(place.mount + place.path) for place in freezers)


def is_first_of_namespace(pid: int) -> bool:
    """Whether it is pid 1 where it lives: with it, the kernel ends all others there. proc(5), NSpid."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            line = next(line for line in file if line.startswith(b"NSpid:"))
    except (FileNotFoundError, ProcessLookupError):
        return True
    return line.split()[-1] == b"1"


def _ended(pidfd: int, timeout: float, idle: Callable[[], object] | None) -> bool:
    import select

    deadline = time.monotonic() + timeout
    watch = select.poll()
    watch.register(pidfd, select.POLLIN)
    while not watch.poll(LISTENING_MS):
        if time.monotonic() > deadline:
            return False
        if idle is not None:
            idle()
    return True


def check_force(force: object) -> None:
    """Refuse what is only as good as true. Raises ConfigError."""
    if type(force) is not bool:
        raise ConfigError("force", "must be True or False")


def delete(
    directory: Directory, root: str, *, force: bool, idle: Callable[[], object], made: str = ""
) -> tuple[str, ...]:
    """Remove a container whose directory is locked; see `Container.delete`. Returns what went wrong beside it.

    Args:
        made: when the one that is meant was made, `State.created`; "" is whichever it is.
    """
    problems: tuple[str, ...] = ()
    state = _loaded(directory, force=force)
    if state is not None:
        if is_later(state, made):
            raise ContainerNotFound(state.id)
        status = status_of(root, state) if state.pid else "stopped"
        if status in ("running", "paused") and not force:
            raise ContainerRunning(state.id, STILL_RUNS.format(status))
        if state.pid == 0:
            state = _made_of(state)
        kill_all(state, idle)
        if state.unit:
            from cycontainer.systemd import stop_unit

            stop_unit(state.unit)
        if state.cgroups:
            _remove_cgroup(directory, state)
        if state.resctrl is not None:
            from cycontainer.intelrdt import remove

            remove(state.resctrl)
        if "delete" in state.python:
            problems = _last_hooks(directory, state)
    directory.remove()
    return problems


def _remove_cgroup(directory: Directory, state: State) -> None:
    try:
        open_cgroup(state).destroy()
    except CgroupError as error:
        namespace = _users_of(directory, state) if error.errno in (errno.EACCES, errno.EPERM) else -1
        if namespace < 0:
            raise
        try:
            open_cgroup(state).destroy(within=namespace)
        finally:
            os.close(namespace)


def _users_of(directory: Directory, state: State) -> int:
    """A user namespace with the container's ids, for what others than its root have made in its cgroup; -1 when it
    can be none, or has none of its own."""
    from cycontainer.host import current
    from cycontainer.id_maps import new_user_namespace
    from cycontainer.plan import IdMaps
    from cycontainer.read_config import parse, read_config

    try:
        linux = read_config(parse(directory.read("config.json")), bundle=state.bundle).linux
        if not linux.uid_map or current().id_mappers is None:
            return -1
        maps = IdMaps(uid_map=linux.uid_map, gid_map=linux.gid_map, by_helper=True, deny_setgroups=False)
        return new_user_namespace(maps)
    except (ConfigError, OSError):
        return -1


def _made_of(state: State) -> State:
    """What was made of a container that is not finished: a scope has ended with its init, a slice has not."""
    own = state.unit.endswith(".slice") and not open_cgroup(state).processes()
    return state.replace(
        pid=state.init_pid,
        start_time=state.init_start_time,
        unit=state.unit if own else "",
        cgroups=tuple(place for place in state.cgroups if own or _is_ours(place)),
    )


def _is_ours(place: CgroupPlace) -> bool:
    """Whether we made a cgroup, which our creator may only have meant to make, and found another's: its sticky bit."""
    try:
        return bool(os.stat(place.mount + place.path).st_mode & stat.S_ISVTX)
    except FileNotFoundError:
        return False


def _loaded(directory: Directory, *, force: bool) -> State | None:
    """The state; when it is lost, or with `force` damaged, what the configuration tells of it."""
    try:
        state = directory.load()
    except StateError:
        if not force:
            raise
        return _reconstructed(directory)
    if state is None and (state := _reconstructed(directory)) is not None and not force:
        made = _made_of(state)
        if made.cgroups and open_cgroup(made).processes():
            raise ContainerRunning(state.id, STILL_RUNS.format("running"))
    return state


def _reconstructed(directory: Directory) -> State | None:
    """A state with the cgroups that a container has by its configuration: whatever lives is in them. None when that is
    damaged, too: then there is nothing that could be found. What another container here has is not among them."""
    from cycontainer.host import current
    from cycontainer.read_config import parse, read_config
    from cycontainer.resources import where

    try:
        config = read_config(parse(directory.read("config.json")), bundle="/")
    except (ConfigError, OSError):
        return None
    layout, asked, unit = current().cgroups, config.linux.cgroups_path, ""
    paths = where(asked, directory.container_id, layout)
    if os.path.isdir("/run/systemd/system"):
        from cycontainer.systemd import unit_left_of

        unit, path = unit_left_of(asked, directory.container_id)
        paths = dict.fromkeys(paths, path) if unit else paths
    others = _paths_of_others(directory)
    places = [
        CgroupPlace(mount=at.mount, controllers=at.controllers, path=paths[at.mount])
        for at in layout.all
        if paths[at.mount] not in others
    ]
    return State(
        id=directory.container_id, bundle="/", version=config.version, created="", owner=0, cgroups=tuple(places),
        unit=unit, pid=-1 if unit else 0,  # not 0: a unit that was made, and not only meant to be
    )  # fmt: skip


def _paths_of_others(directory: Directory) -> set[str]:
    """The cgroups that the other containers below the same root have."""
    paths: set[str] = set()
    root = os.path.dirname(directory.path)
    for container_id in container_ids(root):
        if container_id == directory.container_id:
            continue
        try:
            paths.update(place.path for place in load(root, container_id).cgroups)
        except (ContainerNotFound, StateError):  # deleted meanwhile, half made, damaged
            continue
    return paths


def _last_hooks(directory: Directory, state: State) -> tuple[str, ...]:
    """The poststop hooks; a failure is told, and stops nothing. runtime.md, "Lifecycle", 13."""
    from cycontainer.hooks import run_poststop
    from cycontainer.read_config import parse, read_config

    try:
        config = read_config(parse(directory.read("config.json")), bundle=state.bundle)
    except (ConfigError, OSError) as error:  # lost, or damaged
        return (f"its poststop hooks are not known: {error}",)
    if not config.hooks.poststop:
        return ()
    problems = _forget_what_is_gone(directory, state)
    try:
        run_poststop(config, state)
    except HookError as error:
        problems = (*problems, str(error), *getattr(error, "__notes__", ()))
    return problems


def _forget_what_is_gone(directory: Directory, state: State) -> tuple[str, ...]:
    """While its hooks run, others may make a cgroup or group of these names, which the next `delete` is to leave alone.
    Returns why it was not kept: on a full disk it is removed all the same."""
    try:
        directory.save(state.replace(cgroups=(), unit="", resctrl=None))
    except OSError as error:
        return (f"its state could not be written before its poststop hooks: {reason_of(error)}",)
    return ()
