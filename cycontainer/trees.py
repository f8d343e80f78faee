"""Which mounts the launcher makes: what an init in a user namespace may not reach, and what has its ids mapped.

Compile; pure. Sources: runtime-spec config.md "Mounts"; mount_setattr(2), "ID-mapped mounts".
"""

from __future__ import annotations

from cycontainer.errors import ConfigError
from cycontainer.mount_options import fold_options
from cycontainer.namespaces import can_map
from cycontainer.plan import Tree
from cycontainer.sources import ROOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cycontainer.config import Config, Mount
    from cycontainer.host import Host
    from cycontainer.mount_options import Options
    from cycontainer.namespaces import Scope


def launcher_trees(config: Config, host: Host, scope: Scope, *, map_root: bool) -> dict[int, Tree]:
    """The trees by the index of their mount, ROOT for the root.

    Raises:
        ConfigError: ids cannot be mapped so.
    """
    found: dict[int, Tree] = {}
    if scope.user and scope.privileged:
        found[ROOT] = Tree(path=config.root.path, recursive=True, idmap="ridmap" if map_root else "")
    for index, mount in enumerate(config.mounts):
        options = fold_options(mount)
        mapped = _is_mapped(mount, options)
        if mapped:
            _check(mount, host, scope)
        if options.bind and scope.privileged and (scope.user or mapped):
            found[index] = _tree(config, mount, options, scope)
    return found


def _is_mapped(mount: Mount, options: Options) -> bool:
    return bool(mount.uid_map or mount.gid_map or options.idmap)


def _check(mount: Mount, host: Host, scope: Scope) -> None:
    """Refuse maps that the kernel would."""
    where = f"{mount.where}.uidMappings" if mount.uid_map else f"{mount.where}.options"
    if not fold_options(mount).bind:
        raise ConfigError(where, "only a bind mount can be mapped to other ids")
    if not mount.uid_map and not scope.user:
        raise ConfigError(where, "idmap needs uidMappings and gidMappings, or a user namespace that has them")
    if not scope.privileged:
        raise ConfigError(where, "an idmapped mount needs CAP_SYS_ADMIN")
    if mount.uid_map and not can_map(host):
        raise ConfigError(where, "an idmapped mount needs CAP_SETUID and CAP_SETGID")


def _tree(config: Config, mount: Mount, options: Options, scope: Scope) -> Tree:
    """A mount's own maps come first; those that are the container's take no namespace of their own."""
    linux = config.linux
    same = "user" in scope.new and (mount.uid_map, mount.gid_map) == (linux.uid_map, linux.gid_map)
    idmap = options.idmap or ("idmap" if mount.uid_map else "")
    return Tree(
        path=mount.source,
        recursive=options.recursive,
        idmap=idmap,
        uid_map=() if same else mount.uid_map,
        gid_map=() if same else mount.gid_map,
    )
