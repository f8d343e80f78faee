"""What one controller gets: files and values in order. Compile; pure."""

from __future__ import annotations

from cycontainer.errors import ConfigError
from cycontainer.resources import PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cycontainer.config import BlockIO, Cpu, Throttle


class Writes(list[tuple[bytes, bytes]]):
    """What one controller gets; `path` is that of the last property which asked for something."""

    path = ""

    def add(self, path: str, file: str, value: object) -> None:
        """A value, unless it is None: "not given"."""
        if value is not None:
            self.append((file.encode(), str(value).encode(errors="surrogateescape")))
            self.path = path

    def add_instead(self, file: str = "", value: object = "") -> None:
        """Where the file before is missing, this one gets its value; nothing, when none is named."""
        self.append((b"|" + file.encode(), str(value).encode()))


def rdma_writes(limits: tuple[tuple[str, int | None, int | None], ...]) -> Writes:
    """Both versions have the same file."""
    writes = Writes()
    for device, handles, objects in limits:
        if not device or device.split() != [device]:
            raise ConfigError(f"{PATH}.rdma", f"{device!r} is no name of a device")
        asked = (("hca_handle", handles), ("hca_object", objects))
        words = [f"{name}={number}" for name, number in asked if number is not None]
        writes.add("rdma", "rdma.max", " ".join([device, *words]) if words else None)
    return writes


def cpuset_writes(cpu: Cpu) -> Writes:
    """Both versions have the same files."""
    writes = Writes()
    writes.add("cpu.cpus", "cpuset.cpus", cpu.cpus)
    writes.add("cpu.mems", "cpuset.mems", cpu.mems)
    return writes


def pids_writes(limit: int) -> Writes:
    """Both versions have the same file; 0 is a limit."""
    writes = Writes()
    writes.add("pids.limit", "pids.max", "max" if limit < 0 else limit)
    return writes


def hugepage_writes(limits: tuple[tuple[str, int], ...], file: str) -> Writes:
    """What is used, and what is reserved: mmap(2) would only notice the limit when it touches a page.

    `file`: what the version calls a limit.
    """
    writes = Writes()
    for size, limit in limits:
        writes.add("hugepageLimits", f"hugetlb.{size}.{file}", limit)
        writes.add("hugepageLimits", f"hugetlb.{size}.rsvd.{file}", limit)
        writes.add_instead()  # some kernels count only what is used
    return writes


def throttles_of(block: BlockIO) -> Iterator[tuple[str, str, Throttle]]:
    """Each limit of a device with its name on v1 and on v2. Raises ConfigError for what went with the CFQ scheduler."""
    if block.leaf_weight or any(device.leaf_weight for device in block.weight_devices):
        raise ConfigError(f"{PATH}.blockIO.leafWeight", "Linux has no such weight: it went with the CFQ scheduler")
    for v1, v2, throttles in (
        ("read_bps", "rbps", block.throttle_read_bps),
        ("write_bps", "wbps", block.throttle_write_bps),
        ("read_iops", "riops", block.throttle_read_iops),
        ("write_iops", "wiops", block.throttle_write_iops),
    ):
        for each in throttles:
            yield v1, v2, each
