"""Bringing a saved container back: what is prepared, what criu is told, what is done while it works.

mount points -> criu, born in the container's cgroup and in a mount namespace of its own, in which the root file system
is bound where criu wants it (so no mount of ours is ever on the host, whatever dies when) -> the request -> hooks,
terminal, state while criu waits for our answers. criu's processes are born there too, as our children. On a failure
criu kills them.
"""

from __future__ import annotations

import os

from cycontainer.criu.checkpoint import LOG_LEVEL, criu_configuration, freezer_of, is_frozen
from cycontainer.criu.externals import (
    check_same,
    external_namespaces,
    has_new,
    has_new_network,
    joined_namespaces,
    mount_sources,
    refuse_mapped_mounts,
)
from cycontainer.criu.images import ImageDirectory, Note, check_complete, read_descriptors, read_note
from cycontainer.criu.log import lines_of
from cycontainer.criu.mount_points import make_mount_points
from cycontainer.criu.network import TABLE, bring_loopback_up, choose_lock, delete_table, hold_traffic
from cycontainer.criu.options import (
    CLONE_NEWNET,
    RestoreOptions,
    cgroup_mode,
    check_empty_ns,
    check_labels,
    network_lock,
)
from cycontainer.criu.pages import check_pages
from cycontainer.criu.swrk import FIRST_INHERITED, Criu
from cycontainer.errors import ConfigError, reason_of
from cycontainer.host import current
from cycontainer.mount_options import ATTR_RDONLY, fold_options
from cycontainer.process_stat import stat_of
from cycontainer.record import Record
from cycontainer.sources import hierarchies_of, hierarchy_attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final

    from cycontainer.cgroups import Cgroup
    from cycontainer.config import Config

LOG: Final = "restore.log"
STATISTICS: Final = "stats-restore"  # criu's, beside the log
MOUNT_YARD: Final = "/tmp/.criu.mntns."  # criu's, and six letters or digits
SIGKILL: Final = 9


class Wanted(Record):
    """The container that is to be.

    Attributes:
        config: what it is made from: where its file systems and namespaces are now.
        at: an empty or unimportant directory: criu finds the root file system there, in a mount namespace of its own.
        cgroup: made for it, its `tasks` open; None when it gets none, or systemd makes it.
        cgroup_paths: the cgroup's directories, by the mounts of their hierarchies.
        enter: called with criu's pid, for systemd to make the cgroup with it.
        descriptors: its new 0, 1 and 2, where the old ones were the host's or pipes.
        terminal: called with the master of its terminal, which is then the callee's; None closes it.
        set_up: called with the first process's pid when its namespaces are there and nothing else is: hooks.
        restored: called with that pid when all is there and nothing runs yet.
    """

    config: Config
    at: str
    cgroup: Cgroup | None = None
    cgroup_paths: dict[str, str] = {}  # noqa: RUF012  # nobody changes it
    enter: Callable[[int], object] | None = None
    descriptors: tuple[int, ...] = (0, 1, 2)
    terminal: Callable[[int], None] | None = None
    set_up: Callable[[int], None] | None = None
    restored: Callable[[int], None] | None = None


# --- what criu is told


def inherited(note: Note | None, links: tuple[str, ...], descriptors: tuple[int, ...]) -> dict[str, int]:
    """Which of our descriptors takes the place of which of the image's, by criu's key."""
    keys = note.descriptors if note is not None else tuple(link if link.startswith("pipe:") else "" for link in links)
    found: dict[str, int] = {}
    for key, fd in zip(keys, descriptors):
        if key:
            found.setdefault(key, fd)
    return found


def _open_namespaces(config: Config) -> dict[str, int]:
    """The namespaces that exist, by criu's key; the caller's to close. Raises ConfigError."""
    found: dict[str, int] = {}
    for key, path in external_namespaces(config).items():
        try:
            found[key] = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            for fd in found.values():
                os.close(fd)
            raise ConfigError("linux.namespaces", f"{path}: {reason_of(error)}") from None
    return found


def _cgroup_roots(pid: int) -> list[dict[str, str]]:
    """criu's own cgroups: it makes those of the image below them. v2 has no name."""
    found = []
    with open(f"/proc/{pid}/cgroup", errors="surrogateescape") as file:
        for line in file:
            _, names, path = line.rstrip("\n").split(":", 2)
            found += [{"ctrl": name, "path": path} for name in names.split(",")]
    return found


