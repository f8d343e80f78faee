"""Reads the section `process` of a configuration. Model; pure. Source: runtime-spec 1.3, config.md, "Process"."""

from __future__ import annotations

from cycontainer.config import Capabilities, Process, Rlimit, Scheduler, User
from cycontainer.node import INT64, UINT64
from cycontainer.tables import (
    CAPABILITIES,
    IO_CLASSES,
    MAX_ARG_STRLEN,
    MAX_STRINGS,
    MOST_ID,
    RLIMITS,
    SCHEDULER_FLAGS,
    SCHEDULERS,
    capability_mask,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.node import Node

NGROUPS_MAX: Final = 65536  # linux/limits.h
WINSIZE_MAX: Final = 65535  # ioctl_tty(2), struct winsize
LEAST_RUNTIME_NS: Final = 1024  # sched(7), "SCHED_DEADLINE"


def read_process(node: Node, warnings: list[str]) -> Process | None:
    """The section `process`; what must only be warned of is added to `warnings`."""
    if not node:
        return None
    affinity = node["execCPUAffinity"]
    args, env = read_args(node["args"]), read_env(node["env"])
    _check_total(node, args, env)
    return Process(
        args=args,
        cwd=node["cwd"].path_text(),
        env=env,
        terminal=node["terminal"].flag(),
        console_size=_read_console_size(node),
        user=_read_user(node["user"]),
        capabilities=_read_capabilities(node["capabilities"], warnings),
        rlimits=_read_rlimits(node["rlimits"]),
        no_new_privileges=node["noNewPrivileges"].flag(),
        apparmor_profile=node["apparmorProfile"].line(),
        selinux_label=node["selinuxLabel"].line(),
        oom_score_adj=node["oomScoreAdj"].optional_integer(-1000, 1000),
        scheduler=_read_scheduler(node["scheduler"]),
        io_priority=_read_io_priority(node["ioPriority"]),
        cpu_affinity_initial=affinity["initial"].number_list(),
        cpu_affinity_final=affinity["final"].number_list(),
    )


# --- what execve takes


def _check_length(node: Node, text: str) -> None:
    if 4 * len(text) >= MAX_ARG_STRLEN and len(text.encode("utf-8", "surrogateescape")) >= MAX_ARG_STRLEN:
        raise node.error(f"is longer than execve takes, {MAX_ARG_STRLEN - 1} bytes")


def read_args(node: Node) -> tuple[str, ...]:
    """The program and its arguments."""
    args = node.os_texts()
    if not args or not args[0]:
        raise node.error("must name a program")
    for entry, text in zip(node.array(), args):
        _check_length(entry, text)
    return args


def read_env(node: Node) -> tuple[str, ...]:
    """Entries "NAME=value"; of a name that is there twice the last wins."""
    env: dict[str, str] = {}
    for entry in node.array():
        text = entry.os_text()
        name, equals, _ = text.partition("=")
        if not name or not equals:
            raise entry.error("must be NAME=value")
        _check_length(entry, text)
        env.pop(name, None)
        env[name] = text
    return tuple(env.values())


def _check_total(node: Node, args: tuple[str, ...], env: tuple[str, ...]) -> None:
    total = sum(len(text.encode("utf-8", "surrogateescape")) + 9 for text in (*args, *env))  # a NUL and a pointer
    if total > MAX_STRINGS:
        raise node["env"].error(f"is with args larger than execve takes, {MAX_STRINGS} bytes")


# --- who it is


def _read_console_size(node: Node) -> tuple[int, int] | None:
    """Rows and columns; without a terminal the spec has them ignored."""
    size = node["consoleSize"]
    if not size:
        return None
    rows_columns = size["height"].integer(0, WINSIZE_MAX), size["width"].integer(0, WINSIZE_MAX)
    return rows_columns if node["terminal"].flag() else None


def _read_user(node: Node) -> User:
    groups = node["additionalGids"].array()
    if len(groups) > NGROUPS_MAX:
        raise node["additionalGids"].error(f"has {len(groups)} groups; setgroups takes {NGROUPS_MAX}")
    return User(
        uid=node["uid"].integer(0, MOST_ID, default=0),
        gid=node["gid"].integer(0, MOST_ID, default=0),
        umask=node["umask"].optional_integer(0, 0o777),
        additional_gids=tuple([entry.integer(0, MOST_ID) for entry in groups]),
    )


def _named(mask: int) -> str:
    return ", ".join(name for number, name in enumerate(CAPABILITIES) if mask >> number & 1)


def _read_capabilities(node: Node, warnings: list[str]) -> Capabilities:
    """Five sets as capset(2) and prctl(2) will take them. Source: capabilities(7), "Programmatically adjusting"."""
    sets: dict[str, int] = {}
    for name in ("bounding", "effective", "inheritable", "permitted", "ambient"):
        sets[name], unknown = capability_mask(node[name].texts())
        warnings.extend(f"{node.path}.{name}: {other!r} is no capability that is known here" for other in unknown)
    for inner, outer in (("effective", "permitted"), ("inheritable", "bounding")):
        beyond = sets[inner] & ~sets[outer]
        if beyond:
            raise node[inner].error(f"{_named(beyond)} would have to be {outer}, too")
    lost = sets["ambient"] & ~(sets["permitted"] & sets["inheritable"])
    if lost:  # runc warns as well, and engines rely on that
        for name in _named(lost).split(", "):
            warnings.append(f"can't raise ambient capability {name}: it is not both permitted and inheritable")
    return Capabilities(**{**sets, "ambient": sets["ambient"] & ~lost})


# --- what it may use


def read_rlimit(node: Node) -> Rlimit:
    """One entry of `process.rlimits`. Source: runtime-spec config.md, "POSIX process"."""
    name = node["type"].text()
    if name not in RLIMITS:
        raise node["type"].error(f"unknown resource limit; one of {', '.join(RLIMITS)}")
    soft, hard = (node[key].integer(0, UINT64) for key in ("soft", "hard"))
    if soft > hard:
        raise node["soft"].error(f"{soft} is above the hard limit, {hard}")
    return Rlimit(resource=RLIMITS[name], soft=soft, hard=hard)


def _read_rlimits(node: Node) -> tuple[Rlimit, ...]:
    limits: dict[int, Rlimit] = {}
    for entry in node.array():
        limit = read_rlimit(entry)
        if limit.resource in limits:
            raise entry["type"].error(f"{entry['type'].text()} is there twice")
        limits[limit.resource] = limit
    return tuple(limits.values())


def _read_scheduler(node: Node) -> Scheduler | None:
    if not node:
        return None
    policy = node["policy"].one_of(SCHEDULERS)
    if policy == "SCHED_ISO":
        raise node["policy"].error("SCHED_ISO is a reserved name; no kernel has it")
    realtime = policy in ("SCHED_FIFO", "SCHED_RR")
    flags = 0
    for entry in node["flags"].array():
        flags |= SCHEDULER_FLAGS[entry.one_of(SCHEDULER_FLAGS)]
    priority = node["priority"].integer(-(2**31), 2**31 - 1, default=0)
    if realtime and not 1 <= priority <= 99:
        raise node["priority"].error(f"must be from 1 to 99 with {policy}, not {priority}")
    if priority and not realtime:
        raise node["priority"].error(f"goes with SCHED_FIFO and SCHED_RR, not with {policy}")
    runtime, deadline, period = _read_deadline(node, policy)
    return Scheduler(
        policy=SCHEDULERS[policy],
        flags=flags,
        nice=node["nice"].integer(-20, 19, default=0),
        priority=priority,
        runtime_ns=runtime,
        deadline_ns=deadline,
        period_ns=period,
    )


def _read_deadline(node: Node, policy: str) -> tuple[int, int, int]:
    """What SCHED_DEADLINE needs and the others refuse, in nanoseconds. Source: sched(7), "SCHED_DEADLINE"."""
    runtime, deadline, period = (node[key].integer(0, INT64, default=0) for key in ("runtime", "deadline", "period"))
    if policy != "SCHED_DEADLINE":
        for key, value in (("runtime", runtime), ("deadline", deadline), ("period", period)):
            if value:
                raise node[key].error(f"goes with SCHED_DEADLINE, not with {policy}")
        return 0, 0, 0
    if runtime < LEAST_RUNTIME_NS:
        raise node["runtime"].error(f"must be at least {LEAST_RUNTIME_NS} ns with SCHED_DEADLINE, not {runtime}")
    if deadline < runtime:
        raise node["deadline"].error(f"{deadline} is less than the runtime, {runtime}")
    if period and period < deadline:
        raise node["period"].error(f"{period} is less than the deadline, {deadline}")
    return runtime, deadline, period


def _read_io_priority(node: Node) -> tuple[int, int] | None:
    if not node:
        return None
    return IO_CLASSES[node["class"].one_of(IO_CLASSES)], node["priority"].integer(0, 7, default=0)
