"""The file tree as the program sees it: mounts with every option of runtime-spec 1.3, devices, cgroups, the root."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from launching import copy_rootfs, document, launched, plan_of, printed
from ordinary import OrdinaryUser

from cycontainer import ConfigError, LaunchError, run
from cycontainer.host import current
from cycontainer.mount_options import OPTIONS, PROPAGATION

ONE_BY_ONE = {  # option: what it adds to a mount's options, or takes away, in /proc/self/mountinfo
    "ro": "+ro", "nosuid": "+nosuid", "nodev": "+nodev", "noexec": "+noexec", "nosymfollow": "+nosymfollow",
    "nodiratime": "+nodiratime", "noatime": "+noatime", "relatime": "+relatime", "strictatime": "-relatime",
    "rw": "+rw", "suid": "-nosuid", "dev": "-nodev", "exec": "-noexec", "symfollow": "-nosymfollow",
    "diratime": "-nodiratime", "atime": "-noatime", "norelatime": "-relatime", "nostrictatime": "+relatime",
}  # fmt: skip
RESTRICTED = "ro,nosuid,nodev,noexec,nosymfollow,nodiratime,noatime"


@contextmanager
def tmpfs(path: str, options: str = "rw,mode=777", *, shared: bool = False) -> Iterator[str]:
    os.makedirs(path, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    if shared:
        subprocess.run(["mount", "--make-shared", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-R", path], check=True)


@pytest.fixture
def volume(tmp_path: object) -> Iterator[str]:
    """A tmpfs with another on its directory `below`."""
    with tmpfs(f"{tmp_path}/volume") as path, tmpfs(f"{path}/below"):
        yield path


@pytest.fixture
def restricted(tmp_path: object) -> Iterator[str]:
    """The same with all that restricts."""
    with tmpfs(f"{tmp_path}/volume") as path, tmpfs(f"{path}/below", RESTRICTED):
        subprocess.run(["mount", "-o", f"remount,bind,{RESTRICTED}", path], check=True)
        yield path


def mounts_seen(rootfs: str, mounts: list[dict[str, Any]], **linux: Any) -> dict[str, list[str]]:
    """Each mount of a container: its options, and its optional fields (propagation)."""
    config = document(rootfs, "cat /proc/self/mountinfo", **linux)
    config["mounts"].insert(0, {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    config["mounts"] += mounts
    return options_of(printed(plan_of(config)))


def mountinfo() -> str:
    with open("/proc/self/mountinfo") as file:
        return file.read()


def options_of(text: str) -> dict[str, list[str]]:
    lines = (line.split(" - ")[0].split() for line in text.splitlines())
    return {fields[4]: fields[5].split(",") + [each.partition(":")[0] for each in fields[6:]] for fields in lines}


def bind(destination: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": source, "options": list(options)}


def granting(name: str) -> dict[str, list[str]]:
    return {each: [name] for each in ("bounding", "effective", "permitted")}


# --- options of mounts


@pytest.mark.root
def test_every_option_restricts_or_frees_a_mount(busybox_rootfs: str, volume: str) -> None:
    check_options(busybox_rootfs, volume, {option: effect for option, effect in ONE_BY_ONE.items() if effect[0] == "+"})


@pytest.mark.root
def test_every_option_frees_a_restricted_mount(busybox_rootfs: str, restricted: str) -> None:
    check_options(busybox_rootfs, restricted, {"rw": "-ro", **{o: e for o, e in ONE_BY_ONE.items() if e[0] == "-"}})


def check_options(rootfs: str, source: str, effects: dict[str, str]) -> None:
    """Each option alone: with "r" before it, on what is mounted below, too, and else not there."""
    effects = {**effects, **{f"r{option}": effect for option, effect in effects.items()}}
    assert set(effects) <= set(OPTIONS)
    seen = mounts_seen(rootfs, [bind(f"/tmp/{option}", source, "rbind", option) for option in effects])
    plain = options_of(mountinfo())[f"{source}/below"]
    for option, effect in effects.items():
        there = effect[0] == "+"
        assert (effect[1:] in seen[f"/tmp/{option}"]) == there, option
        recursive = option[0] == "r" and option[1:] in ONE_BY_ONE
        below = there if recursive else effect[1:] in plain
        assert (effect[1:] in seen[f"/tmp/{option}/below"]) == below, f"{option}, below"


def test_the_table_above_is_complete() -> None:
    assert set(OPTIONS) == {*ONE_BY_ONE, *(f"r{option}" for option in ONE_BY_ONE)}


@pytest.mark.root
def test_of_two_options_the_later_wins(busybox_rootfs: str, volume: str) -> None:
    mounts = [
        bind("/tmp/a", volume, "bind", "ro", "noexec", "rw"),
        bind("/tmp/b", volume, "rbind", "rro", "rnoatime", "rstrictatime"),
    ]
    seen = mounts_seen(busybox_rootfs, mounts)
    assert {"rw", "noexec"} <= set(seen["/tmp/a"]) and "/tmp/a/below" not in seen
    assert {"ro"} <= set(seen["/tmp/b/below"]) and not {"noatime", "relatime"} & set(seen["/tmp/b/below"])


@pytest.mark.root
def test_options_of_the_file_system_reach_it(own_rootfs: str) -> None:
    options = ["sync", "dirsync", "lazytime", "size=1m", "nr_inodes=99", "mode=1750", "uid=3", "gid=4"]
    options += ["mand", "iversion", "defaults", "loud"]
    data = {"destination": "/data", "type": "tmpfs", "source": "named", "options": options}
    config = document(own_rootfs, "grep ' /data ' /proc/self/mountinfo; stat -c '%a %u:%g' /data")
    config["mounts"].append(data)
    words = printed(plan_of(config)).split()
    super_options = set(words[-3].split(","))
    assert {"sync", "dirsync", "lazytime", "size=1024k", "nr_inodes=99", "mode=1750", "uid=3", "gid=4"} <= super_options
    assert words[-4:] == ["named", words[-3], "1750", "3:4"]


@pytest.mark.root
def test_an_option_that_a_file_system_does_not_know_is_named(busybox_rootfs: str) -> None:
    data = {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["nonsense=1"]}
    with pytest.raises(LaunchError, match="set option nonsense=1 of the file system for /data: EINVAL"):
        run(["true"], rootfs=busybox_rootfs, mounts=[data])


@pytest.mark.root
def test_a_bind_leaves_its_file_system_as_it_is(busybox_rootfs: str, volume: str) -> None:
    """mount(2) ignores these with MS_BIND, and engines pass them."""
    seen = mounts_seen(
        busybox_rootfs, [bind("/tmp/a", volume, "bind", "sync", "dirsync", "lazytime", "mand", "iversion")]
    )
    assert "rw" in seen["/tmp/a"]


# --- propagation


OF_ENGINES = ("copy", "nocopy", "z", "Z", "U", "cached", "delegated", "consistent", "volume-opt=type=tmpfs")


@pytest.mark.root
def test_words_of_engines_say_nothing_about_a_bind(busybox_rootfs: str, volume: str) -> None:
    seen = mounts_seen(busybox_rootfs, [bind("/tmp/x", volume, "rbind", "ro", *OF_ENGINES)])
    assert seen["/tmp/x"] == mounts_seen(busybox_rootfs, [bind("/tmp/x", volume, "rbind", "ro")])["/tmp/x"]


@pytest.mark.root
@pytest.mark.parametrize("option", ["O", "Copy", "volume-opt", "nonsense", "upperdir=/x"])
def test_other_words_about_a_bind_are_refused(option: str, busybox_rootfs: str, volume: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"mounts\[0\].options: {option.partition('=')[0]} is not an option of a bind"
    ):
        run(["true"], rootfs=busybox_rootfs, mounts=[bind("/tmp/x", volume, "bind", option)])


@pytest.mark.root
@pytest.mark.parametrize("option", ["copy", "z", "volume-opt=x"])
def test_words_of_engines_are_a_file_systems_own_elsewhere(option: str, busybox_rootfs: str) -> None:
    mount = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": [option]}
    with pytest.raises(LaunchError, match=f"set option {option}"):
        run(["true"], rootfs=busybox_rootfs, mounts=[mount])


@pytest.mark.root
@pytest.mark.parametrize("host_shares", [False, True], ids=["private", "shared"])
def test_propagation_is_as_asked_and_never_back_to_the_host(
    busybox_rootfs: str, tmp_path: object, host_shares: bool
) -> None:
    fields = {"private": set(), "shared": {"shared"}, "slave": set(), "unbindable": {"unbindable"}}
    with tmpfs(f"{tmp_path}/volume", shared=host_shares) as source, tmpfs(f"{source}/below", shared=host_shares):
        before = mountinfo()
        seen = mounts_seen(busybox_rootfs, [bind(f"/tmp/{name}", source, "rbind", name) for name in PROPAGATION])
        assert mountinfo() == before
    for name in PROPAGATION:
        expected = set(fields[name.removeprefix("r")])
        if host_shares and name.removeprefix("r") in ("slave", "shared"):
            expected |= {"master"}
        assert set(seen[f"/tmp/{name}"]) & {"shared", "master", "unbindable"} == expected, name
        below = expected if name.startswith("r") else {"master"} if host_shares else set()
        assert set(seen[f"/tmp/{name}/below"]) & {"shared", "master", "unbindable"} == below, f"{name}, below"


@pytest.mark.root
def test_a_shared_mount_sends_nothing_to_the_host(own_rootfs: str, tmp_path: object) -> None:
    with tmpfs(f"{tmp_path}/volume", shared=True) as source:
        os.mkdir(f"{source}/inside")
        config = document(own_rootfs, "mount -t tmpfs tmpfs /data/inside && touch /data/inside/file")
        config["mounts"].append(bind("/data", source, "rbind", "rshared"))
        config["process"]["capabilities"] = granting("CAP_SYS_ADMIN")
        assert printed(plan_of(config)) == ""
        assert os.listdir(f"{source}/inside") == []


@pytest.mark.root
@pytest.mark.parametrize("propagation", ["private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable"])
def test_the_roots_propagation_is_as_asked(busybox_rootfs: str, propagation: str) -> None:
    fields = mounts_seen(busybox_rootfs, [], rootfsPropagation=propagation)
    kinds = {"shared", "unbindable"}
    expected = {propagation.removeprefix("r")} & kinds
    assert set(fields["/"]) & kinds == expected
    assert set(fields["/proc"]) & kinds == (expected if propagation.startswith("r") else set())


# --- targets


@pytest.mark.root
def test_targets_are_made_as_their_sources_are(busybox_rootfs: str, tmp_path: object) -> None:
    root, source = f"{tmp_path}/root", f"{tmp_path}/source"
    copy_rootfs(busybox_rootfs, root)
    os.mkdir(source)
    with open(f"{source}/file", "w") as file:
        file.write("content")
    os.symlink("/elsewhere", f"{root}/link")
    config = document(root, "cat /a/b/file /link/deep/file; ls -A /a/b/directory")
    config["mounts"] += [
        bind("/a/b/file", f"{source}/file", "bind"),
        bind("/link/deep/file", f"{source}/file", "bind"),
        bind("/a/b/directory", source, "bind"),
    ]
    assert printed(plan_of(config)) == "contentcontentfile\n"
    assert stat.S_ISREG(os.stat(f"{root}/elsewhere/deep/file").st_mode)
    shutil.rmtree(root)


@pytest.mark.root
def test_readonly_paths_and_masks_hold_for_all_below(busybox_rootfs: str, volume: str) -> None:
    os.mkdir(f"{volume}/secrets")
    for name in ("file", "below/file", "secrets/file", "secret"):
        with open(f"{volume}/{name}", "w") as file:
            file.write("secret")
    script = """
        cd /tmp/data; for name in file below/file; do cat $name > /dev/null && ! echo x > $name && echo refused; done
        echo $(ls -A secrets | wc -l) $(cat secret | wc -c); touch secrets/x || echo refused
        echo x > secret && cat secret
    """
    config = document(busybox_rootfs, f"{{ {script} }} 2> /dev/null", readonlyPaths=["/tmp/data", "/no/such"],
                      maskedPaths=["/tmp/data/secrets", "/tmp/data/secret", "/no/such"])  # fmt: skip
    config["mounts"] += [
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
        bind("/tmp/data", volume, "rbind"),
    ]
    assert printed(plan_of(config)).split() == ["refused", "refused", "0", "0", "refused"]


# --- devices

DEVICES = [
    {"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6},
    {"type": "u", "path": "/dev/deep/er/zero", "major": 1, "minor": 5},
    {"type": "b", "path": "/dev/block", "major": 7, "minor": 300, "fileMode": 0o600},
    {"type": "p", "path": "/dev/fifo", "fileMode": 0o622, "gid": 7},
    {"type": "c", "path": "/dev/null", "major": 1, "minor": 3, "fileMode": 0o600},
]


@pytest.mark.root
def test_devices_are_made_with_their_numbers_modes_and_owners(busybox_rootfs: str) -> None:
    script = "cd /dev; stat -c '%n %F %t:%T %a %u:%g' full null random tty urandom zero fuse deep/er/zero block fifo"
    assert printed(plan_of(document(busybox_rootfs, script, devices=DEVICES))).splitlines() == [
        "full character special file 1:7 666 0:0",
        "null character special file 1:3 600 0:0",
        "random character special file 1:8 666 0:0",
        "tty character special file 5:0 666 0:0",
        "urandom character special file 1:9 666 0:0",
        "zero character special file 1:5 666 0:0",
        "fuse character special file a:e5 640 5:6",
        "deep/er/zero character special file 1:5 666 0:0",
        "block block special file 7:12c 600 0:0",
        "fifo fifo 0:0 622 0:7",
    ]


def with_bound_devices(rootfs: str) -> str:
    config = document(rootfs, "cd /dev; stat -c '%n %t:%T' null zero full tty; echo x > null; head -c 1 zero | wc -c",
                      devices=[{"type": "c", "path": "/dev/zero", "major": 1, "minor": 5}])  # fmt: skip
    config["linux"]["namespaces"].append({"type": "user"})
    config["mounts"] = [mount for mount in config["mounts"] if "cgroup" not in mount["destination"]]
    config["mounts"][2]["options"].remove("gid=5")
    for key, number in (("uidMappings", os.getuid()), ("gidMappings", os.getgid())):
        config["linux"][key] = [{"containerID": 0, "hostID": number, "size": 1}]
    return printed(plan_of(config))


def test_in_a_user_namespace_devices_are_the_hosts_bound(busybox_rootfs: str, ordinary_user: OrdinaryUser) -> None:
    assert ordinary_user(with_bound_devices, busybox_rootfs).split() == [
        "null", "1:3", "zero", "1:5", "full", "1:7", "tty", "5:0", "1",
    ]  # fmt: skip


@pytest.mark.root
def test_links_beside_the_devices_lead_where_they_should(busybox_rootfs: str) -> None:
    names = ("fd", "stdin", "stdout", "stderr", "ptmx")
    script = f"cd /dev; for name in {' '.join(names)}; do readlink $name; done; echo through >> /dev/stdout"
    assert printed(plan_of(document(busybox_rootfs, script))).split() == [
        "/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx", "through",
    ]  # fmt: skip


PTMX = {"type": "c", "path": "/dev/ptmx", "major": 5, "minor": 2, "fileMode": 0o666}


@pytest.mark.root
@pytest.mark.parametrize("user_namespace", [False, True], ids=["root", "user namespace"])
def test_a_terminal_multiplexer_that_is_asked_for_is_the_containers_own(
    busybox_rootfs: str, user_namespace: bool
) -> None:
    """Engines' privileged mode asks for each device of the host's /dev."""
    script = "readlink /dev/ptmx; grep -c /ptmx. /proc/self/mountinfo"
    config = document(busybox_rootfs, f"{script}; true", devices=[PTMX])
    if user_namespace:
        config["linux"]["namespaces"].append({"type": "user"})
        line = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
        config["linux"].update(uidMappings=line, gidMappings=line)
    assert printed(plan_of(config)).split() == ["pts/ptmx", "0"]


@pytest.mark.root
@pytest.mark.parametrize("name", ["ptmx", "fd", "stdin", "stdout", "stderr"])
def test_a_device_in_a_links_place_is_refused(busybox_rootfs: str, name: str) -> None:
    device = {"type": "c", "path": f"/dev/{name}", "major": 1, "minor": 3}
    with pytest.raises(LaunchError) as failure:
        launched(plan_of(document(busybox_rootfs, devices=[device])))
    assert (failure.value.attempt, failure.value.errno) == (f"make the node /dev/{name}", errno.EEXIST)


@pytest.mark.root
def test_a_dev_that_is_bound_stays_as_it_is(busybox_rootfs: str, volume: str) -> None:
    config = document(busybox_rootfs, "ls -A /dev")
    config["mounts"] = [config["mounts"][0], bind("/dev", volume, "bind")]
    assert printed(plan_of(config)) == "below\n"


# --- cgroups


@pytest.mark.root
@pytest.mark.cgroup1
def test_every_hierarchy_is_there_and_shows_the_container_alone(busybox_rootfs: str) -> None:
    """Of the v1 hierarchies its own cgroup, of v2 what its namespace has; all read-only, and joined names are links."""
    config = document(busybox_rootfs, resources={"pids": {"limit": 20}})
    script = "cd /sys/fs/cgroup; ls; cat pids/pids.max pids/cgroup.procs | wc -l; cat pids/pids.max"
    script += "; touch pids/x || echo ro; touch unified/x || echo ro"
    result = run(["sh", "-c", f"{{ {script}; }} 2> /dev/null"], config=config, text=True)
    *names, count, limit, first, second = str(result.stdout).split()
    layout = current().cgroups
    hierarchies = (*layout.v1, *((layout.v2,) if layout.v2 else ()))
    assert set(names) >= {hierarchy.mount.rpartition("/")[2] for hierarchy in hierarchies}
    assert (int(count) > 1, limit, first, second) == (True, "20", "ro", "ro")


# --- the root


# With CAP_SYS_CHROOT a program leaves a mere chroot: it makes another below, stays outside, and climbs.
CLIMB = """
import os
os.mkdir("/tmp/jail")
os.chroot("/tmp/jail")
for _ in range(20):
    os.chdir("..")
