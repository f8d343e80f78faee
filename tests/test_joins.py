"""Namespaces that are joined by their paths, alone and together, and what of the host is seen from them meanwhile."""

from __future__ import annotations

import errno
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from launching import document, launched, plan_of, printed
from ordinary import OrdinaryUser

from cycontainer import errands
from cycontainer._nsenter import open_namespace
from cycontainer.compile import Style, compile_plan
from cycontainer.errors import LaunchError
from cycontainer.host import current
from cycontainer.plan import Plan
from cycontainer.read_config import read_config
from cycontainer.tables import NAMESPACES

FILES = {"mount": "mnt", "pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "user": "user", "cgroup": "cgroup",
         "time": "time"}  # of each type, below /proc/PID/ns  # fmt: skip
CLONE_NEWPID = NAMESPACES["pid"][0]
ALL = ("pid", "network", "ipc", "uts", "mount", "cgroup")


@contextmanager
def holder(*options: str, script: str = "") -> Iterator[int]:
    """A process that holds namespaces made by unshare(1); its pid. It ends with the block."""
    command = ["unshare", *options, "sh", "-c", f"{script or ':'}; echo $$; read x"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        try:
            yield inner_pid(process.pid) if "--fork" in options else process.pid
        finally:
            process.stdin.close()
            process.wait()


def inner_pid(pid: int) -> int:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return int(file.read())


def joining(rootfs: str, script: str, pid: int, *joined: str, new: tuple[str, ...] = ALL, **linux: Any) -> Any:
    """A configuration that joins some namespaces of a process, and makes the `new` ones that are not joined."""
    kinds = [{"type": kind, "path": f"/proc/{pid}/ns/{FILES[kind]}"} for kind in joined]
    kinds += [{"type": kind} for kind in new if kind not in joined]
    config = document(rootfs, script, namespaces=kinds, **linux)
    if "user" in joined:
        config["mounts"][2]["options"].remove("gid=5")
    if "uts" in joined:
        del config["hostname"]
    if "mount" in joined:
        config["mounts"], config["root"]["readonly"] = [], False
        del config["linux"]["maskedPaths"], config["linux"]["readonlyPaths"]
    return config


def granted(config: dict[str, Any], *names: str) -> dict[str, Any]:
    config["process"]["capabilities"] = {name: list(names) for name in ("bounding", "effective", "permitted")}
    return config


# --- each alone, and together


@pytest.mark.root
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("network", ("--net",)), ("ipc", ("--ipc",)), ("uts", ("--uts",)), ("cgroup", ("--cgroup",)),
        ("mount", ("--mount",)), ("pid", ("--pid", "--fork", "--kill-child")), ("time", ("--time", "--fork")),
        ("user", ("--user", "--map-root-user")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_each_namespace_is_joined(busybox_rootfs: str, kind: str, options: tuple[str, ...]) -> None:
    with holder(*options) as pid:
        script = f"readlink /proc/self/ns/{FILES[kind]}"
        assert printed(plan_of(joining(busybox_rootfs, script, pid, kind))).strip() == os.readlink(
            f"/proc/{pid}/ns/{FILES[kind]}"
        )


@pytest.mark.root
def test_a_joined_user_namespace_without_a_root_takes_its_maps(busybox_rootfs: str) -> None:
    line = {"containerID": 1000, "hostID": 101_000, "size": 10}
    with holder("--user") as pid:
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write("1000 101000 10")
        config = joining(busybox_rootfs, "id -u; id -g; stat -c %u:%g /dev/shm", pid, "user")
        config["process"]["user"] = {"uid": 1003, "gid": 1004}
        with pytest.raises(LaunchError, match=r"group id to 0 .linux\.gidMappings may say") as failure:
            printed(plan_of(config))
        assert failure.value.errno == errno.EINVAL
        config["linux"].update(uidMappings=[line], gidMappings=[line])
        assert printed(plan_of(config)).split() == ["1003", "1004", "1000:1000"]


@pytest.mark.root
def test_all_of_a_process_are_joined(busybox_rootfs: str) -> None:
    options = ("--pid", "--fork", "--kill-child", "--mount-proc", "--net", "--ipc", "--uts", "--cgroup", "--user",
               "--map-root-user", "--time")  # fmt: skip
    with holder(*options) as pid:
        script = "; ".join(f"readlink /proc/self/ns/{file}" for file in FILES.values())
        seen = printed(plan_of(joining(busybox_rootfs, script, pid, *FILES))).split()
        assert seen == [os.readlink(f"/proc/{pid}/ns/{file}") for file in FILES.values()]


@pytest.mark.root
def test_a_joined_mount_namespace_has_its_own_root_and_the_directory_asked_for(busybox_rootfs: str) -> None:
    with holder("--mount", script="mount -t tmpfs tmpfs /mnt && mkdir /mnt/here") as pid:
        config = joining(busybox_rootfs, "pwd; echo x > file", pid, "mount")
        config["process"].update(cwd="/mnt/here", oomScoreAdj=500, env=["PATH=/bin:/usr/bin"])
        assert printed(plan_of(config)) == "/mnt/here\n"
        assert os.path.exists(f"/proc/{pid}/root/mnt/here/file")


@pytest.mark.root
def test_a_joined_time_namespace_has_its_clock(busybox_rootfs: str) -> None:
    with holder("--time", "--boottime", "1000000", "--fork") as pid, open("/proc/uptime") as file:
        before = float(file.read().split()[0])
        after = float(printed(plan_of(joining(busybox_rootfs, "cat /proc/uptime", pid, "time"))).split()[0])
    assert 999_990 < after - before < 1_000_100


# --- a joined pid namespace, and a procfs of it


@pytest.mark.root
@pytest.mark.parametrize("option", [True, False], ids=["by option", "by errand"])
@pytest.mark.parametrize("user", [False, True], ids=["", "with a user namespace"])
def test_procfs_shows_the_joined_pid_namespace(busybox_rootfs: str, option: bool, user: bool) -> None:
    with holder("--pid", "--fork", "--kill-child") as pid:
        config = joining(busybox_rootfs, "cat /proc/1/comm; echo /proc/[0-9]*; grep ' /proc ' /proc/mounts", pid, "pid")
        config["mounts"][0]["options"] += ["hidepid=1"]
        if user:
            config["linux"]["namespaces"].append({"type": "user"})
            line = {"containerID": 0, "hostID": 0, "size": 65536}
            config["linux"].update(uidMappings=[line], gidMappings=[line])
        host = current().replace(procfs_of_others=option and current().procfs_of_others)
        plan = compile_plan(read_config(without_limits(config), bundle="/"), host, Style(every_cgroup=False))
        first, pids, mount = printed(plan).splitlines()
        assert first == "sh"
        assert pids.split()[0] == "/proc/1" and len(pids.split()) <= 3
        assert "nosuid,nodev,noexec" in mount and "hidepid" in mount


def without_limits(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "linux": {**config["linux"], "resources": {}}}


@pytest.mark.root
def test_what_is_new_belongs_to_the_joined_user_namespace(busybox_rootfs: str) -> None:
    """Its capabilities, which count nothing on the host, change the host name, the loopback and the mounts."""
    script = "hostname changed && hostname; ip link set lo down && cat /sys/class/net/lo/flags"
    with holder("--user", "--map-root-user") as pid:
        config = granted(
            joining(busybox_rootfs, f"{script}; mount -t tmpfs x /tmp; id -u", pid, "user"),
            "CAP_SYS_ADMIN",
            "CAP_NET_ADMIN",
        )
        assert printed(plan_of(config)).split() == ["changed", "0x8", "0"]


@pytest.mark.root
def test_a_new_user_namespace_beside_a_joined_one_of_the_hosts(busybox_rootfs: str) -> None:
    line = {"containerID": 0, "hostID": 100_000, "size": 65_536}
    with holder("--net", "--uts", script="hostname theirs") as pid:
        script = "hostname; readlink /proc/self/ns/net; cat /proc/self/uid_map; hostname x 2> /dev/null || echo refused"
        config = joining(busybox_rootfs, script, pid, "network", "uts", new=(*ALL, "user"),
                         uidMappings=[line], gidMappings=[line])  # fmt: skip
        words = printed(plan_of(config)).split()
        assert words == ["theirs", os.readlink(f"/proc/{pid}/ns/net"), "0", "100000", "65536", "refused"]


@pytest.mark.root
def test_a_joined_namespace_brings_its_sysctls(busybox_rootfs: str) -> None:
    with holder("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc") as pid:
        config = joining(busybox_rootfs, "cat /proc/sys/net/ipv4/ip_forward", pid, "network", "mount", "pid",
                         sysctl={"net.ipv4.ip_forward": "1"})  # fmt: skip
        assert printed(plan_of(config)) == "1\n"


# --- who lives there already

# Stops whatever new process appears, and tells all that it can be looked into for.
ATTACK = """
import json, os, signal, sys
print(flush=True)
known = {"1"}
while True:
    for pid in {name for name in os.listdir("/proc") if name.isdigit()} - known:
        try:
            os.kill(int(pid), signal.SIGSTOP)
            links = {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in ("mnt", "net", "ipc", "uts", "cgroup")}
            links["exe"] = os.readlink(f"/proc/{pid}/exe")
            fds = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            found = links, fds, os.listdir(f"/proc/{pid}/root/"), open(f"/proc/{pid}/environ").read()
        except OSError:
            continue
        print(json.dumps(found), flush=True)
        if sys.argv[1] == "go":
            os.kill(int(pid), signal.SIGCONT)
        input()
"""


@contextmanager
def attacked(meanwhile: str) -> Iterator[tuple[int, Callable[[Callable[[], object]], Any]]]:
    """Root with all capabilities in a pid namespace: its pid, and what it found in the process of a call that enters.

    The process is stopped first; then it is on hold, or may go.
    """
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-I", "-S", "-c", ATTACK]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, meanwhile], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as attacker:
        assert attacker.stdin and attacker.stdout
        output = attacker.stdout
        output.readline()

        def found_in(call: Callable[[], object]) -> Any:
            while not select.select([output], [], [], 0)[0]:
                call()
            return json.loads(output.readline())

        try:
            yield inner_pid(attacker.pid), found_in
        finally:
            attacker.stdin.close()


@pytest.mark.root
def test_an_errand_shows_nothing_of_the_host(busybox_rootfs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "PATIENCE", 0.3)
    with attacked("hold") as (pid, found_in):
        config = joining(busybox_rootfs, "true", pid, "pid")
        host = current().replace(procfs_of_others=False)
        plan = compile_plan(read_config(without_limits(config), bundle="/"), host, Style(every_cgroup=False))
        links, fds, root, environment = found_in(lambda: try_errand(plan))
    assert not {name for name in links if name != "exe" and links[name] == os.readlink(f"/proc/self/ns/{name}")}
    assert "memfd:cycontainer-init" in links["exe"]
    assert not [link for link in fds if link.startswith("/") and link not in ("/", "/memfd:cycontainer-plan (deleted)")]
    assert (root, environment) == ([], "")


@pytest.mark.root
def test_a_process_that_joins_a_pid_namespace_shows_nothing_of_the_host(busybox_rootfs: str) -> None:
    with attacked("go") as (pid, found_in), open("/dev/null", "w") as null:
        config = joining(busybox_rootfs, "true", pid, "pid", sysctl={"net.ipv4.ip_forward": "1"})
        plan = plan_of(config)  # with the host's procfs open, for a while
        links, fds, root, environment = found_in(lambda: launched(plan, stdout=null.fileno()))
    assert not {name for name in links if name != "exe" and links[name] == os.readlink(f"/proc/self/ns/{name}")}
    assert "memfd:cycontainer-init" in links["exe"] or links["exe"] == "/bin/busybox"
    # its socket to the launcher, for a moment a pidfd of itself, and what is the program's own
    assert len([link for link in fds if not link.startswith(("socket:", "anon_inode:[pidfd]"))]) <= 3, fds
    assert (sorted(root), environment in ("", "PATH=/bin\0")) == (sorted(os.listdir(busybox_rootfs)), True)


def try_errand(plan: Plan) -> None:
    """Carry out a plan's errand, which someone may keep from its end."""
    fd = open_namespace(os.fsencode(plan.namespaces[0].path or ""), CLONE_NEWPID)
    try:
        os.close(errands.carry_out(plan.errands[0], (fd,)))
    except LaunchError as failure:
        assert failure.errno == errno.ETIMEDOUT
    finally:
        os.close(fd)


# --- as an ordinary user


def joined_by_its_owner(rootfs: str, *kinds: str) -> tuple[list[str], list[str]]:
    """Join what a process of the same user holds: what is seen of the namespaces, and what they are."""
    options = (
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--net",
        "--ipc",
        "--uts",
    )
    with holder(*options) as pid:
        script = (
            "; ".join(f"readlink /proc/self/ns/{FILES[kind]}" for kind in kinds) + "; id -u; cat /proc/1/comm; true"
        )
        seen = printed(plan_of(joining(rootfs, script, pid, *kinds))).split()
        first = "sh"  # its own, or that of the namespace
        return seen, [*(os.readlink(f"/proc/{pid}/ns/{FILES[kind]}") for kind in kinds), "0", first]


@pytest.mark.parametrize(
    "kinds",
    [("user",), ("user", "pid"), ("user", "network", "ipc", "uts"), ("user", "pid", "network", "ipc", "uts", "mount")],
    ids=" ".join,
)
def test_an_ordinary_user_joins_its_own(
    busybox_rootfs: str, ordinary_user: OrdinaryUser, kinds: tuple[str, ...]
) -> None:
    seen, real = ordinary_user(joined_by_its_owner, busybox_rootfs, *kinds)
    assert seen == real


def run_in_the_hosts_network(rootfs: str) -> str:
    config = document(
        rootfs, "grep -c ' /sys .*ro,' /proc/mounts; ls /sys/class/net; touch /sys/fs/cgroup/x || echo ro"
    )
    config["linux"]["namespaces"] = [{"type": kind} for kind in (*ALL, "user") if kind != "network"]
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != "/sys/fs/cgroup"]
    config["mounts"][2]["options"].remove("gid=5")
    for key, number in (("uidMappings", os.getuid()), ("gidMappings", os.getgid())):
        config["linux"][key] = [{"containerID": 0, "hostID": number, "size": 1}]
    return printed(plan_of(config))


def test_without_a_network_of_its_own_a_user_namespace_has_the_hosts_sysfs(
    busybox_rootfs: str, ordinary_user: OrdinaryUser
) -> None:
    devices = os.listdir("/sys/class/net")
    for words in (ordinary_user(run_in_the_hosts_network, busybox_rootfs), run_in_the_hosts_network(busybox_rootfs)):
        assert sorted(words.split()) == sorted(["1", *devices, "ro"])


@pytest.mark.root
def test_a_mount_is_mapped_as_the_joined_user_namespace_does(busybox_rootfs: str, tmp_path: object) -> None:
    with open(f"{tmp_path}/file", "w") as file:
        os.chown(file.fileno(), 7, 8)
    os.chmod(str(tmp_path), 0o755)
    with holder("--user") as pid:
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write("0 100000 65536")
        config = joining(busybox_rootfs, "stat -c %u:%g /run/file /bin/busybox", pid, "user")
        config["mounts"].append(
            {"destination": "/run", "type": "bind", "source": str(tmp_path), "options": ["bind", "idmap"]}
        )
        assert printed(plan_of(config)).split() == ["7:8", "65534:65534"]


@pytest.mark.root
def test_a_new_network_namespace_has_its_loopback_up(busybox_rootfs: str) -> None:
    script = "cat /sys/class/net/lo/flags; ping -c 1 -W 5 127.0.0.1 > /dev/null && echo answers"
    config = granted(document(busybox_rootfs, script), "CAP_NET_RAW")
    assert printed(plan_of(config)).split() == ["0x9", "answers"]
