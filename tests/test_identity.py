"""Who the program is and what it may use, asked by the program itself in its container."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
from typing import Any

import pytest
from launching import document, plan_of, printed
from ordinary import OrdinaryUser

from cycontainer.lifecycle import Container
from cycontainer.streams import DEVNULL, PIPE
from cycontainer.tables import CAPABILITIES, RLIMITS

# System calls that Python has no function for: keyctl, ioprio_get, get_mempolicy.
NUMBERS = {"x86_64": (250, 252, 239), "aarch64": (219, 31, 236)}[os.uname().machine]
LOOK = """
import ctypes, json, os, resource, sys
libc = ctypes.CDLL(None, use_errno=True)
keyctl, ioprio_get, get_mempolicy = sys.argv[1:4]
status = {key: value.strip() for key, _, value in (line.partition(":") for line in open("/proc/self/status"))}
umask = os.umask(0)
mode, nodes = ctypes.c_int(), ctypes.c_ulong()
libc.syscall(int(get_mempolicy), ctypes.byref(mode), ctypes.byref(nodes), 64, 0, 0)
signal = ctypes.c_int()
libc.prctl(2, ctypes.byref(signal), 0, 0, 0)
print(json.dumps({
    "ids": [os.getresuid(), os.getresgid(), os.getgroups()], "umask": umask, "cwd": os.getcwd(), "status": status,
    "env": dict(os.environ), "hostname": os.uname().nodename, "machine": os.uname().machine,
    "domainname": open("/proc/sys/kernel/domainname").read().strip(),
    "rlimits": {number: resource.getrlimit(number) for number in range(16)},
    "oom": int(open("/proc/self/oom_score_adj").read()), "scheduler": os.sched_getscheduler(0),
    "priority": os.sched_getparam(0).sched_priority, "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "cpus": sorted(os.sched_getaffinity(0)), "io": libc.syscall(int(ioprio_get), 1, 0),
    "memory": [mode.value, nodes.value], "keyring": libc.syscall(int(keyctl), 0, -3, 0),
    "key": libc.syscall(int(keyctl), 10, -3, b"user", b"callers-own", 0), "death": signal.value,
    "dumpable": libc.prctl(3, 0, 0, 0, 0), "fds": sorted(os.listdir("/proc/self/fd"), key=int),
    "session": os.getsid(0) == os.getpid(),
}))
"""


def looked(process: dict[str, Any], config: dict[str, Any] | None = None, **linux: Any) -> Any:
    """What LOOK finds in a container on the host's root whose process is described so."""
    full = {**document("/", **linux), **(config or {})}
    full["process"] = {
        "cwd": "/",
        "args": [os.path.realpath(sys.executable), "-I", "-S", "-c", LOOK, *map(str, NUMBERS)],
        **process,
    }
    return json.loads(printed(plan_of(full)))


# --- ids


@pytest.mark.root
def test_ids_groups_and_umask_are_the_programs() -> None:
    found = looked({"user": {"uid": 1234, "gid": 5678, "additionalGids": [9, 10], "umask": 0o027}})
    assert found["ids"] == [[1234] * 3, [5678] * 3, [9, 10]]
    assert found["umask"] == 0o027


@pytest.mark.root
def test_of_the_callers_groups_none_is_left(busybox_rootfs: str) -> None:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    script = "import sys; sys.path.insert(0, sys.argv[1]); from cycontainer import run; "
    script += "print([run(['id', '-G'], rootfs=sys.argv[2], user_namespace=user).stdout for user in (False, True)])"
    command = ["setpriv", "--groups", "27,28", sys.executable, "-I", "-S", "-c", script, root, busybox_rootfs]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "[b'0\\n', b'0\\n']\n"


EXEC_GROUPS = """
import sys; sys.path.insert(0, sys.argv[1])
from cycontainer.lifecycle import Container
from cycontainer.streams import DEVNULL, PIPE
from cycontainer.spec import default_config
config, line = default_config(), {"containerID": 0, "hostID": 100000, "size": 65536}
config["root"]["path"] = sys.argv[2]
config["process"].update(args=["sleep", "100"], env=["PATH=/bin"])
config["linux"]["namespaces"].append({"type": "user"})
config["linux"].update(uidMappings=[line], gidMappings=[line])
with Container.create("groups", config, root=sys.argv[3], stdin=DEVNULL) as container:
    container.start()
    with container.exec(["grep", "Groups", "/proc/self/status"], stdin=DEVNULL, stdout=PIPE) as process:
        print(process.communicate()[0])
"""


