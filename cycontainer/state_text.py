"""What is kept of a container, and as which text: lines of a key and its words. Lifecycle; it touches nothing."""

from __future__ import annotations

from cycontainer.errors import StateError
from cycontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.intelrdt import Group

VERSION: Final = "1"
MAGIC: Final = "cycontainer-state"
END: Final = ("end", "of state")  # the last line
TEXTS: Final = ("id", "bundle", "rootfs", "version", "created", "program", "unit")  # keys of one word each,
NUMBERS: Final = ("owner", "pid", "start_time", "init_pid", "init_start_time", "rootless", "pivoted")
MOST: Final = {"owner": 2**32 - 1, "pid": 2**31 - 1, "init_pid": 2**31 - 1}  # uid_t, pid_t; the others have 64 bits
DEFAULTS: Final = {  # of lines that are only written when it is otherwise
    "program": "", "unit": "", "init_pid": "0", "init_start_time": "0", "pivoted": "1",
}  # fmt: skip
LENGTHS: Final = {"cgroup": 3, "annotation": 2, "resctrl": 5, "supervised": 1, "python": 1}  # and of this many
ESCAPES: Final = {"s": " ", "n": "\n", "e": ""}  # behind a backslash, which stands for itself behind another
WRITTEN: Final = {plain: f"\\{letter}" for letter, plain in (("\\", "\\"), *ESCAPES.items())}
_TABLE: Final = {ord(plain): written for plain, written in WRITTEN.items() if plain}


class CgroupPlace(Record):
    """A container's cgroup in one hierarchy.

    Attributes:
        mount: where the hierarchy is mounted.
        controllers: the hierarchy's.
        path: the cgroup below the mount.
    """

    mount: str
    controllers: tuple[str, ...]
    path: str


class State(Record):
    """What is kept of a container.

    Attributes:
        version: of the configuration, `ociVersion`.
        created: when, as RFC 3339 has it.
        owner: the uid of who created it.
        pid: of its first process, in the creator's pid namespace; 0 while it is being made.
        start_time: that process's, in clock ticks since boot: a pid alone could be another's.
        init_pid, init_start_time: the same while it is being made, when others are waited for, as hooks; else 0.
        rootless: its user namespace is not the creator's.
        resctrl: its group there.
        rootfs: the container's root directory, absolute.
        supervised: system calls that the program which created it answers.
        program: what it executes, as it was asked for.
        python: verbs that need more than this file and the kernel: "start", "delete".
        unit: systemd's, which has made the cgroup; "" is none.
        pivoted: the host's root was left by pivot_root(2), and is not only covered.
    """

    id: str
    bundle: str
    version: str
    created: str
    owner: int
    pid: int = 0
    start_time: int = 0
    init_pid: int = 0
    init_start_time: int = 0
    rootless: bool = False
    rootfs: str = ""
    program: str = ""
    cgroups: tuple[CgroupPlace, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    resctrl: Group | None = None
    supervised: tuple[str, ...] = ()
    python: tuple[str, ...] = ()
    unit: str = ""
    pivoted: bool = True


def _escaped(text: str) -> str:
    return text.translate(_TABLE) or WRITTEN[""]


def _plain(word: str) -> str:
    if "\\" not in word:
        return word
    parts = word.split("\\\\")
    for letter, plain in ESCAPES.items():
        parts = [part.replace(f"\\{letter}", plain) for part in parts]
    return "\\".join(parts)


def to_text(state: State) -> str:
    """A line for each value: a key and words with single spaces between, with ESCAPES in them."""
    one: dict[str, str] = {name: getattr(state, name) for name in TEXTS}
    one.update((name, str(int(getattr(state, name)))) for name in NUMBERS)
    group = [str(int(each)) if isinstance(each, bool) else each for each in state.resctrl or ()]
    lines: list[tuple[str, ...]] = [
        (MAGIC, VERSION),
        *[line for line in one.items() if line[1] != DEFAULTS.get(line[0])],
        *[("cgroup", place.mount, ",".join(place.controllers), place.path) for place in state.cgroups],
        *[("annotation", *pair) for pair in state.annotations],
        *([("resctrl", *group)] if group else []),
        *[("supervised", name) for name in state.supervised],
        *[("python", verb) for verb in state.python],
        END,
    ]
    return "".join([" ".join(map(_escaped, line)) + "\n" for line in lines])


def from_text(text: str, container_id: str) -> State:
    """The state that a text has.

    Raises:
        StateError: it is damaged, or was written by a later version.
    """
    lines = [tuple(map(_plain, line.split(" "))) for line in text.split("\n")]
    if lines[0][0] != MAGIC or lines[-1] != ("",):
        raise StateError(container_id, "the state file is damaged")
    if lines[0][1:] != (VERSION,):
        raise StateError(container_id, "the state file was written by another version of cycontainer")
    if lines[-2] != END:  # what was cut off could be a cgroup
        raise StateError(container_id, "the state file is damaged")
    many: dict[str, list[tuple[str, ...]]] = {key: [] for key in LENGTHS}
    one: dict[str, str] = {}
    for key, *values in lines[1:-2]:
        if key in many and len(values) == LENGTHS[key]:
            many[key].append(tuple(values))
        elif key in one or len(values) != 1:
            raise StateError(container_id, "the state file is damaged")
        else:
            one[key] = values[0]
    try:
        one = {**DEFAULTS, **one}
        numbers = {name: _number(one[name], MOST.get(name, 2**63 - 1)) for name in NUMBERS}
        return State(
            id=one["id"],
            bundle=one["bundle"],
            version=one["version"],
            created=one["created"],
            owner=numbers["owner"],
            pid=numbers["pid"],
            start_time=numbers["start_time"],
            init_pid=numbers["init_pid"],
            init_start_time=numbers["init_start_time"],
            rootless=bool(numbers["rootless"]),
            rootfs=one["rootfs"],
            program=one["program"],
            cgroups=tuple([_place(*words) for words in many["cgroup"]]),
            annotations=tuple([(key, value) for key, value in many["annotation"]]),
            resctrl=_group(*many["resctrl"][-1]) if many["resctrl"] else None,
            supervised=tuple([name for (name,) in many["supervised"]]),
            python=tuple([verb for (verb,) in many["python"]]),
            unit=one["unit"],
            pivoted=bool(numbers["pivoted"]),
        )
    except (KeyError, ValueError):
        raise StateError(container_id, "the state file is damaged") from None


def _number(word: str, most: int) -> int:
    """Raises ValueError."""
    if not (word.isascii() and word.isdigit()) or len(word) > len(str(most)) or int(word) > most:
        raise ValueError(word)
    return int(word)


def _place(mount: str, controllers: str, path: str) -> CgroupPlace:
    return CgroupPlace(mount=mount, controllers=tuple(controllers.split(",")) if controllers else (), path=path)


def _group(root: str, name: str, monitor: str, made: str, shared: str) -> Group:
    from cycontainer.intelrdt import Group

    return Group(root=root, name=name, monitor=monitor, made=made == "1", shared=shared == "1")
