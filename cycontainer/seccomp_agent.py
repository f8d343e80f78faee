"""The agent at `listenerPath`: it is sent a container's seccomp listener, and answers system calls. Lifecycle.

Source: runtime-spec 1.3, config-linux.md, "Seccomp" and "The Container Process State".
"""

from __future__ import annotations

import errno

from cycontainer.errors import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

PATIENCE: Final = 10.0  # seconds that an agent gets to take what it is sent


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
