"""Whose network namespace can be used again: of a program that can leave nothing behind in it. Lifecycle.

Who has CAP_NET_ADMIN there can configure it. Without that, the files of sysctls do: they ask for uid 0 and for no
capability (`net_ctl_permissions` in net/sysctl_net.c), and they are those of the reader's network namespace, whoever
has mounted the procfs. A sysfs is that of the network namespace of who mounted it, with modes and owners.
"""

from __future__ import annotations

import os

from cycontainer.cgroup_layout import mount_points
from cycontainer.errors import ConfigError
from cycontainer.mount_options import AT_RECURSIVE, ATTR_RDONLY, fold_options
from cycontainer.tables import capability_mask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from cycontainer.config import Config, Mount

ADMINISTRATORS: Final = ("CAP_NET_ADMIN", "CAP_SYS_ADMIN")
WRITERS: Final = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETUID")  # who is or becomes as good as root
HIDING_SYSCTLS: Final = ("", "/sys", "/sys/net")  # below a procfs: each of these, read-only or hidden, is enough


def check_reuse(config: Config, *, root_attributes: int) -> None:
    """Refuse who could leave something behind. `root_attributes`: MOUNT_ATTR_* of the root. Raises ConfigError."""
    if not config.linux.makes("pid"):
        raise ConfigError("reset", "without a pid namespace of its own, a container could leave processes behind")
    process = config.process
    held = 0
    for mask in process.capabilities if process else ():
        held |= mask
    if held & capability_mask(ADMINISTRATORS)[0]:
        raise ConfigError("reset", "a program with CAP_NET_ADMIN or CAP_SYS_ADMIN could leave something behind")
    if process is not None and process.user.uid and not held & capability_mask(WRITERS)[0]:
        return
    for place in _writable(config, root_attributes):
        raise ConfigError("reset", f"a root that can write {place} could leave sysctls behind")


def _writable(config: Config, root_attributes: int) -> Iterator[str]:
    """Where sysctls, or a sysfs, can be written in the container."""
    covered = [mount.destination for mount in config.mounts]
    shut = {*config.linux.readonly_paths, *config.linux.masked_paths}
    if not root_attributes & ATTR_RDONLY:
        for path in _procfs_below(config.root.path, recursive=True):
            if not any(f"{path}/".startswith(f"{place.rstrip('/')}/") for place in covered):
                yield from _unless_shut(path, shut)
    for mount in config.mounts:
        yield from _writable_through(mount, shut)


def _writable_through(mount: Mount, shut: set[str]) -> Iterator[str]:
    options = fold_options(mount)
    top = mount.destination.rstrip("/")
    whole, below = (options.changes.get(flags, (0, 0))[0] & ATTR_RDONLY for flags in (0, AT_RECURSIVE))
    if below:
        return
    if options.bind:
        for path in _procfs_below(mount.source, recursive=options.recursive):
            if path or not whole:
                yield from _unless_shut(top + path, shut)
    elif mount.type == "proc" and not whole:
        yield from _unless_shut(top, shut)
    elif mount.type == "sysfs" and not whole and top not in shut:
        yield top


def _unless_shut(procfs: str, shut: set[str]) -> Iterator[str]:
    if not any(procfs + part in shut for part in HIDING_SYSCTLS):
        yield f"{procfs}/sys/net"


def _procfs_below(source: str, *, recursive: bool) -> Iterator[str]:
    """Where the host's procfs would be in a bind mount of this, as "" or "/relative"; what is not there, is nowhere."""
    top = os.path.realpath(source)
    points = sorted({point for point, kind in mount_points().values() if kind == "proc"})
    numbers = {number for point in points if (number := _device(point)) is not None}
    if _device(top) in numbers:
        yield ""
    above = f"{top.rstrip('/')}/"
    for point in points if recursive else ():
        if point.startswith(above):
            yield point[len(above) - 1 :]


def _device(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None  # of what cannot be mounted the launch tells
