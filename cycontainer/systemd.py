"""systemd's part in a container's cgroup: a transient unit over D-Bus. Lifecycle; needs jeepney, the extra `systemd`.

Root talks to the system's manager, an ordinary user to its own. Sources: org.freedesktop.systemd1(5);
systemd.resource-control(5); systemd's CGROUP_DELEGATION.md and CONTROL_GROUP_INTERFACE.md; runc's docs/systemd.md.
"""

from __future__ import annotations

import os

from cycontainer.errors import ConfigError, HostError
from cycontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Self

    from cycontainer.config import Resources

    Property = tuple[str, tuple[str, Any]]  # name, (D-Bus signature, value)

PREFIX: Final = "cycontainer"
ANNOTATION: Final = "org.systemd.property."
INFINITY: Final = 2**64 - 1  # "no limit" in systemd's properties
PATIENCE: Final = 30.0  # seconds that systemd gets for a job
LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\")
LONGEST_UNIT: Final = 255  # UNIT_NAME_MAX
NO_SUCH_UNIT: Final = "org.freedesktop.systemd1.NoSuchUnit"


class Unit(Record):
    """A container's unit.

    Attributes:
        name: "cycontainer-box.scope", or "x.slice".
        slice: the slice that it is in: "machine.slice"; "-.slice" is the root.
    """

    name: str
    slice: str

    @property
    def is_slice(self) -> bool:
        return self.name.endswith(".slice")

    @property
    def path(self) -> str:
        """Its cgroup, from the manager's own: "/machine.slice/cycontainer-box.scope"."""
        return f"{slice_path(self.name)}" if self.is_slice else f"{slice_path(self.slice)}/{self.name}"


def slice_path(name: str) -> str:
    """Where a slice's cgroup is: "a-b.slice" is /a.slice/a-b.slice. Raises ConfigError for what is no slice."""
    if name == "-.slice":
        return ""
    parts = name.removesuffix(".slice").split("-")
    if not name.endswith(".slice") or "" in parts or set(name) - LETTERS:
        raise ConfigError("linux.cgroupsPath", f"{name!r} is no name of a slice")
    return "".join([f"/{'-'.join(parts[: count + 1])}.slice" for count in range(len(parts))])


def unit_of(asked: str, container_id: str, *, rootless: bool) -> Unit:
    """The unit that `linux.cgroupsPath`, in its form slice:prefix:name, stands for.

    Raises:
        ConfigError: it has another form, or a part that can be no part of a unit's name.
    """
    parts = (asked or f":{PREFIX}:{container_id}").split(":")
    if len(parts) != 3:
        raise ConfigError("linux.cgroupsPath", f"must be slice:prefix:name for systemd, not {asked!r}")
    parent, prefix, name = parts
    default = "user.slice" if rootless else "system.slice"
    slice_ = "-.slice" if parent == "-" else parent or default
    slice_path(slice_)
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    if not name or set(unit) - LETTERS or len(unit) > LONGEST_UNIT:
        raise ConfigError("linux.cgroupsPath", f"{unit!r} can be no name of a unit")
    found = Unit(name=unit, slice=slice_)
    found.path  # noqa: B018  # a slice's own name is checked, too
    return found


# --- what systemd is told, so that a daemon-reload keeps it


def _list_mask(text: str) -> bytes:
    """ "0-2,9" as a mask of bytes, the lowest first: AllowedCPUs."""
    mask = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            mask |= 1 << number
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def _bytes(value: int | None) -> int | None:
    return INFINITY if value is not None and value < 0 else value


