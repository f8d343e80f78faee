"""The places in a root file system where a restored container's mounts go. Lifecycle: it launches an init of ours.

criu wants them to be there. On another machine, or on a fresh copy of the image, they are not: the init makes what is
missing inside the root, as it does for a new container, in a mount namespace that ends with it. Binds are attached for
the time being, so that what lies below them is found.
"""

from __future__ import annotations

import os
import stat

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


def compile_mount_points(config: Config, *, needs_tmp: bool) -> Plan:
    """A plan without a program.

    Args:
        needs_tmp: make /tmp, too: criu puts the old root there for a moment, and a read-only root takes no directory.
    """
    plan = PlanWriter()
    plan.unshare("mount", NAMESPACES["mount"][0])
    plan.set_propagation("keep mounts from going back to the host", MS_SLAVE, AT_RECURSIVE)
    plan.take_tree(config.root.path, OPEN_TREE_CLONE | AT_RECURSIVE)
    plan.set_attributes("make the root's mounts private", 0, 0, MS_PRIVATE, AT_RECURSIVE)
    plan.enter_root()
    if needs_tmp:
        plan.find_target("/tmp", TARGET_DIRECTORY)
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
    plan = compile_mount_points(config, needs_tmp=not _has_tmp(config.root.path))
    problem, _ = run_program(plan, b"", None, ())
    if problem:
        raise ConfigError("root.path", f"a place for a mount could not be made: {problem}")


def _has_tmp(root: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(f"{root}/tmp").st_mode)
    except OSError:
        return False
