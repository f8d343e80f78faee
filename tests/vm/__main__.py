"""Commands on throw-away machines with systemd, D-Bus, AppArmor and cgroup v2: `python tests/vm --help`.

python tests/vm build                       images and snapshots; later calls do nothing
python tests/vm run [--user] -- COMMAND     a fresh machine, one command, gone
python tests/vm suite [-- PYTEST OPTIONS]   the tests on it, as root and as an ordinary user
python tests/vm part                        a few of the tests, as root, if a machine is at hand: what CI has time for
python tests/vm matrix                      the same on each machine that docs/machines.md tells of
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
from image import SUITES, Failure, say  # noqa: E402
from machine import GIVEN_UP, MODES, Machine, at_hand, machine, python_path, snapshot  # noqa: E402

TREE = Path(__file__).resolve().parents[2]
# What says something about the machine; the rest of the suite is the same everywhere, and slow under emulation.
SUBJECTS = (
    *("test_cgroups_v2.py", "test_cgroups_v1.py", "test_cgroups.py", "test_stats.py", "test_systemd.py"),
    *(
        "test_rootless_life.py",
        "test_delegated_cgroups.py",
        "test_cgroup_numbers.py",
        "test_exec_v2.py",
        "test_run.py",
        "test_host.py",
    ),
    *("test_memory_pressure.py", "test_lifecycle.py", "test_command_running.py", "test_bad_input.py"),
    *("test_labels.py", "test_criu_labels.py", "test_criu_lazy.py", "test_criu_pre_dump.py"),
    *("test_criu_container.py", "test_criu_cgroups.py"),
)
MARKED = "not slow or criu"
PART = (
    *("tests/test_cgroups_v2.py", "tests/test_systemd.py", "-k"),
    "test_a_limit_is_written or test_devices_are_decided or handed_over or first_step_on or though_its_scope",
)
PART_SECONDS = 300.0  # a machine with a load of 4 for each processor took 80
MACHINES = (("bookworm", "v2"), ("bookworm", "hybrid"), ("bookworm", "v1"))  # of trixie, docs/machines.md


def pytest_on(guest: Machine, options: list[str], *, user: bool, timeout: float = 3600) -> int:
    """The tests that say something about the machine, or those that the options name."""
    tests = [] if any(not option.startswith("-") for option in options) else ["-m", MARKED, *subjects()]
    env = {"PYTHONPATH": python_path(TREE), "PYTHONDONTWRITEBYTECODE": "1", "CYCONTAINER_TEST_SLOWER": "10"}
    argv = ["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *tests]
    return guest.run(argv, user=user, env=env, timeout=timeout)


def subjects() -> list[str]:
    return [f"tests/{name}" for name in SUBJECTS if (TREE / "tests" / name).exists()]


def part() -> int:
    """The part for CI. What has not ended after so long hangs: a failure like any other."""
    if not at_hand("bookworm", "v2"):
        say("left out: no machine is at hand, and making one takes minutes: python tests/vm build")
        return 0
    started = time.monotonic()
    with machine(TREE) as guest:
        status = pytest_on(guest, list(PART), user=False, timeout=PART_SECONDS)
    how = "given up, which is a failure," if status == GIVEN_UP else f"status {status}"
    say(f"the part: {how} after {time.monotonic() - started:.0f} s")
    return status


def suite(name: str, mode: str, options: list[str]) -> int:
    """The tests as root, and as an ordinary user, on one machine."""
    with machine(TREE, name, mode) as guest:
        statuses = []
        for user in (False, True):
            started = time.monotonic()
            statuses.append(pytest_on(guest, options, user=user))
            who = "an ordinary user" if user else "root"
            say(f"{name}, {mode}, as {who}: status {statuses[-1]} after {time.monotonic() - started:.0f} s")
    return max(statuses)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tests/vm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("build", "run", "suite", "part", "matrix"))
    parser.add_argument("--suite", choices=SUITES, default="bookworm", help="Debian's release (%(default)s)")
    parser.add_argument("--mode", choices=MODES, default="v2", help="the layout of cgroups (%(default)s)")
    parser.add_argument("--user", action="store_true", help="run as an ordinary user, below its systemd --user")
    parser.add_argument("--timeout", type=float, default=3600, metavar="S", help="give a command up after S seconds")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments = parser.parse_args(sys.argv[1:end])
    arguments.command = sys.argv[end + 1 :]
    if arguments.action == "run" and not arguments.command:
        parser.error("which command?")
    return arguments


def main() -> int:
    arguments = read_arguments()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if arguments.action == "build":
        snapshot(arguments.suite, arguments.mode)
        return 0
    if arguments.action == "part":
        return part()
    if arguments.action == "suite":
        return suite(arguments.suite, arguments.mode, arguments.command)
    if arguments.action == "matrix":
        return max([suite(name, mode, arguments.command) for name, mode in MACHINES])
    with machine(TREE, arguments.suite, arguments.mode) as guest:
        env = {"PYTHONPATH": python_path(TREE), "PYTHONDONTWRITEBYTECODE": "1"}
        return guest.run(arguments.command, user=arguments.user, env=env, timeout=arguments.timeout)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        say(failure)
        sys.exit(125)
