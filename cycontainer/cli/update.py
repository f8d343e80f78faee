"""The verb `update`: change the limits of a container that runs. Face."""

from __future__ import annotations

import sys

from cycontainer.cli.verb import ONE_ID, Arguments, Option, UsageError, Verb, number_in
from cycontainer.config import IntelRdt
from cycontainer.lifecycle import Container
from cycontainer.node import INT64, UINT64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

NUMBERS: Final = {  # option: where it stands in linux.resources
    "--blkio-weight": ("blockIO", "weight"),
    "--cpu-period": ("cpu", "period"),
    "--cpu-quota": ("cpu", "quota"),
    "--cpu-burst": ("cpu", "burst"),
    "--cpu-idle": ("cpu", "idle"),
    "--cpu-share": ("cpu", "shares"),
    "--cpu-rt-period": ("cpu", "realtimePeriod"),
    "--cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "--pids-limit": ("pids", "limit"),
}
NEVER_EMPTY: Final = ("--blkio-weight", "--pids-limit")  # numbers in Go; the others are texts, which may be
SIZES: Final = {
    "--memory": ("memory", "limit"),
    "--memory-reservation": ("memory", "reservation"),
    "--memory-swap": ("memory", "swap"),
}
LISTS: Final = {"--cpuset-cpus": ("cpu", "cpus"), "--cpuset-mems": ("cpu", "mems")}
UNITS: Final = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}  # bits

VERB = Verb(
    usage="ID",
    help="change limits of a container; those that are not given stay as they are, and all change or none",
    example="cycontainer update --memory 256M --pids-limit 100 web",
    operands=ONE_ID,
    options=(
        Option(names=("--resources", "-r"), value="FILE", help="JSON as in linux.resources; - is the standard input"),
        Option(names=("--blkio-weight",), value="N", help="weight of block I/O, 10 to 1000"),
        Option(names=("--cpu-period",), value="US", help="length of a CPU period, in microseconds"),
        Option(names=("--cpu-quota",), value="US", help="CPU time in a period, in microseconds"),
        Option(names=("--cpu-burst",), value="US", help="CPU time that may be saved up, in microseconds"),
        Option(names=("--cpu-idle",), value="N", help="1: runs when nobody else wants the CPU"),
        Option(names=("--cpu-share", "--cpu-shares"), value="N", help="weight of the CPU"),
        Option(names=("--cpu-rt-period",), value="US", help="length of a real-time period, in microseconds"),
        Option(names=("--cpu-rt-runtime",), value="US", help="real-time CPU in a period, in microseconds"),
        Option(names=("--cpuset-cpus",), value="LIST", help="CPUs that may be used: 0-3,7"),
        Option(names=("--cpuset-mems",), value="LIST", help="memory nodes that may be used"),
        Option(names=("--memory",), value="BYTES", help="memory; 50M as well; -1 is unlimited"),
        Option(names=("--memory-reservation",), value="BYTES", help="memory that is kept under pressure"),
        Option(names=("--memory-swap",), value="BYTES", help="memory and swap together"),
        Option(names=("--pids-limit",), value="N", help="processes and threads; -1 is unlimited"),
        Option(names=("--l3-cache-schema",), value="TEXT", help="schema of the L3 cache, for resctrl"),
        Option(names=("--mem-bw-schema",), value="TEXT", help="schema of the memory bandwidth, for resctrl"),
        Option(names=("--kernel-memory",), value="BYTES", help="obsolete, and ignored"),
        Option(names=("--kernel-memory-tcp",), value="BYTES", help="obsolete, and ignored"),
    ),
)


def main(arguments: Arguments) -> int:
    """Returns the exit status."""
    resources = _read_file(arguments) if arguments.given("--resources") else _from_options(arguments)
    container = Container.load(arguments.operands[0], root=arguments.root)
    for warning in container.update(resources, intel_rdt=_intel_rdt(arguments)):
        arguments.warn(warning)
    return 0


def _from_options(arguments: Arguments) -> dict[str, Any]:
    resources: dict[str, dict[str, Any]] = {}
    for name, (section, key) in NUMBERS.items():
        if arguments.given(name) or (name in NEVER_EMPTY and arguments.values(name)):
            resources.setdefault(section, {})[key] = arguments.number(name, -INT64, UINT64)
    for name, (section, key) in SIZES.items():
        if arguments.given(name):
            resources.setdefault(section, {})[key] = size_in_bytes(arguments.value(name), name)
    for name, (section, key) in LISTS.items():
        if arguments.given(name):
            resources.setdefault(section, {})[key] = arguments.value(name)
    return resources


def size_in_bytes(text: str, name: str) -> int:
    """ "50M", "50mb" and "50MiB" are 50 << 20, "0.5g" is half a gigabyte. Raises UsageError."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    unit = text[len(number) :].lower().removesuffix("b").removesuffix("i")
    if unit not in UNITS:
        raise UsageError(f"invalid value {text!r} for {name}: a number of bytes, or with k, m, g, t or p")
    if number == "-1":
        return -1
    whole, point, part = number.partition(".")
    size = number_in(whole, 0, INT64, name) << UNITS[unit]
    if point:
        size += (number_in(part, 0, INT64, name) << UNITS[unit]) // 10 ** len(part)
    return min(size, INT64)


def _intel_rdt(arguments: Arguments) -> IntelRdt | None:
    if not arguments.given("--l3-cache-schema") and not arguments.given("--mem-bw-schema"):
        return None
    return IntelRdt(
        l3_cache_schema=arguments.value("--l3-cache-schema"),
        memory_bandwidth_schema=arguments.value("--mem-bw-schema"),
    )


def _read_file(arguments: Arguments) -> dict[str, Any]:
    from cycontainer.node import Node
    from cycontainer.read_config import MOST_BYTES, parse, read_given

    path = arguments.value("--resources")
    if path == "-":
        document = parse(sys.stdin.buffer.read(MOST_BYTES + 1) if sys.stdin is not None else b"")
    else:
        document = parse(read_given(path))
    return Node(document, "resources").required().object()