@pytest.mark.root
def test_exec_brings_no_group_of_the_callers_into_a_user_namespace(busybox_rootfs: str, tmp_path: object) -> None:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    script = [sys.executable, "-I", "-S", "-c", EXEC_GROUPS, root, busybox_rootfs, f"{tmp_path}/states"]
    done = subprocess.run(["setpriv", "--groups", "27,28", *script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("b'Groups:\\t \\n'\n", "")


@pytest.mark.root
def test_without_a_word_it_is_root_and_the_umask_is_the_usual() -> None:
    found = looked({})
    assert (found["ids"], found["umask"]) == ([[0] * 3, [0] * 3, []], 0o022)


@pytest.mark.root
def test_the_environment_is_what_was_asked_for_and_the_directory_too() -> None:
    found = looked({"env": ["A=1", "B=x=y", "A=2"], "cwd": "/usr"})
    assert {key: value for key, value in found["env"].items() if key != "LC_CTYPE"} == {"A": "2", "B": "x=y"}
    assert found["cwd"] == "/usr"


@pytest.mark.root
def test_names_are_the_containers() -> None:
    found = looked({}, {"hostname": "h" * 64, "domainname": "d.example"})
    assert (found["hostname"], found["domainname"]) == ("h" * 64, "d.example")
    assert os.uname().nodename != "h" * 64


@pytest.mark.root
def test_it_leads_a_session_and_starts_fresh() -> None:
    """It can be dumped, as any program can, has no parent-death signal, and has three descriptors and its own."""
    found = looked({})
    assert (found["session"], found["dumpable"], found["death"], len(found["fds"])) == (True, 1, 0, 4)
    assert {found["status"][name] for name in ("SigBlk", "SigIgn")} <= {"0" * 16, "0000000001001000"}  # Python's own


# --- capabilities


@pytest.mark.root
def test_an_ordinary_program_has_what_is_ambient() -> None:
    sets = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_TIME"], "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN"], "inheritable": ["CAP_KILL", "CAP_NET_RAW"], "ambient": ["CAP_KILL"],
    }  # fmt: skip
    status = looked({"user": {"uid": 1000, "gid": 1000}, "capabilities": sets})["status"]
    assert capabilities(status) == {
        "CapBnd": set(sets["bounding"]), "CapInh": set(sets["inheritable"]), "CapAmb": set(sets["ambient"]),
        "CapPrm": {"CAP_KILL"}, "CapEff": {"CAP_KILL"},  # by execve, capabilities(7)
    }  # fmt: skip


@pytest.mark.root
def test_root_has_what_is_bounding_by_execve() -> None:
    sets = {"bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"]}
    status = looked({"capabilities": sets})["status"]
    assert capabilities(status) == {
        "CapBnd": {"CAP_CHOWN", "CAP_KILL"}, "CapInh": set(), "CapAmb": set(),
        "CapPrm": {"CAP_CHOWN", "CAP_KILL"}, "CapEff": {"CAP_CHOWN", "CAP_KILL"},
    }  # fmt: skip


@pytest.mark.root
def test_without_a_word_there_is_none_and_with_all_words_all() -> None:
    assert not set().union(*capabilities(looked({})["status"]).values())
    with open("/proc/self/status") as file:
        ours = capabilities(dict(line.rstrip().split(":\t", 1) for line in file if line.startswith("Cap")))["CapPrm"]
    sets = {name: sorted(ours) for name in ("bounding", "permitted", "effective", "inheritable", "ambient")}
    every = capabilities(looked({"capabilities": sets, "user": {"uid": 1, "gid": 1}})["status"])
    assert all(found == ours for found in every.values())


def capabilities(status: dict[str, str]) -> dict[str, set[str]]:
    return {
        name: {each for number, each in enumerate(CAPABILITIES) if int(status[name], 16) >> number & 1}
        for name in ("CapBnd", "CapInh", "CapAmb", "CapPrm", "CapEff")
    }


@pytest.mark.root
@pytest.mark.parametrize("asked", [True, False])
def test_new_privileges_are_refused_when_asked(asked: bool) -> None:
    assert looked({"noNewPrivileges": asked})["status"]["NoNewPrivs"] == str(int(asked))


# --- limits


