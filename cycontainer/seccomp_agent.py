"""The agent at `listenerPath`: it is sent a container's seccomp listener, and answers system calls. Lifecycle.

Source: runtime-spec 1.3, config-linux.md, "Seccomp" and "The Container Process State".
"""

from __future__ import annotations

import errno

from cycontainer._fd import close_all
from cycontainer._listener import get_descriptor
from cycontainer.deletion import kill_all
from cycontainer.errors import LaunchError
from cycontainer.launch import open_gate
from cycontainer.state import oci_state
from cycontainer.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final

    from cycontainer.config import Config
    from cycontainer.state_text import State
    from cycontainer.supervisor import Supervisor

PATIENCE: Final = 10.0  # seconds that an agent gets to take what it is sent


def hand_over(
    config: Config, state: State, status: str, *, pid: int, listener: int, supervisor: Supervisor | None
) -> None:
    """Give the listener of process `pid`, which stays the caller's, to who answers for this container.

    Raises:
        LaunchError: the agent does not take it.
    """
    if supervisor is not None:
        supervisor.begin(listener, lambda: kill_all(state))
        return
    tell_agent(config, state, status, pid, listener)


def tell_agent(config: Config, state: State, status: str, pid: int, listener: int) -> None:
    """Send the agent of a configuration the listener of process `pid`; both descriptors stay the caller's.

    Raises:
        LaunchError: nobody listens there, or takes it.
    """
    seccomp = config.linux.seccomp
    assert seccomp is not None
    document = process_state(oci_state(state, status), pid, seccomp.listener_metadata)
    send_listener(seccomp.listener_path, listener, document)


def fetch_listener(pidfd: int, numbers: tuple[int, int], tell: Callable[[int], None]) -> None:
    """Take the listener of an init that `start` has let go on, and let it go on once more. Else it is killed.

    Args:
        pidfd: of the init.
        numbers: its descriptors: the listener, and the pipe that it waits at.
        tell: what is to be done with the listener, which does not stay open.
    """
    import signal

    fetched: list[int] = []
    with Undo() as undo:
        undo.later("kill the init", lambda: signal.pidfd_send_signal(pidfd, signal.SIGKILL))
        try:
            for number in numbers:
                fetched.append(get_descriptor(pidfd, number))
            tell(fetched[0])
            open_gate(fetched[1])
        finally:
            close_all(fetched)


def process_state(state: Mapping[str, Any], pid: int, metadata: str) -> dict[str, Any]:
    """The container process state, as the spec has it.

    Args:
        state: of the container: runtime.md, "State".
        pid: of the process that the filter is for.
        metadata: `listenerMetadata`, which is passed on as it is.
    """
    found = {"ociVersion": state["ociVersion"], "fds": ["seccompFd"], "pid": pid, "state": dict(state)}
    if metadata:
        found["metadata"] = metadata
    return found


def send_listener(path: str, listener: int, document: Mapping[str, Any]) -> None:
    """Connect to the agent's socket and send the process state, with the listener as its one descriptor.

    Raises:
        LaunchError: nobody listens there, or takes it.
    """
    import _socket
    import json

    data = json.dumps(document).encode()
    agent = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        agent.settimeout(PATIENCE)
        agent.connect(path)
        sent = agent.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, listener.to_bytes(4, "little"))])
        agent.sendall(data[sent:])
    except OSError as error:
        code = error.errno or (errno.ETIMEDOUT if isinstance(error, TimeoutError) else errno.ENAMETOOLONG)
        raise LaunchError(f"failed to connect with seccomp agent {path}", code, 0, 0) from None
    finally:
        agent.close()
