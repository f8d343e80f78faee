"""Rules of devices: for v1 the outcome in a form that its controller can hold, for v2 a program. Compile; pure."""

from __future__ import annotations

from cycontainer.config import DeviceRule
from cycontainer.errors import ConfigError
from cycontainer.limits import Writes
from cycontainer.resources import PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# What every container may use, whatever its rules say: the init's own mknod needs it, and programs its devices.
# Making any node is allowed, as by other runtimes: it gives no access. config-linux.md, "Default Devices".
ALWAYS_ALLOWED: Final = (
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),  # null
    ("c", 1, 5, "rwm"),  # zero
    ("c", 1, 7, "rwm"),  # full
    ("c", 1, 8, "rwm"),  # random
    ("c", 1, 9, "rwm"),  # urandom
    ("c", 5, 0, "rwm"),  # tty
    ("c", 5, 1, "rwm"),  # console
    ("c", 5, 2, "rwm"),  # ptmx
    ("c", 136, None, "rwm"),  # the terminals of pts
)


_Number = tuple[str, "int | None", "int | None"]  # type, major, minor; None is every number


def _contains(wide: _Number, narrow: _Number) -> bool:
    return wide[0] == narrow[0] and all(a is None or a == b for a, b in zip(wide[1:], narrow[1:], strict=True))


def _overlaps(one: _Number, other: _Number) -> bool:
    pairs = zip(one[1:], other[1:], strict=True)
    return one[0] == other[0] and all(a is None or b is None or a == b for a, b in pairs)


class FoldedRules:
    """The rules in their order, folded: a default for all devices, and the exceptions from it.

    The controller removes an exception only if it is given exactly the same numbers, and ignores all else in silence
    (devcgroup, cgroup-v1/devices.rst). So what it could not do is refused here, and only the outcome is written.
    """

    def __init__(self) -> None:
        self.default = False
        self.exceptions: dict[_Number, set[str]] = {}

    def apply(self, allow: bool, numbers: _Number, access: str, path: str) -> None:
        if allow != self.default:
            self.exceptions.setdefault(numbers, set()).update(access)
            return
        for other in tuple(self.exceptions):
            if _contains(numbers, other):
                self.exceptions[other] -= set(access)
            elif _overlaps(numbers, other) and self.exceptions[other] & set(access):
                raise ConfigError(path, "cgroup v1 cannot take a part out of what an earlier rule says of more devices")

    def apply_rule(self, rule: DeviceRule, path: str) -> None:
        if rule.type == "a" and (rule.major, rule.minor, rule.access) == (None, None, "rwm"):
            self.default, self.exceptions = rule.allow, {}
            return
        for kind in "bc" if rule.type == "a" else rule.type:
            self.apply(rule.allow, (kind, rule.major, rule.minor), rule.access, path)

    def writes(self) -> Writes:
        writes = Writes()
        default, exception = ("devices.allow", "devices.deny") if self.default else ("devices.deny", "devices.allow")
        writes.add("devices", default, "a")
        for (kind, major, minor), access in self.exceptions.items():
            numbers = ":".join("*" if number is None else str(number) for number in (major, minor))
            letters = "".join(letter for letter in "rwm" if letter in access)
            writes.add("devices", exception, f"{kind} {numbers} {letters}" if letters else None)
        return writes


def folded(rules: tuple[DeviceRule, ...]) -> FoldedRules:
    """The rules, and what every container may use. Raises ConfigError for what v1 cannot hold."""
    outcome = FoldedRules()  # nothing is allowed unless a rule says so
    for index, rule in enumerate(rules):
        outcome.apply_rule(rule, f"{PATH}.devices[{index}]")
    for kind, major, minor, access in ALWAYS_ALLOWED:
        outcome.apply(True, (kind, major, minor), access, f"{PATH}.devices")
    return outcome


def device_writes(rules: tuple[DeviceRule, ...]) -> Writes:
    return folded(rules).writes()


def device_program(rules: tuple[DeviceRule, ...]) -> bytes:
    """v2's program for the rules, with what every container may use at the end."""
    always = tuple(
        [
            DeviceRule(allow=True, type=kind, major=major, minor=minor, access=access)
            for kind, major, minor, access in ALWAYS_ALLOWED
        ]
    )
    from cycontainer import _bpf  # v2's alone

    return _bpf.device_program((*rules, *always))
