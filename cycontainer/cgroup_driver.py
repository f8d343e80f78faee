"""Who makes a container's cgroup: cycontainer through the cgroup file system, systemd, or nobody. Lifecycle."""

from __future__ import annotations

import os

from cycontainer.errors import ConfigError
from cycontainer.host import current
from cycontainer.resources import cgroup_path, paths_of, where

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Protocol, Self

    from cycontainer.cgroups import Cgroup
    from cycontainer.config import Config
    from cycontainer.host import Host
    from cycontainer.resources import CgroupPlan

    class Driver(Protocol):
        """Who makes a container's cgroup. Use it with `with`.

        Attributes:
            host: the machine as the container is compiled for it.
            name: of systemd's unit; "" when it makes none.
            scope: the same, when the init has to wait for it.
            path: the cgroup, as it is below a cgroup mount of the configuration.
        """

        host: Host
        name: str
        scope: str
        path: str

        def __enter__(self) -> Self: ...
        def __exit__(self, *_: object) -> None: ...
        def places(self) -> dict[str, str]: ...
        def permitted(self) -> bool: ...
        def make(self, plan: CgroupPlan, pid: int) -> Cgroup: ...
        def stop(self) -> None: ...


MANAGERS: Final = ("cgroupfs", "systemd", "disabled")


class CgroupFiles:
    """cycontainer itself, through the cgroup file system; or nobody: then the plan has no hierarchies."""

    def __init__(self, config: Config, container_id: str, host: Host) -> None:
        self.host, self.name, self.scope = host, "", ""
        self._asked, self._id = config.linux.cgroups_path, container_id
        self.path = cgroup_path(self._asked, container_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def places(self) -> dict[str, str]:
        """The container's cgroup in each hierarchy: {mount: path below it}."""
        return where(self._asked, self._id, self.host.cgroups)

    def permitted(self) -> bool:
        """Whether the caller may make it in every hierarchy: not where the place is another's, or read-only."""
        for mount, path in self.places().items():
            place = f"{mount}{path}".rpartition("/")[0]
            while not os.path.isdir(place):
                place = place.rpartition("/")[0]
            if not os.access(place, os.W_OK, effective_ids=True):
                return False
        return True

    def make(self, plan: CgroupPlan, pid: int) -> Cgroup:  # the process enters it by itself
        """Make it. Raises CgroupError; then nothing is left."""
        from cycontainer.cgroups import Cgroup

        return Cgroup.create(plan, paths_of(plan, self.places()))

    def stop(self) -> None:
        """What is made by us is removed as a `Cgroup`."""


def driver_of(manager: str, config: Config, container_id: str) -> Driver:
    """The driver of a name. Raises ConfigError, HostError."""
    if manager not in MANAGERS:
        raise ConfigError("cgroup_manager", f"must be one of {', '.join(MANAGERS)}, not {manager!r}")
    if manager != "systemd":
        return CgroupFiles(config, container_id, current())
    from cycontainer.systemd import CgroupUnit

    return CgroupUnit(config, container_id, current())