def cgroup_sources(config: Config, paths: dict[str, str], *, had_none: bool) -> dict[str, str]:
    """What the cgroup mounts of the configuration show on a machine with v1, by where.

    As for a new container: its own directories, or, never to be written, the caller's.

    Args:
        paths: the container's directories, by the mounts of their hierarchies.
        had_none: what is saved had none, so it could write to none.
    """
    host = current()
    found = {}
    for mount in config.mounts if host.cgroups.v1 else ():
        if mount.type != "cgroup":
            continue
        readonly = had_none or hierarchy_attributes(fold_options(mount)) & ATTR_RDONLY
        for each in hierarchies_of(host):
            where = f"{mount.destination.rstrip('/')}/{each.mount.rpartition('/')[2]}"
            if each is not host.cgroups.v2 and each.mount in paths:
                found[where] = paths[each.mount]
            elif each is host.cgroups.v2 or readonly:
                found[where] = each.mount + each.own.rstrip("/")
    return found


def _cgroup_mode(wanted: Wanted, options: RestoreOptions, note: Note | None) -> str:
    """criu leaves the cgroups alone where there were none to save, and where the container is to have none.

    Of processes in criu's own cgroup, below its root, it saves the first one's only, and does not find the others'.
    """
    has_one = wanted.cgroup is not None or wanted.enter is not None
    return options.manage_cgroups_mode if has_one and (note is None or note.cgroups) else "ignore"


def _options(wanted: Wanted, options: RestoreOptions, images: ImageDirectory, note: Note | None) -> dict[str, Any]:
    config = wanted.config
    sources = cgroup_sources(config, wanted.cgroup_paths, had_none=note is not None and not note.cgroups)
    mounts = mount_sources(config, note.mounts if note is not None else None, sources)
    lock = options.network_lock or (note.network_lock if note is not None else choose_lock())
    found: dict[str, Any] = {
        "images_dir_fd": images.fd,
        "log_file": LOG,
        "log_level": LOG_LEVEL,
        "root": wanted.at,
        "rst_sibling": True,
        "notify_scripts": True,
        "orphan_pts_master": True,
        "evasive_devices": True,
        "manage_cgroups": True,
        "manage_cgroups_mode": cgroup_mode(_cgroup_mode(wanted, options, note)),
        "network_lock": network_lock(lock),
        "config_file": criu_configuration(config),
        "ext_mnt": [{"key": name, "val": source} for name, source in mounts.items()],
        "join_ns": joined_namespaces(config),
        "lsm_profile": options.lsm_profile or None,
        "lsm_mount_context": options.lsm_mount_context or None,
    }
    names = ("tcp_established", "tcp_close", "ext_unix_sk", "shell_job", "file_locks", "lazy_pages", "auto_dedup")
    found.update({name: getattr(options, name) for name in names})
    if has_new_network(config):
        found["empty_ns"] = CLONE_NEWNET
    return found


# --- while criu works


class _Progress:
    """What has come of the restore so far. Owns `pidfd`."""

    def __init__(self, wanted: Wanted, *, connected: bool, table: str) -> None:
        self._wanted, self._connected, self._tables = wanted, connected, {table}
        self._pid, self.pidfd = 0, -1

    def notified(self, name: str, pid: int, fd: int) -> Mapping[str, Any] | None:
        """Do what the moment asks for."""
        wanted = self._wanted
        if name == "setup-namespaces":
            self._pid, self.pidfd = pid, os.pidfd_open(pid)
            if has_new_network(wanted.config):
                bring_loopback_up(pid)
                self._tables.add(TABLE if self._connected and hold_traffic(pid) else "")
            if wanted.set_up is not None:
                wanted.set_up(pid)
        elif name == "orphan-pts-master" and fd >= 0 and wanted.terminal is not None:
            wanted.terminal(os.dup(fd))
        elif name == "post-restore":
            if self.pidfd < 0:
                self.pidfd = os.pidfd_open(pid)
            if wanted.restored is not None:
                wanted.restored(pid)
        elif name == "network-unlock" and self._pid:
            for table in self._tables - {""}:
                delete_table(self._pid, table)
        return None

    def wake(self) -> None:
        """Of a paused container criu restores that, too, where it restores cgroups: and is in there itself."""
        cgroup = self._wanted.cgroup
        if cgroup is not None and is_frozen(freezer_of(cgroup)):
            cgroup.thaw()

    def abandon(self, criu: int) -> None:
        """Kill what is there, and wait for it: criu's processes are our children, also those that it has killed.

        Before it says a pid, one is found by its session, which is still criu's.
        """
        import signal

        if self.pidfd < 0:
            pid = _child_in_session(criu)
            self.pidfd = os.pidfd_open(pid) if pid else -1
        if self.pidfd < 0:
            return
        try:
            signal.pidfd_send_signal(self.pidfd, SIGKILL)
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        except (ProcessLookupError, ChildProcessError):
            return  # this program lets the kernel wait for its children
        finally:
            os.close(self.pidfd)
            self.pidfd = -1


