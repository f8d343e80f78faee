"""The verb `events`: what a container uses, and when it runs out of memory, a JSON object a line. Face."""

from __future__ import annotations

from cycontainer.cli.verb import ONE_ID, Arguments, Option, UsageError, Verb
from cycontainer.json_text import to_json
from cycontainer.lifecycle import Container
from cycontainer.stats_json import stats_event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.cgroup_events import Event

SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST: Final = 1e9  # seconds

VERB = Verb(
    usage="ID",
    help="print what a container uses after each interval, and when it runs out of memory, until it has ended",
    example="cycontainer events --interval 10s web",
    operands=ONE_ID,
    options=(
        Option(names=("--interval",), value="TIME", help="between two prints: 5s when none is given, 100ms, 1m30s"),
        Option(names=("--stats",), help="print what it uses now, once"),
    ),
)


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    interval = seconds(arguments.value("--interval", "5s"))
    container = Container.load(arguments.operands[0], root=arguments.root)
    if arguments.given("--stats"):
        print(to_json(stats_event(container.id, container.stats())))
        return 0
    for event in container.events(interval):
        line = _line(container.id, event)
        if line:
            print(line, flush=True)
    return 0


def _line(container_id: str, event: Event) -> str:
    """The events that runc has; for the others ""."""
    if event.stats is not None:
        return to_json(stats_event(container_id, event.stats))
    return to_json({"type": "oom", "id": container_id}) if event.kind == "oom" else ""


def seconds(text: str) -> float:
    """A time as Go writes it: "1m30s", "100ms", "1.5s". Raises UsageError."""
    total, rest = 0.0, text
    while rest:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        unit = rest[len(digits) :]
        unit = unit[: len(unit) - len(unit.lstrip("nuµmsh"))]
        if not digits.strip(".") or digits.count(".") > 1 or len(digits) > 20 or unit not in SECONDS:
            raise UsageError(f"invalid value {text!r} for --interval: a time such as 5s or 100ms")
        total += float(digits) * SECONDS[unit]
        rest = rest[len(digits) + len(unit) :]
    if not 0 < total <= LONGEST:
        raise UsageError(f"invalid value {text!r} for --interval: must be above 0")
    return total
