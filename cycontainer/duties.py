"""What is done for a container that is being made, while its first process waits for it. Lifecycle.

A new container's first process is an init of ours, a restored one's is criu's: who is asked, and when, differs; what is
done does not.
"""

from __future__ import annotations

import os

from cycontainer.process import write_pid_file
from cycontainer.process_stat import start_time_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cycontainer.config import Config, IntelRdt
    from cycontainer.creation import Wishes
    from cycontainer.netdevices import NetworkDevices
    from cycontainer.state import Directory
    from cycontainer.state_text import State
    from cycontainer.undo import Undo


class Duties:
    """What the launcher does for a first process. Whatever needs taking back is told to `undo`.

    Attributes:
        state: the newest.
    """

    def __init__(
        self,
        directory: Directory,
        config: Config,
        state: State,
        wishes: Wishes,
        undo: Undo,
        devices: NetworkDevices | None,
    ) -> None:
        self.state, self._directory, self._config = state, directory, config
        self._wishes, self._undo, self._devices = wishes, undo, devices

    def know(self, pid: int) -> None:
        """Who it is; written down before others are waited for, who may hang: so that `delete --force` finds it."""
        if self.state.pid != pid:
            self.state = self.state.replace(pid=pid, start_time=start_time_of(pid))
            self._save_unfinished()

    def _save_unfinished(self) -> None:
        """Keep what there is so far; to every reader it is still being made."""
        state = self.state
        self._directory.save(state.replace(pid=0, start_time=0, init_pid=state.pid, init_start_time=state.start_time))

    def equip(self, pid: int) -> None:
        """Give it network devices and a share of the caches: its namespaces are there."""
        if self._devices is not None:
            self._devices.move_to(pid)
        if self._config.linux.intel_rdt is not None:
            self._share_caches(self._config.linux.intel_rdt, pid)

    def _share_caches(self, config: IntelRdt, pid: int) -> None:
        """Put it into its resctrl group, which the state tells of before it is made."""
        from cycontainer.intelrdt import assign, find_root, plan_group, remove

        group = plan_group(config, self.state.id, find_root())
        self.state = self.state.replace(resctrl=group)
        self._save_unfinished()
        self._undo.later("remove the resctrl group", lambda: remove(group, pid))
        assign(group, config, pid)

    def call_hooks(self, pid: int, pidfd: int = -1) -> None:
        """The hooks of the host's side: config.md, "Prestart", "CreateRuntime Hooks". From then on poststop is owed."""
        from cycontainer.hooks import run_hooks, run_poststop  # most containers have none

        self.know(pid)
        config, state, bundle = self._config, self.state, self._wishes.bundle
        if config.hooks.poststop:
            self._undo.later("run the poststop hooks", lambda: run_poststop(config, state))
        for kind in ("prestart", "createRuntime"):
            run_hooks(kind, config, state, "creating", needed_by=pidfd, directory=bundle)

    def take_terminal(self, master: int) -> int:
        """Its terminal is there: sent to who asked for it (-1 then), or kept."""
        if not self._wishes.console_socket:
            return master
        from cycontainer.console import hand_over

        hand_over(self._wishes.console_socket, master, "console")
        return -1

    def keep(self, pid: int, pidfd: int = -1) -> None:
        """All is done: who asked hears of it, and the state is kept, so that whoever comes finds it."""
        if self._wishes.pidfd_socket:
            from cycontainer.console import hand_over

            self.know(pid)
            hand_over(self._wishes.pidfd_socket, os.pidfd_open(pid) if pidfd < 0 else os.dup(pidfd), "pidfd")
        if self._wishes.pid_file:
            write_pid_file(self._wishes.pid_file, pid)
        self.state = self.state.replace(pid=pid, start_time=start_time_of(pid))
        self._directory.save(self.state)