print(*sorted(os.listdir(".")))
"""


@pytest.mark.root
@pytest.mark.parametrize("pivot", [True, False], ids=["pivot", "no pivot"])
def test_there_is_no_way_back_to_the_hosts_root(own_rootfs: str, pivot: bool) -> None:
    python = os.path.realpath(sys.executable)
    config = document(own_rootfs)
    config["process"]["args"] = [python, "-I", "-S", "-c", CLIMB]
    config["process"]["capabilities"] = granting("CAP_SYS_CHROOT")
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    hosts = [path for path in ("/usr", "/lib", "/lib64", sys.base_prefix) if os.path.isdir(path)]
    config["mounts"] += [bind(path, path, "rbind", "ro") for path in hosts]
    words = printed(plan_of(config, pivot=pivot)).split()
    assert words == sorted(os.listdir(own_rootfs))  # where the mounts' targets were made


# Who may unmount its root, and goes back to where its mount namespace begins, sees what lay below: setns(2).
UNCOVER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if sys.argv[2] == "its own":  # a user namespace in which it has all capabilities
    libc.unshare(0x10000000 | 0x20000)
namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
libc.umount2(b"/", 2)
libc.setns(namespace, 0)
print("reached" if os.path.exists(sys.argv[1]) else "shut")
"""


