"""What `state` and `list` say of a container, in runc's form. Face.

It is the state of the specification, with a pid of 0 when it has stopped, and four more.
"""

from __future__ import annotations

from cycontainer.state import load, status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cycontainer.lifecycle import Container
    from cycontainer.state_text import State


def summary(container: Container) -> dict[str, Any]:
    """Raises ContainerNotFound, StateError."""
    state = load(container.root, container.id)
    return document(state, status_of(container.root, state), _user_name(state.owner))


def document(state: State, status: str, owner: str) -> dict[str, Any]:
    """What there is to say; the compiled command's form is made of it, too."""
    return {
        "ociVersion": state.version,
        "id": state.id,
        "pid": 0 if status == "stopped" else state.pid,
        "status": status,
        "bundle": state.bundle,
        "rootfs": state.rootfs,
        "created": state.created,
        **({"annotations": dict(state.annotations)} if state.annotations else {}),
        "owner": owner,
    }


ROOT, NAMELESS = "root", "#{}"
_names: dict[int, str] = {0: ROOT}  # who made one container has often made others


def _user_name(uid: int) -> str:
    if uid not in _names:
        import pwd

        try:
            _names[uid] = pwd.getpwuid(uid).pw_name
        except KeyError:
            _names[uid] = NAMELESS.format(uid)
    return _names[uid]
