"""What can go wrong with a checkpoint or a restore: the cause is told, the container is whole, or nothing is left."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from glob import glob
from typing import Any

import pytest
from saved import Obedient, config_of, namespaces

from cycontainer._nsenter import open_namespace
from cycontainer.cgroups import Cgroup
from cycontainer.criu.checkpoint import Subject, checkpoint
from cycontainer.criu.images import ImageDirectory
from cycontainer.criu.netfilter import netfilter_in
from cycontainer.criu.options import CheckpointOptions
from cycontainer.errors import CheckpointError, ConfigError, ContainerExists, CriuError, Error, HostError
from cycontainer.handles import open_cgroup
from cycontainer.lifecycle import Container
from cycontainer.state import load
from cycontainer.streams import DEVNULL, PIPE
from cycontainer.tables import NAMESPACES

SLOW = pytest.mark.slow
pytestmark = [pytest.mark.root, pytest.mark.criu]

OVER_LOOPBACK = "nc -l -p 999 -e cat & until echo x | nc 127.0.0.1 999; do :; done; wait"


@pytest.fixture
def top(tmp_path: object) -> str:
    return str(tmp_path)


@pytest.fixture
def one(busybox_rootfs: str, top: str) -> Iterator[Obedient]:
    with Obedient.start("one", config_of(busybox_rootfs), f"{top}/states") as subject:
        yield subject


@pytest.fixture
def images(busybox_rootfs: str, top: str) -> str:
    """Those of a container that is gone."""
    with Obedient.start("old", config_of(busybox_rootfs), f"{top}/states") as subject:
        subject.container.checkpoint(f"{top}/images")
    return f"{top}/images"


def is_whole(subject: Obedient) -> None:
    """It runs, is not frozen, and has its network."""
    assert subject.container.status == "running"
    assert subject.do(OVER_LOOPBACK) == "x\n"


def fails_to_restore(top: str, config: dict[str, Any], images: str, kind: type[Exception], match: str) -> None:
    """A restore fails, and leaves nothing."""
    with pytest.raises(kind, match=match):
        Obedient.restore("new", config, images, f"{top}/states")
    assert os.listdir(f"{top}/states") == []
    assert not glob("/sys/fs/cgroup/*/cycontainer/new") + glob(f"{images}/.criu*")


def is_criu(command_line: str) -> bool:
    """It may write another one over its own while it works."""
    return "swrk" in command_line or "--rpc" in command_line


def criu_children() -> list[int]:
    """criu processes that we have started."""
    found = []
    for path in glob("/proc/self/task/*/children"):
        with open(path) as file:
            for pid in map(int, file.read().split()):
                with open(f"/proc/{pid}/cmdline") as words:
                    found += [pid] if is_criu(words.read()) else []
    return found


def kill_criu() -> None:
    for pid in criu_children():
        os.kill(pid, signal.SIGKILL)


# --- criu itself


def test_without_criu_the_container_runs_on(one: Obedient, top: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/no/such/directory")
    with pytest.raises(HostError, match=r"criu is missing: install criu 3\.15 or newer"):
        one.container.checkpoint(f"{top}/images")
    assert not os.path.exists(f"{top}/images")
    is_whole(one)


def test_without_criu_nothing_is_restored(
    busybox_rootfs: str, images: str, top: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/no/such/directory")
    fails_to_restore(top, config_of(busybox_rootfs), images, HostError, "criu is missing")


def has_lock(lock: str) -> bool:
    return lock == "nftables" or shutil.which("iptables-restore") is not None


@pytest.mark.parametrize("lock", [lock for lock in ("nftables", "iptables") if has_lock(lock)])
def test_a_criu_that_dies_leaves_the_network_unlocked(one: Obedient, top: str, lock: str) -> None:
    container = one.container
    state = load(container.root, container.id)
    subject = Subject(id="one", pid=container.pid, config=container.config, cgroup=open_cgroup(state))
    with pytest.raises(CriuError, match="killed by signal 9"):
        checkpoint(subject, f"{top}/images", CheckpointOptions(network_lock=lock), saved=kill_criu)
    namespace = open_namespace(f"/proc/{container.pid}/ns/net".encode(), NAMESPACES["network"][0])
    with netfilter_in(namespace) as netfilter:
        assert not [name for _, name in netfilter.tables() if "CRIU" in name]
    os.close(namespace)
    assert [name for name in os.listdir(f"{top}/images") if not name.endswith(".log")] == []
    is_whole(one)


class Interrupted:
    """A cgroup whose freezing is interrupted when it is done."""

    def __init__(self, cgroup: Cgroup) -> None:
        self.cgroup, self.paths, self.processes, self.thaw = cgroup, cgroup.paths, cgroup.processes, cgroup.thaw

    def freeze(self) -> None:
        self.cgroup.freeze()
        raise KeyboardInterrupt


def test_what_interrupts_the_freezing_leaves_nothing_frozen(one: Obedient, top: str) -> None:
    container = one.container
    cgroup: Any = Interrupted(open_cgroup(load(container.root, container.id)))
    subject = Subject(id="one", pid=container.pid, config=container.config, cgroup=cgroup)
    with pytest.raises(KeyboardInterrupt):
        checkpoint(subject, f"{top}/images", CheckpointOptions())
    is_whole(one)


def test_a_criu_that_dies_with_the_container_is_told(one: Obedient, top: str) -> None:
    def kill() -> None:
        os.kill(one.container.pid, signal.SIGKILL)
        kill_criu()

    container = one.container
    subject = Subject(id="one", pid=container.pid, config=container.config)
    with pytest.raises(CriuError, match="killed by signal 9") as failure:
        checkpoint(subject, f"{top}/images", CheckpointOptions(network_lock="nftables"), saved=kill)
    assert failure.value.__notes__ == ["the container has ended with it"]


def test_what_fails_when_all_is_saved_leaves_no_image(one: Obedient, top: str) -> None:
    def refuse() -> None:
        raise ZeroDivisionError

    container = one.container
    subject = Subject(id="one", pid=container.pid, config=container.config)
    with pytest.raises(ZeroDivisionError):
        checkpoint(subject, f"{top}/images", CheckpointOptions(), saved=refuse)
    assert os.listdir(f"{top}/images") == ["dump.log"]
    is_whole(one)


def test_a_hook_that_fails_undoes_a_restore(busybox_rootfs: str, images: str, top: str) -> None:
    config = config_of(busybox_rootfs)
    config["hooks"] = {"prestart": [{"path": "/bin/false"}]}
    fails_to_restore(top, config, images, Exception, "prestart")


BESIDE = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from saved import Obedient, config_of
from cycontainer.errors import HostError
child = subprocess.Popen(["sleep", "1000"])
os.environ["PATH"] = "/no/such/directory"
try: Obedient.restore("new", config_of(sys.argv[2]), *sys.argv[3:])
except HostError: print(child.poll())
child.kill()
"""


