"""What the program may not do, as steps: seccomp and the labels of security modules. Compile; pure.

Sources: runtime-spec config-linux.md "Seccomp", config.md "Linux Process"; seccomp(2).
"""

from __future__ import annotations

from cycontainer.errors import ConfigError
from cycontainer.tables import FILTER_FLAGS, NEVER_NOTIFIED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer._plan import PlanWriter
    from cycontainer.config import Config, Process, Seccomp
    from cycontainer.host import Host

NOTIFY: Final = "SCMP_ACT_NOTIFY"
KILLABLE: Final = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"  # a call that was received is not taken back
UNCONFINED: Final = "unconfined"  # the one profile that every AppArmor has


def check_labels(config: Config, host: Host) -> None:
    """Refuse a label that no security module here would enforce: a security step is never skipped."""
    process = config.process
    if process and process.apparmor_profile not in ("", UNCONFINED) and "apparmor" not in host.lsms:
        raise ConfigError("process.apparmorProfile", "this kernel has no AppArmor, or it is off")
    if process and process.selinux_label and "selinux" not in host.lsms:
        raise ConfigError("process.selinuxLabel", "this kernel has no SELinux, or it is off")
    if config.linux.mount_label and "selinux" not in host.lsms:
        raise ConfigError("linux.mountLabel", "this kernel has no SELinux, or it is off")


def _profile(process: Process | None, host: Host) -> str:
    """The AppArmor profile to take on; "unconfined" is one where there is AppArmor: the caller may be confined."""
    if process is None or (process.apparmor_profile == UNCONFINED and "apparmor" not in host.lsms):
        return ""
    return process.apparmor_profile


def add_labels(plan: PlanWriter, process: Process, host: Host) -> None:
    """The labels that the program's execve takes on. A process may only write its own: no launcher could do it."""
    profile = _profile(process, host)
    if profile:
        plan.write_proc(f"confine with AppArmor profile {profile}", "self/attr/apparmor/exec", f"exec {profile}")
    if process.selinux_label:
        plan.write_proc(f"set the SELinux label {process.selinux_label}", "self/attr/exec", process.selinux_label)


def add_keyring(plan: PlanWriter, process: Process) -> None:
    """A session keyring of its own, with the process's label. It has no name: another could join it by that."""
    if process.selinux_label:
        plan.write_proc("set the label of new keys", "self/attr/keycreate", process.selinux_label)
    plan.join_keyring()
    if process.selinux_label:
        plan.write_proc("reset the label of new keys", "self/attr/keycreate", "")


def needs_proc(config: Config, host: Host) -> bool:
    """Whether any step writes to procfs."""
    process = config.process
    labelled = process and (_profile(process, host) or process.selinux_label)
    adjusted = process and process.oom_score_adj is not None
    return bool(labelled or adjusted or config.linux.sysctl)


def notifies(seccomp: Seccomp | None) -> bool:
    """Whether it asks someone about system calls."""
    return seccomp is not None and any(rule.action == NOTIFY for rule in seccomp.syscalls)


def add_seccomp(plan: PlanWriter, seccomp: Seccomp | None, host: Host, supervised: tuple[str, ...] = ()) -> None:
    """Load the filter. libseccomp is opened only when there is one to make."""
    if supervised:
        seccomp = _supervised(seccomp, host, supervised)
    if seccomp is None:
        return
    from cycontainer._seccomp import compile_filter, filter_flags

    plan.load_seccomp(compile_filter(seccomp, host.machine), filter_flags(seccomp, bool(supervised)))


def _supervised(seccomp: Seccomp | None, host: Host, names: tuple[str, ...]) -> Seccomp:
    """The filter, and these calls wait for an answer whatever it says of them."""
    from cycontainer.config import Seccomp, SyscallRule

    if seccomp is None:
        seccomp = Seccomp(default_action="SCMP_ACT_ALLOW")
    if notifies(seccomp):
        raise ConfigError("supervisor", "the configuration has SCMP_ACT_NOTIFY for another who answers")
    for name in names:
        if name in NEVER_NOTIFIED:
            raise ConfigError("supervisor", f"SCMP_ACT_NOTIFY cannot be used for the {name} syscall")
    rules = [rule.replace(names=tuple([name for name in rule.names if name not in names])) for rule in seccomp.syscalls]
    killable = (KILLABLE,) if host.filter_flags & FILTER_FLAGS[KILLABLE] else ()
    return seccomp.replace(
        syscalls=(*[rule for rule in rules if rule.names], SyscallRule(names=names, action=NOTIFY)),
        flags=(*seccomp.flags, *killable),
    )
