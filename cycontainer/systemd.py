"""A container's cgroup as systemd makes it: a transient unit, asked for over D-Bus. Lifecycle; needs jeepney.

Root talks to the system's manager, an ordinary user to its own. Sources: org.freedesktop.systemd1(5); systemd's
CONTROL_GROUP_INTERFACE.md; dbus-specification.html, "Authentication Protocol"; runc's docs/systemd.md.
"""

from __future__ import annotations

import errno
import os
import time

from cycontainer.cgroups import Cgroup
from cycontainer.errors import CgroupError, ConfigError, HostError
from cycontainer.host import CgroupLayout, Hierarchy, current
from cycontainer.resources import CgroupPlan, paths_of
from cycontainer.units import Unit, annotated, devices_of, limits_of, unit_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Self

    from cycontainer.config import Config, Resources
    from cycontainer.host import Host
    from cycontainer.undo import Undo
    from cycontainer.units import Property

PATIENCE: Final = 30.0  # seconds that systemd gets for a job
NO_SUCH_UNIT: Final = "org.freedesktop.systemd1.NoSuchUnit"
UNIT_EXISTS: Final = "org.freedesktop.systemd1.UnitExists"
GONE: Final = tuple(f"org.freedesktop.DBus.Error.{name}" for name in ("ServiceUnknown", "NameHasNoOwner"))
SYSTEMD: Final = "org.freedesktop.systemd1"
MANAGER: Final = "org.freedesktop.systemd1.Manager"
BUS: Final = "org.freedesktop.DBus"
PROPERTIES: Final = "org.freedesktop.DBus.Properties"
DESCRIPTION: Final = "cycontainer container {}"  # of a unit, which so is known to be ours
OWN_HIERARCHY: Final = "name=systemd"  # v1: systemd's alone


# --- the bus


def _address(*, system: bool) -> str:
    if system:
        return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or "unix:path=/run/dbus/system_bus_socket"
    directory = os.environ.get("XDG_RUNTIME_DIR")
    return os.environ.get("DBUS_SESSION_BUS_ADDRESS") or (f"unix:path={directory}/bus" if directory else "")


def _authenticate(socket: Any) -> None:
    """EXTERNAL without a name: the bus sees who we are, also from within a user namespace. Raises OSError."""
    socket.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\n")
    answer = b""
    while b"OK " not in answer or not answer.endswith(b"\r\n"):
        data = socket.recv(1024)
        if not data or b"REJECTED" in answer + data:
            raise OSError(errno.EACCES, f"it does not let us in: {(answer + data).decode(errors='replace').strip()}")
        answer += data
    socket.sendall(b"BEGIN\r\n")


def _connect(*, system: bool) -> Any:
    import socket

    if not os.path.isdir("/run/systemd/system"):
        raise HostError("systemd is not the first process of this machine: --systemd-cgroup cannot work here")
    try:
        from jeepney.bus import get_bus
        from jeepney.io.blocking import DBusConnection
    except ImportError:
        raise HostError("the systemd driver needs jeepney: pip install 'cycontainer[systemd]'") from None
    address = _address(system=system)
    stream = socket.socket(socket.AF_UNIX)
    try:
        stream.settimeout(PATIENCE)
        stream.connect(get_bus(address))
        _authenticate(stream)
        connection = DBusConnection(stream)
        stream.settimeout(None)
        return connection
    except (OSError, ValueError, RuntimeError) as error:  # ValueError, RuntimeError: an address that is none
        stream.close()
        hint = "" if system else "; is XDG_RUNTIME_DIR set, and dbus-user-session installed?"
        whose = "the system" if system else "the user"
        raise HostError(f"the D-Bus of {whose} cannot be reached at {address!r}: {error}{hint}") from None


class Refused(HostError):
    """systemd says no. `name`: D-Bus's name of the error."""

    def __init__(self, method: str, name: str, text: str) -> None:
        super().__init__(method, name, text)
        self.method, self.name, self.text = method, name, text

    def __str__(self) -> str:
        return f"systemd refuses {self.method}: {self.text} ({self.name.rpartition('.')[2]})"