@pytest.mark.root
@pytest.mark.parametrize("pivot", [True, False], ids=["pivot", "no pivot"])
@pytest.mark.parametrize("capabilities", ["given", "its own"])
def test_in_a_user_namespace_the_root_cannot_be_lifted(capabilities: str, pivot: bool, own_rootfs: str) -> None:
    config = document(own_rootfs)
    line = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"].update(uidMappings=line, gidMappings=line)
    config["process"]["args"] = [os.path.realpath(sys.executable), "-I", "-S", "-c", UNCOVER, __file__, capabilities]
    hosts = [path for path in ("/usr", "/lib", "/lib64", sys.base_prefix) if os.path.isdir(path)]
    for path in hosts:
        os.makedirs(f"{own_rootfs}{path}", exist_ok=True)
    config["mounts"] += [bind(path, path, "rbind", "ro") for path in hosts]
    if capabilities == "given":
        names = ["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"]
        config["process"]["capabilities"] = {kind: names for kind in ("bounding", "effective", "permitted")}
    if capabilities == "given" and not pivot:
        with pytest.raises(ConfigError, match=r"process.capabilities: CAP_SYS_ADMIN could uncover the host's root"):
            plan_of(config, pivot=pivot)
    else:
        assert printed(plan_of(config, pivot=pivot)) == "shut\n"


