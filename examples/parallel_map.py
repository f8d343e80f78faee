"""A map over 100 untrusted scripts, as many at once as there are processors. Needs root, for the limits.

A script cannot see the host's processes, the network, or another script; what it does to itself is in its result.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

from cycontainer import Result, run

HOSTILE = {
    13: "import os, time\nwhile os.fork(): pass\ntime.sleep(9)",
    42: "while True: pass",
    66: "x = 'x' * (1 << 30)",
    99: "import socket; socket.create_connection(('192.0.2.1', 80))",
}
SCRIPTS = [HOSTILE.get(number, f"print({number} ** 2)") for number in range(100)]


def execute(script: str) -> Result:
    return run(["python3", "-I", "-S", "-c", script], text=True, timeout=2, memory=64 << 20, pids=8)


def outcome(result: Result) -> str:
    if result.timed_out:
        return "ran into its timeout"
    if result.oom_killed:
        return "took too much memory"
    if result.signal:
        return f"died of signal {result.signal}"
    return "".join((result.stdout if result.returncode == 0 else result.stderr).splitlines()[-1:])  # its last line


def main() -> None:
    started = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        outcomes = [outcome(result) for result in threads.map(execute, SCRIPTS)]
    for number, text in enumerate(outcomes):
        if text != str(number**2):
            print(f"script {number}: {text}")
    print(f"{sum(text.isdigit() for text in outcomes)} answers in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
