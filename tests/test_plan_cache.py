"""A compiled plan is kept by all that it depends on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cycontainer import ConfigError, _plans, run
from cycontainer._seccomp import version
from cycontainer.host import current
from cycontainer.sandbox import Options

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# What changes here would change the whole test run: so each is changed in a process of its own.
BEGIN = """
import ctypes, os, struct
from cycontainer import _plans
from cycontainer.cgroup_layout import probe_layout
from cycontainer.sandbox import Options
LIBC = ctypes.CDLL(None, use_errno=True)
OPTIONS = Options(
    rootfs="/", cwd=None, uid=None, gid=None, hostname=None, memory=1 << 28, cpus=None, pids=None, network="none",
    read_only=True, user_namespace=False, keep_init=True, masked_paths=(), private=(), supervised=(),
)
def plan():
    return _plans.plan_for(OPTIONS, ("true",), (), None).plan
first = plan()
assert plan() is first
"""
CHANGES = {
    "the group": "os.setegid(1)",
    "the groups": "os.setgroups([7])",
    "capabilities": """
header, sets = struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
assert LIBC.capget(header, sets) == 0
effective, *others = struct.unpack("6I", sets.raw)
assert LIBC.capset(header, struct.pack("6I", effective & ~(1 << 27), *others)) == 0  # CAP_MKNOD
""",
    "the cgroup layout": """
assert LIBC.unshare(0x20000) == 0 and LIBC.mount(None, b"/", None, (1 << 18) | 16384, None) == 0
assert LIBC.umount2(probe_layout().v1[0].mount.encode(), 2) == 0
""",
}


@pytest.mark.root
@pytest.mark.cgroup1
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_it_is_compiled_again_when_this_changes(change: str) -> None:
    script = f"{BEGIN}\n{change}\nassert plan() is not first\nassert plan() is plan()"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=PROJECT)


def options(**changes: object) -> Options:
    values: dict[str, object] = dict.fromkeys(Options.fields)
    values.update(network="none", read_only=True, keep_init=True, masked_paths=(), private=(), supervised=())
    values.update(changes)
    return Options(**values)  # type: ignore[arg-type]  # by name


def test_it_depends_on_libseccomps_version_and_the_private_directories() -> None:
    host, private = current(), options(private=("/root",))
    assert version() in _plans.depends_on(options(), (), None, host)
    assert version() in _plans.depends_on(options(), (), {"linux": {"seccomp": {}}}, host)
    assert version() not in _plans.depends_on(options(), (), {"linux": {}}, host)
    assert _plans.depends_on(options(), (), None, host) != _plans.depends_on(private, (), None, host)


@pytest.mark.root
def test_a_configuration_that_was_changed_in_place_is_compiled_again(own_rootfs: str) -> None:
    config = {"ociVersion": "1.3.0", "process": {"env": ["A=1"]}, "linux": {"namespaces": [{"type": "mount"}]}}
    config["linux"]["namespaces"].append({"type": "pid"})  # type: ignore[index]  # it is a dict
    assert run(["env"], rootfs=own_rootfs, config=config, env={"PATH": "/bin"}).returncode == 0
    config["hostname"] = "no namespace for this one"
    with pytest.raises(ConfigError):
        run(["env"], rootfs=own_rootfs, config=config, env={"PATH": "/bin"})