def test_another_child_of_ours_lives_on(busybox_rootfs: str, images: str, top: str) -> None:
    words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]  # there its session has no number: 0
    words += [sys.executable, "-c", BESIDE, os.path.dirname(__file__), busybox_rootfs, images, f"{top}/states"]
    assert subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout == b"None\n"


def test_a_criu_that_dies_while_it_restores(busybox_rootfs: str, images: str, top: str) -> None:
    config = config_of(busybox_rootfs)
    with open(f"{top}/hook", "w") as file:  # criu is a child of ours, and so is the hook
        file.write("#!/bin/sh\nfor pid in $(cat /proc/$PPID/task/*/children); do\n")
        file.write("grep -q -e swrk -e --rpc /proc/$pid/cmdline && kill -9 $pid; done; exit 0\n")
    os.chmod(f"{top}/hook", 0o755)
    config["hooks"] = {"prestart": [{"path": f"{top}/hook"}]}
    # whichever is heard of first: the end of criu, or that of its process, for which the hook is run
    fails_to_restore(top, config, images, Error, "killed by signal 9|who waited for it has ended")
    with open(f"{images}/restore.log") as file:
        yards = set(re.findall(r"/tmp/\.criu\.mntns\.\w{6}", file.read()))
    assert [os.path.exists(yard) for yard in yards] == [False]


# --- the image directory


@pytest.mark.parametrize(("option", "beside"), [("size=64k", True), ("size=24k", False), ("nr_inodes=4", False)])
def test_a_full_disk(one: Obedient, top: str, option: str, beside: bool) -> None:
    os.mkdir(f"{top}/small")
    subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", f"{top}/small"], check=True)
    try:
        with pytest.raises(CriuError, match="the image directory's file system is full"):
            one.container.checkpoint(f"{top}/small/images", work_path=f"{top}/work" if beside else "")
        assert not glob(f"{top}/small/images/*.[ij]*")  # not even the log may have room
        is_whole(one)
    finally:
        subprocess.run(["umount", "--lazy", f"{top}/small"], check=True)  # a process of criu's may still be ending


