"""A hook as a plan: on the host, or in a container's namespaces. Compile; pure.

Source: runtime-spec config.md, "POSIX-platform Hooks".
"""

from __future__ import annotations

from cycontainer._plan import PlanWriter
from cycontainer.identity import PR_SET_DUMPABLE
from cycontainer.plan import Plan
from cycontainer.tables import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cycontainer.config import Config, Hook


def compile_hook(hook: Hook, directory: str, container: Config | None = None) -> Plan:
    """A program of the host with the hook's arguments and environment, and nothing else of ours.

    Args:
        directory: where it begins.
        container: join all its namespaces; a pidfd of its first process is then the plan's only slot.
    """
    plan = PlanWriter()
    if container:
        plan.prctl("let no one look into the init", PR_SET_DUMPABLE, 0)
    kinds = {namespace.type for namespace in container.linux.namespaces} if container else set()
    if container and kinds:
        plan.join(0, "container's", sum(NAMESPACES[kind][0] for kind in kinds))
    if container and "user" in kinds:
        plan.set_gid(min(line.container for line in container.linux.gid_map))
        plan.set_uid(min(line.container for line in container.linux.uid_map))
    plan.set_umask(0o022)
    plan.change_directory(directory)
    plan.close_slots(False)
    if "pid" in kinds:
        plan.clone("the joined", 0)
    plan.set_session()
    plan.fresh_signals()
    program_step = len(plan.attempts)
    plan.look_up()
    plan.execute()
    return Plan(
        data=plan.finish(),
        attempts=tuple(plan.attempts),
        processes=2 if "pid" in kinds else 1,
        program_step=program_step,
        args=hook.args or (hook.path,),
        env=hook.env,
        program=hook.path,
    )
