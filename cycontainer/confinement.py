"""What the program may not do, as steps: seccomp and the labels of security modules. Compile; pure.

Sources: runtime-spec config-linux.md "Seccomp", config.md "Linux Process"; seccomp(2).
"""

from __future__ import annotations

from cycontainer.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cycontainer._plan import PlanWriter
    from cycontainer.config import Config, Seccomp
    from cycontainer.host import Host


def check_labels(config: Config, host: Host) -> None:
    """Refuse a label that no security module here would enforce: a security step is never skipped."""
    process = config.process
    if process and process.apparmor_profile not in ("", "unconfined") and "apparmor" not in host.lsms:
        raise ConfigError("process.apparmorProfile", "this kernel has no AppArmor")
    if process and process.selinux_label and "selinux" not in host.lsms:
        raise ConfigError("process.selinuxLabel", "this kernel has no SELinux")
    if config.linux.mount_label and "selinux" not in host.lsms:
        raise ConfigError("linux.mountLabel", "this kernel has no SELinux")


def add_labels(plan: PlanWriter, config: Config) -> None:
    """The labels that the program's execve takes on."""
    process = config.process
    if process and process.apparmor_profile not in ("", "unconfined"):
        profile = process.apparmor_profile
        plan.write_proc(f"confine with AppArmor profile {profile}", "self/attr/apparmor/exec", f"exec {profile}")
    if process and process.selinux_label:
        plan.write_proc(f"set the SELinux label {process.selinux_label}", "self/attr/exec", process.selinux_label)


def needs_proc(config: Config) -> bool:
    """Whether any step writes to procfs."""
    process = config.process
    labelled = process and (process.apparmor_profile not in ("", "unconfined") or process.selinux_label)
    adjusted = process and process.oom_score_adj is not None
    return bool(labelled or adjusted or config.linux.sysctl)


def add_seccomp(plan: PlanWriter, seccomp: Seccomp | None, machine: str) -> None:
    """Load the filter. libseccomp is opened only when there is one to make."""
    if seccomp is None:
        return
    from cycontainer._seccomp import compile_filter, filter_flags

    plan.load_seccomp(compile_filter(seccomp, machine), filter_flags(seccomp))
