"""A container's network around a checkpoint: the locks, undoing that of a criu that died, bringing lo up.

criu locks a network namespace by rules that drop all: in iptables a chain CRIU in INPUT and OUTPUT of both families; in
nftables a table CRIU-PID of the inet family. Sources: criu's net.c and netfilter.c; netfilter's nf_tables.h.
"""

from __future__ import annotations

import errno
import os

from cycontainer._nsenter import open_namespace
from cycontainer.errors import ConfigError, HostError, reason_of
from cycontainer.tables import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SKIPS: Final = (3, 19, 0)  # the first criu that can leave the network as it is
TABLE: Final = "cycontainer"
NO_NFTABLES: Final = (  # netfilter's socket, nftables, or its chains for "inet" are not there
    errno.EPROTONOSUPPORT,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.ENOENT,
)
IPTABLES_RULES: Final = "*filter\n-D INPUT -j CRIU\n-D OUTPUT -j CRIU\n-F CRIU\n-X CRIU\nCOMMIT\n"


def program(name: str) -> str:
    """Where PATH has a program; "" when it does not."""
    for directory in os.get_exec_path():
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return ""


def choose_lock() -> str:
    """criu's own default where it can have it; nftables needs no program."""
    return "iptables" if program("iptables-restore") else "nftables"


def devices_of(pid: int) -> set[str]:
    """Of a process's network namespace. Raises OSError."""
    with open(f"/proc/{pid}/net/dev") as file:
        return {line.partition(":")[0].strip() for line in file if ":" in line}


def bring_loopback_up(pid: int) -> None:
    """Of a process's network namespace: what is restored there may be connected over it. Raises OSError."""
    from cycontainer.rtnetlink import netlink_in

    namespace = open_namespace(f"/proc/{pid}/ns/net".encode(), NAMESPACES["network"][0])
    try:
        with netlink_in(namespace) as netlink:
            netlink.bring_up(netlink.link("lo").number)
    finally:
        os.close(namespace)


def set_sysctls(pid: int, values: tuple[tuple[str, str], ...]) -> None:
    """Set those of a process's network namespace, by paths below /proc/sys: criu saves none. Raises ConfigError."""
    from cycontainer.rtnetlink import opened_in

    def write() -> None:
        for path, value in values:
            try:
                with open(f"/proc/sys/{path}", "w") as file:
                    file.write(value)
            except OSError as error:
                problems.append(f"{path}: {reason_of(error)}")

    problems: list[str] = []
    namespace = open_namespace(f"/proc/{pid}/ns/net".encode(), NAMESPACES["network"][0])
    try:
        opened_in(namespace, write)
    finally:
        os.close(namespace)
    if problems:
        raise ConfigError("linux.sysctl", ", ".join(problems))


class Network:
    """A process's network namespace, which stays as long as the block does.

    When the process and with it the namespace `ends` in there, the devices are taken down: the rules in it go first,
    and what a peer sends before the devices have gone, too, would be answered by resetting a connection that was saved.
    """

    def __init__(self, pid: int, *, ends: bool) -> None:
        self._devices = devices_of(pid) - {"lo"} if ends else set()
        self._fd = open_namespace(f"/proc/{pid}/ns/net".encode(), NAMESPACES["network"][0])

    def __enter__(self) -> Network:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if self._devices and kind is None:
                self._take_down()
        finally:
            os.close(self._fd)

    def _take_down(self) -> None:
        from cycontainer.rtnetlink import netlink_in

        with netlink_in(self._fd) as netlink:
            for name in self._devices:
                netlink.take_down(netlink.link(name).number)


# --- between its devices and its sockets


def hold_traffic(pid: int) -> bool:
    """Let nothing into or out of a process's network namespace: connections that are not there yet would be reset.

    Returns:
        Whether a table TABLE does so: not where the kernel has no nftables.

    Raises:
        OSError: it has, and refuses.
    """
    from cycontainer.criu.netfilter import netfilter_in

    namespace = open_namespace(f"/proc/{pid}/ns/net".encode(), NAMESPACES["network"][0])
    try:
        with netfilter_in(namespace) as netfilter:
            netfilter.drop_all(TABLE)
        return True
    except OSError as error:
        if error.errno not in NO_NFTABLES:
            raise
        return False
    finally:
        os.close(namespace)


def delete_table(pid: int, name: str) -> None:
    """Take a table out of a process's network namespace, if it is there. Raises OSError."""
    from cycontainer.criu.netfilter import netfilter_in

    namespace = open_namespace(f"/proc/{pid}/ns/net".encode(), NAMESPACES["network"][0])
    try:
        with netfilter_in(namespace) as netfilter:
            netfilter.delete_table(name)
    finally:
        os.close(namespace)


# --- the lock of a criu that died


def unlock(pid: int, lock: str) -> None:
    """Take the rules of a dead criu out of a process's network namespace, if it has one of its own. Raises OSError."""
    path = f"/proc/{pid}/ns/net"
    if lock == "skip" or os.stat(path).st_ino == os.stat("/proc/self/ns/net").st_ino:
        return
    namespace = open_namespace(path.encode(), NAMESPACES["network"][0])
    try:
        if lock == "nftables":
            from cycontainer.criu.netfilter import netfilter_in

            with netfilter_in(namespace) as netfilter:
                netfilter.delete_tables("CRIU")
        else:
            _run_iptables(path)
    finally:
        os.close(namespace)


def _run_iptables(path: str) -> None:
    """iptables-restore and ip6tables-restore in a network namespace. Raises HostError."""
    from cycontainer._plan import PlanWriter
    from cycontainer.config import Namespace
    from cycontainer.hooks import run_program
    from cycontainer.plan import Plan

    for name in ("iptables-restore", "ip6tables-restore"):
        plan = PlanWriter()
        plan.join(0, "network", NAMESPACES["network"][0])
        plan.close_slots(False)
        plan.set_session()
        plan.fresh_signals()
        program_step = len(plan.attempts)
        plan.look_up()
        plan.execute()
        compiled = Plan(
            data=plan.finish(),
            attempts=tuple(plan.attempts),
            program_step=program_step,
            args=(name, "--noflush", "-w"),
            env=(f"PATH={os.environ.get('PATH', '')}",),
            namespaces=(Namespace(type="network", path=path),),
        )
        problem, output = run_program(compiled, IPTABLES_RULES.encode(), None, ())
        if problem:
            raise HostError(f"the container's network is still locked: {name}: {problem} {output}")