@pytest.mark.root
def test_without_a_mount_namespace_the_root_is_entered_and_the_tree_left_alone(busybox_rootfs: str) -> None:
    config = document(busybox_rootfs, "ls /; pwd")
    config["linux"]["namespaces"] = [{"type": "pid"}, {"type": "uts"}]
    config["mounts"], config["root"]["readonly"] = [], False
    del config["linux"]["maskedPaths"], config["linux"]["readonlyPaths"]
    before = mountinfo()
    assert printed(plan_of(config)).split() == [*sorted(os.listdir(busybox_rootfs)), "/"]
    assert mountinfo() == before


@pytest.mark.root
def test_a_remount_is_refused(busybox_rootfs: str) -> None:
    with pytest.raises(ConfigError, match=r"mounts\[\d+\].options"):
        run(["true"], rootfs=busybox_rootfs, mounts=[bind("/tmp", "/tmp", "bind", "remount")])


@pytest.mark.root
def test_a_mount_that_fails_is_named(busybox_rootfs: str) -> None:
    for mount, code in ((bind("/data", "/no/such", "bind"), errno.ENOENT),
                        ({"destination": "/data", "type": "nonsense", "source": "x"}, errno.ENODEV)):  # fmt: skip
        with pytest.raises(LaunchError) as failure:
            run(["true"], rootfs=busybox_rootfs, mounts=[mount])
        assert failure.value.errno == code
        assert any(word in failure.value.attempt for word in ("/no/such", "nonsense"))
