"""sd_notify(3) from inside: READY=1 of a container's program is passed on to who started us. Lifecycle.

The program finds a socket of ours at /run/notify/notify.sock. What it sends is not to be trusted: of all messages only
the line READY=1 is heard, once, and nothing of it is passed on but that.
"""

from __future__ import annotations

import os

from cycontainer import _unix
from cycontainer.config import Mount
from cycontainer.errors import LaunchError, errno_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket
    from typing import Final

    from cycontainer.config import Config

INSIDE: Final = "/run/notify"
NAME: Final = "notify.sock"
MOST_BYTES: Final = 4096  # of one message
PATIENCE_MS: Final = 5000  # for the service manager to have read


def with_socket(config: Config, directory: str) -> Config:
    """The configuration with the directory of the socket in it, and a variable that leads there."""
    if config.process is None:
        return config
    options = ("bind", "nosuid", "noexec", "nodev", "ro")
    mount = Mount(destination=INSIDE, type="bind", source=directory, options=options)
    own = tuple(entry for entry in config.process.env if not entry.startswith("NOTIFY_SOCKET="))
    process = config.process.replace(env=(*own, f"NOTIFY_SOCKET={INSIDE}/{NAME}"))
    return config.replace(mounts=(*config.mounts, mount), process=process)


class Listener:
    """The socket in a container's directory, from before its start until READY=1 has come, or its end."""

    def __init__(self, directory: str, service_manager: str, pid: int, pidfd: int) -> None:
        """Args: the host's directory of the socket; where the service manager listens, a path or "@" and a name; the
        container's first process, whose pidfd stays the caller's.

        Raises LaunchError.
        """
        import socket

        self._pid, self._pidfd = pid, pidfd

        self._manager = os.fsencode(service_manager)
        if self._manager.startswith(b"@"):
            self._manager = b"\0" + self._manager[1:]
        self._socket: socket.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        top = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            path = f"/proc/self/fd/{top}/{NAME}"  # a socket's path has at most 107 bytes
            self._socket.bind(path)
            os.chmod(path, 0o666)  # the program may be anyone
            self._pidfd = os.dup(pidfd)
        except OSError as error:
            self._socket.close()
            raise LaunchError(f"listen for readiness in {directory}", errno_of(error), 0, 0) from None
        finally:
            os.close(top)

    def relay(self) -> None:
        """Wait for READY=1, or the end of the process, and tell the service manager; then all is closed.

        Raises LaunchError: the service manager does not listen.
        """
        import select

        watch = select.poll()
        watch.register(self._socket, select.POLLIN)
        watch.register(self._pidfd, select.POLLIN)
        try:
            while True:
                ready = dict(watch.poll())
                if self._socket.fileno() in ready and b"READY=1" in self._socket.recv(MOST_BYTES).split(b"\n"):
                    self._tell()
                    return
                if self._pidfd in ready:
                    return
        finally:
            self.close()

    def relay_in_background(self, warn: Callable[[str], None]) -> None:
        """`relay` in a thread of its own, as long as this process lives; `warn`: told when nobody listens."""
        from threading import Thread

        def wait() -> None:
            try:
                self.relay()
            except LaunchError as error:
                warn(str(error))

        Thread(target=wait, daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
        os.close(self._pidfd)

    def _tell(self) -> None:
        """Say it, and wait until it was read: the manager looks who we are while we are still there."""
        import select

        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            _unix.send(self._manager, b"READY=1\nMAINPID=%d\n" % self._pid, datagram=True)
            _unix.send(self._manager, b"BARRIER=1", (writer,), datagram=True)
        except OSError as error:
            raise LaunchError("tell the service manager that it is ready", errno_of(error), 0, 0) from None
        finally:
            os.close(writer)
            watch = select.poll()
            watch.register(reader, 0)  # POLLHUP comes unasked
            watch.poll(PATIENCE_MS)
            os.close(reader)