def limits_of(resources: Resources) -> tuple[Property, ...]:
    """Limits as properties of a unit on cgroup v2; what has none is written to the cgroup only."""
    from cycontainer.resources_v2 import cpu_weight

    memory, cpu = resources.memory, resources.cpu
    numbers: dict[str, int | None] = {}
    masks: dict[str, str | None] = {}
    if memory is not None:
        swap = None
        if memory.swap:
            swap = INFINITY if memory.swap < 0 or memory.limit is None else memory.swap - memory.limit
        numbers |= {"MemoryMax": _bytes(memory.limit), "MemoryLow": _bytes(memory.reservation), "MemorySwapMax": swap}
    if cpu is not None:
        numbers["CPUWeight"] = cpu_weight(cpu.shares) if cpu.shares else None
        if cpu.quota_us or cpu.period_us:
            period = cpu.period_us or 100_000
            quota = cpu.quota_us if cpu.quota_us and cpu.quota_us > 0 else None
            numbers["CPUQuotaPerSecUSec"] = quota * 1_000_000 // period if quota else INFINITY
            numbers["CPUQuotaPeriodUSec"] = period
        masks = {"AllowedCPUs": cpu.cpus, "AllowedMemoryNodes": cpu.mems}
    numbers["TasksMax"] = _bytes(resources.pids)
    unified = dict(resources.unified)
    for key, name in (("memory.high", "MemoryHigh"), ("memory.min", "MemoryMin")):
        if key in unified:
            numbers[name] = INFINITY if unified[key] == "max" else int(unified[key])
    found: list[Property] = [(name, ("t", value)) for name, value in numbers.items() if value is not None]
    found += [(name, ("ay", _list_mask(text))) for name, text in masks.items() if text]
    if "memory.oom.group" in unified:
        found.append(("OOMPolicy", ("s", "kill" if unified["memory.oom.group"] == "1" else "continue")))
    return tuple(found)


_INTEGERS: Final = {"byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x", "uint64": "t"}


def _variant(text: str) -> tuple[str, Any]:
    """A value in GVariant's text format: a string, a number, a flag, or a list of strings. Raises ValueError."""
    text = text.strip()
    word, _, rest = text.partition(" ")
    if word in _INTEGERS:
        return _INTEGERS[word], int(rest, 0)
    if text in ("true", "false"):
        return "b", text == "true"
    if text[:1] in ("'", '"'):
        return "s", _string(text)
    if text[:1] == "[" and text[-1:] == "]":
        return "as", [_string(part.strip()) for part in text[1:-1].split(",") if part.strip()]
    return ("d", float(text)) if "." in text else ("i", int(text, 0))


def _string(text: str) -> str:
    if len(text) < 2 or text[0] not in "'\"" or text[-1] != text[0] or text[0] in text[1:-1] or "\\" in text:
        raise ValueError(text)
    return text[1:-1]


def annotated(annotations: tuple[tuple[str, str], ...]) -> tuple[Property, ...]:
    """The properties that annotations `org.systemd.property.NAME` ask for. Raises ConfigError."""
    found: list[Property] = []
    for key, text in annotations:
        if not key.startswith(ANNOTATION):
            continue
        name = key.removeprefix(ANNOTATION)
        if not (name[:1].isupper() and name.isascii() and name.isalnum()):
            raise ConfigError(f"annotations.{key}", "is no name of a property")
        try:
            kind, value = _variant(text)
            if name.endswith("Sec") and not name.endswith("USec"):  # D-Bus has all times in microseconds
                name, kind, value = f"{name.removesuffix('Sec')}USec", "t", int(value * 1_000_000)
        except (ValueError, TypeError):
            raise ConfigError(f"annotations.{key}", f"{text!r} is no value in GVariant's text format") from None
        found.append((name, (kind, value)))
    return tuple(found)


def _merged(*groups: tuple[Property, ...]) -> list[Property]:
    """The later of one name wins."""
    found = {name: value for group in groups for name, value in group}
    return list(found.items())


# --- the manager


def _connect(*, system: bool) -> Any:
    try:
        from jeepney.io.blocking import open_dbus_connection
    except ImportError:
        raise HostError("the systemd driver needs jeepney: pip install 'cycontainer[systemd]'") from None
    if not os.path.isdir("/run/systemd/system"):
        raise HostError("systemd is not the first process of this machine: --systemd-cgroup cannot work here")
    try:
        return open_dbus_connection(bus="SYSTEM" if system else "SESSION", auth_timeout=PATIENCE)
    except (OSError, KeyError) as error:
        hint = "" if system else "; is DBUS_SESSION_BUS_ADDRESS set, and dbus-user-session installed?"
        raise HostError(f"D-Bus of the {'system' if system else 'user'} cannot be reached: {error}{hint}") from None


