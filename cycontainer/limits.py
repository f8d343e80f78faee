"""What one controller gets: files and values in order. Compile; pure."""

from __future__ import annotations

from cycontainer.errors import ConfigError
from cycontainer.resources import PATH


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
