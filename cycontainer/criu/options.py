"""What a checkpoint and a restore can be asked for beside the container and the image directory. It touches nothing."""

from __future__ import annotations

import os

from cycontainer.criu.rpc import CGROUP_MODES, NETWORK_LOCKS
from cycontainer.errors import ConfigError, reason_of, shown
from cycontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, TypeVar

    Options = TypeVar("Options", "CheckpointOptions", "RestoreOptions")

CLONE_NEWNET: Final = 0x40000000
MODULES: Final = {"apparmor": "AppArmor", "selinux": "SELinux"}
EMPTY_NAMESPACES: Final = {"network": CLONE_NEWNET}


class CheckpointOptions(Record):
    """How a container is saved.

    Attributes:
        work_path: where criu's log goes; "" is the image directory.
        parent_path: an earlier pre-dump's image directory, relative to this one; only what changed since is saved.
        pre_dump: save the memory only, and let the container run on.
        leave_running: let the container run on after a whole dump.
        tcp_established: save established TCP connections; they are locked meanwhile.
        tcp_skip_in_flight: leave connections out that are just being made.
        ext_unix_sk: save datagram sockets that are connected to the host's.
        shell_job: its terminal is the caller's.
        file_locks: save file locks.
        link_remap: save open files that are deleted but have another name: it is given one for the time being.
        lazy_pages: leave the memory here, for `criu lazy-pages` of the other machine to fetch from `page_server`.
        status_fd: a byte 0 is written there, and it is closed, when lazy pages can be fetched; -1 is none.
        page_server: "ADDRESS:PORT" of the criu page-server that takes the memory; "" is none.
        auto_dedup: what is saved is taken out of the parent images.
        manage_cgroups_mode: "soft", "full", "strict" or "ignore".
        empty_ns: nothing of the network namespace but sockets is saved. It is always so.
        network_lock: "iptables", "nftables" or "skip"; "" is iptables where that is installed, else nftables.
        without_exec: processes that came in by `exec` are not saved; without this they are an error.
    """

    work_path: str = ""
    parent_path: str = ""
    pre_dump: bool = False
    leave_running: bool = False
    tcp_established: bool = False
    tcp_skip_in_flight: bool = False
    ext_unix_sk: bool = False
    shell_job: bool = False
    file_locks: bool = False
    link_remap: bool = False
    lazy_pages: bool = False
    status_fd: int = -1
    page_server: str = ""
    auto_dedup: bool = False
    manage_cgroups_mode: str = "soft"
    empty_ns: tuple[str, ...] = ()
    network_lock: str = ""
    without_exec: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether the container runs on afterwards."""
        return self.leave_running or self.pre_dump


class RestoreOptions(Record):
    """How a container is restored; what `CheckpointOptions` has as well means the same.

    Attributes:
        tcp_close: established connections are closed.
        lsm_profile: "selinux:LABEL" or "apparmor:NAME" for its processes.
        lsm_mount_context: the SELinux label of its mounts.
    """

    work_path: str = ""
    tcp_established: bool = False
    tcp_close: bool = False
    ext_unix_sk: bool = False
    shell_job: bool = False
    file_locks: bool = False
    lazy_pages: bool = False
    auto_dedup: bool = False
    manage_cgroups_mode: str = "soft"
    empty_ns: tuple[str, ...] = ()
    network_lock: str = ""
    lsm_profile: str = ""
    lsm_mount_context: str = ""


def checked(options: Options) -> Options:
    """The options, each of its default's type; a path's text for a path. Raises ConfigError: one is not."""
    values = [os.fspath(each) if isinstance(each, os.PathLike) else each for each in options]
    for name, value in zip(type(options).fields, values):
        kind = type(type(options).defaults[name])
        if type(value) is not kind and not (kind is tuple and isinstance(value, list)):
            raise ConfigError(name, f"must be of the type {kind.__name__}, not {shown(value)}")
    return options.replace(**dict(zip(type(options).fields, values)))


def cgroup_mode(name: str) -> int:
    """criu's number of a --manage-cgroups-mode. Raises ConfigError."""
    if name not in CGROUP_MODES:
        raise ConfigError("manage-cgroups-mode", f"{name!r} is none of {', '.join(CGROUP_MODES)}")
    return CGROUP_MODES[name]


def network_lock(name: str) -> int:
    """criu's number of a network lock. Raises ConfigError."""
    if name not in NETWORK_LOCKS:
        raise ConfigError("network-lock", f"{name!r} is none of {', '.join(NETWORK_LOCKS)}")
    return NETWORK_LOCKS[name]


def check_empty_ns(names: tuple[str, ...]) -> None:
    """Only the network namespace can be emptied. Raises ConfigError."""
    for name in names:
        if name not in EMPTY_NAMESPACES:
            raise ConfigError("empty-ns", f"{name!r} is none of {', '.join(EMPTY_NAMESPACES)}")


def check_status(options: CheckpointOptions) -> None:
    """Refuse a status descriptor that is none, before something of ours gets its number. Raises ConfigError."""
    from fcntl import F_GETFL, fcntl

    if options.status_fd < 0:
        return
    if not options.lazy_pages:
        raise ConfigError("status-fd", "goes with lazy-pages")
    try:
        flags = fcntl(options.status_fd, F_GETFL)
    except OSError as error:
        raise ConfigError("status-fd", f"{options.status_fd}: {reason_of(error)}") from None
    if flags & os.O_ACCMODE == os.O_RDONLY:
        raise ConfigError("status-fd", f"{options.status_fd} is not open for writing")


def check_labels(options: RestoreOptions, lsms: tuple[str, ...]) -> None:
    """Refuse a label that no security module would enforce. Raises ConfigError."""
    kind, _, label = options.lsm_profile.partition(":")
    if options.lsm_profile and (kind not in MODULES or not label):
        raise ConfigError("lsm-profile", f"{options.lsm_profile!r} must be selinux:LABEL or apparmor:NAME")
    for option, module in (("lsm-profile", kind), ("lsm-mount-context", options.lsm_mount_context and "selinux")):
        if module and module not in lsms:
            raise ConfigError(option, f"this kernel has no {MODULES[module]}, or it is off")


def server_address(text: str) -> tuple[str, int] | None:
    """The address and port of "ADDRESS:PORT", an IPv6 address in brackets or not; None for "". Raises ConfigError."""
    if not text:
        return None
    address, colon, port = text.rpartition(":")
    if not colon or not address or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ConfigError("page-server", f"{text!r} must be ADDRESS:PORT")
    return address.removeprefix("[").removesuffix("]"), int(port)