class Systemd:
    """A connection to a manager of units: the system's, or as an ordinary user that user's. Use it with `with`.

    Raises:
        HostError: there is no systemd, no D-Bus, or no jeepney; or systemd refuses what is asked.
    """

    def __init__(self, *, rootless: bool = False) -> None:
        self._connection = _connect(system=not rootless)
        self._owner = ""  # systemd's own name on the bus, which nobody else can have
        self._ends: Any = None  # the rule for signals of ends of jobs
        self._ended: dict[str, tuple[str, str]] = {}  # jobs: the unit's name, and how
        try:
            self._subscribe()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _subscribe(self) -> None:
        """To the ends of jobs, as they are told by who is systemd now."""
        from jeepney import DBusAddress, MatchRule, message_bus, new_method_call

        deadline = time.monotonic() + PATIENCE
        try:
            (self._owner,) = self._ask(message_bus.GetNameOwner(SYSTEMD), BUS, deadline)
        except Refused as refused:
            if refused.name not in GONE:
                raise
            self._ask(message_bus.StartServiceByName(SYSTEMD), BUS, deadline)  # a bus that begins just now waits for it
            (self._owner,) = self._ask(message_bus.GetNameOwner(SYSTEMD), BUS, deadline)
        self._ends = MatchRule(
            type="signal", sender=self._owner, interface=MANAGER, member="JobRemoved", path="/org/freedesktop/systemd1"
        )  # fmt: skip
        self._ask(message_bus.AddMatch(self._ends), BUS, deadline)
        manager = DBusAddress("/org/freedesktop/systemd1", bus_name=self._owner, interface=MANAGER)
        self._ask(new_method_call(manager, "Subscribe"), self._owner, deadline)

    def _receive(self, deadline: float) -> Any:
        """The next message; what it tells of a job is kept. Anyone may send us one; the bus says who it was."""
        message = self._connection.receive(timeout=max(0.0, deadline - time.monotonic()))
        if self._ends is not None and self._ends.matches(message):
            _, path, name, result = message.body
            self._ended[path] = name, result
        return message

    def _ask(self, message: Any, whom: str, deadline: float) -> Any:
        """The body of the reply, which is of who was asked, or of the bus in its place.

        Raises:
            Refused: it is an error.
            HostError: there is none until the deadline, `time.monotonic`.
        """
        from jeepney import DBusErrorResponse, HeaderFields, MessageType
        from jeepney.wrappers import unwrap_msg

        method = message.header.fields[HeaderFields.member]
        try:
            serial = next(self._connection.outgoing_serial)
            self._connection.send_message(message, serial=serial)
            while True:
                reply = self._receive(deadline)
                fields = reply.header.fields
                is_reply = reply.header.message_type in (MessageType.method_return, MessageType.error)
                known = fields.get(HeaderFields.sender) in (whom, BUS)
                if is_reply and known and fields.get(HeaderFields.reply_serial) == serial:
                    return unwrap_msg(reply)
        except DBusErrorResponse as error:
            raise Refused(method, error.name, str(error.data[0]) if error.data else "") from None
        except (TimeoutError, OSError) as error:
            raise HostError(f"systemd does not answer {method}: {error or 'too late'}") from None

    def _call_at(
        self, path: str, interface: str, method: str, signature: str | None, body: tuple[object, ...], deadline: float
    ) -> Any:
        from jeepney import DBusAddress, new_method_call

        while True:
            owner = self._owner
            where = DBusAddress(path, bus_name=owner, interface=interface)
            try:
                return self._ask(new_method_call(where, method, signature, body), owner, deadline)
            except Refused as refused:
                if refused.name not in GONE:
                    raise
            self._subscribe()  # it was executed anew, as in an upgrade, and has another name

    def _call(
        self, method: str, signature: str | None = None, body: tuple[object, ...] = (), deadline: float = 0.0
    ) -> Any:
        deadline = deadline or time.monotonic() + PATIENCE
        return self._call_at("/org/freedesktop/systemd1", MANAGER, method, signature, body, deadline)

    def _get(self, path: str, interface: str, name: str) -> Any:
        """A property, as its signature and its value."""
        deadline = time.monotonic() + PATIENCE
        return self._call_at(path, PROPERTIES, "Get", "ss", (interface, name), deadline)[0]

    def _job(self, method: str, signature: str, body: tuple[object, ...]) -> None:
        """Call what makes a job, and wait for the end of it."""
        deadline = time.monotonic() + PATIENCE
        self._ended.clear()
        (job,) = self._call(method, signature, body, deadline)
        try:
            while job not in self._ended:
                self._receive(deadline)
        except (TimeoutError, OSError):
            raise HostError(f"systemd: the job of {method} for {body[0]} does not end") from None
        name, result = self._ended.pop(job)
        if result != "done":
            raise HostError(f"systemd: the job of {method} for {name} ended as {result!r}: see journalctl -u {name}")

    # --- the manager

    def version(self) -> int:
        """252, of "252.39-1~deb12u1"."""
        text = str(self._get("/org/freedesktop/systemd1", MANAGER, "Version")[1]).lstrip("v")
        digits = text[: len(text) - len(text.lstrip("0123456789"))]
        return int(digits or "0")

    def control_group(self) -> str:
        """The cgroup that the manager's units are below; "" for the system's."""
        return str(self._get("/org/freedesktop/systemd1", MANAGER, "ControlGroup")[1]).rstrip("/")

    def check_pids(self) -> None:
        """Our pids must mean the same to systemd: else it would move someone else's process. Raises HostError."""
        from jeepney import message_bus

        bus = message_bus.GetConnectionUnixProcessID(self._connection.unique_name)
        (seen,) = self._ask(bus, BUS, time.monotonic() + PATIENCE)
        if seen != os.getpid():
            raise HostError("systemd lives in another pid namespace: --systemd-cgroup cannot work from here")

    # --- units

    def start(self, unit: Unit, pid: int, properties: tuple[Property, ...]) -> None:
        """Make the unit, with `pid` in it, and wait until its cgroup is there.

        A slice has no processes: `pid` is left where it is.
        """
        own: list[Property] = [("Description", ("s", DESCRIPTION.format(unit.name)))]
        own += [(f"{name}Accounting", ("b", True)) for name in ("Memory", "CPU", "IO", "Tasks")]
        own.append(("DefaultDependencies", ("b", False)))
        if unit.is_slice:
            own.append(("Wants", ("as", [unit.slice])))
        else:
            own += [("Slice", ("s", unit.slice)), ("Delegate", ("b", True)), ("PIDs", ("au", [pid]))]
        merged = dict(own) | dict(properties)  # the later of one name
        body: tuple[object, ...] = (unit.name, "replace", list(merged.items()), [])
        try:
            self._job("StartTransientUnit", "ssa(sv)a(sa(sv))", body)
        except Refused as refused:
            if refused.name != UNIT_EXISTS:
                raise
            self._forget(unit.name)  # one that has failed, and that nobody has looked at
            self._job("StartTransientUnit", "ssa(sv)a(sa(sv))", body)

    def stop(self, name: str) -> None:
        """End a unit, and forget that it failed, if it did. One that is not there is fine."""
        try:
            self._job("StopUnit", "ss", (name, "replace"))
        except Refused as refused:
            if refused.name != NO_SUCH_UNIT:
                raise
        self._forget(name)

    def _forget(self, name: str) -> None:
        try:
            self._call("ResetFailedUnit", "s", (name,))
        except Refused as refused:
            if refused.name != NO_SUCH_UNIT:
                raise

    def properties(self, name: str, which: set[str]) -> tuple[Property, ...]:
        """What some properties of a unit are now."""
        (path,) = self._call("GetUnit", "s", (name,))
        kind = "Slice" if name.endswith(".slice") else "Scope"
        found = [
            (each, self._get(path, f"org.freedesktop.systemd1.{'Unit' if each == 'Description' else kind}", each))
            for each in sorted(which)
        ]
        return (*[("DeviceAllow", ("a(ss)", [])) for each in which if each == "DeviceAllow"], *found)  # it adds to it

    def set_properties(self, name: str, properties: tuple[Property, ...]) -> None:
        """Change a unit that runs, until the next boot; they are in effect when this returns."""
        self._call("SetUnitProperties", "sba(sv)", (name, True, list(properties)))
        self._call("GetUnit", "s", (name,))  # systemd writes to cgroups before it hears the next message

    def attach(self, name: str, pid: int, below: str = "") -> None:
        """Move a process into a unit, past the limits of cgroups' own permissions. `below`: "/sub" of its cgroup."""
        self._call("AttachProcessesToUnit", "ssau", (name, below, [pid]))


