"""A run whose cgroup systemd makes: it is compiled at the launch, for what systemd's manager has to give. Face."""

from __future__ import annotations

from cycontainer.compile import compile_plan
from cycontainer.config import Resources
from cycontainer.host import current
from cycontainer.record import Record
from cycontainer.systemd import CgroupUnit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cycontainer.cgroups import Cgroup
    from cycontainer.compile import Style
    from cycontainer.config import Config
    from cycontainer.plan import Plan


class UnitWish(Record):
    """What is compiled then."""

    config: Config
    style: Style

    def checked(self) -> Plan:
        """The same without the limits: all else is known to be possible. Raises ConfigError."""
        linux = self.config.linux.replace(resources=Resources())
        return compile_plan(self.config.replace(linux=linux), current(), self.style.replace(cgroup=False))


class UnitRun:
    """The scope of one run. Whoever made this closes it.

    Attributes:
        plan: the run's.
        path: its cgroup, below each hierarchy's mount.

    Raises:
        ConfigError, HostError: as `CgroupUnit`.
    """

    def __init__(self, wish: UnitWish) -> None:
        from cycontainer.cgroup_runs import run_name

        name = run_name()
        linux = wish.config.linux.replace(cgroups_path=f":cycontainer:{name}")
        config = wish.config.replace(linux=linux)
        self._unit = CgroupUnit(config, name, current())
        try:
            self.plan = compile_plan(config, self._unit.host, wish.style.replace(unit=self._unit.scope))
        except BaseException:
            self._unit.__exit__()
            raise
        self.path = self._unit.path

    def make(self, pid: int) -> Cgroup:
        """The scope, with the waiting init in it; the caller destroys the cgroup. Raises HostError, CgroupError."""
        assert self.plan.cgroup is not None
        cgroup = self._unit.make(self.plan.cgroup, pid)
        cgroup.release_tasks()
        return cgroup

    def ran_out_of_memory(self) -> bool:
        """Whether systemd says so of a scope that has ended, as it does since its version 253. Raises HostError."""
        return self._unit.result() == "oom-kill"

    def close(self) -> None:
        """Forget the scope, whose processes have ended. Raises HostError."""
        self._unit.__exit__()
        self._unit.stop()
