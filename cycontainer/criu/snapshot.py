"""A warmed-up container that is restored many times, each time as a new one. Lifecycle.

PATH/images         criu's, never written again
PATH/config.json    the configuration
PATH/bundle         what its relative paths are relative to, and the id that it had: a line each
"""

from __future__ import annotations

import os

from cycontainer.errors import ConfigError, name_of, reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from cycontainer.lifecycle import Container
    from cycontainer.streams import Stream


class Snapshot:
    """A container's processes as they were at one moment, on disk. `with` deletes it in the end.

    What all clones have in common: the memory they begin with, a seeded random generator and a host name among it, and
    the root file system, unless `spawn` is given another. What each has of its own: its id, cgroup and namespaces, and
    its file systems in memory.

    Attributes:
        path: the directory, absolute. It holds all that the processes had in memory: only its owner can look in.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        try:
            with open(f"{self.path}/config.json", "rb") as file:
                self._document = file.read()
            with open(f"{self.path}/bundle", errors="surrogateescape", newline="\n") as text:
                self._bundle, self._name, _ = text.read().rsplit("\n", 2)  # a path may have any letter
        except (OSError, ValueError) as error:
            code = getattr(error, "errno", None)
            raise ConfigError("path", f"{self.path} has no snapshot" + (f": {name_of(code)}" if code else "")) from None

    @classmethod
    def take(
        cls,
        root: str,
        container_id: str,
        path: str | os.PathLike[str] | None,
        *,
        idle: Callable[[], object],
        **options: Any,
    ) -> Self:
        """Save a container; see `Container.snapshot`."""
        import shutil
        import tempfile

        from cycontainer.criu.checkpoint import checkpoint_container
        from cycontainer.criu.options import CheckpointOptions, checked
        from cycontainer.state import absolute, load, load_config

        wanted: CheckpointOptions = checked(CheckpointOptions(**{"leave_running": True, **options}))
        state, document = load(root, container_id), load_config(root, container_id)
        if path is None:
            place = tempfile.mkdtemp(prefix="cycontainer-snapshot-")
        else:
            place = absolute(path, "path")
            try:
                os.mkdir(place, 0o700)
            except OSError as error:
                raise ConfigError("path", f"{place}: {reason_of(error)}") from None
        try:
            _write(f"{place}/config.json", document)
            _write(f"{place}/bundle", os.fsencode(f"{state.bundle}\n{state.id}\n"))
            checkpoint_container(root, container_id, f"{place}/images", wanted, idle=idle)
        except BaseException:
            shutil.rmtree(place)
            raise
        return cls(place)

    def spawn(
        self,
        container_id: str | None = None,
        *,
        root: str | None = None,
        rootfs: str | os.PathLike[str] | None = None,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        **options: Any,
    ) -> Container:
        """A new container that goes on where the saved one was. Any number of them may be made, also at once.

        Args:
            container_id: None is a new one that begins with the saved container's.
            root: the directory that states are kept in; see `Container.create`.
            rootfs: a copy of the root file system for this one alone; None is the saved container's own.
            stdin, stdout, stderr, options: as in `Container.restore`.

        Raises: as `Container.restore`.
        """
        import shutil

        from cycontainer.lifecycle import Container

        name = container_id or f"{self._name[:200]}-{os.urandom(6).hex()}"
        work = f"{self.path}/work-{os.urandom(6).hex()}"
        os.mkdir(work, 0o700)
        try:
            return Container.restore(
                name,
                self._config(rootfs),
                f"{self.path}/images",
                root=root,
                bundle=self._bundle,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                **{"work_path": work, **options},
            )
        finally:
            shutil.rmtree(work)

    def _config(self, rootfs: str | os.PathLike[str] | None) -> dict[str, Any]:
        """The configuration of a clone: a cgroup path that was given is the saved container's alone."""
        from cycontainer.read_config import parse

        config = parse(self._document)
        assert isinstance(config, dict)  # a container was made from it
        config.get("linux", {}).pop("cgroupsPath", None)
        if rootfs is not None:
            config["root"]["path"] = os.path.abspath(rootfs)
        return config

    def delete(self) -> None:
        """Remove it from disk. What was spawned from it goes on. Raises OSError."""
        import shutil

        shutil.rmtree(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.delete()


def _write(path: str, data: bytes) -> None:
    """Write a new file. Raises ConfigError."""
    try:
        with open(path, "xb") as file:
            file.write(data)
    except OSError as error:
        raise ConfigError("path", f"{path}: {reason_of(error)}") from None
