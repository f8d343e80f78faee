"""Saving a running container: what is found out first, what is held meanwhile, and what is left when it fails.

freeze the cgroup ourselves (criu naps 100 ms when it does) -> find what comes from outside, write what a restore needs
beside the images -> the dump -> thaw. When it fails, the container runs on, and the image directory is as it was, but
for the log.
"""

from __future__ import annotations

import errno
import os
import time

from cycontainer._fd import effective_capabilities
from cycontainer.cgroup_place import V1_FROZEN, V2_FROZEN
from cycontainer.criu.externals import (
    View,
    external_mounts,
    has_new_network,
    namespace_words,
    refuse_mapped_mounts,
    standard_files,
    traits_of,
)
from cycontainer.criu.images import ImageDirectory, Note, write_note
from cycontainer.criu.network import SKIPS, Network, choose_lock, devices_of, unlock
from cycontainer.criu.options import (
    CLONE_NEWNET,
    CheckpointOptions,
    cgroup_mode,
    check_empty_ns,
    check_status,
    network_lock,
    server_address,
)
from cycontainer.criu.swrk import SILENCE_MS, Criu
from cycontainer.deletion import is_first_of_namespace
from cycontainer.errors import CheckpointError, ConfigError, ContainerNotRunning, CriuError, HostError, reason_of
from cycontainer.handles import open_cgroup
from cycontainer.process_stat import name_and_state, stat_of
from cycontainer.read_config import parse, read_config
from cycontainer.record import Record
from cycontainer.state import Directory, load, load_config, status_of
from cycontainer.tables import capability_mask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final

    from cycontainer.cgroups import Cgroup
    from cycontainer.config import Config

LOG: Final = "dump.log"
STATISTICS: Final = "stats-dump"  # criu's, beside the log
LOG_LEVEL: Final = 4
FREEZE_SECONDS: Final = 10
END_SECONDS: Final = 30  # for what criu has killed to be gone
LAZY_PIPE: Final = 4 << 20  # PIPE_MAX_SIZE of criu's page-pipe.c, in bytes
GONE: Final = reason_of(ProcessLookupError(errno.ESRCH, ""))
NO_TRACKING: Final = "this kernel cannot track changes of memory (CONFIG_MEM_SOFT_DIRTY): no pre-dump, no parent image"


class Subject(Record):
    """A container that runs, or is paused.

    Attributes:
        id: its name in messages.
        pid: its first process's.
        config: what it was made from.
        cgroup: None when it has none.
        idle: called now and then while criu works.
    """

    id: str
    pid: int
    config: Config
    cgroup: Cgroup | None = None
    idle: Callable[[], object] | None = None


# --- what is refused before anything happens


def _check(images: ImageDirectory, options: CheckpointOptions) -> None:
    check_empty_ns(options.empty_ns)
    parent = options.parent_path
    if parent and (parent.startswith("/") or not os.path.isdir(os.path.join(images.path, parent))):
        what = "must be relative to the image path" if parent.startswith("/") else "is no directory there"
        raise ConfigError("parent-path", f"{parent} {what}")
    if options.lazy_pages and not options.page_server:
        raise ConfigError("lazy-pages", "needs page-server: where the memory can be fetched")


def _check_features(criu: Criu, options: CheckpointOptions) -> None:
    """criu dies of an assertion when the kernel lacks what a request needs."""
    needed = {"mem_track": options.pre_dump or bool(options.parent_path), "lazy_pages": options.lazy_pages}
    if not any(needed.values()):
        return
    there = criu.features(*needed)
    if needed["mem_track"] and not there["mem_track"]:
        raise HostError(NO_TRACKING)
    if needed["lazy_pages"] and not there["lazy_pages"]:
        raise HostError("this kernel or this criu cannot leave pages for later (userfaultfd): no lazy-pages")
    if needed["lazy_pages"] and not _has_large_pipes():
        raise HostError("lazy-pages takes pipes of 4 MiB: raise the sysctl fs.pipe-max-size, or have CAP_SYS_RESOURCE")


def _has_large_pipes() -> bool:
    """criu's are that large; where it may not have them, it fails when all is sent."""
    if effective_capabilities() & capability_mask(["CAP_SYS_RESOURCE"])[0]:
        return True
    with open("/proc/sys/fs/pipe-max-size") as file:
        return int(file.read()) >= LAZY_PIPE


def _members(subject: Subject) -> list[int]:
    """All that may be its processes: those in its cgroup; when it has none, those that would die with its first one."""
    if subject.cgroup is not None:
        return subject.cgroup.processes()
    own = _pid_namespace(subject.pid)
    if not own or not is_first_of_namespace(subject.pid):
        return [subject.pid]
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _pid_namespace(pid) == own]


