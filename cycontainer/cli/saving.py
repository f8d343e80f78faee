"""What `checkpoint` and `restore` have in common: options with the names and meanings of runc's and crun's. Face."""

from __future__ import annotations

import os

from cycontainer.cli.verb import Arguments, Option
from cycontainer.criu.rpc import CGROUP_MODES, NETWORK_LOCKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OPTIONS = (
    Option(names=("--image-path",), value="DIR", help="the image directory; ./checkpoint when none is given"),
    Option(names=("--work-path",), value="DIR", help="where criu's log goes; the image directory when none is given"),
    Option(names=("--tcp-established",), help="established TCP connections are saved"),
    Option(names=("--tcp-close",), help="established TCP connections are closed by the restore"),
    Option(names=("--ext-unix-sk",), help="unix datagram sockets that are connected to the host's are saved"),
    Option(names=("--shell-job",), help="its terminal is the caller's"),
    Option(names=("--lazy-pages",), help="the memory follows when it is needed, from a criu lazy-pages daemon"),
    Option(names=("--file-locks",), help="file locks are saved"),
    Option(
        names=("--manage-cgroups-mode",), value="MODE", choices=tuple(CGROUP_MODES), help="soft, full, strict or ignore"
    ),
    Option(names=("--empty-ns",), value="KIND", help="network: nothing of it is saved; it is always so"),
    Option(names=("--auto-dedup",), help="memory that is saved, or restored, is taken out of the older images"),
    Option(names=("--network-lock",), value="METHOD", choices=tuple(NETWORK_LOCKS), help="iptables, nftables or skip"),
)
FLAGS = ("tcp-established", "ext-unix-sk", "shell-job", "lazy-pages", "file-locks", "auto-dedup")


def image_path(arguments: Arguments) -> str:
    """The image directory."""
    return os.path.abspath(arguments.value("--image-path") or "checkpoint")


def options_of(arguments: Arguments, *more: str) -> dict[str, Any]:
    """The keywords of `Container.checkpoint` and `restore`; `more`: the flags that only one of them has."""
    found: dict[str, Any] = {name.replace("-", "_"): arguments.given(f"--{name}") for name in (*FLAGS, *more)}
    if arguments.given("--manage-cgroups-mode"):
        found["manage_cgroups_mode"] = arguments.value("--manage-cgroups-mode")
    return {
        **found,
        "work_path": os.path.abspath(arguments.value("--work-path")) if arguments.given("--work-path") else "",
        "empty_ns": tuple(arguments.values("--empty-ns")),
        "network_lock": arguments.value("--network-lock"),
    }