# --- what the verbs need


def connect() -> Systemd:
    """The manager of the caller's units. Raises HostError."""
    return Systemd(rootless=is_ordinary(current()))


def stop_unit(name: str) -> None:
    """End a container's unit. Raises HostError."""
    with connect() as systemd:
        systemd.stop(name)


def unit_left_of(asked: str, container_id: str) -> tuple[str, str]:
    """Of a container whose state is lost: its unit's name and cgroup, when there is such a unit and it is ours; else
    empty texts. `asked`: `linux.cgroupsPath`."""
    try:
        unit = unit_of(asked, container_id, rootless=is_ordinary(current()))
        with connect() as systemd:
            description = systemd.properties(unit.name, {"Description"})[0][1][1]
            group = systemd.control_group()
    except (ConfigError, HostError):
        return "", ""
    return (unit.name, group + unit.path) if description == DESCRIPTION.format(unit.name) else ("", "")


def move_to_unit(name: str, pid: int, below: str) -> None:
    """Move a process that waits into a container's unit, or below it. Raises HostError."""
    with connect() as systemd:
        systemd.check_pids()
        systemd.attach(name, pid, below)


def change_unit(name: str, resources: Resources, undo: Undo) -> None:
    """Tell systemd of limits that the cgroup has, so that it keeps them. Raises HostError."""
    with connect() as systemd:
        wanted = properties_of(resources, current().cgroups, systemd.version())
        if not wanted:
            return
        former = systemd.properties(name, {each for each, _ in wanted})
        systemd.set_properties(name, wanted)
    undo.later("tell systemd the old limits", lambda: _put_back(name, former))