def _pid_namespace(pid: int) -> str:
    """Empty when it has ended, or has capabilities that we lack: that one is in no container of ours."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def _parent_of(pid: int) -> int:
    """0 when it has ended."""
    fields = stat_of(pid)[1]
    return int(fields[1]) if fields else 0


def strangers(pid: int, members: list[int]) -> list[int]:
    """Which of a cgroup's processes do not descend from the first process: they came in by `exec`."""
    known, found = {pid}, []
    for member in members:
        chain = [member]
        while chain[-1] not in known and chain[-1] > 1:
            chain.append(_parent_of(chain[-1]))
        if chain[-1] in known:
            known.update(chain)
        elif _parent_of(member):
            found.append(member)
    return found


def _name_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(200).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return "?"


def _refuse_strangers(subject: Subject) -> None:
    """Raises CheckpointError: criu saves the first process's descendants only, and kills and loses the others."""
    found = strangers(subject.pid, _members(subject))
    if found:
        names = ", ".join(f"{pid} ({_name_of(pid)})" for pid in found)
        raise CheckpointError(
            f"processes that came in by exec would not be saved: {names}; wait for them, or leave them out with"
            " --without-exec (without_exec)"
        )


def _refuse_traced(subject: Subject) -> None:
    """Raises CheckpointError: criu traces processes itself, and would try for ten seconds."""
    for pid in {subject.pid, *_members(subject)}:
        tracer = _tracer_of(pid)
        if tracer:
            raise CheckpointError(f"process {pid} ({_name_of(pid)}) is traced by {tracer} ({_name_of(tracer)})")


def _tracer_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status") as file:
            return next(int(line[10:]) for line in file if line.startswith("TracerPid:"))
    except (FileNotFoundError, ProcessLookupError, StopIteration):
        return 0


# --- holding it still


class Held:
    """A cgroup that may be frozen in the block; when it is left, it is as it was before, unless its processes are gone.

    Attributes:
        freezer: the directory by which criu is to freeze it; "" when criu is to stop each process.
    """

    def __init__(self, cgroup: Cgroup | None, *, freezes: bool) -> None:
        self._cgroup, self._freezes = cgroup, freezes
        self.freezer = self._freezer = freezer_of(cgroup)
        self._was_frozen = is_frozen(self.freezer)

    def __enter__(self) -> Held:
        return self  # it freezes nothing yet: interrupted here, the block would not be left, for it was not entered

    def freeze(self) -> None:
        """Freeze it, but not by v1 when a signal has stopped a process: frozen, that would keep ptrace(2) waiting."""
        if self._cgroup is not None and self._freezer and self._freezes and not self._was_frozen:
            self._cgroup.freeze()
        if self._cgroup is None or not os.path.exists(f"{self._freezer}/{V1_FROZEN[0]}"):
            return
        if any(map(_is_stopped, self._cgroup.processes())):
            self._cgroup.thaw()
            self.freezer = ""

    def __exit__(self, *_: object) -> None:
        if self._cgroup is None or not self._freezer:
            return
        if not self._was_frozen:
            self._cgroup.thaw()
        elif self._cgroup.processes():
            self._cgroup.freeze()  # criu thaws what it found frozen when it fails


def _is_stopped(pid: int) -> bool:
    """Whether a signal has stopped it; of what is frozen, too, only where it waits tells that since Linux 6.1."""
    try:
        with open(f"/proc/{pid}/wchan", "rb") as file:
            return name_and_state(pid)[1] == "T" or file.read(100) == b"do_signal_stop"
    except (FileNotFoundError, ProcessLookupError):
        return False


def freezer_of(cgroup: Cgroup | None) -> str:
    """The directory by which a cgroup is frozen; "" when there is none."""
    for name, *_ in (V1_FROZEN, V2_FROZEN):
        for path in cgroup.paths if cgroup is not None else ():
            if os.path.exists(f"{path}/{name}"):
                return str(path)
    return ""


def is_frozen(freezer: str) -> bool:
    """Whether what is there is frozen."""
    for name, frozen, *_ in (V1_FROZEN, V2_FROZEN):
        path = f"{freezer}/{name}"
        if freezer and os.path.exists(path):
            with open(path) as file:
                return file.read().strip() == frozen
    return False


# --- the dump