def _child_in_session(session: int) -> int:
    """Our child in a session; 0 when there is none."""
    for name in os.listdir("/proc"):
        fields = stat_of(int(name))[1] if name.isdigit() else []
        if fields and (int(fields[1]), int(fields[3])) == (os.getpid(), session):
            return int(name)
    return 0


def restore(wanted: Wanted, image_path: str, options: RestoreOptions) -> int:
    """Bring a container back from a directory that `checkpoint`, or another runtime, wrote.

    Returns:
        A pidfd of its first process, which is our child; the caller's.

    Raises:
        ConfigError: an option, the configuration, or the image directory: it is damaged, of another machine, or of a
            container with other mounts.
        HostError: criu is missing or too old.
        CriuError: criu cannot restore it. What it had made is gone again.
    """
    check_empty_ns(options.empty_ns)
    cgroup_mode(options.manage_cgroups_mode)  # also where there is no cgroup
    check_labels(options, current().lsms)
    refuse_mapped_mounts(wanted.config)
    with ImageDirectory.open(image_path, "image-path") as images:
        check_complete(images)
        if not options.lazy_pages:
            check_pages(images)
        with ImageDirectory.open(options.work_path or image_path, "work-path", make=True) as work:
            work.clear(LOG, STATISTICS)
            return _restore(wanted, images, work, options)


def _restore(wanted: Wanted, images: ImageDirectory, work: ImageDirectory, options: RestoreOptions) -> int:
    note = read_note(images)
    if note is not None:
        check_same(wanted.config, note.traits)
    request = _options(wanted, options, images, note)
    gid = _root_group(wanted.config)
    if gid:
        images.let_read(gid)
    namespaces = _open_namespaces(wanted.config)
    table = f"CRIU-{note.pid}" if note is not None and note.pid and note.network_lock == "nftables" else ""
    progress, criu = _Progress(wanted, connected=options.tcp_established, table=table), None
    try:
        passed = {**namespaces, **inherited(note, read_descriptors(images), wanted.descriptors)}
        request["inherit_fd"] = [{"key": key, "fd": FIRST_INHERITED + place} for place, key in enumerate(passed)]
        make_mount_points(wanted.config)
        with Criu.start(
            inherited=tuple(passed.values()),
            cgroup=wanted.cgroup,
            cgroup_mounts=tuple(wanted.cgroup_paths),
            enter=wanted.enter,
            own_cgroup_root=request["manage_cgroups_mode"] == cgroup_mode("ignore")
            and has_new("cgroup", wanted.config),
            root=(wanted.config.root.path, wanted.at),
            terminal=0 if options.shell_job else -1,
            no_new_privileges=wanted.config.process is not None and wanted.config.process.no_new_privileges,
        ) as criu:
            request["cg_root"] = _cgroup_roots(criu.pid)
            with work.seen_by(criu.pid) as seen:
                request["work_dir_fd"] = seen.fd
                log = f"{work.path}/{LOG}"
                criu.ask("RESTORE", request, notified=progress.notified, silent=progress.wake, log=log)
    except BaseException:
        if criu is not None:
            progress.abandon(criu.pid)
        if criu is not None and criu.died:  # else another's, who restores at the same time, would be removed
            work.remove_yards()
            _remove_mount_yards(lines_of(f"{work.path}/{LOG}"))
        raise
    finally:
        for fd in namespaces.values():
            os.close(fd)
    return progress.pidfd


def _remove_mount_yards(log: list[str]) -> None:
    """Remove the directory on which a criu that died put the mounts, which went with it. Raises OSError."""
    found = {line.partition(MOUNT_YARD)[2].partition("/")[0] for line in log}
    for name in found:
        try:
            if len(name) == 6 and name.isalnum():
                os.rmdir(MOUNT_YARD + name)
        except FileNotFoundError:
            continue


def _root_group(config: Config) -> int:
    """The group of the container's root outside; 0 without a user namespace."""
    if not any(each.type == "user" for each in config.linux.namespaces):
        return 0
    return next((line.host for line in config.linux.gid_map if line.container == 0), 0)
