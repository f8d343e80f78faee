"""What a template's containers are launched from: a file tree to copy, network namespaces, their plans. Lifecycle."""

from __future__ import annotations

import os

from cycontainer.compile import compile_plan, compile_template
from cycontainer.launch import Ready
from cycontainer.launch_pad import mount_namespace_of, pad_descriptor
from cycontainer.networks import Networks
from cycontainer.template_tree import can_share

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cycontainer.compile import Style
    from cycontainer.config import Config
    from cycontainer.host import Host
    from cycontainer.plan import Plan


class Stock:
    """The things that are ready, and the plans of those who use them.

    Attributes:
        plan: of a container that makes all that is not in the tree.
        shared: whether there is a tree; else each container makes its own.
    """

    def __init__(self, config: Config, host: Host, style: Style, *, networks: int) -> None:
        """Raises ConfigError, LaunchError; nothing is left then."""
        self.shared = can_share(config, host)
        self.plan = compile_plan(config, host, style.replace(template=self.shared))
        self._tree, self._networks, self._plan_inside = -1, None, self.plan
        if not self.shared:
            return
        new = any(namespace.type == "network" and namespace.path is None for namespace in config.linux.namespaces)
        if networks and new:
            self._plan_inside = compile_plan(config, host, style.replace(template=True, ready_network=True))
        errand = compile_template(config, host, style)
        self._tree = mount_namespace_of(errand, (pad_descriptor(),), "a template")
        if networks and new:
            self._networks = Networks(networks)

    _networks: Networks | None

    def take_network(self) -> int:
        """A network namespace for one launch, a descriptor that is the caller's; -1 when none is ready."""
        return self._networks.take() if self._networks is not None else -1

    def give_back(self, network: int) -> None:
        """One that nobody is in any more is ready for another container."""
        assert self._networks is not None
        self._networks.give_back(network)

    def plan_with(self, network: int) -> Plan:
        return self._plan_inside if network >= 0 else self.plan

    def ready(self, network: int) -> Ready | None:
        """For `launch`."""
        if not self.shared:
            return None
        return Ready(tree=self._tree, namespaces=(network,) if network >= 0 else ())

    def fill(self, timeout: float) -> bool:
        """Wait until all that is to be ready is; whether it is."""
        return self._networks is None or self._networks.fill(timeout)

    def close(self) -> None:
        """Let go of all. What was launched from it goes on."""
        tree, self._tree = self._tree, -1
        if tree >= 0:
            os.close(tree)
        if self._networks is not None:
            self._networks.close()
