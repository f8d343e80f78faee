"""How a process that joins a container gets into its cgroup. Lifecycle: it opens what the launcher and the init use."""

from __future__ import annotations

import os

from cycontainer._fd import close_all
from cycontainer.errors import ConfigError, LaunchError, errno_of
from cycontainer.record import Record
from cycontainer.resources import HierarchyPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from cycontainer.cgroup_layout import CgroupLayout

    class Place(Protocol):
        """A container's cgroup in one hierarchy."""

        @property
        def mount(self) -> str: ...
        @property
        def controllers(self) -> tuple[str, ...]: ...
        @property
        def path(self) -> str: ...


class Entry(Record):
    """Open descriptors, the owner's to close.

    Attributes:
        tasks: v1: a `tasks` file for each hierarchy that the init enters.
        birthplace: v2: the directory that clone3 is given; -1 without one.
        below: systemd has to move it there, below the unit's cgroup ("" or "/sub"); None: it is born there.
    """

    tasks: tuple[int, ...] = ()
    birthplace: int = -1
    below: str | None = None

    def close(self) -> None:
        close_all((*self.tasks, self.birthplace))


def entered(places: tuple[Place, ...], layout: CgroupLayout) -> tuple[HierarchyPlan, ...]:
    """The hierarchies that the init has a step for: v1's. In v2 it is born."""
    v1 = [place for place in places if layout.v2 is None or place.mount != layout.v2.mount]
    return tuple([HierarchyPlan(mount=place.mount, controllers=place.controllers) for place in v1])


def open_entry(
    places: tuple[Place, ...], below: Mapping[str, str], first: int, layout: CgroupLayout, *, unit: str = ""
) -> Entry:
    """The ways into a container's cgroup.

    A v2 cgroup that hands controllers on takes no processes, and one that the program has left may be gone: then the
    way leads where the container's first process is now.

    Args:
        below: a path below the cgroup, for all controllers ("") or those named.
        first: the pid of the container's first process, held by a pidfd.
        unit: of systemd, which moves whom the kernel would not let be born there.

    Raises:
        ConfigError: `below` names no controller, or could lead elsewhere.
        LaunchError: a directory or file could not be opened.
    """
    _check_below(places, below)
    tasks: list[int] = []
    birthplace = -1
    try:
        for place in places:
            sub = next((below[name] for name in ("", *place.controllers) if name in below), "").strip("/")
            path = f"{place.mount}{place.path}/{sub}".rstrip("/")
            if layout.v2 is None or place.mount != layout.v2.mount:
                tasks.append(os.open(f"{path}/tasks", os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
                continue
            if not sub and not _takes_processes(path):
                path = layout.v2.mount + _own_cgroup(first)
            if unit and not _may_be_born(path, layout.v2.mount):
                return Entry(tasks=tuple(tasks), below=path.removeprefix(place.mount + place.path))
            birthplace = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        close_all(tasks)
        raise LaunchError(f"open the cgroup {error.filename}", errno_of(error), 0, 0) from None
    return Entry(tasks=tuple(tasks), birthplace=birthplace)


def _check_below(places: tuple[Place, ...], below: Mapping[str, str]) -> None:
    known = {name for place in places for name in place.controllers}
    for name, path in below.items():
        if name and name not in known:
            raise ConfigError("cgroup", f"unknown controller {name}")
        if ".." in path.split("/") or "\0" in path:
            raise ConfigError("cgroup", f"bad sub cgroup path: {path}")


def _may_be_born(path: str, mount: str) -> bool:
    """Whether clone3 may put our child there: cgroup-v2.rst, "Delegation Containment"."""
    own = mount + _own_cgroup(os.getpid())
    while not f"{path}/".startswith(f"{own}/"):
        own = own.rpartition("/")[0]
    return all(os.access(f"{each}/cgroup.procs", os.W_OK) for each in (own, path))


def _takes_processes(path: str) -> bool:
    """cgroup-v2.rst, "No Internal Process Constraint"."""
    try:
        with open(f"{path}/cgroup.subtree_control") as file:
            return not file.read().strip()
    except FileNotFoundError:
        return False


def _own_cgroup(pid: int) -> str:
    """A process's place in the v2 hierarchy, from its mount on. Raises OSError."""
    with open(f"/proc/{pid}/cgroup", errors="surrogateescape") as file:
        return next(line[3:].rstrip("\n") for line in file if line.startswith("0::"))
