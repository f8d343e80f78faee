"""A first container: untrusted code, a memory limit, a timeout, and what the host shows of itself."""

from __future__ import annotations

import os

import cycontainer


def show(title: str, result: cycontainer.Result) -> None:
    end = "timed out" if result.timed_out else f"returned {result.returncode}"
    print(f"--- {title}: {end} after {result.usage.wall * 1000:.1f} ms")
    print((result.stdout or "").rstrip())


def main() -> None:
    show(
        "who am I",
        cycontainer.run(["sh", "-c", "id; hostname; ls /proc | grep '^[0-9]' | xargs echo pids:"], text=True),
    )
    show("nobody answers", cycontainer.run(["cat", "/proc/net/route"], text=True))
    show("an endless loop", cycontainer.run(["sh", "-c", "echo started; while :; do :; done"], timeout=1, text=True))
    if os.geteuid() == 0 and os.path.isdir("/sys/fs/cgroup/memory"):
        greedy = cycontainer.run(["sh", "-c", "head -c 200m /dev/zero | tail"], memory=32 << 20, text=True)
        show(f"too much memory, killed: {greedy.oom_killed}", greedy)


if __name__ == "__main__":
    main()
