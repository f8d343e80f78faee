"""Limits as what is written in each cgroup hierarchy, and where. Compile; pure. Source: config-linux.md, "cgroups"."""

from __future__ import annotations

from cycontainer.config import Cpu, Resources
from cycontainer.errors import ConfigError
from cycontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.config import Memory
    from cycontainer.host import CgroupLayout, Hierarchy
    from cycontainer.limits import Writes

PATH: Final = "linux.resources"
CORE: Final = "cgroup"  # files of that name are there without a controller
LONGEST_NAME: Final = 255  # bytes, NAME_MAX


class HierarchyPlan(Record):
    """One hierarchy that the container has a cgroup in.

    Attributes:
        mount: where it is mounted.
        controllers: v1: its own; v2: those that the cgroup is to have, as far as its parents can give them.
        writes: file and value, in order. A file that begins with "|" gets its value instead, where the one before it is
            missing; with "|" alone, that is no error.
        unified: it is cgroup v2: the container is born in it, and the init does nothing for it.
        needed: v2: the controllers that must be had.
        devices: v2: the program that decides about devices, or nothing.
        owner: v2: the uid that gets the cgroup as its own, for delegation.
    """

    mount: str
    controllers: tuple[str, ...]
    writes: tuple[tuple[bytes, bytes], ...] = ()
    unified: bool = False
    needed: tuple[str, ...] = ()
    devices: bytes = b""
    owner: int | None = None


class CgroupPlan(Record):
    """All of a container's cgroups.

    Attributes:
        hierarchies: v1's, whose places are the init's first slots, and then v2.
        warnings: what was asked for and does not exist, a sentence each.
        memory_check, swap_check: an update to this limit, of memory alone or with swap, is refused when more is used.
    """

    hierarchies: tuple[HierarchyPlan, ...] = ()
    warnings: tuple[str, ...] = ()
    memory_check: int | None = None
    swap_check: int | None = None

    @property
    def v1(self) -> tuple[HierarchyPlan, ...]:
        return tuple([each for each in self.hierarchies if not each.unified])


def compile_resources(
    resources: Resources,
    layout: CgroupLayout,
    *,
    all_controllers: bool,
    rootless: bool = False,
    owner: int | None = None,
) -> CgroupPlan:
    """What `resources` come to on this layout: in each hierarchy, or only where something is written.

    With `all_controllers`, devices are denied where no rule allows them, as by other runtimes. A `rootless` caller
    cannot make devices, so their rules are left out: guarantees, 5.

    Raises:
        ConfigError: with the JSON path, for a limit that this machine cannot set.
    """
    if rootless:
        resources = resources.replace(devices=())
    if not all_controllers and resources == Resources():
        return CgroupPlan()
    v1 = frozenset(name for hierarchy in layout.v1 for name in hierarchy.controllers)
    wanted: dict[str, Writes] = {}
    if v1 or layout.v2 is None:
        from cycontainer.resources_v1 import writes_v1

        taken = resources if "devices" in v1 or layout.v2 is None else resources.replace(devices=())
        wanted = writes_v1(taken, every_device_rule=all_controllers and "devices" in v1 and not rootless)
    plans = []
    for hierarchy in layout.v1:
        writes = [write for name in hierarchy.controllers for write in wanted.pop(name, ())]
        if writes or all_controllers:
            plan = HierarchyPlan(mount=hierarchy.mount, controllers=hierarchy.controllers, writes=tuple(writes))
            plans.append(plan)
    warnings = _obsolete(resources.memory, v2=layout.v2 is not None and "memory" not in v1)
    if layout.v2 is None:
        _refuse(wanted, layout)
        _refuse_unified(resources, v1)
    else:
        left = _left_for_v2(resources, v1)
        every = all_controllers and (not v1 or bool(layout.v2.controllers))
        unified = _unified(left, layout, v1, every=every, rootless=rootless)
        plans += [unified.replace(owner=owner)] if unified else []
    memory = resources.memory
    checked = memory if memory is not None and memory.check_before_update else None
    return CgroupPlan(
        hierarchies=tuple(plans),
        warnings=warnings,
        memory_check=_limited(checked.limit) if checked else None,
        swap_check=_limited(checked.swap) if checked else None,
    )


def _obsolete(memory: Memory | None, *, v2: bool) -> tuple[str, ...]:
    found = []
    if memory is not None and memory.kernel is not None:
        found.append(f"{PATH}.memory.kernel is ignored: Linux has no limit of kernel memory any more")
    if memory is not None and memory.use_hierarchy is False:
        found.append(f"{PATH}.memory.useHierarchy is ignored: Linux always counts what is below")
    if v2 and memory is not None and memory.swappiness is not None:
        found.append(f"{PATH}.memory.swappiness is ignored: cgroup v2 has no such setting")
    return tuple(found)


def _limited(value: int | None) -> int | None:
    return value if value is not None and value > 0 else None


