"""User namespaces from outside: their id maps, and the mounts that only the launcher can make for them. Lifecycle."""

from __future__ import annotations

import errno
import os

from cycontainer import _fd, _nsenter
from cycontainer.tables import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.config import IdMap
    from cycontainer.plan import IdMaps, Tree

CLONE_NEWUSER: Final = NAMESPACES["user"][0]


def _lines(maps: tuple[IdMap, ...]) -> bytes:
    return "".join(f"{line.container} {line.host} {line.size}\n" for line in maps).encode()


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def _write_by_helper(program: str, pid: int, maps: tuple[IdMap, ...]) -> None:
    """newuidmap(1) or newgidmap(1); their paths are the system's, never those of PATH."""
    from cycontainer.host import current

    mappers = current().id_mappers
    assert mappers is not None  # the compiler saw to it
    path = mappers[0] if program == "newuidmap" else mappers[1]
    numbers = [str(number) for line in maps for number in (line.container, line.host, line.size)]
    helper = os.posix_spawn(path, [program, str(pid), *numbers], {})
    _, status = os.waitpid(helper, 0)
    if status:
        raise OSError(errno.EPERM, f"{program} refused the map", path)


def write_id_maps(pid: int, maps: IdMaps) -> None:
    """uid_map, setgroups and gid_map of a process in a new user namespace. user_namespaces(7). Raises OSError."""
    if maps.by_helper:
        _write_by_helper("newuidmap", pid, maps.uid_map)
        _write_by_helper("newgidmap", pid, maps.gid_map)
        return
    _write(f"/proc/{pid}/uid_map", _lines(maps.uid_map))
    if maps.deny_setgroups:
        _write(f"/proc/{pid}/setgroups", b"deny")
    _write(f"/proc/{pid}/gid_map", _lines(maps.gid_map))


def make_trees(pid: int, trees: tuple[Tree, ...]) -> list[int]:
    """The mounts for an init in a user namespace; idmapped by that namespace where asked. Raises OSError."""
    made: list[int] = []
    namespace = -1
    try:
        for tree in trees:
            if tree.uid_map and namespace < 0:
                namespace = _nsenter.open_namespace(f"/proc/{pid}/ns/user".encode(), CLONE_NEWUSER)
            made.append(_fd.take_tree(os.fsencode(tree.path), tree.recursive, namespace if tree.uid_map else -1))
    except OSError:
        for fd in made:
            os.close(fd)
        raise
    finally:
        if namespace >= 0:
            os.close(namespace)
    return made