@pytest.mark.root
def test_every_limit_is_set() -> None:
    """None above the test's own: to raise one takes CAP_SYS_RESOURCE, which not every root has."""
    enough = {"RLIMIT_AS": 1 << 34, "RLIMIT_NPROC": 1000, "RLIMIT_DATA": 1 << 34, "RLIMIT_STACK": 1 << 23,
              "RLIMIT_FSIZE": 1 << 20, "RLIMIT_CPU": 1000, "RLIMIT_NOFILE": 100}  # fmt: skip
    wanted: dict[str, list[int]] = {}
    for name, number in RLIMITS.items():
        most = resource.getrlimit(number)[1]
        pair = enough.get(name, 400), enough.get(name, 400) + 7
        wanted[str(number)] = [value if most < 0 else min(value, most) for value in pair]
    limits = [{"type": name, "soft": wanted[str(number)][0], "hard": wanted[str(number)][1]}
              for name, number in RLIMITS.items()]  # fmt: skip
    assert looked({"rlimits": limits})["rlimits"] == wanted


@pytest.mark.root
def test_a_limit_may_be_none() -> None:
    unlimited = {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1}
    assert looked({"rlimits": [unlimited]})["rlimits"]["4"] == [-1, -1]


@pytest.mark.root
def test_the_kernels_choice_of_victims_is_adjusted() -> None:
    assert looked({"oomScoreAdj": 321})["oom"] == 321