def _left_for_v2(resources: Resources, v1: frozenset[str]) -> Resources:
    """What no v1 controller has taken."""
    cpu = resources.cpu
    if cpu and "cpuset" in v1:
        cpu = cpu.replace(cpus=None, mems=None)
    if cpu and "cpu" in v1:
        cpu = Cpu(cpus=cpu.cpus, mems=cpu.mems)
    return resources.replace(
        devices=() if "devices" in v1 else resources.devices,
        memory=None if "memory" in v1 else resources.memory,
        cpu=cpu,
        pids=None if "pids" in v1 else resources.pids,
        block_io=None if "blkio" in v1 else resources.block_io,
        hugepages=() if "hugetlb" in v1 else resources.hugepages,
        network_class=None if "net_cls" in v1 else resources.network_class,
        network_priorities=() if "net_prio" in v1 else resources.network_priorities,
        rdma=() if "rdma" in v1 else resources.rdma,
    )


def _unified(
    resources: Resources, layout: CgroupLayout, v1: frozenset[str], *, every: bool, rootless: bool
) -> HierarchyPlan | None:
    """The v2 hierarchy's part; None where nothing is asked of it."""
    from cycontainer.device_rules import device_program
    from cycontainer.resources_v2 import writes_v2

    assert layout.v2 is not None
    wanted = {name: writes for name, writes in writes_v2(resources).items() if writes}
    offered = layout.v2.controllers
    missing = {name: writes for name, writes in wanted.items() if name not in offered and name != CORE}
    if v1:
        _refuse_unified(resources.replace(unified=tuple([pair for pair in resources.unified if _of(pair) in v1])), v1)
    _refuse(missing, layout)
    asked = bool(resources.devices) or (every and "devices" not in v1 and not rootless)
    if not wanted and not asked and not every:
        return None
    needed = tuple([name for name in wanted if name != CORE])
    return HierarchyPlan(
        mount=layout.v2.mount,
        controllers=offered if every else needed,
        writes=tuple([write for writes in wanted.values() for write in writes]),
        unified=True,
        needed=needed,
        devices=device_program(resources.devices) if asked else b"",
    )


def _of(pair: tuple[str, str]) -> str:
    return pair[0].partition(".")[0]


def _refuse_unified(resources: Resources, v1: frozenset[str]) -> None:
    for key, _ in resources.unified:
        reason = "needs a cgroup v2 controller; this machine has that of v1" if v1 else "needs a cgroup v2 machine"
        raise ConfigError(f"{PATH}.unified.{key}", reason)


def _refuse(wanted: dict[str, Writes], layout: CgroupLayout) -> None:
    """A confinement that cannot be had stops the start."""
    for name, writes in wanted.items():
        if not writes:
            continue
        path = f"{PATH}.{writes.path}"
        if layout.mode == "none":
            raise ConfigError(path, "no cgroup file system is mounted here")
        raise ConfigError(path, f"this machine has no {name} controller{_advice(layout.v2)}")


def _advice(v2: Hierarchy | None) -> str:
    return f" that we may use; {v2.mount} offers {' '.join(v2.controllers) or 'none'}" if v2 else ""


# --- where


def cgroup_path(asked: str, container_id: str) -> str:
    """Where a container's cgroup is below each hierarchy's mount, a relative path from there too; "" is our own place.

    Raises:
        ConfigError: `linux.cgroupsPath` could lead elsewhere.
    """
    path = f"/cycontainer/{container_id}" if not asked else asked if asked.startswith("/") else f"/{asked}"
    for name in path[1:].split("/"):
        size = len(name.encode("utf-8", "surrogateescape"))
        if name in ("", ".", "..") or "\0" in name or "\n" in name or size > LONGEST_NAME:
            reason = f"{asked!r} must be names between slashes, none of them empty, . or .."
            raise ConfigError("linux.cgroupsPath", reason)
    return path


def where(asked: str, container_id: str, layout: CgroupLayout) -> dict[str, str]:
    """The container's cgroup in each hierarchy: {mount: path below it}.

    Absolute: from the mount on. Relative: v1, below the caller's own cgroup; v2, beside it, for a cgroup with processes
    cannot give controllers to others. Empty: /cycontainer/ID; on v2, where the caller may only make cgroups beside its
    own, cycontainer-ID there. Source: config-linux.md, "Cgroups Path"; cgroup-v2.rst, "No Internal Process Constraint".

    Raises:
        ConfigError: `linux.cgroupsPath` could lead elsewhere.
    """
    path = cgroup_path(asked, container_id)
    relative = bool(asked) and not asked.startswith("/")
    found = {each.mount: each.own.rstrip("/") + path if relative else path for each in layout.v1}
    if layout.v2 is not None:
        beside = layout.v2.own.rpartition("/")[0]
        found[layout.v2.mount] = path
        if relative:
            found[layout.v2.mount] = beside + path
        elif layout.v2.delegated and not asked:
            found[layout.v2.mount] = f"{beside}/cycontainer-{container_id}"
    return found


def paths_of(plan: CgroupPlan, places: dict[str, str]) -> tuple[str, ...]:
    """The paths for `Cgroup.create`, of what `where` found."""
    return tuple([places[each.mount] for each in plan.hierarchies])
