"""The places in a root file system where a restored container's mounts go. Lifecycle: it launches an init of ours.

criu wants them to be there. On another machine, or on a fresh copy of the image, they are not: the init makes what is
missing inside the root, as it does for a new container, in a mount namespace that ends with it. Binds are attached for
the time being, so that what lies below them is found.
"""

from __future__ import annotations

from cycontainer._plan import PlanWriter
from cycontainer.errors import ConfigError
from cycontainer.hooks import run_program
from cycontainer.mount_options import AT_RECURSIVE, MS_PRIVATE, MS_SLAVE, OPEN_TREE_CLONE, fold_options
from cycontainer.plan import Plan
from cycontainer.rootfs import TARGET_DIRECTORY, TARGET_LIKE_SOURCE
from cycontainer.tables import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cycontainer.config import Config


def compile_mount_points(config: Config) -> Plan:
    """A plan without a program."""
    plan = PlanWriter()
    plan.unshare("mount", NAMESPACES["mount"][0])
    plan.set_propagation("keep mounts from going back to the host", MS_SLAVE, AT_RECURSIVE)
    plan.take_tree(config.root.path, OPEN_TREE_CLONE | AT_RECURSIVE)
    plan.set_attributes("make the root's mounts private", 0, 0, MS_PRIVATE, AT_RECURSIVE)
    plan.enter_root()
    made: list[str] = []  # file systems that criu fills: what lies below them comes with them
    for mount in config.mounts:
        if any(mount.destination.startswith(f"{place}/") for place in made):
            continue
        options = fold_options(mount)
        if options.bind:
            plan.take_tree(mount.source, OPEN_TREE_CLONE | (AT_RECURSIVE if options.recursive else 0))
            plan.find_target(mount.destination, TARGET_LIKE_SOURCE)
            plan.attach(mount.source, mount.destination)
        else:
            plan.find_target(mount.destination, TARGET_DIRECTORY)
            made.append(mount.destination.rstrip("/"))
    return Plan(
        data=plan.finish(),
        attempts=tuple(plan.attempts),
        program_step=len(plan.attempts),
        args=("mount-points",),
        env=(),
    )


def make_mount_points(config: Config) -> None:
    """Make what is missing. Raises ConfigError."""
    problem, _ = run_program(compile_mount_points(config), b"", None, ())
    if problem:
        raise ConfigError("root.path", f"a place for a mount could not be made: {problem}")