def test_a_directory_with_images(one: Obedient, top: str) -> None:
    one.container.checkpoint(f"{top}/images", leave_running=True)
    before = sorted(os.listdir(f"{top}/images"))
    with pytest.raises(ConfigError, match=r"is not empty: it has .* of another checkpoint"):
        one.container.checkpoint(f"{top}/images")
    assert sorted(os.listdir(f"{top}/images")) == before
    is_whole(one)


def test_of_those_that_save_to_one_directory_one_does(busybox_rootfs: str, top: str) -> None:
    config, root = config_of(busybox_rootfs), f"{top}/states"
    os.mkdir(f"{top}/images")

    def save(subject: Obedient) -> str:
        try:
            subject.container.checkpoint(f"{top}/images")
        except ConfigError as error:
            assert "is not empty" in str(error)
        return subject.container.status

    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        subjects = [stack.enter_context(Obedient.start(f"one-{number}", config, root)) for number in range(4)]
        assert sorted(pool.map(save, subjects)) == ["running"] * 3 + ["stopped"]
    with Obedient.restore("two", config, f"{top}/images", root) as again:
        assert again.do("echo here") == "here\n"


def test_files_of_others_stay_when_it_fails(one: Obedient, top: str) -> None:
    def fail() -> None:
        open(f"{top}/images/mine", "w").close()
        raise ZeroDivisionError

    container = one.container
    subject = Subject(id="one", pid=container.pid, config=container.config)
    with pytest.raises(ZeroDivisionError):
        checkpoint(subject, f"{top}/images", CheckpointOptions(), saved=fail)
    assert sorted(os.listdir(f"{top}/images")) == ["dump.log", "mine"]


def test_what_links_in_the_directory_lead_to_is_not_written(busybox_rootfs: str, one: Obedient, top: str) -> None:
    os.mkdir(f"{top}/images")
    with open(f"{top}/outside", "w") as file:
        file.write("precious")
    for name in ("dump.log", "stats-dump", "restore.log", "stats-restore"):
        os.symlink(f"{top}/outside", f"{top}/images/{name}")
    one.container.checkpoint(f"{top}/images")
    Obedient.restore("two", config_of(busybox_rootfs), f"{top}/images", f"{top}/states").container.delete(force=True)
    with open(f"{top}/outside") as file:
        assert file.read() == "precious"
    assert [name for name in os.listdir(f"{top}/images") if os.path.islink(f"{top}/images/{name}")] == []


def link_to_null(path: str) -> None:
    os.symlink("/dev/null", path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, link_to_null])
def test_what_is_no_file_among_the_images(
    busybox_rootfs: str, images: str, top: str, make: Callable[[str], None]
) -> None:
    os.unlink(f"{images}/core-1.img")
    make(f"{images}/core-1.img")  # criu would wait at a FIFO for ever
    fails_to_restore(top, config_of(busybox_rootfs), images, ConfigError, "core-1.img is no regular file")


@pytest.mark.parametrize("path", ["/proc/images", "/dev/null", "/dev/null/images"])
def test_a_place_where_nothing_can_be_written(one: Obedient, path: str) -> None:
    with pytest.raises(ConfigError, match="image-path: /"):
        one.container.checkpoint(path)
    is_whole(one)


def test_a_file_system_that_is_read_only(one: Obedient, top: str) -> None:
    os.mkdir(f"{top}/images")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", f"{top}/images"], check=True)
    try:
        with pytest.raises(ConfigError, match=r"image-path: /.*: EROFS"):
            one.container.checkpoint(f"{top}/images")
        is_whole(one)
    finally:
        subprocess.run(["umount", f"{top}/images"], check=True)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("pages-1.img", "pages-1.img is damaged: 10 bytes of"),
        ("pagemap-1.img", "pagemap-1.img is damaged"),
        ("core-1.img", "the image is damaged: it ends too early"),
        ("cycontainer.json", "cycontainer.json is damaged"),
        ("descriptors.json", "descriptors.json is damaged"),
    ],
)
def test_a_truncated_image(busybox_rootfs: str, images: str, top: str, name: str, match: str) -> None:
    os.truncate(f"{images}/{name}", 10)
    fails_to_restore(top, config_of(busybox_rootfs), images, Exception, match)


@pytest.mark.parametrize(
    "name",
    [
        "pages-1.img",
        "inventory.img",
        *(pytest.param(f"{name}-1.img", marks=pytest.mark.slow) for name in ("core", "mm")),
    ],
)
def test_a_missing_image(busybox_rootfs: str, images: str, top: str, name: str) -> None:
    os.unlink(f"{images}/{name}")
    fails_to_restore(top, config_of(busybox_rootfs), images, Exception, "image|failed")


