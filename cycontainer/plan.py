"""What compiling comes to: the bytes for the init, and what the launcher has to know beside them. Compile; pure."""

from __future__ import annotations

from cycontainer import _plan
from cycontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from cycontainer.config import IdMap, Namespace
    from cycontainer.resources import CgroupPlan


MOST_FILES: Final = 65536  # in a working directory of its own


class Tree(Record):
    """A mount that the launcher makes, because the init in its user namespace could not, or because ids are mapped.

    Attributes:
        path: on the host.
        recursive: with all that is mounted below.
        idmap: "idmap": the mount's ids are mapped; "ridmap": and those of all below; "": they are not.
        uid_map, gid_map: by these; when empty, as the container's user namespace does.
    """

    path: str
    recursive: bool
    idmap: str = ""
    uid_map: tuple[IdMap, ...] = ()
    gid_map: tuple[IdMap, ...] = ()


class Workplace(Record):
    """The program's working directory as a file system of its own, which the launcher fills, and reads in the end.

    Attributes:
        path: in the container.
        size: bytes that it can hold.
        uid, gid: its owner, as the launcher sees the ids.
    """

    path: str
    size: int
    uid: int
    gid: int


class Errand(Record):
    """A plan that an init of its own carries out before the container is launched; its last step hands a mount over.

    Attributes:
        data, attempts: as of a plan.
        namespaces: its slots: which of the namespaces that the container joins.
    """

    data: bytes
    attempts: tuple[str, ...]
    namespaces: tuple[str, ...]


class IdMaps(Record):
    """What the launcher writes when the init waits in its first step."""

    uid_map: tuple[IdMap, ...]
    gid_map: tuple[IdMap, ...]
    by_helper: bool  # newuidmap(1) and newgidmap(1) write them
    deny_setgroups: bool


class Plan(Record):
    """A compiled container. Launching it again gives the same container again.

    Attributes:
        data: the plan for the init, without what differs from launch to launch (`_plan.assemble`).
        attempts: for each step, what it is to do, in words.
        clone_flags: CLONE_NEW* of the first clone3.
        processes: how many processes the init goes through; 2 when it clones into namespaces that it has joined.
        keeps_init: whether pid 1 stays beside the program, and reports its end.
        ends_all: whether its end is that of all its processes: the first has a new pid namespace.
        namespaces: those to open by path; slots after the cgroups'.
        cgroup: its hierarchies are the first slots.
        syncs: where the init waits for the launcher: {step, from 0: which of the duties it is}. "maps": the id maps;
            "runtime": what the launcher does to the new namespaces, and hooks; "created": its state is on disk;
            "mount": a mount for the init's next step; "work": what is to lie in the working directory.
        trees: {step: that mount}.
        errands: what is carried out first; the mounts that come of it are the last slots.
        maps: what the duty "maps" is.
        program_step: the number of the step that looks the program up; from there on a failure is the program's.
        args, env: the program's, where a launch does not say otherwise.
        work: the working directory, when it is one of its own.
        padded: whether the last slot is the launch pad.
        program: what is executed, when that is not args[0] looked up.
    """

    data: bytes
    attempts: tuple[str, ...]
    program_step: int
    args: tuple[str, ...]
    env: tuple[str, ...]
    program: str = ""
    clone_flags: int = 0
    processes: int = 1
    keeps_init: bool = False
    ends_all: bool = True
    namespaces: tuple[Namespace, ...] = ()
    cgroup: CgroupPlan | None = None
    syncs: dict[int, str] = {}  # noqa: RUF012  # nobody changes a plan
    trees: dict[int, Tree] = {}  # noqa: RUF012
    errands: tuple[Errand, ...] = ()
    maps: IdMaps | None = None
    padded: bool = False
    work: Workplace | None = None

    def broken_at(self, step: int) -> Plan:
        """The same plan with step `step`, from 0, impossible: for tests of what happens when it fails."""
        return self.replace(data=_plan.broken_at(self.data, step))

    def held_at(self, step: int) -> Plan:
        """The same plan, in which the init waits before step `step` for a duty "held": for tests of attacks on it."""

        def moved(table: dict[int, Any]) -> dict[int, Any]:
            return {at + (at >= step): value for at, value in table.items()}

        return self.replace(
            data=_plan.held_at(self.data, step),
            attempts=(*self.attempts[:step], "be held", *self.attempts[step:]),
            program_step=self.program_step + (self.program_step >= step),
            syncs={**moved(self.syncs), step: "held"},
            trees=moved(self.trees),
        )


def candidates(name: str, env: tuple[str, ...]) -> tuple[str, ...]:
    """Where execvp(3) would look for a program, with the PATH of its own environment."""
    if "/" in name:
        return (name,)
    if not name:
        return ()
    path = next((entry[5:] for entry in reversed(env) if entry.startswith("PATH=")), DEFAULT_PATH)
    return tuple(f"{directory or '.'}/{name}" for directory in path.split(":"))


DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
