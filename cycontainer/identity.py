"""Who the program is, and what it may use, as steps: ids, capabilities, limits, scheduling. Compile; pure.

Sources: runtime-spec config.md "User", "POSIX process", "Linux Process"; capabilities(7); credentials(7).
"""

from __future__ import annotations

from cycontainer.tables import RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

    from cycontainer._plan import PlanWriter
    from cycontainer.config import Config, Process, Scheduler
    from cycontainer.host import Host

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS = 1, 4, 8, 38
IOPRIO_CLASS_SHIFT: Final = 13
EVERY_CPU: Final = b"\xff" * 1024  # NR_CPUS goes no higher
_RLIMIT_NAMES: Final = {number: name for name, number in RLIMITS.items()}


def id_mask(numbers: Iterable[int]) -> bytes:
    """CPUs or memory nodes as the kernel's mask: whole longs, bit n is number n."""
    mask = sum(1 << number for number in numbers)
    return mask.to_bytes((mask.bit_length() // 64 + 1) * 8, "little")


def _scheduler_attributes(scheduler: Scheduler) -> bytes:
    """struct sched_attr of sched_setattr(2), its first version."""
    from struct import pack  # few containers ask for a scheduler, or for groups

    return pack(
        "<IIQiIQQQ", 48, scheduler.policy, scheduler.flags, scheduler.nice, scheduler.priority,
        scheduler.runtime_ns, scheduler.deadline_ns, scheduler.period_ns,
    )  # fmt: skip


def add_affinity(plan: PlanWriter, cpus: Iterable[int] | None) -> None:
    """Keep to these CPUs. Only of exec: config.md, "execCPUAffinity"."""
    if cpus is not None:
        plan.set_affinity(id_mask(cpus))


def reset_affinity(plan: PlanWriter) -> None:
    """All CPUs of the cpuset that it has entered: the kernel takes the others away, sched_setaffinity(2)."""
    plan.set_affinity(EVERY_CPU)


def add_limits(plan: PlanWriter, config: Config) -> None:
    """What is set while all capabilities are there."""
    process, linux = config.process, config.linux
    if process is None:
        return
    for limit in process.rlimits:
        plan.set_rlimit(_RLIMIT_NAMES[limit.resource], limit.resource, limit.soft, limit.hard)
    if process.scheduler:
        plan.set_scheduler(_scheduler_attributes(process.scheduler))
    if process.io_priority:
        kind, priority = process.io_priority
        plan.set_io_priority(kind << IOPRIO_CLASS_SHIFT | priority)
    if linux.memory_policy:
        nodes = linux.memory_policy.nodes
        plan.set_memory_policy(linux.memory_policy.mode | linux.memory_policy.flags, id_mask(nodes) if nodes else b"")
    if linux.personality is not None:
        plan.set_personality(linux.personality)


def add_ids(plan: PlanWriter, process: Process, host: Host, *, keep_groups: bool) -> None:
    """Ids and capabilities, to their final values. `keep_groups`: a user namespace in which setgroups is denied."""
    user, capabilities = process.user, process.capabilities
    plan.drop_bounding(capabilities.bounding, host.last_capability)
    plan.prctl("keep capabilities over the change of ids", PR_SET_KEEPCAPS, 1)
    if not keep_groups:
        plan.set_groups(b"".join([gid.to_bytes(4, "little") for gid in user.additional_gids]))
    plan.set_gid(user.gid)
    plan.set_uid(user.uid)
    known = (1 << host.last_capability + 1) - 1
    plan.set_capabilities(
        capabilities.effective & known, capabilities.permitted & known, capabilities.inheritable & known
    )
    plan.raise_ambient(capabilities.ambient & known)


def add_no_new_privileges(plan: PlanWriter, process: Process) -> None:
    """prctl(2), PR_SET_NO_NEW_PRIVS."""
    if process.no_new_privileges:
        plan.prctl("set no_new_privs", PR_SET_NO_NEW_PRIVS, 1)