@pytest.mark.root
@pytest.mark.parametrize(
    ("scheduler", "found"),
    [
        ({"policy": "SCHED_OTHER", "nice": 7}, (0, 0, 7)),
        ({"policy": "SCHED_BATCH", "nice": -3}, (3, 0, -3)),
        ({"policy": "SCHED_IDLE"}, (5, 0, 0)),
        ({"policy": "SCHED_FIFO", "priority": 11}, (1, 11, 0)),
        ({"policy": "SCHED_RR", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, (2 | 0x40000000, 3, 0)),
        ({"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 20_000_000, "period": 30_000_000}, (6, 0, 0)),
    ],
    ids=lambda value: value.get("policy") if isinstance(value, dict) else "",
)
def test_the_scheduler_is_the_one_asked_for(scheduler: dict[str, Any], found: tuple[int, int, int]) -> None:
    seen = looked({"scheduler": scheduler})
    assert (seen["scheduler"], seen["priority"], seen["nice"]) == found


@pytest.mark.root
@pytest.mark.parametrize(("name", "number"), [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)])
def test_the_io_priority_is_the_one_asked_for(name: str, number: int) -> None:
    priority = 0 if number == 3 else 5
    assert looked({"ioPriority": {"class": name, "priority": priority}})["io"] == number << 13 | priority


@pytest.mark.root
@pytest.mark.skipif(not os.path.exists("/proc/self/numa_maps"), reason="needs CONFIG_NUMA")
@pytest.mark.parametrize(
    ("policy", "mode"),
    [
        ({"mode": "MPOL_BIND", "nodes": "0"}, 2), ({"mode": "MPOL_INTERLEAVE", "nodes": "0"}, 3),
        ({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, 1 | 1 << 15),
    ],
    ids=["bind", "interleave", "preferred"],
)  # fmt: skip
def test_the_memory_policy_is_the_one_asked_for(policy: dict[str, Any], mode: int) -> None:
    assert looked({}, memoryPolicy=policy)["memory"] == [mode, 1]


@pytest.mark.root
def test_a_persona_changes_the_machines_name() -> None:
    assert looked({}, personality={"domain": "LINUX32"})["machine"] in ("i686", "armv8l", "armv7l")
    assert looked({}, personality={"domain": "LINUX"})["machine"] == os.uname().machine


@pytest.mark.root
def test_the_affinity_of_exec_is_not_the_containers_own() -> None:
    """runtime-spec config.md, "execCPUAffinity": not applicable to the container's init process."""
    assert looked({"execCPUAffinity": {"initial": "0", "final": "0"}})["cpus"] == sorted(os.sched_getaffinity(0))


@pytest.mark.root
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_exec_keeps_to_the_cpus_asked_for(busybox_rootfs: str, tmp_path: object) -> None:
    config = document(busybox_rootfs, "sleep 100")
    config["process"]["execCPUAffinity"] = {"initial": "0", "final": "1"}
    with Container.create("cpus", config, root=f"{tmp_path}/states", stdin=DEVNULL) as container:
        container.start()
        with container.exec(["grep", "Cpus_allowed_list", "/proc/self/status"], stdin=DEVNULL, stdout=PIPE) as process:
            assert process.communicate()[0].split()[-1] == b"1"


# --- keys


@pytest.mark.root
def test_the_callers_keys_are_not_the_programs() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    join, get, add = 1, 0, {"x86_64": 248, "aarch64": 217}[os.uname().machine]
    assert libc.syscall(NUMBERS[0], join, None) > 0  # a session keyring of the test's own, for the rest of its life
    assert libc.syscall(add, b"user", b"callers-own", b"secret", 6, -3) > 0
    found = looked({})
    assert found["keyring"] > 0 and found["keyring"] != libc.syscall(NUMBERS[0], get, -3, 0)
    assert found["key"] == -1


# --- the program


@pytest.mark.root
@pytest.mark.parametrize(
    ("path", "name", "printed_by"),
    [
        ("/first:/second", "tool", "second"),  # of the first it is not executable
        ("/nowhere::/second", "tool", "here"),  # an empty entry is the current directory
        ("/second", "./tool", "here"),
        ("/second", "/second/tool", "second"),
        ("/dir:/second", "tool", "second"),  # a directory of that name is no program
    ],
    ids=["not executable", "empty entry", "relative", "absolute", "directory"],
)
def test_the_program_is_looked_up_in_the_containers_path(
    busybox_rootfs: str, tmp_path: object, path: str, name: str, printed_by: str
) -> None:
    volume = f"{tmp_path}/volume"
    for place, mode in (("first", 0o644), ("second", 0o755), ("here", 0o755)):
        os.makedirs(f"{volume}/{place}")
        with open(f"{volume}/{place}/tool", "w") as file:
            file.write(f"#!/bin/sh\necho {place}\n")
        os.chmod(f"{volume}/{place}/tool", mode)
    os.makedirs(f"{volume}/dir/tool")
    config = document(busybox_rootfs)
    config["mounts"] += [
        {"destination": "/tmp", "type": "bind", "source": volume, "options": ["bind"]},
    ]
    config["process"].update(
        args=[name.replace("/second/", "/tmp/second/")], cwd="/tmp/here",
        env=["PATH=" + ":".join(f"/tmp{part}" if part else part for part in path.split(":"))],
    )  # fmt: skip
    assert printed(plan_of(config)) == f"{printed_by}\n"


@pytest.mark.root
def test_without_a_path_the_usual_directories_are_looked_in(busybox_rootfs: str) -> None:
    config = document(busybox_rootfs)
    config["process"].update(args=["echo", "found"], env=[])
    assert printed(plan_of(config)) == "found\n"


# --- as an ordinary user


def looked_alone(process: dict[str, Any], **linux: Any) -> Any:
    namespaces = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network", "cgroup", "user")]
    maps = {
        key: [{"containerID": 0, "hostID": number, "size": 1}]
        for key, number in (("uidMappings", os.getuid()), ("gidMappings", os.getgid()))
    }
    config = document("/")
    mounts = [mount for mount in config["mounts"] if "cgroup" not in mount["destination"]]
    mounts[2]["options"].remove("gid=5")
    return looked(process, {"mounts": mounts}, namespaces=namespaces, **maps, **linux)


def test_an_ordinary_users_program_is_as_asked_in_its_namespace(ordinary_user: OrdinaryUser) -> None:
    sets = {name: ["CAP_CHOWN", "CAP_NET_ADMIN"] for name in ("bounding", "effective", "permitted", "inheritable")}
    process = {
        "capabilities": {**sets, "ambient": ["CAP_CHOWN"]}, "user": {"uid": 0, "gid": 0, "umask": 0o77},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 120}], "oomScoreAdj": 700, "cwd": "/usr",
        "scheduler": {"policy": "SCHED_BATCH", "nice": 9}, "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
        "noNewPrivileges": True, "env": ["A=B"],
    }  # fmt: skip
    found = ordinary_user(looked_alone, process, personality={"domain": "LINUX32"})
    assert found["ids"][:2] == [[0] * 3, [0] * 3] and found["umask"] == 0o77
    assert capabilities(found["status"]) == {
        "CapBnd": set(sets["bounding"]), "CapInh": set(sets["inheritable"]), "CapAmb": {"CAP_CHOWN"},
        "CapPrm": set(sets["permitted"]), "CapEff": set(sets["effective"]),
    }  # fmt: skip
    assert (found["rlimits"]["7"], found["oom"], found["cwd"]) == ([100, 120], 700, "/usr")
    assert (found["scheduler"], found["nice"], found["io"]) == (3, 9, 3 << 13)
    assert (found["status"]["NoNewPrivs"], found["env"]["A"], found["machine"] != os.uname().machine) == (
        "1",
        "B",
        True,
    )
    assert (found["hostname"], found["keyring"] > 0, len(found["fds"])) == ("cycontainer", True, 4)
