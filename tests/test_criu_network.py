"""A container's network across a checkpoint: devices from the host, and the connections that go through them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import lacks
from saved import Obedient, Round, config_of, namespaces

from cycontainer.errors import ConfigError

pytestmark = [pytest.mark.root, pytest.mark.criu]

HERE, THERE = "10.88.77.1", "10.88.77.2"
PATIENCE = 20.0
ECHO = "nc -l -p 999 -e cat >/dev/null & until grep -q ':03E7 .* 0A ' /proc/net/tcp*; do :; done"
ATTACH = f"""#!/bin/sh
pid=$(sed 's/.*"pid": *\\([0-9]*\\).*/\\1/')
ip link add saved77 type veth peer name eth0 netns $pid
ip address add {HERE}/24 dev saved77
ip link set saved77 up
nsenter --net=/proc/$pid/ns/net sh -c 'ip address add {THERE}/24 dev eth0; ip link set eth0 up'
"""


@pytest.fixture
def top(tmp_path: object) -> str:
    return str(tmp_path)


@pytest.fixture
def attach(top: str) -> str:
    """A program that gives a container, whose state it reads, a device."""
    path = f"{top}/attach"
    with open(path, "w") as file:
        file.write(ATTACH)
    os.chmod(path, 0o755)
    return path


def survives(config: dict[str, Any], top: str) -> None:
    """A connection from the host, and what is sent by it meanwhile."""
    root, options = f"{top}/states", {"tcp_established": True}
    with Obedient.start("one", config, root) as first:
        first.do(ECHO)
        connection = socket.create_connection((THERE, 999), PATIENCE)
        with connection:
            connection.sendall(b"before")
            assert connection.recv(100) == b"before"
            first.container.checkpoint(f"{top}/images", **options)
            first.container.delete()
            connection.sendall(b"meanwhile")
            with Obedient.restore("two", config, f"{top}/images", root, **options):
                assert connection.recv(100) == b"meanwhile"
                connection.sendall(b"after")
                assert connection.recv(100) == b"after"


def test_a_device_that_a_hook_makes(busybox_rootfs: str, top: str, attach: str) -> None:
    config = config_of(busybox_rootfs)
    config["hooks"] = {"createRuntime": [{"path": attach}]}
    survives(config, top)


def test_sysctls_of_its_network(busybox_rootfs: str, top: str) -> None:
    look = "cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/conf/lo/forwarding /proc/sys/kernel/msgmax"
    sysctls = {"net.core.somaxconn": "77", "net.ipv4.conf.lo.forwarding": "0", "kernel.msgmax": "9000"}
    config = config_of(busybox_rootfs, sysctl=sysctls)
    assert Round(top, config).run(look, look, times=2) == ["77\n0\n9000\n"] * 3
    sysctls["net.core.nothing"] = "1"
    with pytest.raises(ConfigError, match=r"linux\.sysctl: net/core/nothing: ENOENT"):
        Obedient.restore("one", config, f"{top}/images-0", f"{top}/states")
    assert os.listdir(f"{top}/states") == []


@pytest.fixture
def holder(attach: str) -> Iterator[int]:
    """A process in a network namespace with a device."""
    words = ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; exec sleep 1000"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    subprocess.run([attach], input=f'{{"pid": {process.pid}}}', text=True, check=True)
    yield process.pid
    process.kill()
    process.communicate()


@pytest.mark.parametrize("lock", ["nftables", "iptables"])
def test_a_device_of_a_namespace_that_is_joined(busybox_rootfs: str, top: str, holder: int, lock: str) -> None:
    if lock == "iptables" and shutil.which("iptables-restore") is None:
        lacks("iptables")
    survives(config_of(busybox_rootfs, namespaces=namespaces(network=f"/proc/{holder}/ns/net")), top)
