"""A container's unit of systemd: its name, and its limits as properties, which a daemon-reload keeps. Compile; pure.

Sources: org.freedesktop.systemd1(5); systemd.resource-control(5); systemd.unit(5); runc's docs/systemd.md.
"""

from __future__ import annotations

from cycontainer.errors import ConfigError, shown
from cycontainer.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from cycontainer.config import DeviceRule, Resources

    Property = tuple[str, tuple[str, Any]]  # name, (D-Bus signature, value)

PREFIX: Final = "cycontainer"
ANNOTATION: Final = "org.systemd.property."
INFINITY: Final = 2**64 - 1  # "no limit" in systemd's properties
LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\")
PLUS: Final = "\\x2b"  # systemd-escape(1)
LONGEST_UNIT: Final = 255  # UNIT_NAME_MAX
PERIOD_US: Final = 100_000
PERCENT_US: Final = 10_000  # of a second: 1 % of a CPU
IDLE_SINCE, OOM_POLICY_SINCE = 252, 253  # versions of systemd: CPUWeight=idle; OOMPolicy of a scope
AMOUNTS: Final = {  # file of cgroup v2: property, and the version that it came with
    "memory.min": ("MemoryMin", 240),
    "memory.low": ("MemoryLow", 231),
    "memory.high": ("MemoryHigh", 231),
    "memory.max": ("MemoryMax", 231),
    "memory.swap.max": ("MemorySwapMax", 232),
    "memory.zswap.max": ("MemoryZSwapMax", 253),
    "cpu.weight": ("CPUWeight", 232),
    "pids.max": ("TasksMax", 227),
}
MOST_CPUS: Final = 1 << 13  # CONFIG_NR_CPUS, and nodes
MASKS: Final = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
CONTROLLERS: Final = ("cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids")
RESERVED: Final = ("Delegate", "Description", "PIDs", "Slice")  # where the container is, and that the unit is ours
MOST_DIGITS: Final = 40  # of what is a number at all


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
        return slice_path(self.name) if self.is_slice else f"{slice_path(self.slice)}/{_directory(self.name)}"


def _directory(name: str) -> str:
    """What a unit's cgroup is called: no file of a cgroup has such a name. cg_escape() of systemd's cgroup-util.c."""
    taken = name[0] in "._" or name.startswith("cgroup.") or name.partition(".")[0] in CONTROLLERS
    return f"_{name}" if taken else name


def slice_path(name: str) -> str:
    """Where a slice's cgroup is: "a-b.slice" is /a.slice/a-b.slice. Raises ConfigError for what is no slice."""
    if name == "-.slice":
        return ""
    parts = name.removesuffix(".slice").split("-")
    if not name.endswith(".slice") or "" in parts or set(name) - LETTERS:
        raise ConfigError("linux.cgroupsPath", f"{name!r} is no name of a slice")
    return "".join(["/" + _directory(f"{'-'.join(parts[: count + 1])}.slice") for count in range(len(parts))])


def unit_of(asked: str, container_id: str, *, rootless: bool) -> Unit:
    """The unit that `linux.cgroupsPath`, in its form slice:prefix:name, stands for.

    Raises:
        ConfigError: it has another form, or a part that can be no part of a unit's name.
    """
    parts = (asked or f":{PREFIX}:{container_id.replace('+', PLUS)}").split(":")
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


def _list_mask(text: str) -> bytes | None:
    """ "0-2,9" as a mask of bytes, the lowest first: AllowedCPUs; None for what the kernel will refuse."""
    mask = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        if len(part) > MOST_DIGITS:
            return None
        if not (first.isascii() and first.isdigit() and (last or first).isascii() and (last or first).isdigit()):
            return None
        if not int(first) <= int(last or first) < MOST_CPUS:
            return None
        mask |= (2 << int(last or first)) - (1 << int(first))
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def _bytes(value: int | None) -> int | None:
    return INFINITY if value is not None and value < 0 else value


def _amount(text: str) -> int | None:
    """A number as the kernel reads it, "max" or "64M"; None for what it will refuse. memparse() of lib/cmdline.c.

    Raises:
        ValueError: it is more than a property can have; the kernel would take what is left of it.
    """
    if text == "max":
        return INFINITY
    digits, suffix = text.rstrip("KMGTkmgt"), text[len(text.rstrip("KMGTkmgt")) :].upper()
    if not (digits.isascii() and digits.isdigit() and len(suffix) <= 1):
        return None
    if len(digits) > MOST_DIGITS:
        raise ValueError(text)
    number = int(digits) << (10 * (" KMGT".index(suffix) if suffix else 0))
    if number > INFINITY:
        raise ValueError(text)
    return number


