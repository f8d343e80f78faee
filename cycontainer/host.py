"""What this kernel and this user can do, probed once. Model: it reads /proc and /sys, and changes nothing."""

from __future__ import annotations

from cycontainer.record import Record


class Hierarchy(Record):
    """One mounted cgroup hierarchy."""

    controllers: tuple[str, ...]  # v1: "memory", or "cpu", "cpuacct", or "name=systemd"; v2: what its root offers
    mount: str  # where it is mounted: "/sys/fs/cgroup/memory"
    own: str  # the caller's own cgroup in it, absolute from the mount: "/user.slice"


class CgroupLayout(Record):
    """How cgroups are laid out on this machine. Source: cgroups(7), systemd's CGROUP_DELEGATION.md."""

    mode: str  # "v1", "hybrid" (v1 controllers and a cgroup2 mount beside them), "v2", "none"
    v1: tuple[Hierarchy, ...] = ()
    v2: Hierarchy | None = None


class Host(Record):
    """All that compiling depends on beside the configuration."""

    kernel: tuple[int, int]
    machine: str  # "x86_64", "aarch64"
    uid: int  # effective
    gid: int
    groups: tuple[int, ...]
    capabilities: int  # effective, a mask of bits
    last_capability: int  # the highest that the kernel knows
    cgroups: CgroupLayout
    user_namespaces: bool  # whether any may be made
    subuids: tuple[tuple[int, int], ...]  # the caller's ranges of /etc/subuid: first, count
    subgids: tuple[tuple[int, int], ...]
    id_mappers: tuple[str, str] | None  # paths of newuidmap and newgidmap, when both are there
    lsms: tuple[str, ...]  # /sys/kernel/security/lsm
    initial_user_namespace: bool  # the caller stands in the machine's first user namespace

    @property
    def privileged(self) -> bool:
        """Whether the caller has CAP_SYS_ADMIN (21) in its user namespace."""
        return bool(self.capabilities >> 21 & 1)
