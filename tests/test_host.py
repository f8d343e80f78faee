"""What is known of the machine and the caller, and when it is asked again."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable
from typing import Any

import pytest

from cycontainer import cgroup_layout
from cycontainer.cgroup_layout import read_layout
from cycontainer.errors import HostError
from cycontainer.host import Host, current, probe, require_kernel, subordinate_ranges

V1_MOUNTS = """\
22 27 0:21 / /sys rw - sysfs sysfs rw
27 1 254:0 / / rw - ext4 /dev/vda rw
31 22 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
"""
V1_OWN = "3:name=systemd:/user.slice/s\n2:memory:/user.slice\n1:cpu,cpuacct:/\n"
V2_MOUNT = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"


def mounts_of(mountinfo: str, own: str) -> list[tuple[tuple[str, ...], str, str]]:
    return [(each.controllers, each.mount, each.own) for each in read_layout(mountinfo, own).v1]


# --- layouts


def test_co_mounted_and_named_hierarchies_are_told_apart() -> None:
    assert read_layout(V1_MOUNTS, V1_OWN).mode == "v1"
    assert mounts_of(V1_MOUNTS, V1_OWN) == [
        (("name=systemd",), "/sys/fs/cgroup/systemd", "/user.slice/s"),
        (("memory",), "/sys/fs/cgroup/memory", "/user.slice"),
        (("cpu", "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct", "/"),
    ]


def test_both_versions_together_are_hybrid() -> None:
    layout = read_layout(V1_MOUNTS + V2_MOUNT, V1_OWN + "0::/user.slice/s\n", "hugetlb\n")
    assert layout.mode == "hybrid" and layout.v2 is not None
    assert (layout.v2.mount, layout.v2.own) == ("/sys/fs/cgroup/unified", "/user.slice/s")
    assert layout.v2.controllers == ("hugetlb",)


def test_cgroup2_alone_is_v2() -> None:
    layout = read_layout("31 1 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n", "0::/a\n", "cpu memory pids\n")
    assert layout.mode == "v2" and layout.v2 is not None
    assert layout.v2.controllers == ("cpu", "memory", "pids")


def test_what_is_not_mounted_is_not_there() -> None:
    assert read_layout("27 1 254:0 / / rw - ext4 /dev/vda rw\n", V1_OWN).mode == "none"
    assert read_layout(V1_MOUNTS, "").mode == "none"


@pytest.mark.parametrize(
    ("root", "path", "own"),
    [
        ("/docker/a", "/docker/a", "/"),
        ("/docker/a", "/docker/a/b", "/b"),
        ("/docker/a", "/docker/ab", "/"),  # a neighbour, not below
        ("/", "/../x", "/"),  # outside of our cgroup namespace
        ("/..", "/", "/"),
    ],
)
def test_a_place_is_told_from_the_mount_on(root: str, path: str, own: str) -> None:
    mount = f"33 31 0:30 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    assert mounts_of(mount, f"2:memory:{path}\n") == [(("memory",), "/sys/fs/cgroup/memory", own)]


def test_of_two_mounts_the_one_that_shows_the_caller_is_taken() -> None:
    mounts = (
        "33 31 0:30 /other /mnt/one rw - cgroup cgroup rw,memory\n"
        "34 31 0:30 / /mnt/with\\040blank\\134 rw - cgroup cgroup rw,memory\n"
    )
    assert mounts_of(mounts, "2:memory:/mine\n") == [(("memory",), "/mnt/with blank\\", "/mine")]


@pytest.mark.parametrize(
    "hiding",
    [
        "50 33 0:50 / /sys/fs/cgroup/memory rw - tmpfs tmpfs rw\n",  # over it
        "50 31 0:50 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n",  # over what it stands on
        "50 22 0:50 / /sys/fs rw - tmpfs tmpfs rw\n",  # over a directory above that
    ],
)
def test_a_mount_that_another_hides_is_not_there(hiding: str) -> None:
    assert not [each for each in mounts_of(V1_MOUNTS + hiding, V1_OWN) if each[0] == ("memory",)]


def test_mounts_that_neither_lead_to_a_cgroup_nor_hide_one_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at, record = [], cgroup_layout._Mount

    def count(**fields: Any) -> object:
        looked_at.append(fields["point"])
        return record(**fields)

    monkeypatch.setattr(cgroup_layout, "_Mount", count)
    others = [f"{number} 22 0:50 / /var/lib/{number} rw - overlay overlay rw\n" for number in range(1000, 2000)]
    assert mounts_of(V1_MOUNTS + "".join(others), V1_OWN) == mounts_of(V1_MOUNTS, V1_OWN)
    assert len(looked_at) <= 2 * V1_MOUNTS.count("\n")


# --- this machine


def test_this_machine_is_described() -> None:
    host = probe()
    system = os.uname()
    assert host.kernel == tuple(map(int, system.release.split(".")[:2]))
    assert (host.machine, host.uid, host.gid) == (system.machine, os.geteuid(), os.getegid())
    assert host.last_capability >= 40
    for hierarchy in host.cgroups.v1:
        assert os.path.exists(f"{hierarchy.mount}{hierarchy.own}/tasks")


def test_an_old_kernel_is_refused_in_one_sentence() -> None:
    with pytest.raises(HostError, match=r"^Linux 5\.13 is too old: cycontainer needs 5\.14 or newer$"):
        require_kernel(probe().replace(kernel=(5, 13)))
    require_kernel(probe().replace(kernel=(5, 14)))


def test_subordinate_ids_are_those_of_the_caller_s_uid_and_names() -> None:
    text = "ann:100000:65536\nbob:200000:65536\n1000:300000:10\nann:4000000000:900000000\nann:x:1\nann:5\n\nann:7:0\n"
    assert subordinate_ranges(text, frozenset({"ann", "1000"})) == ((100000, 65536), (300000, 10))
    assert subordinate_ranges("", frozenset({"ann"})) == ()


# --- kept, and asked again


def in_child(work: Callable[[], bool]) -> bool:
    """Whether `work` returns true in a forked child."""
    child = os.fork()
    if child == 0:
        answer = 2
        try:
            answer = 0 if work() else 1
        finally:
            os._exit(answer)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_it_is_kept() -> None:
    host: Host = current()
    assert current() is host


@pytest.mark.root
def test_a_change_of_ids_is_seen() -> None:
    def work() -> bool:
        current()
        os.setgroups([7])
        seen = current().groups == (7,)
        os.setegid(65534)
        seen &= current().gid == 65534
        os.seteuid(65534)
        return seen and current().uid == 65534 and not current().privileged

    assert in_child(work)


@pytest.mark.root
def test_a_mount_is_seen_by_parent_and_child_alike() -> None:
    libc = ctypes.CDLL(None)
    before = current()
    with tempfile.TemporaryDirectory() as point:
        assert libc.mount(b"none", point.encode(), b"tmpfs", 0, None) == 0
        try:
            assert in_child(lambda: current() is not before)  # which must not take the news from us
            assert current() is not before
            assert current() is current()
        finally:
            libc.umount2(point.encode(), 2)


def test_a_program_that_closes_all_descriptors_is_served() -> None:
    def work() -> bool:
        host = current()
        os.closerange(3, 100)
        strangers = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
        seen = current() == host
        return seen and all(os.fstat(fd) for fd in strangers)

    assert in_child(work)


@pytest.mark.root
def test_a_nested_user_namespace_is_not_the_first() -> None:
    def work() -> bool:
        first = current().initial_user_namespace
        assert ctypes.CDLL(None).unshare(0x10000000) == 0
        return first != current().initial_user_namespace or not first

    assert in_child(work)
