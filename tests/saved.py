"""Containers whose program does what it is told, line by line: what tests of checkpoint and restore look into."""

from __future__ import annotations

import os
import textwrap
from typing import Any

from cycontainer.lifecycle import Container
from cycontainer.spec import default_config
from cycontainer.streams import DEVNULL, PIPE

OBEY = 'while read -r line; do eval "$line"; echo .; done'
OBEY_PYTHON = "import sys\nfor line in sys.stdin:\n    exec(line, globals())\n    print('.', flush=True)"
KINDS = ("pid", "mount", "ipc", "uts", "network", "cgroup")


def namespaces(without: tuple[str, ...] = (), /, **paths: str) -> list[dict[str, str]]:
    """`linux.namespaces`: new ones but for those in `without`, and those in `paths`, which are joined."""
    found = [{"type": kind} for kind in KINDS if kind not in (*without, *paths)]
    return found + [{"type": kind, "path": path} for kind, path in paths.items()]


def config_of(rootfs: str, *args: str, **linux: object) -> dict[str, Any]:
    """A configuration whose program obeys, unless `args` says otherwise; what it may write is /tmp."""
    config = default_config()
    config["root"] = {"path": rootfs, "readonly": True}
    config["process"].update(args=list(args) or ["sh", "-c", OBEY], terminal=False, env=["PATH=/bin"])
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": []})
    config["linux"].update(linux)
    del config["hostname"]
    return config


def python_config(rootfs: str, **linux: object) -> dict[str, Any]:
    """The same with this machine's Python, on a root that is made; it obeys what `python` makes of lines of it."""
    os.mkdir(rootfs)
    config = config_of(rootfs, "/usr/bin/python3", "-I", "-S", "-c", OBEY_PYTHON, **linux)
    for path in ("/usr", "/lib", "/lib64"):
        if os.path.isdir(path):
            volume = {"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]}
            config["mounts"].append(volume)
    return config


def python(text: str) -> str:
    """A line that does what several do."""
    return f"exec({textwrap.dedent(text)!r}, globals())"


class Obedient:
    """A container and the pipes to its program."""

    def __init__(self, container: Container) -> None:
        self.container = container

    @classmethod
    def start(cls, name: str, config: dict[str, Any], root: str) -> Obedient:
        container = Container.create(name, config, root=root, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        container.start()
        return cls(container)

    @classmethod
    def restore(cls, name: str, config: dict[str, Any], images: str, root: str, **options: Any) -> Obedient:
        streams: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": DEVNULL}
        return cls(Container.restore(name, config, images, root=root, **streams, **options))

    def __enter__(self) -> Obedient:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.delete(force=True)

    def do(self, line: str) -> str:
        """What the line prints."""
        process = self.container.process
        assert process is not None and process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{line}\n".encode())
        process.stdin.flush()
        found = b""
        while (each := process.stdout.readline()) != b".\n":
            assert each, f"the program has ended, having said {found!r}"
            found += each
        return found.decode()


class Round:
    """What is done to a container: lines before, a checkpoint, a restore, lines after; several times."""

    def __init__(self, top: str, config: dict[str, Any]) -> None:
        self.top, self.config, self.root = top, config, f"{top}/states"

    def run(
        self,
        before: str,
        after: str,
        times: int = 1,
        saving: dict[str, Any] | None = None,
        restoring: dict[str, Any] | None = None,
    ) -> list[str]:
        """What `before` said, and `after` each time."""
        subject = Obedient.start("first", self.config, self.root)
        try:
            said = [subject.do(before)]
            for number in range(times):
                images = f"{self.top}/images-{number}"
                subject.container.checkpoint(images, **saving or {})
                subject.container.delete()
                subject = Obedient.restore(f"next-{number}", self.config, images, self.root, **restoring or {})
                said.append(subject.do(after))
        finally:
            subject.container.delete(force=True)
        assert os.listdir(self.root) == []
        return said
