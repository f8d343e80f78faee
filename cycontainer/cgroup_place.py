"""Where a cgroup may be, and whose it is. Hot."""

from __future__ import annotations

import os

from cycontainer.errors import CgroupError, ConfigError, errno_of

LONGEST = 4096  # PATH_MAX
V1_FROZEN = ("freezer.state", "FROZEN", "FREEZING")  # a freezer's file, and what it says also when it is about to be
V2_FROZEN = ("cgroup.freeze", "1")
MEMORY_FILES = (  # v1's, and v2's: the peak, and how many were killed for the limit, in the line oom_kill
    ("memory.max_usage_in_bytes", "memory.oom_control"),
    ("memory.peak", "memory.events"),
)


def check_path(path: str) -> str:
    """`path`, below a hierarchy's mount, without a slash in front. Raises ConfigError for what could lead away."""
    parts = path.removeprefix("/").split("/")
    if "\0" in path or "" in parts or "." in parts or ".." in parts:
        raise ConfigError("linux.cgroupsPath", f"{path!r} must be names between slashes, none of them empty, . or ..")
    if len(path.encode(errors="surrogateescape")) >= LONGEST:
        raise ConfigError("linux.cgroupsPath", f"is longer than {LONGEST - 1} bytes")
    return path.removeprefix("/")


def hand_over(directory: int, path: str, owner: int) -> None:
    """Give a v2 cgroup to a user: its open directory, and the files that the kernel calls safe.

    Source: cgroup-v2.rst, "Delegation"; config-linux.md, "Cgroup ownership".

    Raises:
        CgroupError: the first that could not be given; those before it are the new owner's.
    """
    with open("/sys/kernel/cgroup/delegate") as file:
        names = file.read().split()
    for name in (".", *names):
        try:
            if os.access(name, os.F_OK, dir_fd=directory):
                os.chown(name, owner, -1, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            raise CgroupError(f"{path}/{name}", errno_of(error), f"owner {owner}") from None
