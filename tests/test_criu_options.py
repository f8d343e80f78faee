"""What is saved or restored only when asked for: an error names the option that it takes, with which it succeeds."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from saved import Obedient, Round, config_of, namespaces, python, python_config

from cycontainer.errors import CriuError
from cycontainer.lifecycle import Container
from cycontainer.streams import DEVNULL, PIPE

pytestmark = [pytest.mark.root, pytest.mark.criu]


@pytest.fixture
def top(tmp_path: object) -> str:
    return str(tmp_path)


def refused(subject: Obedient, images: str, option: str, **saving: Any) -> None:
    """A checkpoint names the option that it takes, and the container runs on."""
    with pytest.raises(CriuError, match=option):
        subject.container.checkpoint(images, **saving)
    assert subject.do("echo here") == "here\n"


def test_a_deleted_file_with_another_name(busybox_rootfs: str, top: str) -> None:
    config = config_of(busybox_rootfs)
    make = "echo x >/tmp/a; ln /tmp/a /tmp/b; exec 5</tmp/a; rm /tmp/a"
    with Obedient.start("one", config, f"{top}/states") as subject:
        subject.do(make)
        refused(subject, f"{top}/images", "--link-remap")
    said = Round(top, config).run(make, "cat <&5; ls /tmp", saving={"link_remap": True})
    assert said[1] == "x\nb\n"


# --- connections


CONNECT = """
    import socket
    server = socket.create_server(("127.0.0.1", 999))
    client = socket.create_connection(("127.0.0.1", 999))
"""
TRY = """
    def tried(call, *args):
        try: return call(*args)
        except OSError as error: return error.strerror
    server.settimeout(0)
    tried(client.send, b"x")
    print(tried(client.recv, 1) in (b"", "Connection reset by peer"), tried(server.accept))
    print(tried(lambda: socket.create_connection(("127.0.0.1", 999)).send(b"x")))
"""


def test_connections_are_closed(top: str) -> None:
    config, images, root = python_config(f"{top}/root"), f"{top}/images", f"{top}/states"
    with Obedient.start("one", config, root) as first:
        first.do(python(CONNECT + "    peer = server.accept()"))
        first.container.checkpoint(images, tcp_established=True)
    with pytest.raises(CriuError, match=r"restore with --tcp-established .*, or --tcp-close"):
        Obedient.restore("two", config, images, root)
    assert os.listdir(root) == []
    with Obedient.restore("two", config, images, root, tcp_close=True) as second:
        assert second.do(python(TRY)) == "True Resource temporarily unavailable\n1\n"


def test_connections_that_are_being_made(top: str) -> None:
    config, saving = python_config(f"{top}/root"), {"tcp_established": True}
    with Obedient.start("one", config, f"{top}/states") as subject:
        subject.do(python(CONNECT))
        with pytest.raises(CriuError, match="--tcp-skip-in-flight"):
            subject.container.checkpoint(f"{top}/images", **saving)
        assert subject.do("print('here')") == "here\n"
    round = Round(top, config)
    said = round.run(python(CONNECT), python(TRY), saving={**saving, "tcp_skip_in_flight": True}, restoring=saving)
    assert said[1] == "True Resource temporarily unavailable\n1\n"


@pytest.fixture
def listener(top: str) -> Iterator[socket.socket]:
    """A datagram socket of the host, in a directory that is to have the same path inside."""
    os.mkdir(f"{top}/sockets")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(f"{top}/sockets/log")
        yield found


def test_a_datagram_socket_to_the_host(own_rootfs: str, top: str, listener: socket.socket) -> None:
    config, root = config_of(own_rootfs, namespaces=namespaces(("network",))), f"{top}/states"
    path = f"{top}/sockets"
    config["mounts"].append({"destination": path, "type": "bind", "source": path, "options": ["bind"]})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.connect(f"{path}/log")
        streams: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": DEVNULL}
        container = Container.create("one", config, root=root, pass_fds=(ours.fileno(),), **streams)
    with Obedient(container) as first:
        container.start()
        first.do("echo before >&3")
        refused(first, f"{top}/images", "--ext-unix-sk")
        container.checkpoint(f"{top}/images", ext_unix_sk=True)
    with Obedient.restore("two", config, f"{top}/images", root, ext_unix_sk=True) as second:
        second.do("echo after >&3")
    assert [listener.recv(100) for _ in range(2)] == [b"before\n", b"after\n"]


# --- images


def test_what_is_restored_is_taken_out_of_the_image(busybox_rootfs: str, top: str) -> None:
    config, root = config_of(busybox_rootfs), f"{top}/states"
    with Obedient.start("one", config, root) as first:
        first.do("a=$(head -c 1000000 /dev/zero | tr '\\0' x)")
        first.container.checkpoint(f"{top}/images")
    before = os.stat(f"{top}/images/pages-1.img")
    with Obedient.restore("two", config, f"{top}/images", root, auto_dedup=True) as second:
        assert second.do("echo ${#a}") == "1000000\n"
    after = os.stat(f"{top}/images/pages-1.img")
    assert (after.st_size, after.st_blocks < before.st_blocks / 2) == (before.st_size, True)
