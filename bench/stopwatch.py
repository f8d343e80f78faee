"""Times commands: a line of JSON in for each, a line out.

A process of its own, small and always the same, so that no command pays for what the comparison itself holds. With
--without-unified it lives in a mount namespace without the cgroup v2 mount of a hybrid host, which crun refuses.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time

CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 16384, 1 << 18, 2
UNIFIED = b"/sys/fs/cgroup/unified"


def hide_unified() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "a mount namespace of its own")
    if os.path.ismount(UNIFIED) and libc.umount2(UNIFIED, MNT_DETACH):
        raise OSError(ctypes.get_errno(), "umount", os.fsdecode(UNIFIED))


def took_ms(argv: list[str], errors: int) -> tuple[float, int]:
    """Milliseconds from before the spawn until the command has been waited for, and its status."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, errors, 2),
    ]
    start = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    return (time.perf_counter() - start) * 1e3, status


def main() -> None:
    if sys.argv[1:] == ["--without-unified"]:
        hide_unified()
    errors = os.memfd_create("errors")
    for line in sys.stdin:
        request = json.loads(line)
        os.ftruncate(errors, 0)
        os.lseek(errors, 0, os.SEEK_SET)
        time.sleep(request["rest_ms"] / 1e3)
        try:
            ms, status = took_ms(request["argv"], errors)
        except OSError as error:
            ms, status = 0.0, error.errno or -1
        said = os.pread(errors, 400, 0).decode(errors="replace")
        print(json.dumps({"ms": ms, "status": status, "stderr": said}), flush=True)


if __name__ == "__main__":
    main()