def _options(
    subject: Subject, options: CheckpointOptions, images: ImageDirectory, work: ImageDirectory
) -> dict[str, Any]:
    server, mode = server_address(options.page_server), cgroup_mode(options.manage_cgroups_mode)
    found: dict[str, Any] = {
        "images_dir_fd": images.fd,
        "work_dir_fd": work.fd,
        "log_file": LOG,
        "log_level": LOG_LEVEL,
        "pid": subject.pid,
        "root": subject.config.root.path,
        "notify_scripts": True,
        "orphan_pts_master": True,
        "manage_cgroups": True,
        "manage_cgroups_mode": mode if subject.cgroup is not None else cgroup_mode("ignore"),
        "timeout": FREEZE_SECONDS,
        "leave_running": options.goes_on,
        "config_file": criu_configuration(subject.config),
        "parent_img": options.parent_path or None,
        "track_mem": options.pre_dump or bool(options.parent_path),
        "ps": {"address": server[0], "port": server[1]} if server else None,
    }
    names = ("tcp_established", "tcp_skip_in_flight", "ext_unix_sk", "shell_job", "file_locks", "link_remap")
    found.update({name: getattr(options, name) for name in (*names, "lazy_pages", "auto_dedup")})
    if has_new_network(subject.config):
        found["empty_ns"] = CLONE_NEWNET
    return found


def criu_configuration(config: Config) -> str | None:
    """The path of criu's own configuration file, which overrides what we ask: the annotation, else the machine's."""
    annotations = dict(config.annotations)
    if "org.criu.config" in annotations:
        return annotations["org.criu.config"]
    places = ("/etc/criu/cycontainer.conf", "/etc/criu/runc.conf")
    return next((path for path in places if os.path.exists(path)), None)


class _Dump:
    """What is known while criu works."""

    def __init__(self, options: CheckpointOptions, saved: Callable[[], None] | None) -> None:
        self._options, self._saved = options, saved
        self.locked = False

    def notified(self, name: str, pid: int, fd: int) -> Mapping[str, Any] | None:
        """Answer criu."""
        if name == "network-lock":
            self.locked = True
        elif name == "status-ready" and self._options.status_fd >= 0:
            os.write(self._options.status_fd, b"\0")
            os.close(self._options.status_fd)
        elif name == "post-dump" and self._saved is not None and not self._options.goes_on:
            self._saved()
        return None


def checkpoint(
    subject: Subject, image_path: str, options: CheckpointOptions, *, saved: Callable[[], None] | None = None
) -> None:
    """Save a container to a directory, which is made when it is missing.

    Unless `options` let it go on, its processes are gone then; its cgroup and its state are the caller's to remove.

    Args:
        saved: called when all is saved, just before the processes are killed; what it raises, fails the checkpoint.

    Raises:
        ConfigError: an option, or the image directory: it has images, or cannot be written.
        HostError: criu is missing or too old, or this kernel lacks what an option needs.
        CheckpointError: the container is not fit for it.
        CriuError: criu cannot save it. After any of these, the container is as it was, and no image is left.
    """
    with ImageDirectory.open(image_path, "image-path", make=True) as images:
        try:
            with ImageDirectory.open(options.work_path or image_path, "work-path", make=True) as work:
                _check(images, options)
                images.reserve()
                work.clear(LOG, STATISTICS)
                _save(subject, images, work, options, saved)
        except BaseException as error:
            try:
                images.remove_new()
            except OSError as failure:
                error.add_note(f"could not remove the images: {failure}")
            raise


def _save(
    subject: Subject,
    images: ImageDirectory,
    work: ImageDirectory,
    options: CheckpointOptions,
    saved: Callable[[], None] | None,
) -> None:
    pidfd = _open(subject)
    try:
        with Criu.start(terminal=0 if options.shell_job else -1) as criu:
            _check_features(criu, options)
            with _network(subject, options):
                _dump(criu, subject, images, work, options, saved=saved)
        if not options.goes_on:
            _await_end(pidfd, subject)
    finally:
        os.close(pidfd)


def _network(subject: Subject, options: CheckpointOptions) -> Network:
    ends = options.tcp_established and not options.goes_on and has_new_network(subject.config)
    try:
        return Network(subject.pid, ends=ends)
    except (FileNotFoundError, ProcessLookupError):
        raise CheckpointError(f"container {subject.id}: {GONE}") from None


