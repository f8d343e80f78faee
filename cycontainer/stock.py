"""What a template's containers are launched from: a file tree to copy, network namespaces, their plans. Lifecycle."""

from __future__ import annotations

import os

from cycontainer.cgroup_runs import new_run_cgroup
from cycontainer.compile import compile_plan, compile_program, compile_template
from cycontainer.launch import Ready
from cycontainer.launch_pad import mount_namespace_of, pad_descriptor
from cycontainer.network_reuse import check_reuse
from cycontainer.supplies import Supplies
from cycontainer.template_tree import can_share

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cycontainer.cgroup_layout import CgroupLayout
    from cycontainer.cgroup_runs import RunCgroup
    from cycontainer.compile import Style
    from cycontainer.config import Config
    from cycontainer.host import Host
    from cycontainer.plan import Plan


class Stock:
    """The things that are ready, and the plans of those who use them.

    Attributes:
        plan: of a container that makes all that is not in the tree.
        program: what one that waits goes on with; None when they do not wait.
        shared: whether there is a tree; else each container makes its own.
    """

    def __init__(
        self, config: Config, host: Host, style: Style, *, networks: int, cgroups: int, reuse: bool = False
    ) -> None:
        """
        Args:
            networks, cgroups: how many are kept ready.
            reuse: network namespaces are used again.

        Raises:
            ConfigError, LaunchError: nothing is left then.
        """
        self._reuse = reuse
        if reuse:
            check_reuse(config, root_attributes=style.root_attributes)
        self.program = compile_program(config, host, style) if style.warm else None
        self.shared = can_share(config, host)
        self.plan = self._plan_inside = compile_plan(config, host, style.replace(template=self.shared))
        self._tree, self._supplies = -1, None
        if not self.shared:
            return
        networks = networks if config.linux.makes("network") else 0
        if networks:
            self._plan_inside = compile_plan(config, host, style.replace(template=True, ready_network=True))
        self._tree = mount_namespace_of(compile_template(config, host, style), (pad_descriptor(),), "a template")
        try:
            self._supplies = self._begin_supplies(host.cgroups, networks, cgroups)
        except BaseException:
            self.close()
            raise

    def _begin_supplies(self, layout: CgroupLayout, networks: int, cgroups: int) -> Supplies | None:
        plan = self.plan.cgroup
        limited = plan is not None and bool(plan.hierarchies)
        if not networks and not (cgroups and limited):
            return None

        def new_cgroup() -> RunCgroup:
            assert plan is not None
            return new_run_cgroup(plan, layout)

        return Supplies(networks=networks, cgroups=cgroups if limited else 0, new_cgroup=new_cgroup)

    _supplies: Supplies | None

    def take(self) -> tuple[int, RunCgroup | None]:
        """For one launch: a network namespace, a descriptor that is the caller's, or -1; a cgroup, or None."""
        supplies = self._supplies
        return (-1, None) if supplies is None else (supplies.take_network(), supplies.take_cgroup())

    def replace(self) -> None:
        """Let what was taken be made again."""
        if self._supplies is not None:
            self._supplies.replace()

    def give_back(self, network: int, *, ended: bool) -> None:
        """One that was taken; `ended`: and nobody is in it any more. It is closed, or ready for another container."""
        if self._reuse and ended and self._supplies is not None:
            self._supplies.give_back(network)
        else:
            os.close(network)

    @property
    def removes_later(self) -> bool:
        """Whether a thread of ours removes what is used."""
        return self._supplies is not None

    def remove(self, remove: Callable[[], object]) -> None:
        """Call this, soon or at once."""
        if self._supplies is not None:
            self._supplies.remove(remove)
        else:
            remove()

    def plan_with(self, network: int) -> Plan:
        return self._plan_inside if network >= 0 else self.plan

    def ready(self, network: int) -> Ready | None:
        """For `launch`."""
        if not self.shared:
            return None
        return Ready(tree=self._tree, namespaces=(network,) if network >= 0 else ())

    def fill(self, timeout: float) -> bool:
        """Wait until all that is to be ready is; whether it is."""
        return self._supplies is None or self._supplies.fill(timeout)

    def close(self) -> None:
        """Let go of all. What was launched from it goes on. Raises CgroupError: something could not be removed."""
        tree, self._tree = self._tree, -1
        if tree >= 0:
            os.close(tree)
        if self._supplies is not None:
            self._supplies.close()
