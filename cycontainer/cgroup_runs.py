"""Names of the cgroups of runs, and the removal of what runs have left. Lifecycle."""

from __future__ import annotations

import errno
import os
from itertools import count

from cycontainer.cgroups import Cgroup
from cycontainer.errors import CgroupError
from cycontainer.process_stat import start_of
from cycontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cycontainer.cgroup_layout import CgroupLayout, Hierarchy
    from cycontainer.resources import CgroupPlan

NOT_NOW = (errno.EBUSY, errno.EPERM, errno.EACCES, errno.EROFS)

_owner: tuple[int, str] = (0, "")
_swept = 0  # the process that has swept
_numbers = count(1)  # of the process and those that it forks; never begun again: threads may come here at once


def run_name() -> str:
    """A name for the next run's cgroup: run-PID-START-NAMESPACE-N. It tells who owns it, also to who shares the
    hierarchy from another pid namespace, where the pid means nothing."""
    global _owner
    if _owner[0] != os.getpid():
        namespace = os.stat("/proc/self/ns/pid").st_ino
        _owner = (os.getpid(), f"{start_of(os.getpid())}-{namespace}")
    return f"run-{_owner[0]}-{_owner[1]}-{next(_numbers)}"


class RunCgroup(Record):
    """A run's cgroup.

    Attributes:
        path: below each hierarchy's mount.
    """

    cgroup: Cgroup
    path: str


def new_run_cgroup(plan: CgroupPlan, layout: CgroupLayout) -> RunCgroup:
    """Make one; once a process, what runs that were killed with their callers have left is removed before.

    Raises CgroupError.
    """
    global _swept
    if _swept != os.getpid():
        _swept = os.getpid()
        sweep(layout)
    path = run_path()
    return RunCgroup(cgroup=Cgroup.create(plan, run_paths(plan, path, layout)), path=path)


def run_path() -> str:
    """The next run's cgroup, directly below each mount: a parent would cost as much as the cgroup itself."""
    return f"/cycontainer-{run_name()}"


def run_paths(plan: CgroupPlan, path: str, layout: CgroupLayout) -> tuple[str, ...]:
    """That in each of the plan's hierarchies: below what is delegated to this user, if that is all it has."""
    top = {each.mount: _top(each) for each in layout.all if each.delegated}
    return tuple([top.get(each.mount, "") + path for each in plan.hierarchies])


def _top(hierarchy: Hierarchy) -> str:
    return hierarchy.own.rpartition("/")[0] if hierarchy.delegated else ""


def _is_abandoned(name: str, namespace: int) -> bool:
    """Whether it is a run's of our pid namespace, whose owner no longer exists."""
    parts = name.split("-")
    if (
        len(parts) != 5
        or parts[0] != "run"
        or parts[3] != str(namespace)
        or not parts[1].isdigit()
        or not parts[2].isdigit()
    ):
        return False
    try:
        os.kill(int(parts[1]), 0)
        return start_of(int(parts[1])) not in (int(parts[2]), 0)  # 0: hidden from us, proc(5), hidepid
    except ProcessLookupError:
        return True
    except PermissionError:
        return False


def sweep(layout: CgroupLayout) -> list[str]:
    """Kill and remove what runs have left whose process no longer exists; their paths. Nothing else is touched.

    What is not ours to remove, or still busy, is left for another time. Raises OSError, CgroupError.
    """
    swept: list[str] = []
    for path in sorted(_abandoned(layout)):
        try:
            cgroup = Cgroup.open(layout.all, tuple([_top(each) + path for each in layout.all]))
            cgroup.kill()
            cgroup.destroy()
            swept.append(path)
        except CgroupError as error:
            if error.errno not in NOT_NOW:
                raise
    return swept


def _abandoned(layout: CgroupLayout) -> set[str]:
    found: set[str] = set()
    namespace = os.stat("/proc/self/ns/pid").st_ino
    for top, base in [
        (each.mount + _top(each), base) for each in layout.all for base in ("cycontainer-", "cycontainer/")
    ]:
        directory, _, prefix = f"{top}/{base}".rpartition("/")
        names = os.listdir(directory) if os.path.isdir(directory) and os.access(directory, os.R_OK) else ()
        runs = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        found.update([f"/{base}{name}" for name in runs if _is_abandoned(name, namespace)])
    return found
