"""What a container can do with criu: be saved, be a snapshot, come back. Lifecycle; it imports what it uses."""

from __future__ import annotations

import os

from cycontainer.state import absolute, check_id, directory_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Self

    from cycontainer.beside import Beside
    from cycontainer.criu.snapshot import Snapshot
    from cycontainer.process import Process
    from cycontainer.streams import Stream


class Saved:
    """The part of `Container` that saves and restores."""

    def __init__(self, container_id: str, root: str, process: Process | None = None) -> None:
        self.id, self.root, self.process = container_id, root, process
        self._beside: Beside | None = None  # what `exec` started here, until its end is heard
        if process is not None:
            process.beside = self._others()

    def _others(self) -> Beside:
        from cycontainer.beside import Beside

        self._beside = self._beside or Beside()
        return self._beside

    def hear_ends(self) -> None:
        """Take the status of what `exec` has started here and has ended; see `Beside`."""
        if self._beside is not None:
            self._beside.hear()

    def checkpoint(self, image_path: str | os.PathLike[str], **options: Any) -> None:
        """Save its processes to a directory. Unless `options` let them run on, it is stopped then, and can be deleted.

        Args:
            image_path: made when it is missing; it must have no images.
            options: `criu.options.CheckpointOptions`: leave_running, tcp_established, file_locks, ...

        Raises:
            ContainerNotRunning: it is neither running nor paused.
            ConfigError: an option, or the directory.
            HostError: criu is missing or too old, or this kernel lacks what an option needs.
            CheckpointError: it has processes that came in by `exec`; `without_exec` leaves these out.
            CriuError: criu cannot save it. After any of these it runs on, or is paused, as before; no image is left.
        """
        from cycontainer.criu.checkpoint import checkpoint_container
        from cycontainer.criu.options import CheckpointOptions, checked

        wanted: CheckpointOptions = checked(CheckpointOptions(**options))
        checkpoint_container(self.root, self.id, absolute(image_path, "image_path"), wanted, idle=self.hear_ends)

    def pre_dump(self, image_path: str | os.PathLike[str], **options: Any) -> None:
        """`checkpoint` of the memory alone, while it runs on: one with this as its `parent_path` will be shorter."""
        self.checkpoint(image_path, pre_dump=True, **options)

    def snapshot(self, path: str | os.PathLike[str] | None = None, **options: Any) -> Snapshot:
        """Save it to be restored many times, each time as a new container; it runs on.

        Args:
            path: a directory that is made; None is one in the directory for temporary files.
            options: as in `checkpoint`; leave_running=False ends it.

        Raises: as `checkpoint`; nothing is left then.
        """
        from cycontainer.criu.snapshot import Snapshot

        return Snapshot.take(self.root, self.id, path, idle=self.hear_ends, **options)

    @classmethod
    def restore(
        cls,
        container_id: str,
        config: Mapping[str, Any],
        image_path: str | os.PathLike[str],
        *,
        root: str | None = None,
        bundle: str = ".",
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        cgroup_manager: str = "cgroupfs",
        **options: Any,
    ) -> Self:
        """Bring a saved container back, on this machine or another one. It runs when this returns.

        Args:
            container_id, config, root, bundle: as in `create`; the configuration is the saved container's, but for
                where its file systems, namespaces and cgroups are now.
            image_path: the directory that `checkpoint`, or another runtime, has written.
            stdin, stdout, stderr: take the place of descriptors that were pipes or files of the host. With
                `process.terminal` the terminal's master is `process.terminal` of the result.
            cgroup_manager: as in `create`.
            options: `criu.options.RestoreOptions`: tcp_established, file_locks, ...

        Raises:
            ContainerExists: the id is taken under `root`.
            ConfigError, HostError, CgroupError, HookError, CriuError: nothing is left of what had been made.
        """
        from cycontainer.criu.container import bring_back
        from cycontainer.criu.options import RestoreOptions, checked

        check_id(container_id)
        root, image_path = directory_of(root), absolute(image_path, "image_path")
        wanted: RestoreOptions = checked(RestoreOptions(**options))
        streams = stdin, stdout, stderr
        process = bring_back(
            root, container_id, config, image_path, wanted,
            bundle=bundle, streams=streams, cgroup_manager=cgroup_manager,
        )  # fmt: skip
        return cls(container_id, root, process)
