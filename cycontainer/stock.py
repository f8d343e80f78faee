"""What a template's containers are launched from: a file tree to copy, network namespaces, their plans. Lifecycle."""

from __future__ import annotations

import os

from cycontainer.compile import compile_plan, compile_program, compile_template
from cycontainer.errors import ConfigError
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


CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21


def _check_reuse(config: Config) -> None:
    """Whoever could configure a network namespace must be its only user."""
    process = config.process
    held = 0
    for mask in process.capabilities if process else ():
        held |= mask
    if held >> CAP_NET_ADMIN & 1 or held >> CAP_SYS_ADMIN & 1:
        raise ConfigError("reset", "a program with CAP_NET_ADMIN or CAP_SYS_ADMIN could leave something behind")


class Stock:
    """The things that are ready, and the plans of those who use them.

    Attributes:
        plan: of a container that makes all that is not in the tree.
        program: what one that waits goes on with; None when they do not wait.
        shared: whether there is a tree; else each container makes its own.
    """

    def __init__(self, config: Config, host: Host, style: Style, *, networks: int, reuse: bool = False) -> None:
        """
        Args:
            networks: how many network namespaces are kept ready.
            reuse: they are used again.

        Raises:
            ConfigError, LaunchError: nothing is left then.
        """
        self._reuse = reuse
        if reuse:
            _check_reuse(config)
        self.program = compile_program(config, host, style) if style.warm else None
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

    def give_back(self, network: int, *, ended: bool) -> None:
        """One that was taken; `ended`: and nobody is in it any more. It is closed, or ready for another container."""
        if self._reuse and ended and self._networks is not None:
            self._networks.give_back(network)
        else:
            os.close(network)

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