def _dump(
    criu: Criu,
    subject: Subject,
    images: ImageDirectory,
    work: ImageDirectory,
    options: CheckpointOptions,
    *,
    saved: Callable[[], None] | None,
) -> None:
    lock = options.network_lock or _choose_lock(criu, subject, options)
    request = _options(subject, options, images, work)
    request["network_lock"] = network_lock(lock)
    ours = options.manage_cgroups_mode in ("ignore", "soft")  # else it would be restored as frozen, with criu in it
    with Held(subject.cgroup, freezes=ours) as held:
        held.freeze()
        if not options.without_exec:
            _refuse_strangers(subject)
        _refuse_traced(subject)
        request.update(_describe(subject, images, criu, lock, options))
        request["freeze_cgroup"] = held.freezer or None
        kind = "SINGLE_PRE_DUMP" if options.pre_dump else "DUMP"
        dump = _Dump(options, saved)
        _ask(criu, kind, request, dump=dump, subject=subject, lock=lock, log=f"{work.path}/{LOG}")


def _choose_lock(criu: Criu, subject: Subject, options: CheckpointOptions) -> str:
    """None where nothing comes in and no connection is saved: criu runs programs for it, twice here and twice later."""
    alone = has_new_network(subject.config) and not options.tcp_established and criu.version >= SKIPS
    return "skip" if alone and devices_of(subject.pid) == {"lo"} else choose_lock()


def _ask(criu: Criu, kind: str, request: dict[str, Any], *, dump: _Dump, subject: Subject, lock: str, log: str) -> None:
    try:
        criu.ask(kind, request, notified=dump.notified, silent=subject.idle, log=log)
    except CriuError as error:
        if criu.died and _is_ending(subject):
            error.add_note("the container has ended with it")
        elif criu.died and dump.locked:  # it could not do it itself
            unlock(subject.pid, lock)
        raise


def _is_ending(subject: Subject) -> bool:
    """Whether its first process goes or has gone: criu died with its code in there, which ends in a SIGTRAP at once."""
    try:
        pidfd = os.pidfd_open(subject.pid)
    except ProcessLookupError:
        return True
    try:
        return _ends(pidfd, SILENCE_MS)
    finally:
        os.close(pidfd)


def _open(subject: Subject) -> int:
    try:
        return os.pidfd_open(subject.pid)
    except OSError as error:
        raise CheckpointError(f"container {subject.id}: {reason_of(error)}") from None


def _describe(
    subject: Subject, images: ImageDirectory, criu: Criu, lock: str, options: CheckpointOptions
) -> dict[str, Any]:
    """Write the note, and say to criu what is not its to save: now, that nothing moves any more."""
    try:
        with View(subject.pid) as view:
            managed = subject.cgroup is not None and options.manage_cgroups_mode != "ignore"
            mounts, names = external_mounts(subject.config, view, managed=managed)
            keys, files = standard_files(subject.pid, view.mounts)
            namespaces = namespace_words(subject.pid, subject.config)
    except (FileNotFoundError, ProcessLookupError):
        raise CheckpointError(f"container {subject.id}: {GONE}") from None
    note = Note(
        machine=os.uname().machine,
        criu=".".join(map(str, criu.version)),
        network_lock=lock,
        mounts=names,
        traits=traits_of(subject.config),
        descriptors=keys,
        pre_dump=options.pre_dump,
        cgroups=subject.cgroup is not None,
        pid=subject.pid,
    )
    write_note(images, note, files)
    words = [*(f"mnt[{where}]:{name}" for where, name in sorted(mounts.items())), *namespaces]
    words += sorted({key for key in keys if key and not key.startswith("pipe:")})
    return {"external": words}


def _await_end(pidfd: int, subject: Subject) -> None:
    """What criu has killed is gone. Raises CheckpointError."""
    deadline = time.monotonic() + END_SECONDS
    while not _ends(pidfd, SILENCE_MS):
        if time.monotonic() > deadline:
            raise CheckpointError(f"container {subject.id} was saved, but its first process does not end")
        if subject.idle is not None:
            subject.idle()


def _ends(pidfd: int, timeout_ms: int) -> bool:
    import select

    watch = select.poll()
    watch.register(pidfd, select.POLLIN)
    return bool(watch.poll(timeout_ms))


# --- of a container with a state


def checkpoint_container(
    root: str, container_id: str, path: str, options: CheckpointOptions, *, idle: Callable[[], object] | None = None
) -> None:
    """Save a container; see `Container.checkpoint`. `idle` is called now and then meanwhile."""
    check_status(options)
    with Directory.open(root, container_id):
        state = load(root, container_id)
        if (status := status_of(root, state)) not in ("running", "paused"):
            raise ContainerNotRunning(state.id, f"cannot checkpoint a container in the {status} state")
        config = read_config(parse(load_config(root, container_id)), bundle=state.bundle)
        refuse_mapped_mounts(config)
        cgroup = open_cgroup(state) if state.cgroups else None
        subject: Subject = Subject(id=state.id, pid=state.pid, config=config, cgroup=cgroup, idle=idle)
        checkpoint(subject, path, options)
