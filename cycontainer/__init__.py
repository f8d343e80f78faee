"""Containers for Python programs, and an OCI runtime."""

TYPE_CHECKING = False  # type checkers know the name; `import typing` would cost 10 ms
if TYPE_CHECKING:
    from cycontainer._answers import Opaque as Opaque
    from cycontainer._exceptions import RemoteTraceback as RemoteTraceback
    from cycontainer._exceptions import TaskError as TaskError
    from cycontainer._result import Result as Result
    from cycontainer._result import Usage as Usage
    from cycontainer._run import DEVNULL as DEVNULL
    from cycontainer._run import PIPE as PIPE
    from cycontainer._run import STDOUT as STDOUT
    from cycontainer._run import run as run
    from cycontainer._spawned import Spawned as Spawned
    from cycontainer._spawned import spawn as spawn
    from cycontainer._stream import Line as Line
    from cycontainer._stream import Lines as Lines
    from cycontainer._stream import stream as stream
    from cycontainer.criu.snapshot import Snapshot as Snapshot
    from cycontainer.errors import CallGone as CallGone
    from cycontainer.errors import CgroupError as CgroupError
    from cycontainer.errors import CheckpointError as CheckpointError
    from cycontainer.errors import ConfigError as ConfigError
    from cycontainer.errors import CriuError as CriuError
    from cycontainer.errors import Error as Error
    from cycontainer.errors import HostError as HostError
    from cycontainer.errors import LaunchError as LaunchError
    from cycontainer.errors import ProgramError as ProgramError
    from cycontainer.errors import RunError as RunError
    from cycontainer.errors import StatusUnknown as StatusUnknown
    from cycontainer.errors import WaitTimeout as WaitTimeout
    from cycontainer.executor import ContainerExecutor as ContainerExecutor
    from cycontainer.executor import Limits as Limits
    from cycontainer.lifecycle import Container as Container
    from cycontainer.pool import Acquired as Acquired
    from cycontainer.pool import Pool as Pool
    from cycontainer.supervisor import Call as Call
    from cycontainer.supervisor import Continue as Continue
    from cycontainer.supervisor import Descriptor as Descriptor
    from cycontainer.supervisor import Errno as Errno
    from cycontainer.supervisor import Value as Value
    from cycontainer.template import Template as Template

_HOME = {
    **dict.fromkeys(("Result", "Usage"), "cycontainer._result"),
    **dict.fromkeys(("DEVNULL", "PIPE", "STDOUT", "run"), "cycontainer._run"),
    **dict.fromkeys(("Spawned", "spawn"), "cycontainer._spawned"),
    **dict.fromkeys(("Line", "Lines", "stream"), "cycontainer._stream"),
    "Container": "cycontainer.lifecycle",
    **dict.fromkeys(("ContainerExecutor", "Limits"), "cycontainer.executor"),
    "Opaque": "cycontainer._answers",
    **dict.fromkeys(("RemoteTraceback", "TaskError"), "cycontainer._exceptions"),
    "Snapshot": "cycontainer.criu.snapshot",
    **dict.fromkeys(("Acquired", "Pool"), "cycontainer.pool"),
    "Template": "cycontainer.template",
    **dict.fromkeys(("Call", "Continue", "Descriptor", "Errno", "Value"), "cycontainer.supervisor"),
    **dict.fromkeys(
        (
            "CallGone",
            "CgroupError",
            "CheckpointError",
            "ConfigError",
            "CriuError",
            "Error",
            "HostError",
            "LaunchError",
            "ProgramError",
            "RunError",
            "StatusUnknown",
            "WaitTimeout",
        ),
        "cycontainer.errors",
    ),
}

globals()["__all__"] = [*_HOME]  # type checkers have theirs from above, and would take none from a table


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562): who needs little does not pay for all."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(__import__(_HOME[name], fromlist=[name]), name)
    globals()[name] = value
    return value
