"""The guest's side: it carries out commands that come over TCP, a connection each. It runs as root, from systemd.

A connection brings one line of JSON; back come frames, a byte of kind and four of length before each: o and e are the
command's output, x its exit status and the last. A connection that closes early kills the command's scope.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
from typing import Any

USER, UID, PORT = "dev", 1000, 1
MS_RDONLY = 1
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOMES = {True: f"/home/{USER}", False: "/root"}
libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    os.makedirs(target, exist_ok=True)
    if libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()):
        raise OSError(ctypes.get_errno(), f"mount {source}: {os.strerror(ctypes.get_errno())}")


def show_tree(path: str) -> None:
    """The host's tree under its own path: read-only by 9p, with an overlay that takes what is written."""
    if os.path.ismount(path):
        return
    mount("tree", "/run/machine/tree", "9p", MS_RDONLY, "trans=virtio,version=9p2000.L,msize=262144,cache=loose")
    for name in ("upper", "work"):
        os.makedirs(f"/var/lib/machine/{name}", exist_ok=True)
    layers = "lowerdir=/run/machine/tree,upperdir=/var/lib/machine/upper,workdir=/var/lib/machine/work"
    mount("overlay", path, "overlay", 0, layers)


def spawn(request: dict[str, Any], number: int) -> subprocess.Popen[bytes]:
    """The command in a scope of its own, below system.slice or the user's manager, with its controllers delegated."""
    user = request["user"]
    who: dict[str, Any] = {"user": UID, "group": UID, "extra_groups": [UID]} if user else {}
    name = USER if user else "root"
    env = {"PATH": PATH, "LANG": "C.UTF-8", "TERM": "dumb", "HOME": HOMES[user], "USER": name, "LOGNAME": name}
    if user:
        env["XDG_RUNTIME_DIR"] = f"/run/user/{UID}"
        env["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path=/run/user/{UID}/bus"
    scope = ["systemd-run", *(["--user"] if user else []), "--scope", "--quiet", "--collect", "--property=Delegate=yes"]
    argv = request["argv"]
    if not shutil.which(argv[0], path=PATH):
        raise FileNotFoundError(f"{argv[0]}: no such command")
    return subprocess.Popen(
        [*scope, f"--unit=command-{number}", "--", *argv],
        cwd=request["cwd"],
        env=env | request["env"],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        **who,
    )


def kill(child: subprocess.Popen[bytes]) -> None:
    """All that is in the command's scope; what it moved elsewhere lives on, and the machine is thrown away anyway."""
    with open(f"/proc/{child.pid}/cgroup") as file:
        paths = [line.strip().split(":", 2)[2] for line in file if line.startswith("0::")]
    for path in paths:
        if "/command-" in path:
            with open(f"/sys/fs/cgroup{path.split('.scope')[0]}.scope/cgroup.kill", "w") as file:
                file.write("1")


def serve(connection: socket.socket, number: int) -> None:
    request = json.loads(connection.makefile("rb").readline())
    time.clock_settime(time.CLOCK_REALTIME, request["time"])

    def send(kind: bytes, data: bytes) -> None:
        connection.sendall(struct.pack(">cI", kind, len(data)) + data)

    try:
        show_tree(request["tree"])
        child = spawn(request, number)
    except OSError as error:
        send(b"e", f"agent: {error}\n".encode())
        return send(b"x", b"127")
    assert child.stdout and child.stderr
    pipes = {child.stdout.fileno(): b"o", child.stderr.fileno(): b"e"}
    ended = os.pidfd_open(child.pid)
    forward(connection, child, pipes, ended, send)
    os.close(ended)
    status = child.wait()
    send(b"x", str(status if status >= 0 else 128 - status).encode())


def forward(connection: socket.socket, child: Any, pipes: dict[int, bytes], ended: int, send: Any) -> None:
    """Pass the output on, until the command has ended and what it said is drained: daemons may keep its pipes open."""
    poll = select.poll()
    for fd in (*pipes, ended, connection.fileno()):
        poll.register(fd, select.POLLIN)
    timeout = None
    while True:
        events = [fd for fd, _ in poll.poll(timeout)]
        if connection.fileno() in events:
            kill(child)
            poll.unregister(connection.fileno())
        if ended in events:
            poll.unregister(ended)
            timeout = 0
        ready = [fd for fd in events if fd in pipes]
        if timeout == 0 and not ready:
            return
        for fd in ready:
            data = os.read(fd, 65536)
            if data:
                send(pipes[fd], data)
            else:
                poll.unregister(fd)
                del pipes[fd]


def main() -> None:
    commands = ("ip link set eth0 up", "ip addr add 10.0.2.15/24 dev eth0", "systemctl is-system-running --wait")
    for command in (*commands, f"systemctl start user@{UID}.service", "systemd-run --scope -q true"):
        subprocess.run(command.split(), stdout=subprocess.DEVNULL)
    listener = socket.create_server(("", PORT), backlog=16)
    with open("/dev/console", "w") as console:
        console.write("\nagent: ready\n")
    number = 0
    while True:
        connection, number = listener.accept()[0], number + 1
        threading.Thread(target=serve, args=(connection, number), daemon=True).start()


if __name__ == "__main__":
    main()
