"""User namespaces from outside: their id maps, and the mounts that only the launcher can make for them. Lifecycle."""

from __future__ import annotations

import errno
import os

from cycontainer import _fd, _nsenter
from cycontainer._clone import spawn
from cycontainer._plan import PlanWriter, assemble
from cycontainer.cgroup_layout import mount_points
from cycontainer.init_process import abandon, init_descriptor, plan_file
from cycontainer.plan import IdMaps
from cycontainer.tables import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from cycontainer.config import IdMap
    from cycontainer.plan import Tree

CLONE_NEWUSER: Final = NAMESPACES["user"][0]
MOST_WORDS: Final = 4096  # of what newuidmap says


def _lines(maps: tuple[IdMap, ...]) -> bytes:
    return "".join(f"{line.container} {line.host} {line.size}\n" for line in maps).encode()


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def _write_by_helper(program: str, pid: int, file: str, maps: tuple[IdMap, ...]) -> None:
    """newuidmap(1) or newgidmap(1); their paths are the system's, never PATH's. What counts is what they wrote."""
    from cycontainer.host import current

    mappers = current().id_mappers
    assert mappers is not None  # the compiler saw to it
    path = mappers[0] if program == "newuidmap" else mappers[1]
    numbers = [str(number) for line in maps for number in (line.container, line.host, line.size)]
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with open(reader, "rb") as said:
        try:
            actions = [(os.POSIX_SPAWN_DUP2, writer, 2)]
            helper = os.posix_spawn(path, [program, str(pid), *numbers], {}, file_actions=actions)
        finally:
            os.close(writer)
        words = said.read(MOST_WORDS)
    _wait_for(helper)
    with open(f"/proc/{pid}/{file}") as written:
        if written.read().split() != numbers:
            problem = words.decode("utf-8", "replace").strip().partition("\n")[0]
            raise OSError(errno.EPERM, f"{program} refused the map", f"{path}: {problem}")


def _wait_for(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return  # this program ignores SIGCHLD: the kernel has waited


def write_id_maps(pid: int, maps: IdMaps) -> None:
    """uid_map, setgroups and gid_map of a process in a new user namespace. user_namespaces(7). Raises OSError."""
    if maps.by_helper:
        _write_by_helper("newuidmap", pid, "uid_map", maps.uid_map)
        _write_by_helper("newgidmap", pid, "gid_map", maps.gid_map)
        return
    _write(f"/proc/{pid}/uid_map", _lines(maps.uid_map))
    if maps.deny_setgroups:
        _write(f"/proc/{pid}/setgroups", b"deny")
    _write(f"/proc/{pid}/gid_map", _lines(maps.gid_map))


def new_user_namespace(maps: IdMaps) -> int:
    """A descriptor of a new user namespace with these maps. Raises OSError."""
    plan = PlanWriter()
    plan.synchronise("hold a user namespace")
    file = plan_file(assemble(plan.finish(), 0, (), (), (), None))
    try:
        child = spawn(init_descriptor(), file, (), (), CLONE_NEWUSER)
    finally:
        os.close(file)
    try:
        write_id_maps(child.pid, maps)
        return _user_namespace_of(child.pid)
    finally:
        abandon(child)
        child.close()


def _user_namespace_of(pid: int) -> int:
    return _nsenter.open_namespace(f"/proc/{pid}/ns/user".encode(), CLONE_NEWUSER)


def make_tree(pid: int, tree: Tree) -> int:
    """A mount for the container of the init `pid`, detached, its ids mapped where asked.

    Raises:
        OSError: its file name says which mount cannot be mapped.
    """
    path = os.fsencode(tree.path)
    if not tree.idmap:
        return _fd.take_tree(path, tree.recursive)
    maps = IdMaps(uid_map=tree.uid_map, gid_map=tree.gid_map, by_helper=False, deny_setgroups=False)
    namespace = new_user_namespace(maps) if tree.uid_map else _user_namespace_of(pid)
    try:
        return _fd.take_tree(path, tree.recursive, namespace, tree.idmap == "ridmap")
    except OSError as error:
        if error.errno == errno.EINVAL:
            error.filename = _unmappable(tree, namespace)
        raise
    finally:
        _fd.close_all((namespace,))


def _unmappable(tree: Tree, namespace: int) -> str:
    """Which mount it is that cannot be mapped to other ids, and its file system; asked of each alone."""
    mounts = mount_points()
    top = os.path.realpath(tree.path)
    below = [point for point, _ in mounts.values() if point.startswith(f"{top.rstrip('/')}/")]
    for path in (top, *(below if tree.idmap == "ridmap" else ())):
        try:
            os.close(_fd.take_tree(os.fsencode(path), False, namespace))
        except OSError as error:
            if error.errno == errno.EINVAL:
                return f"{path}: {mounts[_mount_id(path)][1]} cannot be mapped to other ids"
    return tree.path


def _mount_id(path: str) -> str:
    """The mount that `path` is on; a name alone does not say it, as one mount can hide another."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}") as info:
            return next(line.split()[1] for line in info if line.startswith("mnt_id:"))
    finally:
        os.close(fd)
