"""Changing the limits of a container that runs. Lifecycle: it writes to cgroups, to a resctrl group, and to systemd."""

from __future__ import annotations

from cycontainer.cgroup_layout import probe_layout
from cycontainer.errors import ConfigError, shown
from cycontainer.handles import open_cgroup
from cycontainer.node import Node
from cycontainer.read_resources import read_resources
from cycontainer.resources import compile_resources
from cycontainer.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cycontainer.cgroups import Cgroup
    from cycontainer.config import IntelRdt, Resources
    from cycontainer.state_text import State


def update(state: State, resources: Mapping[str, Any], intel_rdt: IntelRdt | None) -> tuple[str, ...]:
    """Write other limits; see `Container.update`. Returns warnings, a sentence each."""
    Node(resources, "resources").required().object()
    if intel_rdt is not None and not hasattr(intel_rdt, "l3_cache_schema"):
        raise ConfigError("intel_rdt", f"must be a config.IntelRdt, not {shown(intel_rdt)}")
    if intel_rdt is not None and state.resctrl is None:
        raise ConfigError("linux.intelRdt", "the container has no group of its own")
    cgroup = open_cgroup(state)
    wanted = read_resources(Node(_completed(resources, cgroup), "linux.resources"))
    plan = compile_resources(wanted, probe_layout(), all_controllers=False)
    with Undo() as undo:
        if intel_rdt is None and not state.unit:
            cgroup.update(plan)
        else:
            cgroup.update(plan, lambda: _update_beside(state, wanted, intel_rdt, undo))
    return plan.warnings


def _update_beside(state: State, wanted: Resources, intel_rdt: IntelRdt | None, undo: Undo) -> None:
    """What belongs to the limits and is no file of a cgroup; the cgroup has them already."""
    if intel_rdt is not None and state.resctrl is not None:
        from cycontainer.intelrdt import put_back
        from cycontainer.intelrdt import update as update_group

        group, former = state.resctrl, update_group(state.resctrl, intel_rdt)
        undo.later("put the old schemata back", lambda: put_back(group, former))
    if state.unit:
        from cycontainer.systemd import change_unit

        change_unit(state.unit, wanted, undo)


def _completed(resources: Mapping[str, Any], cgroup: Cgroup) -> dict[str, Any]:
    """With the memory limit that it has, where only that of memory and swap together is to change.

    A limit of 0 is "not given", as engines write it; an unlimited memory takes the limit of swap with it, as in runc.
    """
    memory = resources.get("memory")
    if not isinstance(memory, dict):
        return dict(resources)
    memory = {
        name: value for name, value in memory.items() if value != 0 or name not in ("limit", "swap", "reservation")
    }
    if memory.get("limit") == -1:
        memory.setdefault("swap", -1)
    if memory.get("swap") is not None and memory.get("limit") is None:
        from cycontainer.stats import read_stats

        now = read_stats(cgroup).memory
        if now is not None and now.memory.limit is not None:
            memory["limit"] = now.memory.limit
    return {**resources, "memory": memory}