def change_note(images: str, **values: object) -> None:
    with open(f"{images}/cycontainer.json") as file:
        note = json.load(file)
    with open(f"{images}/cycontainer.json", "w") as file:
        json.dump({**note, **values}, file)


def test_a_file_of_the_host_among_the_images_keeps_its_group(top: str) -> None:
    for name in ("own.img", "outside"):
        with open(f"{top}/{name}", "w"):
            os.chmod(f"{top}/{name}", 0o600)
    os.mkdir(f"{top}/images")
    os.rename(f"{top}/own.img", f"{top}/images/own.img")
    os.link(f"{top}/outside", f"{top}/images/linked.img")
    os.symlink(f"{top}/outside", f"{top}/images/link")
    with ImageDirectory.open(f"{top}/images", "image-path") as directory:
        directory.let_read(4242)
    status = {name: os.stat(f"{top}/{name}") for name in ("images/own.img", "outside")}
    assert [(each.st_gid, each.st_mode & 0o777) for each in status.values()] == [(4242, 0o640), (0, 0o600)]


def test_an_image_of_another_machine(busybox_rootfs: str, images: str, top: str) -> None:
    change_note(images, machine="riscv64")
    fails_to_restore(top, config_of(busybox_rootfs), images, ConfigError, "was made on riscv64, and this is")


@pytest.mark.parametrize(
    "values",
    [
        {"version": 2},
        {"mounts": "/x"},
        {"mounts": ["/tmp/../etc"]},
        {"descriptors": ["a"]},
        {"descriptors": [1, 2, 3]},
        {"pid": "x"},
        {"pid": 1.5},
        {"traits": []},
        {"traits": {"mounts": "x"}},
        {"network_lock": "x"},
    ],
)
def test_a_note_that_is_wrong(busybox_rootfs: str, images: str, top: str, values: dict[str, object]) -> None:
    change_note(images, **values)
    fails_to_restore(top, config_of(busybox_rootfs), images, ConfigError, "image-path: |network-lock: ")


def test_another_configuration_is_refused_by_name(busybox_rootfs: str, images: str, top: str) -> None:
    config = config_of(busybox_rootfs)
    config["mounts"].append({"destination": "/tmp/x", "type": "bind", "source": top, "options": ["bind"]})
    fails_to_restore(top, config, images, ConfigError, "a bind mount at /tmp/x, and the checkpoint has none")
    config = config_of(busybox_rootfs, namespaces=namespaces(("network",)))
    fails_to_restore(top, config, images, ConfigError, "the checkpoint has a new namespace of the kind network")


def with_terminal(config: dict[str, Any]) -> None:
    config["process"]["terminal"] = True


def with_joined_network(config: dict[str, Any]) -> None:
    config["linux"]["namespaces"] = namespaces(network="/proc/self/ns/net")


def with_users(config: dict[str, Any], first: int = 100000) -> None:
    maps = [{"containerID": 0, "hostID": first, "size": 65536}]
    config["linux"].update(namespaces=[*namespaces(), {"type": "user"}], uidMappings=maps, gidMappings=maps)


def with_other_users(config: dict[str, Any]) -> None:
    with_users(config, 200000)


def as_it_is(config: dict[str, Any]) -> None:
    assert not config["process"]["terminal"]


def without_shm(config: dict[str, Any]) -> None:
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != "/dev/shm"]


def with_a_masked_path(config: dict[str, Any]) -> None:
    config["linux"]["maskedPaths"].append("/etc/passwd")


def with_a_filter(config: dict[str, Any]) -> None:
    rule = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}


def with_a_writable_root(config: dict[str, Any]) -> None:
    config["root"]["readonly"] = False


def with_privileges(config: dict[str, Any]) -> None:
    config["process"]["noNewPrivileges"] = False


def without_capabilities(config: dict[str, Any]) -> None:
    config["process"]["capabilities"] = {}


def as_another_user(config: dict[str, Any]) -> None:
    config["process"]["user"] = {"uid": 0, "gid": 7}


