"""Labels of security modules, and the session keyring: taken on where there is a module, else refused."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from launching import document, launched, plan_of, printed
from oci_command import Oci

from cycontainer.compile import Style, compile_plan
from cycontainer.errors import ConfigError, LaunchError
from cycontainer.host import current
from cycontainer.lifecycle import Container
from cycontainer.plan import Plan
from cycontainer.read_config import read_config
from cycontainer.streams import DEVNULL, PIPE

KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING = 0, -3
CAP_SYS_ADMIN = 21
SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}


def labelled(rootfs: str, *lsms: str, mount_label: str = "", **process: Any) -> Plan:
    """Compiled for root of a host with these security modules."""
    config = document(rootfs, "cat /proc/self/attr/current", resources={}, mountLabel=mount_label)
    config["process"].update(process)
    host = current().replace(lsms=lsms, uid=0, capabilities=1 << CAP_SYS_ADMIN)
    return compile_plan(read_config(config, bundle="/"), host, Style(every_cgroup=False))


def attempts(plan: Plan, word: str) -> list[str]:
    return [attempt for attempt in plan.attempts if word in attempt]


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("process.apparmorProfile", {"apparmorProfile": "some-profile"}),
        ("process.selinuxLabel", {"selinuxLabel": "system_u:system_r:container_t:s0"}),
        ("linux.mountLabel", {"mount_label": "system_u:object_r:container_file_t:s0"}),
    ],
)
def test_a_label_that_nobody_would_enforce_is_refused(path: str, options: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as failure:
        labelled("/", "landlock", **options)
    assert failure.value.path == path


@pytest.mark.root
@pytest.mark.parametrize(
    ("step", "options"),
    [
        ("confine with AppArmor profile some-profile", {"apparmorProfile": "some-profile"}),
        ("confine with AppArmor profile unconfined", {"apparmorProfile": "unconfined"}),
        ("set the label of new keys", {"selinuxLabel": "system_u:system_r:container_t:s0"}),
        ("set option context=a:b:c:s0:c1,c2 of the file system for /dev", {"mount_label": "a:b:c:s0:c1,c2"}),
    ],
)
def test_a_label_that_the_kernel_refuses_stops_the_start(
    busybox_rootfs: str, step: str, options: dict[str, str]
) -> None:
    if {"apparmor", "selinux"} & set(current().lsms):
        pytest.skip("this kernel has the security module")
    with pytest.raises(LaunchError) as failure:
        launched(labelled(busybox_rootfs, "apparmor", "selinux", **options))
    assert failure.value.attempt == step


def test_unconfined_needs_no_module() -> None:
    assert not attempts(labelled("/", "landlock", apparmorProfile="unconfined"), "AppArmor")


def test_each_file_system_that_takes_a_mount_label_has_it() -> None:
    plan = labelled("/", "selinux", mount_label="a:b:c:s0")
    opened = [
        attempt.split()[2] for attempt in plan.attempts if attempt.startswith("open a ") and "file sys" in attempt
    ]
    assert len(attempts(plan, "context=")) == sum(kind in ("tmpfs", "devpts") for kind in opened) > 0
    assert attempts(plan, "label /dev/mqueue")


def test_the_session_keyring_has_the_programs_label() -> None:
    steps = labelled("/", "selinux", selinuxLabel="a:b:c:s0").attempts
    place = steps.index("start a session keyring")
    assert steps[place - 1] == "set the label of new keys" and steps[place + 1] == "reset the label of new keys"


@pytest.mark.root
def test_a_container_has_a_session_keyring_of_its_own() -> None:
    number = SYS_KEYCTL[os.uname().machine]
    script = f"import ctypes; print(ctypes.CDLL(None).syscall({number}, 0, {KEY_SPEC_SESSION_KEYRING}, 0))"
    config = document("/")
    config["process"]["args"] = ["/usr/bin/python3", "-I", "-S", "-c", script]
    own = ctypes.CDLL(None).syscall(number, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)
    first, second = (int(printed(plan_of(config))) for _ in range(2))
    assert first > 0 and len({own, first, second}) == 3
    assert int(printed(plan_of(config, new_keyring=False))) == own


PROFILE = """
profile cycontainer-test flags=(attach_disconnected) {
  file,
  signal,
  deny /tmp/forbidden w,
}
"""


@pytest.fixture
def profile() -> Iterator[str]:
    subprocess.run(["apparmor_parser", "--replace"], input=PROFILE, text=True, check=True)
    yield "cycontainer-test"
    subprocess.run(["apparmor_parser", "--remove"], input=PROFILE, text=True, check=True)


@pytest.mark.apparmor
@pytest.mark.root
@pytest.mark.parametrize("style", [{}, {"keep_init": True}])
def test_an_apparmor_profile_confines_the_program(busybox_rootfs: str, profile: str, style: dict[str, bool]) -> None:
    script = "cat /proc/self/attr/current; touch /tmp/allowed && echo allowed; touch /tmp/forbidden 2>&1 || echo denied"
    config = document(busybox_rootfs, script)
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    config["process"]["apparmorProfile"] = profile
    lines = printed(plan_of(config, **style)).splitlines()
    assert lines[:2] == [f"{profile} (enforce)", "allowed"] and lines[-1] == "denied"


@pytest.mark.apparmor
@pytest.mark.root
def test_an_apparmor_profile_that_is_not_loaded_is_an_error(busybox_rootfs: str) -> None:
    config = document(busybox_rootfs)
    config["process"]["apparmorProfile"] = "no-such-profile"
    with pytest.raises(LaunchError, match="AppArmor profile no-such-profile: ENOENT"):
        launched(plan_of(config))


@pytest.mark.apparmor
@pytest.mark.root
def test_unconfined_is_a_profile(busybox_rootfs: str) -> None:
    config = document(busybox_rootfs, "cat /proc/self/attr/current")
    config["process"]["apparmorProfile"] = "unconfined"
    assert printed(plan_of(config)) == "unconfined\n"


@pytest.mark.apparmor
@pytest.mark.root
def test_exec_is_confined_as_its_container_is_or_as_it_is_asked(
    busybox_rootfs: str, profile: str, tmp_path: Path
) -> None:
    config = document(busybox_rootfs, "sleep 100", resources={})
    config["process"]["apparmorProfile"] = profile
    command = ["cat", "/proc/self/attr/current"]
    with Container.create("confined", config, root=f"{tmp_path}/states", stdin=DEVNULL) as container:
        container.start()
        for asked, found in (("", f"{profile} (enforce)\n"), ("unconfined", "unconfined\n")):
            with container.exec(command, apparmor_profile=asked, stdin=DEVNULL, stdout=PIPE) as process:
                assert process.communicate()[0].decode() == found
        with pytest.raises(LaunchError, match="AppArmor profile no-such-profile: ENOENT"):
            container.exec(command, apparmor_profile="no-such-profile", stdin=DEVNULL)


DEAF = "profile cycontainer-test flags=(attach_disconnected) { file, }\n"


@pytest.fixture
def deaf_profile() -> Iterator[str]:
    subprocess.run(["apparmor_parser", "--replace"], input=DEAF, text=True, check=True)
    yield "cycontainer-test"
    subprocess.run(["apparmor_parser", "--remove"], input=DEAF, text=True, check=True)


@pytest.mark.apparmor
@pytest.mark.cgroup2
@pytest.mark.root
def test_a_container_whose_profile_takes_no_signals_is_deleted(
    busybox_rootfs: str, deaf_profile: str, tmp_path: Path
) -> None:
    config = document(busybox_rootfs, "sleep 100")
    config["process"]["apparmorProfile"] = deaf_profile
    container = Container.create("deaf", config, root=f"{tmp_path}/states", stdin=DEVNULL)
    container.start()
    container.delete(force=True)
    assert not os.path.exists(f"{tmp_path}/states/deaf")


@pytest.mark.apparmor
@pytest.mark.root
def test_the_command_s_exec_takes_a_profile(oci: Oci, profile: str) -> None:
    oci.start()
    said = oci.done("exec", "--apparmor", profile, "one", "cat", "/proc/self/attr/current")
    assert said == f"{profile} (enforce)\n"
    assert oci("exec", "--apparmor", "no-such-profile", "one", "true").returncode == 255


@pytest.mark.root
def test_the_command_s_exec_refuses_a_label_that_nobody_would_enforce(oci: Oci) -> None:
    if {"apparmor", "selinux"} & set(current().lsms):
        pytest.skip("this kernel has the security module")
    oci.start()
    for words, text in (
        (["--apparmor", "some-profile"], "this kernel has no AppArmor"),
        (["--process-label", "a:b:c:s0"], "this kernel has no SELinux"),
    ):
        done = oci("exec", *words, "one", "touch", "/tmp/ran")
        assert (done.returncode, done.stdout, text in done.stderr) == (255, "", True)
    assert oci.done("exec", "--apparmor", "unconfined", "one", "echo", "it runs") == "it runs\n"


@pytest.mark.root
def test_exec_with_a_label_that_nobody_would_enforce_is_refused(busybox_rootfs: str, tmp_path: Path) -> None:
    if {"apparmor", "selinux"} & set(current().lsms):
        pytest.skip("this kernel has the security module")
    config = document(busybox_rootfs, "sleep 100", resources={})
    with Container.create("labelled", config, root=f"{tmp_path}/states", stdin=DEVNULL) as container:
        container.start()
        with pytest.raises(ConfigError, match="this kernel has no AppArmor"):
            container.exec(["true"], stdin=DEVNULL, apparmor_profile="some-profile")
        with pytest.raises(ConfigError, match="this kernel has no SELinux"):
            container.exec(["true"], stdin=DEVNULL, selinux_label="a:b:c:s0")
