"""Reads `linux.seccomp` of a configuration. Model; pure. Source: runtime-spec 1.3, config-linux.md, "Seccomp"."""

from __future__ import annotations

from cycontainer.config import Seccomp, SyscallArgument, SyscallRule
from cycontainer.errors import shown
from cycontainer.node import UINT32, UINT64
from cycontainer.tables import FILTER_FLAGS, NEVER_NOTIFIED, SECCOMP_ACTIONS, SECCOMP_ARCHITECTURES, SECCOMP_OPERATORS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.errors import ConfigError
    from cycontainer.node import Node

# Actions that carry a number, and the highest: MAX_ERRNO of linux/err.h; SECCOMP_RET_DATA of seccomp(2).
MOST_DATA: Final = {"SCMP_ACT_ERRNO": 4095, "SCMP_ACT_TRACE": 65535}


def read_seccomp(node: Node) -> Seccomp | None:
    """The section `linux.seccomp`."""
    if not node:
        return None
    default = node["defaultAction"].one_of(SECCOMP_ACTIONS)
    if default == "SCMP_ACT_NOTIFY":
        raise node["defaultAction"].error("SCMP_ACT_NOTIFY cannot be used as default action: no one could answer")
    listener = node["listenerPath"].path_text() if node["listenerPath"].text("") else ""
    rules = tuple([_read_rule(entry) for entry in node["syscalls"].array()])
    if not listener and any(rule.action == "SCMP_ACT_NOTIFY" for rule in rules):
        raise node["listenerPath"].error("is missing: SCMP_ACT_NOTIFY needs someone who answers")
    return Seccomp(
        default_action=default,
        default_errno=_read_data(node["defaultErrnoRet"], default),
        architectures=tuple([entry.one_of(SECCOMP_ARCHITECTURES) for entry in node["architectures"].array()]),
        flags=tuple([entry.one_of(FILTER_FLAGS) for entry in node["flags"].array()]),
        listener_path=listener,
        listener_metadata=node["listenerMetadata"].text(""),
        syscalls=rules,
    )


def _read_data(node: Node, action: str) -> int | None:
    number = node.optional_integer(0, UINT32)
    if number is None:
        return None
    if action not in MOST_DATA:
        raise node.error(f"goes with SCMP_ACT_ERRNO and SCMP_ACT_TRACE, not with {action}")
    return node.integer(0, MOST_DATA[action])


def _read_rule(node: Node) -> SyscallRule:
    names = node["names"].texts()
    if not names:
        raise node["names"].error("must name at least one system call")
    if not (all(map(str.isidentifier, names)) and "".join(names).isascii()):
        raise _unusable(node["names"])
    action = node["action"].one_of(SECCOMP_ACTIONS)
    never = [name for name in names if name in NEVER_NOTIFIED] if action == "SCMP_ACT_NOTIFY" else []
    if never:
        raise node["names"].error(f"SCMP_ACT_NOTIFY cannot be used for the {never[0]} syscall")
    return SyscallRule(
        names=names,
        action=action,
        errno=_read_data(node["errnoRet"], action),
        args=tuple([_read_argument(entry) for entry in node["args"].array()]),
    )


def _unusable(node: Node) -> ConfigError:
    """What is wrong with the first of these names that cannot be one."""
    entries = [entry for entry in node.array() if not (entry.text().isascii() and entry.text().isidentifier())]
    return entries[0].error(f"{shown(entries[0].text())} cannot be the name of a system call")


def _read_argument(node: Node) -> SyscallArgument:
    return SyscallArgument(
        position=node["index"].integer(0, 5),
        value=node["value"].integer(0, UINT64),
        value_two=node["valueTwo"].integer(0, UINT64, default=0),
        op=node["op"].one_of(SECCOMP_OPERATORS),
    )
