"""Live migration: a counting container moves from one host to another, and goes on counting.

    sudo PATH=/opt/criu-4/bin:$PATH python examples/live_migration.py

The two hosts are two processes on this machine, each in mount and network namespaces of its own, joined by a veth pair.
The container's memory goes straight to the other host's criu page-server; where the kernel can track what changes
(CONFIG_MEM_SOFT_DIRTY), most of it goes while the container still runs. The other images, some kilobytes, follow by a
socket. Printed is how long the container stood still: from the beginning of the last dump to the end of the restore.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from typing import Any

from cycontainer import Container, HostError
from cycontainer.spec import default_config
from cycontainer.streams import DEVNULL, PIPE

COUNT = "i=0; while read line; do i=$((i+1)); echo $i; done"
ADDRESSES = {"here": "10.77.0.1", "there": "10.77.0.2"}
PAGES, FILES = 27000, 27001  # ports


def config(rootfs: str) -> dict[str, Any]:
    """A container whose program counts the lines that it reads."""
    wanted: dict[str, Any] = default_config()
    wanted["root"] = {"path": rootfs, "readonly": True}
    wanted["process"].update(args=["sh", "-c", COUNT], terminal=False, env=["PATH=/bin"])
    return wanted


def count(container: Container) -> int:
    """Give it a line, and read how many it had."""
    process = container.process
    assert process is not None and process.stdin is not None and process.stdout is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    return int(process.stdout.readline())


class Here:
    """The host that the container runs on at first."""

    def __init__(self, top: str) -> None:
        self.top, self.pre_dumps = top, 0

    def start(self) -> int:
        self.container = Container.create(
            "counter", config(f"{self.top}/rootfs"), root=f"{self.top}/here", stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
        self.container.start()
        return [count(self.container) for _ in range(3)][-1]

    def pre_dump(self) -> bool:
        """Send the memory, or what of it has changed since, while it runs; False where the kernel cannot tell."""
        try:
            self.container.pre_dump(self._next(), page_server=f"{ADDRESSES['there']}:{PAGES}", **self._parent())
        except HostError:
            return False
        self.pre_dumps += 1
        return True

    def send(self) -> float:
        """Stop it and send the rest; when that began."""
        began = time.monotonic()
        self.container.checkpoint(self._next(), page_server=f"{ADDRESSES['there']}:{PAGES}", **self._parent())
        with (
            socket.create_connection((ADDRESSES["there"], FILES)) as peer,
            peer.makefile("wb") as stream,
            tarfile.open(fileobj=stream, mode="w|") as archive,
        ):
            archive.add(self._next(), arcname=".")
        self.container.delete()
        return began

    def _next(self) -> str:
        return f"{self.top}/here-images-{self.pre_dumps}"

    def _parent(self) -> dict[str, str]:
        return {"parent_path": f"../here-images-{self.pre_dumps - 1}"} if self.pre_dumps else {}


class There:
    """The host that it moves to."""

    def __init__(self, top: str) -> None:
        self.top, self.received = top, 0

    def listen(self) -> None:
        """Start a page-server for one dump: its images are to be here."""
        os.mkdir(self._images())
        words = ["criu", "page-server", "--images-dir", self._images(), "--port", str(PAGES), "--status-fd", "1"]
        if self.received:
            words += ["--prev-images-dir", f"../there-images-{self.received - 1}"]
        self.server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.server.stdout is not None
        self.server.stdout.read(1)  # it says when it listens
        self.files = socket.create_server((ADDRESSES["there"], FILES))

    def pages_came(self) -> None:
        """A pre-dump is over."""
        self.server.communicate()
        self.files.close()
        self.received += 1

    def restore(self) -> tuple[float, int]:
        """Take the rest, and let the container go on; when that was done, and where it is."""
        peer, _ = self.files.accept()
        with self.files, peer, peer.makefile("rb") as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                self._store(archive, member)
        self.server.communicate()
        container = Container.restore(
            "counter",
            config(f"{self.top}/rootfs"),
            self._images(),
            root=f"{self.top}/there",
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
        )
        with container:
            return time.monotonic(), count(container)

    def enough(self) -> bool:
        """Whether another pre-dump would be one too many."""
        return self.received == 3

    def _store(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        content = archive.extractfile(member) if member.isfile() else None  # its link to a parent is made here
        if content is not None:
            with content, open(f"{self._images()}/{os.path.basename(member.name)}", "xb") as file:
                shutil.copyfileobj(content, file)

    def _images(self) -> str:
        return f"{self.top}/there-images-{self.received}"


def serve(host: Here | There) -> None:
    """Call the methods whose names come in, a line each, and write what they return."""
    print("null", flush=True)
    for line in sys.stdin:
        print(json.dumps(getattr(host, line.strip())()), flush=True)


class Host:
    """A process in a mount and a network namespace of its own."""

    def __init__(self, name: str, top: str) -> None:
        words = ["unshare", "--mount", "--net", sys.executable, __file__, name, top]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.read()

    def tell(self, method: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{method}\n")
        self.process.stdin.flush()

    def read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else sys.exit("a host has ended")

    def call(self, method: str) -> Any:
        self.tell(method)
        return self.read()


def connect(here: Host, there: Host) -> None:
    """A veth pair between the two."""
    pids = (here.process.pid, there.process.pid)
    for words in (
        f"ip link add moving netns {pids[0]} type veth peer name moving netns {pids[1]}",
        *(
            f"nsenter --net=/proc/{pid}/ns/net ip {command}"
            for pid, address in zip(pids, ADDRESSES.values(), strict=True)
            for command in (f"address add {address}/24 dev moving", "link set moving up", "link set lo up")
        ),
    ):
        subprocess.run(words.split(), check=True)


def migrate(top: str) -> None:
    here, there = Host("here", top), Host("there", top)
    connect(here, there)
    before = here.call("start")
    there.call("listen")
    while here.call("pre_dump"):
        there.call("pages_came")
        there.call("listen")
        if there.call("enough"):
            break
    there.tell("restore")
    began = here.call("send")
    done, after = there.read()
    print(f"it counted to {before} here and to {after} there; it stood still for {1000 * (done - began):.0f} ms")
    for host in (here, there):
        host.process.communicate()


def main() -> None:
    if len(sys.argv) == 3:
        serve(Here(sys.argv[2]) if sys.argv[1] == "here" else There(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory(prefix="migration-") as top:
        os.mkdir(f"{top}/rootfs")
        for name in ("bin", "dev", "proc", "sys"):
            os.mkdir(f"{top}/rootfs/{name}")
        busybox = shutil.which("busybox") or sys.exit("needs a static busybox")
        shutil.copy(busybox, f"{top}/rootfs/bin/busybox")
        os.symlink("busybox", f"{top}/rootfs/bin/sh")
        migrate(top)


if __name__ == "__main__":
    main()
