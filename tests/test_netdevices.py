"""Network devices move into a container's network namespace with what they have, or stay where they were."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from launching import document, launched, plan_of, printed

from cycontainer.errors import ConfigError, LaunchError
from cycontainer.netdevices import NetworkDevices, move_in, put_back

pytestmark = pytest.mark.root


def ip(*words: str, there: int | None = None) -> str:
    """What ip(8) prints, here or in an open namespace."""
    enter = [] if there is None else ["nsenter", f"--net=/proc/self/fd/{there}"]
    descriptors = () if there is None else (there,)
    done = subprocess.run([*enter, "ip", *words], check=True, capture_output=True, text=True, pass_fds=descriptors)
    return done.stdout


def device(name: str, there: int | None = None) -> dict[str, Any]:
    found = json.loads(ip("-json", "address", "show", "dev", name, there=there))
    entry: dict[str, Any] = next(entry for entry in found if entry)
    return entry


def addresses(name: str, there: int | None = None) -> list[tuple[str, int, str | None, str | None]]:
    """Of what ip(8) says: address, prefix, broadcast, label; those of IPv6's link left out."""
    found = [
        entry for entry in device(name, there)["addr_info"] if entry["family"] == "inet" or entry["scope"] == "global"
    ]
    return [(entry["local"], entry["prefixlen"], entry.get("broadcast"), entry.get("label")) for entry in found]


@pytest.fixture
def namespace() -> Iterator[int]:
    """A network namespace that nobody is in."""
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin and holder.stdout
    holder.stdout.readline()
    fd = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    holder.communicate(b"\n")
    yield fd
    os.close(fd)


@pytest.fixture
def veth() -> Iterator[str]:
    """One end of a pair, up, with two addresses of IPv4, one of them with a broadcast set by hand, and one of IPv6."""
    ip("link", "add", "cyt0", "type", "veth", "peer", "name", "cyt1")
    ip("link", "set", "cyt1", "up")
    ip("link", "set", "cyt0", "up", "mtu", "1400", "alias", "given by hand")
    ip("address", "add", "10.7.0.2/24", "broadcast", "10.7.0.99", "label", "cyt0:a", "dev", "cyt0")
    ip("address", "add", "10.8.0.2", "peer", "10.8.0.9/32", "dev", "cyt0")
    ip("address", "add", "fd07::2/64", "nodad", "dev", "cyt0")
    yield "cyt0"
    subprocess.run(["ip", "link", "delete", "cyt1"], capture_output=True)  # it may have gone with its peer's namespace


def test_a_device_moves_with_its_addresses_and_is_up(veth: str, namespace: int) -> None:
    move_in(((veth, "eth0"),), namespace)
    there = device("eth0", namespace)
    assert "UP" in there["flags"] and there["mtu"] == 1400
    assert "given by hand" in ip("link", "show", "eth0", there=namespace)
    found = addresses("eth0", namespace)
    assert ("10.7.0.2", 24, "10.7.0.99", "eth0:a") in found
    assert ("10.8.0.2", 32, None, "eth0") in found
    assert ("fd07::2", 64, None, None) in found
    routes = ip("route", "show", there=namespace)
    assert "10.7.0.0/24 dev eth0" in routes and "10.8.0.9 dev eth0" in routes
    assert "cyt0" not in [name for name in os.listdir("/sys/class/net")]


def test_what_was_moved_can_be_put_back(veth: str, namespace: int) -> None:
    before = addresses(veth)
    moved = move_in(((veth, "eth0"),), namespace)
    put_back(moved, namespace)
    assert addresses(veth) == before
    assert "UP" in device(veth)["flags"]


def test_one_device_that_fails_brings_all_back(veth: str, namespace: int) -> None:
    before = addresses(veth)
    with pytest.raises(ConfigError, match="cannot be moved") as failure:
        move_in(((veth, "eth0"), ("lo", "lo7")), namespace)
    assert failure.value.path == "linux.netDevices.lo"
    assert addresses(veth) == before
    assert "UP" in device(veth)["flags"]


@pytest.mark.parametrize(
    ("devices", "path", "problem"),
    [
        ((("nosuch", "eth0"),), "linux.netDevices.nosuch", "no network device"),
        ((("no-such", "eth0"),), "linux.netDevices['no-such']", "no network device"),
        ((("cyt0", "lo"),), "linux.netDevices.cyt0", "has a device lo already"),
    ],
)
def test_a_device_that_cannot_be_moved_is_named(
    veth: str, namespace: int, devices: tuple[tuple[str, str], ...], path: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as failure:
        move_in(devices, namespace)
    assert failure.value.path == path
    assert device(veth)["ifname"] == veth


def test_addresses_that_time_out_stay_behind(veth: str, namespace: int) -> None:
    ip("address", "add", "10.9.0.2/24", "valid_lft", "1000", "preferred_lft", "1000", "dev", veth)
    move_in(((veth, veth),), namespace)
    assert "10.9.0.2" not in [each[0] for each in addresses(veth, namespace)]


def test_the_caller_stays_in_its_own_namespace(veth: str, namespace: int) -> None:
    before = os.readlink("/proc/thread-self/ns/net")
    move_in(((veth, "eth0"),), namespace)
    assert os.readlink("/proc/thread-self/ns/net") == before


def test_a_container_has_its_devices_and_their_sysctls(veth: str, busybox_rootfs: str) -> None:
    script = "ip addr show eth0; cat /proc/sys/net/ipv4/conf/eth0/forwarding"
    sysctl = {"net.ipv4.conf.eth0.forwarding": "1"}
    plan = plan_of(document(busybox_rootfs, script, sysctl=sysctl, netDevices={veth: {"name": "eth0"}}))
    with NetworkDevices(((veth, "eth0"),)) as moving:
        text = printed(plan, {"runtime": lambda child: moving.move_to(child.pid)})
    assert "inet 10.7.0.2/24 brd 10.7.0.99 scope global eth0" in text and text.endswith("\n1\n")


def test_a_launch_that_fails_later_gives_its_devices_back(veth: str, busybox_rootfs: str) -> None:
    before = addresses(veth)
    sysctl = {"net.no-such-sysctl": "1"}
    plan = plan_of(document(busybox_rootfs, sysctl=sysctl, netDevices={veth: {"name": "eth0"}}))
    with pytest.raises(LaunchError, match="no-such-sysctl"), NetworkDevices(((veth, "eth0"),)) as moving:
        launched(plan, {"runtime": lambda child: moving.move_to(child.pid)})
    assert addresses(veth) == before
