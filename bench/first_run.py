"""What a fresh interpreter pays: prints milliseconds and kilobytes of `import cycontainer` and of the first runs.

    python -I bench/first_run.py ROOTFS

It imports nothing else of its own (`itertools`, `sys` and `time` are built in): what is loaded is cycontainer's.
"""

import itertools
import sys
import time


def resident_kb() -> int:
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"VmRSS:"):
                return int(line.split()[1])
    raise SystemExit("/proc/self/status has no VmRSS")


rootfs = sys.argv[1]
bare_kb, modules = resident_kb(), len(sys.modules)
times, spent = [time.perf_counter()], [time.process_time()]
import cycontainer  # noqa: E402  # this line is what is measured

times.append(time.perf_counter())
spent.append(time.process_time())
imported_kb = resident_kb()
for _ in range(11):
    cycontainer.run(["/bin/true"], rootfs=rootfs)
    times.append(time.perf_counter())
    spent.append(time.process_time())
took = [(after - before) * 1e3 for before, after in itertools.pairwise(times)]
later = sorted(took[2:])[len(took[2:]) // 2]
used = [(after - before) * 1e3 for before, after in itertools.pairwise(spent)]
figures = {
    "import_ms": took[0],
    "first_run_ms": took[1],
    "later_run_ms": later,
    "overhead_ms": took[0] + took[1] - later,
    "overhead_cpu_ms": used[0] + used[1] - sorted(used[2:])[len(used[2:]) // 2],
    "bare_kb": bare_kb,
    "import_kb": imported_kb - bare_kb,
    "run_kb": resident_kb() - bare_kb,
    "modules": len(sys.modules) - modules,
}
print("{" + ", ".join(f'"{name}": {value:.3f}' for name, value in figures.items()) + "}")
