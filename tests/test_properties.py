"""Properties of a whole config.json that no other test takes from there into a container, where it looks at them."""

from __future__ import annotations

from typing import Any

import pytest
from launching import document
from test_lifecycle import config_of

from cycontainer import run
from cycontainer.config import IntelRdt
from cycontainer.lifecycle import Container
from cycontainer.read_config import read_config
from cycontainer.seccomp_profile import DEFAULT
from cycontainer.streams import DEVNULL, PIPE

pytestmark = pytest.mark.root


def said(rootfs: str, script: str, **linux: Any) -> list[str]:
    """The words that a script prints in a container of the default configuration, errors among them."""
    config = document(rootfs, f"exec 2>&1; {script}", **linux)
    result = run(config["process"]["args"], config=config, text=True)
    assert isinstance(result.stdout, str)
    return result.stdout.split("\n")[:-1]


def rule(name: str, action: str, **more: Any) -> dict[str, Any]:
    return {"names": [name], "action": f"SCMP_ACT_{action}", **more}


def test_a_filters_numbers_are_those_of_the_configuration(busybox_rootfs: str) -> None:
    refused = ("mkdir", "mkdirat", "link", "linkat")
    allowed = [name for each in DEFAULT.syscalls for name in each.names if name not in refused]
    seccomp = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 5,  # EIO
        "syscalls": [
            {"names": allowed, "action": "SCMP_ACT_ALLOW"},
            {"names": ["link", "linkat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},  # ENOSPC
        ],
    }
    seen = said(busybox_rootfs, "mkdir /tmp/x; ln /etc/passwd /tmp/y", seccomp=seccomp)
    assert [line.rpartition(": ")[2] for line in seen] == ["Input/output error", "No space left on device"]


def test_a_condition_has_a_mask_and_a_second_value(busybox_rootfs: str) -> None:
    """Of SCMP_CMP_MASKED_EQ `value` is the mask, and `valueTwo` what is left: seccomp_rule_add(3)."""
    condition = {"index": 1, "op": "SCMP_CMP_MASKED_EQ", "value": 0x1F, "valueTwo": 10}
    seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("kill", "ERRNO", errnoRet=5, args=[condition])]}
    script = 'trap "" USR1 USR2 42; for number in 10 12 42; do kill -$number $$ && echo $number; done'
    seen = said(busybox_rootfs, script, seccomp=seccomp)
    assert [line.rpartition(": ")[2] for line in seen] == ["Input/output error", "12", "Input/output error"]


def test_both_clocks_are_shifted_to_the_nanosecond(busybox_rootfs: str) -> None:
    kinds = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network", "cgroup", "time")]
    offsets = {"boottime": {"secs": 1000, "nanosecs": 250}, "monotonic": {"secs": 70, "nanosecs": 999_999_999}}
    seen = said(busybox_rootfs, "cat /proc/self/timens_offsets", namespaces=kinds, timeOffsets=offsets)
    assert [line.split() for line in seen] == [["monotonic", "70", "999999999"], ["boottime", "1000", "250"]]


@pytest.mark.cgroup1
@pytest.mark.parametrize(("access", "written", "read"), [("w", True, False), ("rw", True, True), ("m", False, False)])
def test_a_device_is_open_to_what_its_rule_says(busybox_rootfs: str, access: str, written: bool, read: bool) -> None:
    device = {
        "path": "/dev/thing",
        "type": "c",
        "major": 60,
        "minor": 0,
        "fileMode": 0o666,
    }  # a number that no driver has
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 60, "minor": 0, "access": access},
    ]
    script = "(: >> /dev/thing); (: < /dev/thing)"  # who may open it finds nothing behind it
    seen = said(busybox_rootfs, script, devices=[device], resources={"devices": rules})
    refused = [line.endswith("Operation not permitted") for line in seen]
    assert refused == [not written, not read]


@pytest.mark.cgroup1
def test_whom_the_kernel_may_not_kill_for_memory(busybox_rootfs: str, tmp_path: object) -> None:
    memory = {"limit": 64 << 20, "disableOOMKiller": True, "swappiness": 7, "reservation": 32 << 20}
    directory = "/sys/fs/cgroup/memory"
    script = f"cd {directory}; head -n 1 memory.oom_control; cat memory.swappiness memory.soft_limit_in_bytes"
    config = config_of(busybox_rootfs, "sh", "-c", script, resources={"memory": memory})
    with Container.create("one", config, root=f"{tmp_path}/states", stdin=DEVNULL, stdout=PIPE) as container:
        container.start()
        assert container.process is not None
        words = container.process.communicate()[0].split()
    assert words == [b"oom_kill_disable", b"1", b"7", str(32 << 20).encode()]


def test_a_share_of_the_caches_is_read_as_it_is_written(busybox_rootfs: str) -> None:
    """What becomes of it: test_intelrdt.py."""
    share = {
        "closID": "gold",
        "l3CacheSchema": "L3:0=f",
        "memBwSchema": "MB:0=20",
        "schemata": ["L2:0=f"],
        "enableMonitoring": True,
    }
    assert read_config(document(busybox_rootfs, intelRdt=share), bundle="/").linux.intel_rdt == IntelRdt(
        clos_id="gold",
        schemata=("L2:0=f",),
        l3_cache_schema="L3:0=f",
        memory_bandwidth_schema="MB:0=20",
        enable_monitoring=True,
    )
