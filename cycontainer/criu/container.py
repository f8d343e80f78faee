"""Making a container that is a saved one: its state, cgroup, devices and hooks, and what is undone. Lifecycle."""

from __future__ import annotations

import os

from cycontainer import _clone
from cycontainer.cgroup_driver import driver_of
from cycontainer.compile import Style, compile_plan
from cycontainer.creation import (
    Wishes,
    check_terminal,
    intend,
    make_cgroup,
    tell_warnings,
)
from cycontainer.criu.externals import has_new_network
from cycontainer.criu.network import set_sysctls
from cycontainer.criu.restore import Wanted, restore
from cycontainer.duties import Duties
from cycontainer.netdevices import NetworkDevices
from cycontainer.process import Process
from cycontainer.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cycontainer.config import Config
    from cycontainer.criu.options import RestoreOptions
    from cycontainer.state import Directory
    from cycontainer.state_text import State
    from cycontainer.streams import Stream


def bring_back(
    root: str,
    container_id: str,
    config: Mapping[str, Any],
    image_path: str,
    options: RestoreOptions,
    *,
    bundle: str,
    streams: tuple[Stream, Stream, Stream],
    cgroup_manager: str = "cgroupfs",
) -> Process:
    """Restore a container with streams or a terminal of ours; see `Container.restore`."""
    from cycontainer.json_text import to_json
    from cycontainer.streams import Streams

    document = to_json(config).encode("utf-8", "surrogateescape")
    terminal = bool((config.get("process") or {}).get("terminal"))
    with Streams.of(streams, terminal=terminal) as opened:
        wishes = Wishes(
            bundle=os.path.abspath(bundle), descriptors=tuple(opened.program), ends=opened.ends,
            cgroup_manager=cgroup_manager,
        )  # fmt: skip
        process = bring_back_bundle(root, container_id, document, image_path, options, wishes=wishes)
        opened.taken()
    return process


def bring_back_bundle(
    root: str, container_id: str, document: bytes, image_path: str, options: RestoreOptions, *, wishes: Wishes
) -> Process:
    """Restore a container from the bytes of its config.json, under a new id."""
    from cycontainer.read_config import parse, read_config
    from cycontainer.state import Directory

    config = read_config(parse(document), bundle=wishes.bundle)
    with Directory.reserve(root, container_id) as directory:
        _, process = restore_container(directory, config, document, wishes, image_path=image_path, options=options)
    return process


def restore_container(
    directory: Directory, config: Config, document: bytes, wishes: Wishes, *, image_path: str, options: RestoreOptions
) -> tuple[State, Process]:
    """Make a container that is a saved one; see `Container.restore`.

    Args:
        directory: reserved for it, and the caller's; on a failure it is removed.
        document: the configuration as it was given, which is kept.
    """
    with Undo() as undo, NetworkDevices(config.linux.net_devices) as devices:
        undo.later("remove the state directory", directory.remove)
        check_terminal(config, wishes)
        with driver_of(wishes.cgroup_manager, config, directory.container_id) as driver:
            style = Style(wait_for_start=True, unit=driver.scope, cgroup=wishes.cgroup_manager != "disabled")
            plan = compile_plan(config, driver.host, style)
            state = intend(config, driver, plan, directory.container_id, wishes.bundle)
            tell_warnings(config, plan, wishes)
            directory.save(state)
            directory.write("config.json", document)
            cgroup = make_cgroup(plan, driver, undo) if not driver.scope else None
            duties = _Duties(directory, config, state, wishes, undo, devices)
            wanted = Wanted(
                config=config,
                at=directory.path,
                cgroup=cgroup,
                cgroup_paths={place.mount: place.mount + place.path for place in state.cgroups},
                enter=(lambda pid: make_cgroup(plan, driver, undo, pid)) if driver.scope else None,
                descriptors=wishes.descriptors,
                terminal=duties.keep_terminal,
                set_up=duties.set_up,
                restored=lambda pid: duties.restored(pid, document),
            )
            child = duties.child
            child.take(restore(wanted, image_path, options))
            if cgroup is not None:
                cgroup.release_tasks()
    process = Process(plan, child, plan.args).with_ends(wishes.ends)
    process.made = state.created
    return duties.state, process


class _Duties(Duties):
    """What is done while criu waits for our answers."""

    def __init__(
        self,
        directory: Directory,
        config: Config,
        state: State,
        wishes: Wishes,
        undo: Undo,
        devices: NetworkDevices,
    ) -> None:
        super().__init__(directory, config, state, wishes, undo, devices)
        self.child = _clone.Child()  # to be: until it is adopted it has nothing but a terminal

    def keep_terminal(self, master: int) -> None:
        """As for a new container, it is sent away or stays ours."""
        self.child.terminal = self.take_terminal(master)

    def set_up(self, pid: int) -> None:
        """Its namespaces are there."""
        self.know(pid)
        self.equip(pid)
        sysctls = tuple(pair for pair in self._config.linux.sysctl if pair[0].startswith("net/"))
        if sysctls and has_new_network(self._config):
            set_sysctls(pid, sysctls)
        pidfd = os.pidfd_open(pid)
        try:
            self.call_hooks(pid, pidfd)
        finally:
            os.close(pidfd)

    def restored(self, pid: int, document: bytes) -> None:
        """Only when its state is kept its processes run."""
        if _has_other_clock(pid) and not any(each.type == "time" for each in self._config.linux.namespaces):
            self._directory.write("config.json", _with_time_namespace(document))
        self.keep(pid)


def _has_other_clock(pid: int) -> bool:
    """criu restores into a new time namespace also what had none: for exec, the container now has one."""
    return os.stat(f"/proc/{pid}/ns/time").st_ino != os.stat("/proc/self/ns/time").st_ino


def _with_time_namespace(document: bytes) -> bytes:
    from cycontainer.json_text import to_json
    from cycontainer.read_config import parse

    value = parse(document)
    assert isinstance(value, dict)  # it was read as a configuration
    value["linux"]["namespaces"].append({"type": "time"})
    return to_json(value).encode("utf-8", "surrogateescape")
