"""The launch pad: what starts there sees the same as what does not, and is as contained."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from launching import document, plan_of, printed

from cycontainer.compile import Style, compile_plan
from cycontainer.host import current
from cycontainer.read_config import read_config

pytestmark = pytest.mark.root

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PADS = pytest.mark.parametrize("pad", [False, True], ids=["copy of the host's", "launch pad"])


def mighty(rootfs: str, script: str, *mounts: dict[str, Any]) -> dict[str, Any]:
    """A configuration that may mount, without a filter: what only the mount namespace holds back."""
    config = document(rootfs, script)
    everything = ["CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_DAC_OVERRIDE"]
    config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), everything)
    config["process"]["noNewPrivileges"] = False
    config["linux"].pop("seccomp", None)
    config["root"]["readonly"] = False
    config["mounts"] += mounts
    return config


def bind(source: str, *options: str) -> dict[str, Any]:
    return {"destination": "/tmp", "type": "bind", "source": source, "options": ["rbind", *options]}


@pytest.fixture
def shared_directory(tmp_path: Path) -> Iterator[str]:
    """A mount of the host that tells its peers of whatever is mounted in it."""
    subprocess.run(["mount", "-t", "tmpfs", "shared", tmp_path], check=True)
    subprocess.run(["mount", "--make-shared", tmp_path], check=True)
    (tmp_path / "below").mkdir()
    yield str(tmp_path)
    subprocess.run(["umount", tmp_path], check=True)


def mount_table(rootfs: str, **style: Any) -> list[str]:
    """What a container sees of its mounts, without the numbers that differ each time."""
    table = printed(plan_of(document(rootfs, "cat /proc/self/mountinfo"), **style))
    return sorted(" ".join(line.split()[3:]) for line in table.splitlines())


def test_the_same_mounts_are_seen_from_both(busybox_rootfs: str) -> None:
    assert mount_table(busybox_rootfs, pad=True) == mount_table(busybox_rootfs, pad=False) != []


def test_a_new_root_and_namespaces_can_be_made_inside(busybox_rootfs: str) -> None:
    """Whose root is no mount, or is not the topmost one, gets EINVAL or EPERM."""
    script = (
        "unshare -m sh -c 'mount -t tmpfs new /tmp && mkdir /tmp/old && pivot_root /tmp /tmp/old' && unshare -U true"
    )
    assert printed(plan_of(mighty(busybox_rootfs, script), pad=True)) == ""


def test_above_the_root_is_the_root(busybox_rootfs: str) -> None:
    script = "cd / && cd ../.. && test bin/busybox -ef /bin/busybox && ls -A / | wc -l; ls -A /../.. | wc -l"
    first, second = printed(plan_of(mighty(busybox_rootfs, script), pad=True)).split()
    assert first == second != "0"


@PADS
@pytest.mark.parametrize("propagation", ["", "rprivate", "rslave", "rshared"])
def test_no_mount_comes_back_to_the_host(
    pad: bool, propagation: str, busybox_rootfs: str, shared_directory: str
) -> None:
    options = [propagation] if propagation else []
    config = mighty(
        busybox_rootfs, "mount -t tmpfs x /tmp/below && touch /tmp/below/y", bind(shared_directory, *options)
    )
    assert printed(plan_of(config, pad=pad)) == ""
    assert os.listdir(f"{shared_directory}/below") == []


@PADS
def test_no_mount_comes_back_from_a_shared_root(pad: bool, busybox_rootfs: str, shared_directory: str) -> None:
    subprocess.run(["cp", "-a", f"{busybox_rootfs}/.", shared_directory], check=True)
    config = mighty(shared_directory, "mount -t tmpfs x /below && touch /below/y")
    config["linux"]["rootfsPropagation"] = "shared"
    assert printed(plan_of(config, pad=pad)) == ""
    assert os.listdir(f"{shared_directory}/below") == []


CLOSING = """
import os, sys
from cycontainer import run
from cycontainer.launch_pad import pad_descriptor
number = pad_descriptor()
os.close(number)
with open("/dev/null") as other:
    os.dup2(other.fileno(), number)
assert run(["true"], rootfs=sys.argv[1]).returncode == 0
assert pad_descriptor() != number
pid = os.fork()
assert pid or run(["true"], rootfs=sys.argv[1]).returncode == 0
sys.exit(os.waitpid(pid, 0)[1] if pid else 0)
"""


def test_a_pad_that_someone_closed_is_made_again_and_a_fork_has_it_too(busybox_rootfs: str) -> None:
    subprocess.run([sys.executable, "-c", CLOSING, busybox_rootfs], check=True, cwd=PROJECT)


def padded(config: dict[str, Any]) -> bool:
    return compile_plan(read_config(config, bundle="/"), current(), Style(every_cgroup=False, pad=True)).padded


def test_it_is_used_only_where_it_can_be(busybox_rootfs: str) -> None:
    plain = document(busybox_rootfs)
    assert padded(plain)
    ids = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    user = document(busybox_rootfs, uidMappings=ids, gidMappings=ids)
    user["linux"]["namespaces"] = [*user["linux"]["namespaces"], {"type": "user"}]
    assert not padded(user)
    assert not padded({**plain, "hooks": {"createContainer": [{"path": "/bin/true"}]}})
    assert not padded({**plain, "mounts": [bind("/tmp") for _ in range(64)]})


REFUSED = """
import os, sys, psutil, cycontainer
config = {"ociVersion": "1.3.0", "root": {"path": sys.argv[1]}, "linux": {
    "namespaces": [{"type": "mount"}, {"type": "pid"}], "sysctl": {"kernel.shmmax": "1"}}}
try:
    cycontainer.run(["true"], config=config)
except cycontainer.ConfigError as error:
    print(error)
print(psutil.Process().children())
print(cycontainer.run(["echo", "next"], rootfs=sys.argv[1]).stdout)
"""


def test_a_first_plan_that_is_refused_leaves_no_half_made_pad(busybox_rootfs: str) -> None:
    """The pad is made beside a process's first compilation."""
    argv = [sys.executable, "-c", REFUSED, busybox_rootfs]
    refusal, children, output = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    assert refusal.startswith("linux.sysctl")
    assert (children, output) == ("[]", "b'next\\n'")