def _put_back(name: str, former: tuple[Property, ...]) -> None:
    with connect() as systemd:
        systemd.set_properties(name, former)


def properties_of(resources: Resources, layout: CgroupLayout, version: int) -> tuple[Property, ...]:
    """Limits as properties; rules of devices where systemd would write its own."""
    v1 = frozenset([name for hierarchy in layout.v1 for name in hierarchy.controllers])
    limits = limits_of(resources, version=version, v1="memory" in v1 or "cpu" in v1)
    return (*limits, *devices_of(resources.devices)) if "devices" in v1 and resources.devices else limits


def is_ordinary(host: Host) -> bool:
    """Whose manager is asked: its user's own, also for the root of a user namespace."""
    return not (host.uid == 0 and host.initial_user_namespace)


class CgroupUnit:
    """A container's cgroup while it is being made. Owns the connection; use it with `with`.

    Attributes:
        host: the machine as its manager's units have it: what a container is compiled for.
        name: the unit's.
        scope: the same, when the init has to wait for it; a slice is there before.
        path: its cgroup, below each hierarchy's mount.

    Raises:
        ConfigError: `linux.cgroupsPath` or an annotation.
        HostError: there is no systemd, or none that could do it.
    """

    def __init__(self, config: Config, container_id: str, host: Host) -> None:
        self._rootless = is_ordinary(host)
        self._unit = unit_of(config.linux.cgroups_path, container_id, rootless=self._rootless)
        self._more = annotated(config.annotations)
        if self._rootless and host.cgroups.v1:
            raise HostError("an ordinary user's systemd sets no limits on cgroup v1: --systemd-cgroup needs cgroup v2")
        self._systemd = Systemd(rootless=self._rootless)
        try:
            self._systemd.check_pids()
            self._limits = properties_of(config.linux.resources, host.cgroups, self._systemd.version())
            group = self._systemd.control_group()
        except BaseException:
            self._systemd.__exit__()
            raise
        self._ours = False  # there may be a unit that this has started
        self.name, self.path = self._unit.name, group + self._unit.path
        self.scope = "" if self._unit.is_slice else self.name
        self.host = host.replace(cgroups=_below(host.cgroups, group, rootless=self._rootless))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._systemd.__exit__()

    def permitted(self) -> bool:
        """Whether it may be made: that is systemd's to say."""
        return True

    def places(self) -> dict[str, str]:
        """The container's cgroup in each hierarchy: {mount: path below it}."""
        return {each.mount: self.path for each in self.host.cgroups.all}

    def make(self, plan: CgroupPlan, pid: int) -> Cgroup:
        """Make it, with a process in it that waits; `stop` undoes it, also when this fails.

        Raises:
            HostError: systemd refuses.
            CgroupError: the kernel refuses a value; EBUSY when processes are in it already.
        """
        paths = paths_of(plan, self.places())
        if Cgroup.open(plan.hierarchies, paths).processes():
            raise CgroupError(self.path, errno.EBUSY)
        self._ours = True
        try:
            self._systemd.start(self._unit, pid, (*self._limits, *self._more))
        except Refused as refused:
            self._ours = False
            if refused.name != UNIT_EXISTS:
                raise
            if self.scope:
                raise HostError(f"systemd has a unit {self.name} already, of someone else") from None
            self._systemd.set_properties(self.name, self._limits)  # a slice with no one in it
            self._ours = True
        self._check_place(pid)
        cgroup = Cgroup.create(plan, paths, occupied=True)
        if self.scope:
            cgroup.attach(pid)  # on cgroup v1, systemd moves it in those hierarchies that it uses itself
        return cgroup

    def _check_place(self, pid: int) -> None:
        """What systemd was told by annotations, or its own settings, may have led it elsewhere."""
        if not self.scope:
            return
        with open(f"/proc/{pid}/cgroup", errors="surrogateescape") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
        now = [path for _, names, path in lines if names in (("",) if not self.host.cgroups.v1 else (OWN_HIERARCHY,))]
        if now != [self.path]:
            raise HostError(f"systemd has put {self.name} into {' '.join(now)}, not into {self.path}")

    def result(self) -> str:
        """Of the unit that has ended: "success", "oom-kill"; "" of one that systemd has forgotten. Raises HostError."""
        try:
            return str(self._systemd.properties(self.name, {"Result"})[0][1][1])
        except Refused as refused:
            if refused.name != NO_SUCH_UNIT:
                raise
            return ""

    def stop(self) -> None:
        """Undo it. Raises HostError."""
        if self._ours:
            stop_unit(self.name)  # over a connection that works


def _below(layout: CgroupLayout, group: str, *, rootless: bool) -> CgroupLayout:
    """The cgroups as the units of a manager have them: paths begin at the mounts, and a user has what was delegated."""
    v2 = layout.v2
    if v2 is not None and rootless:
        with open(f"{v2.mount}{group}/cgroup.controllers") as file:
            offered = tuple(file.read().split())
        v2 = Hierarchy(controllers=offered, mount=v2.mount, own=f"{group}/", delegated=True)
    return CgroupLayout(mode=layout.mode, v1=tuple([each.replace(own="/") for each in layout.v1]), v2=v2)
