"""Labels of security modules across a checkpoint: those that processes had, or others that are asked for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from saved import Obedient, config_of

from cycontainer.errors import ConfigError
from cycontainer.host import current

pytestmark = [pytest.mark.root, pytest.mark.criu]

NAMES = ("cycontainer-first", "cycontainer-second")
RULES = "file, signal, network, unix, ptrace, capability, mount, umount, pivot_root,"  # criu works in there, too
PROFILES = "".join(f"profile {name} flags=(attach_disconnected) {{ {RULES} }}\n" for name in NAMES)


@pytest.fixture
def top(tmp_path: object) -> str:
    return str(tmp_path)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"lsm_profile": "some"}, "lsm-profile: 'some' must be selinux:LABEL or apparmor:NAME"),
        ({"lsm_profile": "apparmor:"}, "lsm-profile: 'apparmor:' must be selinux:LABEL or apparmor:NAME"),
        ({"lsm_profile": "apparmor:some"}, "lsm-profile: this kernel has no AppArmor, or it is off"),
        ({"lsm_profile": "selinux:a:b:c:s0"}, "lsm-profile: this kernel has no SELinux, or it is off"),
        ({"lsm_mount_context": "a:b:c:s0"}, "lsm-mount-context: this kernel has no SELinux, or it is off"),
    ],
)
def test_a_label_that_nobody_would_enforce_is_refused(
    busybox_rootfs: str, top: str, options: dict[str, str], problem: str
) -> None:
    if "kernel" in problem and {"apparmor", "selinux"} & set(current().lsms):
        pytest.skip("this kernel has the security module")
    config, root = config_of(busybox_rootfs), f"{top}/states"
    with Obedient.start("one", config, root) as first:
        first.container.checkpoint(f"{top}/images")
    with pytest.raises(ConfigError) as failure:
        Obedient.restore("two", config, f"{top}/images", root, **options)
    assert (str(failure.value), os.listdir(root)) == (problem, [])


@pytest.fixture
def profiles() -> Iterator[None]:
    subprocess.run(["apparmor_parser", "--replace"], input=PROFILES, text=True, check=True)
    yield
    subprocess.run(["apparmor_parser", "--remove"], input=PROFILES, text=True, check=True)


@pytest.mark.apparmor
@pytest.mark.usefixtures("profiles")
def test_the_profile_is_kept_or_another_one(busybox_rootfs: str, top: str) -> None:
    config, root, look = config_of(busybox_rootfs), f"{top}/states", "cat /proc/self/attr/current"
    first_name, second_name = NAMES
    config["process"]["apparmorProfile"] = first_name
    with Obedient.start("one", config, root) as first:
        assert first.do(look) == f"{first_name} (enforce)\n"
        first.container.checkpoint(f"{top}/images")
    for options, name in (({}, first_name), ({"lsm_profile": f"apparmor:{second_name}"}, second_name)):
        with Obedient.restore("two", config, f"{top}/images", root, **options) as second:
            assert second.do(look) == f"{name} (enforce)\n"
