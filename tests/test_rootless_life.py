"""A container's life as an ordinary user: no group, no range of ids, no capability."""

from __future__ import annotations

import os
import tempfile

from ordinary import OrdinaryUser

from cycontainer.lifecycle import Container
from cycontainer.spec import default_config
from cycontainer.streams import DEVNULL, PIPE


def config_for(rootfs: str, ids: tuple[int, int], *args: str) -> dict[str, object]:
    config = default_config(ids)
    config["root"]["path"] = rootfs
    config["process"].update(args=list(args), env=["PATH=/bin"], terminal=False)
    return config


def life(rootfs: str) -> list[object]:
    root = tempfile.mkdtemp()
    ids = os.getuid(), os.getgid()
    seen: list[object] = []
    with Container.create("one", config_for(rootfs, ids, "sleep", "100"), root=root, stdin=DEVNULL) as container:
        seen.append(container.status)
        container.start()
        seen.append(container.status)
        with container.exec(["sh", "-c", "id -u; hostname; cat"], stdin=PIPE, stdout=PIPE) as process:
            seen.append(process.communicate(b"in")[0])
        with container.exec(["sh", "-c", "tty"], terminal=True) as process:
            seen.append(os.read(process.terminal, 100).strip())
            process.wait(10)
        seen.append(len(container.pids()))
        container.kill()
        seen.append(container.wait(10))
    seen.append(os.listdir(root))
    os.rmdir(root)
    return seen


def test_an_ordinary_user_has_the_whole_life(busybox_rootfs: str, ordinary_user: OrdinaryUser) -> None:
    seen = ordinary_user(life, busybox_rootfs)
    assert seen == ["created", "running", b"0\ncycontainer\nin", b"/dev/pts/0", 1, -9, []]