def _quota(quota_us: int | None, period_us: int | None) -> dict[str, int | None]:
    """systemd keeps a share of CPUs in percent: it is rounded up, and the file gets the exact value afterwards."""
    if not quota_us and not period_us:
        return {}
    period = period_us or PERIOD_US
    share = -(-quota_us * 1_000_000 // period // PERCENT_US) * PERCENT_US if quota_us and quota_us > 0 else INFINITY
    return {"CPUQuotaPerSecUSec": share, "CPUQuotaPeriodUSec": period}


def _checked(key: str, text: str, version: int) -> dict[str, int | None]:
    """`_unified`. Raises ConfigError for numbers that D-Bus could not carry."""
    try:
        found = _unified(key, text.strip().rpartition("\n")[2], version)  # the last line counts
        if any(value is not None and value > INFINITY for value in found.values()):
            raise ValueError(text)
    except ValueError:
        reason = f"{shown(text)} is more than systemd can be told: at most {INFINITY}"
        raise ConfigError(f"linux.resources.unified.{key}", reason) from None
    return found


def _unified(key: str, text: str, version: int) -> dict[str, int | None]:
    """What of `linux.resources.unified` systemd knows."""
    if key in AMOUNTS:
        name, since = AMOUNTS[key]
        return {name: _amount(text)} if version >= since else {}
    if key == "cpu.max":
        quota, _, period = text.partition(" ")
        return _quota(-1 if quota == "max" else _amount(quota), _amount(period) if period else None)
    if key == "cpu.idle" and text == "1" and version >= IDLE_SINCE:
        return {"CPUWeight": 0}
    return {}


def _limits_v1(resources: Resources) -> dict[str, int | None]:
    memory, cpu = resources.memory, resources.cpu
    found: dict[str, int | None] = {}
    if memory is not None:
        found["MemoryLimit"] = _bytes(memory.limit)
    if cpu is not None:
        found |= {"CPUShares": cpu.shares or None, **_quota(cpu.quota_us, cpu.period_us)}
    return found


def _limits_v2(resources: Resources, version: int) -> dict[str, int | None]:
    from cycontainer.resources_v2 import cpu_weight, io_weight

    memory, cpu, block_io = resources.memory, resources.cpu, resources.block_io
    found: dict[str, int | None] = {}
    if memory is not None:
        swap = None
        if memory.swap:
            swap = INFINITY if memory.swap < 0 or memory.limit is None else memory.swap - memory.limit
        found |= {"MemoryMax": _bytes(memory.limit), "MemoryLow": _bytes(memory.reservation), "MemorySwapMax": swap}
    if cpu is not None:
        found |= {"CPUWeight": cpu_weight(cpu.shares) if cpu.shares else None, **_quota(cpu.quota_us, cpu.period_us)}
        if cpu.idle and version >= IDLE_SINCE:
            found["CPUWeight"] = 0
    if block_io is not None and block_io.weight:
        found["IOWeight"] = io_weight(block_io.weight)
    return found


def limits_of(resources: Resources, *, version: int, v1: bool = False) -> tuple[Property, ...]:
    """Limits as properties of a unit; what has none is written to the cgroup only.

    Args:
        version: systemd's.
        v1: its controllers are cgroup v1's.

    Raises:
        ConfigError: a number that D-Bus cannot carry.
    """
    numbers = _limits_v1(resources) if v1 else _limits_v2(resources, version)
    if resources.pids is not None:
        numbers["TasksMax"] = max(1, resources.pids) if resources.pids >= 0 else INFINITY  # 0 is refused; the init is 1
    cpu, unified = resources.cpu, dict(resources.unified)
    masks = {"AllowedCPUs": cpu.cpus, "AllowedMemoryNodes": cpu.mems} if cpu is not None and not v1 else {}
    masks |= {name: unified[key] for key, name in MASKS.items() if key in unified}
    for key, text in unified.items():
        numbers |= _checked(key, text, version)
    found: list[Property] = [(name, ("t", value)) for name, value in numbers.items() if value is not None]
    found += [(name, ("ay", mask)) for name, text in masks.items() if text and (mask := _list_mask(text)) is not None]
    if "memory.oom.group" in unified and version >= OOM_POLICY_SINCE:
        found.append(("OOMPolicy", ("s", "kill" if unified["memory.oom.group"] == "1" else "continue")))
    return tuple(found)


def devices_of(rules: tuple[DeviceRule, ...]) -> tuple[Property, ...]:
    """Rules of devices as properties, for cgroup v1, where systemd writes its own. What it cannot say is left out: it
    is in the cgroup all the same, until systemd writes again."""
    from cycontainer.device_rules import folded

    outcome = folded(rules)
    if outcome.default:
        return (("DevicePolicy", ("s", "auto")), ("DeviceAllow", ("a(ss)", [])))
    allowed: list[tuple[str, str]] = []
    for (kind, major, minor), access in outcome.exceptions.items():
        name = {"b": "block", "c": "char"}[kind]
        letters = "".join([letter for letter in "rwm" if letter in access])
        if letters and major is None:
            allowed += [(f"{name}-*", letters)] if minor is None else []
        elif letters:
            allowed.append((f"{name}-{major}" if minor is None else f"/dev/{name}/{major}:{minor}", letters))
    return (
        ("DevicePolicy", ("s", "strict")),
        ("DeviceAllow", ("a(ss)", [])),  # empty: those from before are gone
        ("DeviceAllow", ("a(ss)", allowed)),
    )


_INTEGERS: Final = {"byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x", "uint64": "t"}
_RANGES: Final = {  # of D-Bus's types
    **{"y": (0, 2**8 - 1), "q": (0, 2**16 - 1), "u": (0, 2**32 - 1), "t": (0, 2**64 - 1)},
    **{"n": (-(2**15), 2**15 - 1), "i": (-(2**31), 2**31 - 1), "x": (-(2**63), 2**63 - 1)},
}


def _within(kind: str, value: float) -> tuple[str, int]:
    """A whole number of a type of D-Bus's. Raises OverflowError."""
    least, most = _RANGES[kind]
    if not least <= value <= most:
        raise OverflowError(f"must be from {least} to {most}")
    return kind, int(value)


def _variant(text: str) -> tuple[str, Any]:
    """A value in GVariant's text format: a string, a number, a flag, or a list of strings.

    Raises:
        ValueError: it is none.
        OverflowError: a number that its type cannot have.
    """
    text = text.strip()
    word, _, rest = text.partition(" ")
    if word in _INTEGERS:
        return _within(_INTEGERS[word], int(rest, 0))
    if text in ("true", "false"):
        return "b", text == "true"
    if text[:1] in ("'", '"'):
        return "s", _string(text)
    if text[:1] == "[" and text[-1:] == "]":
        return "as", [_string(part.strip()) for part in text[1:-1].split(",") if part.strip()]
    return ("d", float(text)) if "." in text else _within("i", int(text, 0))


def _string(text: str) -> str:
    if len(text) < 2 or text[0] not in "'\"" or text[-1] != text[0] or text[0] in text[1:-1] or "\\" in text:
        raise ValueError(text)
    if "\0" in text:  # D-Bus has no such string, nor one that is no UTF-8
        raise ValueError(text)
    return text[1:-1].encode().decode()


def annotated(annotations: tuple[tuple[str, str], ...]) -> tuple[Property, ...]:
    """The properties that annotations `org.systemd.property.NAME` ask for. Raises ConfigError."""
    found: list[Property] = []
    for key, text in annotations:
        if not key.startswith(ANNOTATION):
            continue
        name = key.removeprefix(ANNOTATION)
        if not (name[:1].isupper() and name.isascii() and name.isalnum()):
            raise ConfigError(f"annotations.{key}", "is no name of a property")
        if name in RESERVED:
            raise ConfigError(f"annotations.{key}", "is not to be set; linux.cgroupsPath names a slice")
        try:
            kind, value = _variant(text)
            if name.endswith("Sec") and not name.endswith("USec"):  # D-Bus has all times in microseconds
                name, (kind, value) = f"{name.removesuffix('Sec')}USec", _within("t", value * 1_000_000)
        except OverflowError as error:
            raise ConfigError(f"annotations.{key}", f"{shown(text)} {error}") from None
        except (ValueError, TypeError):
            raise ConfigError(f"annotations.{key}", f"{text!r} is no value in GVariant's text format") from None
        found.append((name, (kind, value)))
    return tuple(found)