OTHER_KINDS = [
    (as_it_is, without_shm, "mounts: the checkpoint has a mount of the type tmpfs at /dev/shm"),
    (as_it_is, with_a_masked_path, "maskedPaths: the configuration has a masked /etc/passwd, and the checkpoint has"),
    (as_it_is, with_a_filter, "seccomp: the configuration has a seccomp filter of 1 rules and the default SCMP_ACT_A"),
    (with_a_writable_root, as_it_is, "root.readonly: the configuration has a read-only root"),
    (with_privileges, as_it_is, "process.noNewPrivileges: the configuration has a ban on new privileges"),
    (as_it_is, without_capabilities, "process.capabilities: the checkpoint has a bounding CAP_"),
    (as_it_is, as_another_user, "process.user: the checkpoint has a program of the user 0 and the group 0"),
    (as_it_is, with_terminal, "process.terminal: the configuration has a terminal"),
    (with_terminal, as_it_is, "process.terminal: the checkpoint has a terminal"),
    (
        as_it_is,
        with_joined_network,
        "the configuration has a joined namespace of the kind network, and",
    ),
    (with_joined_network, as_it_is, "the checkpoint has a joined namespace of the kind network, and"),
    (with_users, with_other_users, "linux.uidMappings: the checkpoint has a map of 65536 ids from 0 to 100000"),
]


@pytest.mark.parametrize(("saved", "wanted", "match"), OTHER_KINDS)
def test_a_container_of_another_kind(
    busybox_rootfs: str, top: str, saved: Callable[..., None], wanted: Callable[..., None], match: str
) -> None:
    configs = [config_of(busybox_rootfs, "sleep", "1000") for _ in range(2)]
    for config, change in zip(configs, (saved, wanted), strict=True):
        change(config)
    with Container.create("old", configs[0], root=f"{top}/states", stdin=DEVNULL, stdout=DEVNULL) as container:
        container.start()
        container.checkpoint(f"{top}/images")
    fails_to_restore(top, configs[1], f"{top}/images", ConfigError, match)


def test_a_volume_that_is_no_longer_configured(busybox_rootfs: str, top: str) -> None:
    config = config_of(busybox_rootfs)
    config["mounts"].append({"destination": "/tmp/x", "type": "bind", "source": top, "options": ["bind"]})
    with Obedient.start("old", config, f"{top}/states") as subject:
        subject.container.checkpoint(f"{top}/images")
    match = "the checkpoint has a bind mount at /tmp/x, and the configuration has none"
    fails_to_restore(top, config_of(busybox_rootfs), f"{top}/images", ConfigError, match)


def test_an_id_that_is_taken(one: Obedient, busybox_rootfs: str, top: str) -> None:
    one.container.checkpoint(f"{top}/images", leave_running=True)
    with pytest.raises(ContainerExists):
        Obedient.restore("one", config_of(busybox_rootfs), f"{top}/images", f"{top}/states")
    is_whole(one)


# --- what criu cannot save


def io_uring() -> int:
    """A descriptor of an io_uring; it skips where the kernel has none."""
    parameters = ctypes.create_string_buffer(120)
    fd: int = ctypes.CDLL(None, use_errno=True).syscall(425, 4, parameters)
    if fd < 0:
        pytest.skip(f"this kernel has no io_uring for us: {os.strerror(ctypes.get_errno())}")
    return fd


def half_of_a_connection() -> int:
    ours, theirs = socket.socketpair()
    KEPT.append(ours)
    return theirs.detach()


KEPT: list[socket.socket] = []


@pytest.mark.parametrize(("make", "match"), [(io_uring, "io_uring"), (half_of_a_connection, "a socket of the host")])
def test_a_descriptor_that_criu_cannot_save(busybox_rootfs: str, top: str, make: Callable[[], int], match: str) -> None:
    fd = make()
    config, root = config_of(busybox_rootfs), f"{top}/states"
    container = Container.create("one", config, root=root, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, pass_fds=(fd,))
    os.close(fd)
    with Obedient(container) as subject:
        container.start()
        with pytest.raises(CriuError, match=match):
            container.checkpoint(f"{top}/images")
        is_whole(subject)
    while KEPT:
        KEPT.pop().close()


def test_a_traced_process(one: Obedient, top: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.ptrace(0x4206, one.container.pid, 0, 0) == 0  # PTRACE_SEIZE
    with pytest.raises(CheckpointError, match=rf"process {one.container.pid} .* is traced by {os.getpid()}"):
        one.container.checkpoint(f"{top}/images")
    assert libc.ptrace(0x4207, one.container.pid, 0, 0) == 0  # PTRACE_INTERRUPT: only what is stopped can be left
    os.waitpid(one.container.pid, 0)
    assert libc.ptrace(17, one.container.pid, 0, 0) == 0  # PTRACE_DETACH
    is_whole(one)
