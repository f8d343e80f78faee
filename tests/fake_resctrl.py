"""A file system that behaves as resctrl does, for kernels that have none. It speaks FUSE's own protocol, fuse(4).

Making a directory makes its files, removing it removes them; a task is in one group; a bad schema is refused in words.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import threading
from struct import Struct

_IN = Struct("=IIQQIIII")  # struct fuse_in_header
_OUT = Struct("=IiQ")
_ATTRIBUTES = Struct("=QQQQQQIIIIIIIIII")
_ENTRY = Struct("=QQQQII")
LOOKUP, FORGET, GETATTR, SETATTR, MKDIR, RMDIR, OPEN, READ, WRITE, RELEASE = 1, 2, 3, 4, 9, 11, 14, 15, 16, 18
FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = 25, 26, 27, 28, 29, 36, 38, 42
_libc = ctypes.CDLL(None, use_errno=True)


class FakeResctrl:
    """Mounted at `path` while the block runs.

    Attributes:
        nodes: what there is, by its path below the mount: a file's text, or None for a directory.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.nodes: dict[str, str | None] = {"": None}
        self._ids: list[str] = ["", ""]  # a node's number is its place; 1 is the root
        self._populate("")
        self.nodes.update({"info": None, "info/last_cmd_status": "ok\n"})

    def __enter__(self) -> FakeResctrl:
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0".encode()
        if _libc.mount(b"resctrl", self.path.encode(), b"fuse.resctrl", 0, options):
            raise OSError(ctypes.get_errno(), "mount")
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        _libc.umount2(self.path.encode(), 2)
        self._thread.join()
        os.close(self._fd)

    def _populate(self, path: str, *, monitoring: bool = False) -> None:
        place = f"{path}/" if path else ""
        self.nodes[f"{place}tasks"] = ""
        if not monitoring:
            self.nodes.update({f"{place}schemata": "L3:0=ff\nMB:0=100\n", f"{place}mon_groups": None})

    def _serve(self) -> None:
        while True:
            try:
                self._serve_one()
            except OSError as error:
                if error.errno == errno.ENODEV:  # unmounted
                    return
                if error.errno != errno.ENOENT:  # who asked has gone: an unmount does not wait for its last requests
                    raise

    def _serve_one(self) -> None:
        request = os.read(self._fd, 1 << 17)
        _, kind, unique, node, *_ = _IN.unpack_from(request)
        if kind in (FORGET, BATCH_FORGET, INTERRUPT):
            return
        try:
            body, code = self._answer(kind, self._ids[node], request[_IN.size :]), 0
        except OSError as refused:
            body, code = b"", refused.errno or errno.EIO
        os.write(self._fd, _OUT.pack(_OUT.size + len(body), -code, unique) + body)

    def _answer(self, kind: int, path: str, body: bytes) -> bytes:
        name = body[8 if kind == MKDIR else 0 :].partition(b"\0")[0].decode("utf-8", "replace")
        inner = f"{path}/{name}" if path else name
        if kind == INIT:
            return Struct("=IIIIHHIIHHI28x").pack(7, 31, 0, 0, 1, 1, 1 << 16, 1, 0, 0, 0)
        if kind == LOOKUP:
            return self._entry(inner)
        if kind in (GETATTR, SETATTR):
            return Struct("=QII").pack(0, 0, 0) + self._attributes(path)
        if kind == MKDIR:
            self._make(inner)
            return self._entry(inner)
        if kind == RMDIR:
            self.nodes = {each: text for each, text in self.nodes.items() if f"{each}/".find(f"{inner}/") != 0}
            return b""
        if kind in (OPEN, OPENDIR):
            return Struct("=QII").pack(0, 1, 0)  # FOPEN_DIRECT_IO
        if kind == READ:
            _, offset, size = Struct("=QQI").unpack_from(body)
            return (self.nodes[path] or "").encode()[offset : offset + size]
        if kind == WRITE:
            self._write(path, body[40:].decode())
            return Struct("=II").pack(len(body) - 40, 0)
        if kind in (RELEASE, RELEASEDIR, FLUSH, READDIR, DESTROY):
            return b""
        raise OSError(errno.ENOSYS, "no such request here")

    def _attributes(self, path: str) -> bytes:
        text = self.nodes[path]
        mode = stat.S_IFDIR | 0o755 if text is None else stat.S_IFREG | 0o644
        return _ATTRIBUTES.pack(1, len(text or ""), 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 512, 0)

    def _entry(self, path: str) -> bytes:
        if path not in self.nodes:
            raise OSError(errno.ENOENT, path)
        if path not in self._ids:
            self._ids.append(path)
        return _ENTRY.pack(self._ids.index(path), 0, 0, 0, 0, 0) + self._attributes(path)

    def _make(self, path: str) -> None:
        above = path.rpartition("/")[0]
        if path in self.nodes:
            raise OSError(errno.EEXIST, path)
        if above and not above.endswith("mon_groups"):
            raise OSError(errno.EPERM, path)
        self.nodes[path] = None
        self._populate(path, monitoring=bool(above))

    def _write(self, path: str, text: str) -> None:
        if path.endswith("schemata"):
            if not all("=" in line for line in text.splitlines()):
                self.nodes["info/last_cmd_status"] = "Missing '='\n"
                raise OSError(errno.EINVAL, text)
            self.nodes[path] = text
            return
        monitoring = "mon_groups" in path
        for other in self.nodes:  # a task leaves one group for another
            if other.endswith("tasks") and ("mon_groups" in other) == monitoring:
                self.nodes[other] = (self.nodes[other] or "").replace(f"{text}\n", "")
        self.nodes[path] = f"{self.nodes[path] or ''}{text}\n"
