"""How cgroups are laid out on this machine: which hierarchies there are, where, and the caller's place in each. Model.

It reads /proc/self/mountinfo and /proc/self/cgroup. Sources: cgroups(7), proc(5), systemd's CGROUP_DELEGATION.md.
"""

from __future__ import annotations

import os

from cycontainer.record import Record


class Hierarchy(Record):
    """One mounted cgroup hierarchy."""

    controllers: tuple[str, ...]  # v1: "memory", or "cpu", "cpuacct", or "name=systemd"; v2: what its root offers
    mount: str  # where it is mounted: "/sys/fs/cgroup/memory"
    own: str  # the caller's own cgroup in it, absolute from the mount: "/user.slice"; "/" also when it is not below
    delegated: bool = False  # v2: this caller may make cgroups beside its own, and nowhere else


class CgroupLayout(Record):
    """How cgroups are laid out on this machine. Source: cgroups(7), systemd's CGROUP_DELEGATION.md."""

    mode: str  # "v1", "hybrid" (v1 controllers and a cgroup2 mount beside them), "v2", "none"
    v1: tuple[Hierarchy, ...] = ()
    v2: Hierarchy | None = None

    @property
    def all(self) -> tuple[Hierarchy, ...]:
        """Every hierarchy, v1's first; for `Cgroup.open`."""
        return (*self.v1, self.v2) if self.v2 else self.v1


class _Mount(Record):
    """A line of mountinfo."""

    id: str
    parent: str
    root: str  # what of the file system is mounted
    point: str
    kind: str  # "cgroup", "cgroup2", "ext4"
    options: tuple[str, ...]  # of the file system: v1 controllers, and more


def read_layout(mountinfo: str, own: str, offered: str | None = None) -> CgroupLayout:
    """The layout that the texts of /proc/self/mountinfo and /proc/self/cgroup describe.

    `offered`: the text of cgroup.controllers; None reads that of the cgroup2 mount.
    """
    mounts = _visible_mounts(mountinfo)
    v1: list[Hierarchy] = []
    v2: Hierarchy | None = None
    for line in own.splitlines():
        _, names, path = line.split(":", 2)
        controllers = tuple(names.split(",")) if names else ()
        mount = _best(mounts, "cgroup" if names else "cgroup2", controllers, path)
        if mount is None:
            continue
        if not names:
            v2 = _unified(mount.point, _below(mount.root, path) or "/", offered)
        else:
            v1.append(Hierarchy(controllers=controllers, mount=mount.point, own=_below(mount.root, path) or "/"))
    mode = "hybrid" if v1 and v2 else "v1" if v1 else "v2" if v2 else "none"
    return CgroupLayout(mode=mode, v1=tuple(v1), v2=v2)


def probe_layout() -> CgroupLayout:
    """This machine's, now. Raises OSError."""
    return read_layout(_read("/proc/self/mountinfo"), _read("/proc/self/cgroup"))


def mount_points() -> dict[str, tuple[str, str]]:
    """This process's mounts by their ids: where each stands, and of which file system it is."""
    lines = (line.partition(" - ") for line in _read("/proc/self/mountinfo").splitlines())
    found = ((fields.split(" "), rest.split(" ")[0]) for fields, _, rest in lines)
    return {fields[0]: (_unescape(fields[4]), kind) for fields, kind in found}


def _read(path: str) -> str:
    with open(path, errors="surrogateescape") as file:
        return file.read()


def _unescape(text: str) -> str:
    r"""mountinfo writes blanks and backslashes as three octal digits: "\040"."""
    if "\\" not in text:
        return text
    first, *rest = text.split("\\")
    parts = [chr(int(part[:3], 8)) + part[3:] if part[:3].isdigit() else "\\" + part for part in rest]
    return first + "".join(parts)


def _visible_mounts(mountinfo: str) -> list[_Mount]:
    """The cgroup mounts that no other mount hides, in their order."""
    lines = mountinfo.splitlines()
    ways = {way for line in lines if " - cgroup" in line for way in _way_to(line.split(" ", 5)[4])}
    mounts: dict[str, _Mount] = {}
    standing: dict[tuple[str, str], list[str]] = {}  # what stands directly on a mount, at one point
    for line in lines:
        if line.split(" ", 5)[4] not in ways:
            continue  # a machine with many containers has thousands that neither lead to a cgroup nor hide one
        fields, _, rest = line.partition(" - ")
        number, parent, _, root, point = fields.split(" ")[:5]
        kind, _, options = rest.split(" ", 2)
        words = tuple(options.rpartition(" ")[2].split(","))
        mount = _Mount(id=number, parent=parent, root=_unescape(root), point=_unescape(point), kind=kind, options=words)
        mounts[number] = mount
        standing.setdefault((parent, mount.point), []).append(number)
    beneath = {
        each.id
        for each in mounts.values()
        if any((each.parent, way) in standing for way in _way_to(each.point) if way != each.point)
    }
    candidates = [mount for mount in mounts.values() if mount.kind in ("cgroup", "cgroup2")]
    return [mount for mount in candidates if _is_visible(mount, mounts, standing, beneath)]


def _way_to(point: str) -> list[str]:
    """A path, and those of all directories above it."""
    names = point.split("/")
    return ["/".join(names[:count]) or "/" for count in range(1, len(names) + 1)]


def _is_visible(
    mount: _Mount, mounts: dict[str, _Mount], standing: dict[tuple[str, str], list[str]], beneath: set[str]
) -> bool:
    """Nothing lies over it or over what it stands on, and none of its neighbours was mounted above it later.

    `beneath`: the mounts with such a neighbour.
    """
    seen: set[str] = set()
    each: _Mount | None = mount
    while each is not None and each.id not in seen:
        seen.add(each.id)
        if each.id in beneath or not seen.issuperset(standing.get((each.id, each.point), ())):
            return False
        each = mounts.get(each.parent)
    return True


def _best(mounts: list[_Mount], kind: str, controllers: tuple[str, ...], path: str) -> _Mount | None:
    """Where a hierarchy is mounted; rather where the caller's own cgroup can be seen."""
    fitting = [each for each in mounts if each.kind == kind and all(name in each.options for name in controllers)]
    return next((each for each in fitting if _below(each.root, path)), fitting[0] if fitting else None)


def _below(root: str, path: str) -> str | None:
    """A cgroup's path from its mount, whose root need not be the hierarchy's; None when it is not below.

    In a cgroup namespace, what is outside of its root begins with "/..": cgroup_namespaces(7).
    """
    if root == path:
        return "/"
    if not path.startswith(root.rstrip("/") + "/") or "/../" in f"{path[len(root.rstrip('/')) :]}/":
        return None
    return path[len(root.rstrip("/")) :]


def _unified(mount: str, own: str, offered: str | None) -> Hierarchy:
    """The v2 hierarchy: what it offers depends on where this caller may make cgroups."""
    beside = f"{mount}{own.rpartition('/')[0]}"
    everywhere = os.access(f"{mount}/cgroup.procs", os.W_OK)
    delegated = not everywhere and all(os.access(path, os.W_OK) for path in (beside, f"{beside}/cgroup.procs"))
    if offered is None:
        try:
            offered = _read(f"{beside if delegated else mount}/cgroup.controllers")
        except FileNotFoundError:
            offered = ""  # below the root of a threaded or foreign tree: nothing that we could use
    return Hierarchy(controllers=tuple(offered.split()), mount=mount, own=own, delegated=delegated)