class Systemd:
    """A connection to a manager of units: the system's, or as an ordinary user that user's. Use it with `with`.

    Raises:
        HostError: there is no systemd, no D-Bus, or no jeepney; or systemd refuses what is asked.
    """

    def __init__(self, *, rootless: bool = False) -> None:
        self._connection = _connect(system=not rootless)
        self._call("Subscribe")  # to the ends of jobs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _call(self, method: str, signature: str | None = None, body: tuple[object, ...] = ()) -> tuple[Any, ...]:
        return self._ask("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", method, signature, body)

    def _ask(
        self, path: str, interface: str, method: str, signature: str | None, body: tuple[object, ...]
    ) -> tuple[Any, ...]:
        from jeepney import DBusAddress, DBusErrorResponse, new_method_call

        address = DBusAddress(path, bus_name="org.freedesktop.systemd1", interface=interface)
        message = new_method_call(address, method, signature, body)
        try:
            from jeepney.wrappers import unwrap_msg

            return tuple(unwrap_msg(self._connection.send_and_get_reply(message, timeout=PATIENCE)))
        except DBusErrorResponse as error:
            raise _Refused(method, error.name, str(error.data[0]) if error.data else "") from None
        except (TimeoutError, OSError) as error:
            raise HostError(f"systemd does not answer {method}: {error}") from None

    def control_group(self) -> str:
        """The cgroup that the manager's units are below; "" for the system's."""
        where = ("/org/freedesktop/systemd1", "org.freedesktop.DBus.Properties")
        (value,) = self._ask(*where, "Get", "ss", ("org.freedesktop.systemd1.Manager", "ControlGroup"))
        return str(value[1]).rstrip("/")

    def start(self, unit: Unit, pid: int, properties: tuple[Property, ...]) -> None:
        """Make the unit, with `pid` in it, and wait until its cgroup is there.

        A slice has no processes: `pid` is left where it is.
        """
        own: tuple[Property, ...] = (
            ("Description", ("s", f"cycontainer container {unit.name}")),
            *((name, ("b", True)) for name in ("MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting")),
            ("DefaultDependencies", ("b", False)),
        )
        if unit.is_slice:
            own += (("Wants", ("as", [unit.slice])),)
        else:
            own += (("Slice", ("s", unit.slice)), ("Delegate", ("b", True)), ("PIDs", ("au", [pid])))
        self._job("StartTransientUnit", "ssa(sv)a(sa(sv))", (unit.name, "replace", _merged(own, properties), []))

    def stop(self, unit: Unit) -> None:
        """End the unit, and forget that it failed, if it did. One that is not there is fine."""
        for method, body in (("StopUnit", (unit.name, "replace")), ("ResetFailedUnit", (unit.name,))):
            try:
                if method == "StopUnit":
                    self._job(method, "ss", body)
                else:
                    self._call(method, "s", body)
            except _Refused as refused:
                if refused.name != NO_SUCH_UNIT:
                    raise

    def set_properties(self, unit: Unit, properties: tuple[Property, ...]) -> None:
        """Change a unit that runs, until the next boot."""
        self._call("SetUnitProperties", "sba(sv)", (unit.name, True, list(properties)))

    def attach(self, unit: Unit, pid: int) -> None:
        """Move a process into the unit, past the limits of cgroups' own permissions."""
        self._call("AttachProcessesToUnit", "ssau", (unit.name, "", [pid]))

    def _job(self, method: str, signature: str, body: tuple[object, ...]) -> None:
        """Call what makes a job, and wait for the end of it."""
        from jeepney import MatchRule, message_bus

        rule = MatchRule(
            type="signal",
            interface="org.freedesktop.systemd1.Manager",
            member="JobRemoved",
            path="/org/freedesktop/systemd1",
        )
        self._connection.send_and_get_reply(message_bus.AddMatch(rule), timeout=PATIENCE)
        with self._connection.filter(rule) as signals:
            (job,) = self._call(method, signature, body)
            while True:
                try:
                    signal = self._connection.recv_until_filtered(signals, timeout=PATIENCE)
                except (TimeoutError, OSError):
                    raise HostError(f"systemd: the job of {method} for {body[0]} does not end") from None
                _, path, name, result = signal.body
                if path == job:
                    break
        if result != "done":
            raise HostError(f"systemd: the job of {method} for {name} ended as {result!r}: see journalctl -u {name}")


class _Refused(HostError):
    """systemd says no. `name`: D-Bus's name of the error."""

    def __init__(self, method: str, name: str, text: str) -> None:
        super().__init__(f"systemd refuses {method}: {text} ({name.rpartition('.')[2]})")
        self.name = name
