"""Containers whose cgroup systemd makes: scopes and slices of a real manager, the system's or an ordinary user's."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from in_cgroup import needs_v2_alone
from oci_command import ROOT, Oci, gone
from pace import SLOWER

from cycontainer import run, spawn
from cycontainer.errors import CgroupError, ConfigError, HostError, LaunchError
from cycontainer.host import current
from cycontainer.lifecycle import Container
from cycontainer.read_config import read_config
from cycontainer.spec import default_config
from cycontainer.state import load
from cycontainer.streams import DEVNULL, PIPE
from cycontainer.systemd import CgroupUnit

ORDINARY = os.geteuid() != 0 or not current().initial_user_namespace
TOP = "user.slice" if ORDINARY else "system.slice"
MIB = 1 << 20


@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="systemd is here")
def test_without_systemd_it_says_so_and_nothing_is_left(tmp_path: Path, busybox_rootfs: str) -> None:
    config = config_of(busybox_rootfs, "true")
    with pytest.raises(HostError, match=r"systemd is not the first process of this machine|needs cgroup v2"):
        Container.create("one", config, root=str(tmp_path), cgroup_manager="systemd", stdin=DEVNULL)
    assert os.listdir(tmp_path) == []


def test_a_manager_that_is_none_is_refused(tmp_path: Path, busybox_rootfs: str) -> None:
    with pytest.raises(ConfigError, match="cgroup_manager: must be one of cgroupfs, systemd, disabled, not 'x'"):
        Container.create(
            "one", config_of(busybox_rootfs, "true"), root=str(tmp_path), cgroup_manager="x", stdin=DEVNULL
        )
    assert os.listdir(tmp_path) == []


@pytest.mark.cgroup1
def test_an_ordinary_user_s_systemd_sets_no_limits_on_cgroup_v1(busybox_rootfs: str) -> None:
    config = read_config(config_of(busybox_rootfs, "true"), bundle="/")
    with pytest.raises(HostError, match="sets no limits on cgroup v1: --systemd-cgroup needs cgroup v2"):
        CgroupUnit(config, "one", current().replace(uid=1000))


# --- a container in a unit


def config_of(rootfs: str, *args: str, path: str = "", **resources: Any) -> dict[str, Any]:
    config = default_config((os.getuid(), os.getgid()) if ORDINARY else None)
    config["root"]["path"] = rootfs
    config["process"].update(args=list(args), env=["PATH=/bin"], terminal=False)
    config["linux"].update(cgroupsPath=path, resources={**config["linux"].get("resources", {}), **resources})
    return config


@contextmanager
def container_of(root: Path, config: dict[str, Any], name: str = "one") -> Iterator[Container]:
    with Container.create(name, config, root=str(root), cgroup_manager="systemd", stdin=DEVNULL) as container:
        yield container


def systemctl(*words: str) -> str:
    command = ["systemctl", *(["--user"] if ORDINARY else []), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def shown(unit: str, *names: str) -> list[str]:
    """Properties of a unit, as systemctl(1) prints them."""
    lines = dict(line.partition("=")[::2] for line in systemctl("show", unit).splitlines())
    return [lines[name] for name in names]


def systemd_version() -> int:
    """252, of "systemd 252 (252.39-1~deb12u1)"; 0 without systemd."""
    if not os.path.isdir("/run/systemd/system"):
        return 0
    return int(systemctl("--version").split()[1])


def is_known(unit: str) -> bool:
    return shown(unit, "LoadState") != ["not-found"]


def cgroups_of(pid: int) -> set[str]:
    """A process's cgroups, in all hierarchies that have any."""
    with open(f"/proc/{pid}/cgroup") as file:
        return {line.rstrip("\n").split(":", 2)[2] for line in file}


def read(container: Container, file: str) -> str:
    """A file of its cgroup, wherever its controller is."""
    paths = container.state()["cgroupPaths"].values()
    where = next(f"{path}/{file}" for path in paths if os.path.exists(f"{path}/{file}"))
    with open(where) as opened:
        return opened.read().strip()


def limits(container: Container) -> tuple[str, str, str]:
    """Of memory, processes and CPU time."""
    if current().cgroups.v1:
        return (
            read(container, "memory.limit_in_bytes"),
            read(container, "pids.max"),
            read(container, "cpu.cfs_quota_us"),
        )
    return read(container, "memory.max"), read(container, "pids.max"), read(container, "cpu.max").split()[0]


needs_limits = pytest.mark.skipif(ORDINARY and bool(current().cgroups.v1), reason="cgroup v1 gives a user nothing")
LIMITS: dict[str, Any] = {
    "memory": {"limit": 64 * MIB},
    "pids": {"limit": 33},
    "cpu": {"quota": 30000, "period": 100000},
}


@pytest.mark.systemd
@needs_limits
def test_a_container_is_in_a_scope_with_its_limits_from_its_first_step_on(tmp_path: Path, busybox_rootfs: str) -> None:
    unit, config = "cycontainer-one.scope", config_of(busybox_rootfs, "sleep", "1000", **LIMITS)
    own = cgroups_of(os.getpid())
    with container_of(tmp_path, config) as container:
        (path,) = cgroups_of(container.pid)
        assert path.endswith(f"/{TOP}/{unit}")
        assert limits(container) == (str(64 * MIB), "33", "30000")
        assert shown(unit, "ActiveState", "TasksMax", "Delegate", "Slice") == ["active", "33", "yes", TOP]
        assert load(str(tmp_path), "one").unit == unit
        container.start()
        with container.exec(["cat"], stdin=PIPE, stdout=PIPE) as process:
            assert cgroups_of(process.pid) == {path}
            assert process.communicate(b"x") == (b"x", b"")
        container.pause()
        assert container.status == "paused"
        container.resume()
        assert container.pids() == [container.pid]
    assert not is_known(unit)
    assert cgroups_of(os.getpid()) == own, "the caller is never moved"


@pytest.mark.systemd
@needs_limits
def test_limits_and_updates_outlive_a_reload(tmp_path: Path, busybox_rootfs: str) -> None:
    config = config_of(busybox_rootfs, "sleep", "1000", **LIMITS)
    with container_of(tmp_path, config) as container:
        container.start()
        systemctl("daemon-reload")
        assert limits(container) == (str(64 * MIB), "33", "30000")
        container.update({"pids": {"limit": 44}, "cpu": {"quota": 22000, "period": 100000}})
        assert (shown("cycontainer-one.scope", "TasksMax"), limits(container)) == (
            ["44"],
            (str(64 * MIB), "44", "22000"),
        )
        systemctl("daemon-reload")
        assert limits(container) == (str(64 * MIB), "44", "22000")
        with pytest.raises(CgroupError):
            container.update({"pids": {"limit": 55}, "memory": {"limit": 8192, "checkBeforeUpdate": True}})
        assert (shown("cycontainer-one.scope", "TasksMax"), limits(container)) == (
            ["44"],
            (str(64 * MIB), "44", "22000"),
        )


@pytest.mark.systemd
@needs_limits
def test_a_share_of_a_cpu_is_exact_and_what_systemd_keeps_is_the_next_percent(
    tmp_path: Path, busybox_rootfs: str
) -> None:
    config = config_of(busybox_rootfs, "sleep", "1000", cpu={"quota": 33333, "period": 100000})
    with container_of(tmp_path, config) as container:
        assert limits(container)[2] == "33333"
        container.update({"cpu": {"quota": 22222, "period": 100000}})
        assert limits(container)[2] == "22222"
        systemctl("daemon-reload")
        assert limits(container)[2] in ("22222", "23000")


@pytest.mark.systemd
@needs_v2_alone
@pytest.mark.skipif(systemd_version() < 253, reason="a scope has an OOMPolicy since systemd 253")
def test_that_all_die_together_of_too_little_memory_is_a_policy_of_the_scope(
    tmp_path: Path, busybox_rootfs: str
) -> None:
    config = config_of(busybox_rootfs, "sleep", "1000", unified={"memory.oom.group": "1"})
    with container_of(tmp_path, config) as container:
        for _ in range(2):
            assert (read(container, "memory.oom.group"), shown("cycontainer-one.scope", "OOMPolicy")) == ("1", ["kill"])
            systemctl("daemon-reload")


@pytest.mark.systemd
@pytest.mark.root
def test_devices_that_are_denied_stay_so_after_a_reload(tmp_path: Path, busybox_rootfs: str) -> None:
    config = config_of(busybox_rootfs, "sleep", "1000")
    config["linux"]["devices"] = [{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]
    denied = ["sh", "-c", "echo >/dev/null && ! head -c 1 /dev/kmsg"]
    with container_of(tmp_path, config) as container:
        container.start()
        for _ in range(2):
            with container.exec(denied, stderr=PIPE) as process:
                assert b"not permitted" in process.communicate()[1] and process.returncode == 0
            container.update({"pids": {"limit": 44}})
            systemctl("daemon-reload")


@pytest.mark.systemd
@needs_limits
def test_the_path_names_slice_and_unit_and_annotations_set_properties(tmp_path: Path, busybox_rootfs: str) -> None:
    config = config_of(busybox_rootfs, "sleep", "1000", path="a-b.slice:some:name")
    config["annotations"] = {"org.systemd.property.TimeoutStopSec": "7", "org.systemd.property.SendSIGHUP": "true"}
    try:
        with container_of(tmp_path, config) as container:
            (path,) = cgroups_of(container.pid)
            assert path.endswith("/a.slice/a-b.slice/some-name.scope")
            assert shown("some-name.scope", "TimeoutStopUSec", "SendSIGHUP") == ["7s", "yes"]
    finally:
        systemctl("stop", "a.slice")


@pytest.mark.systemd
@needs_limits
def test_a_unit_that_is_another_s_is_refused_and_left_alone(tmp_path: Path, busybox_rootfs: str) -> None:
    config = config_of(busybox_rootfs, "sleep", "1000", path=":some:name")
    with container_of(tmp_path, config) as container:
        with pytest.raises(CgroupError, match=r"some-name\.scope.*EBUSY"):
            Container.create("two", config, root=str(tmp_path), cgroup_manager="systemd", stdin=DEVNULL)
        assert container.status == "created"
    assert os.listdir(tmp_path) == []


@pytest.mark.systemd
@needs_limits
def test_a_failed_create_leaves_no_unit(tmp_path: Path, busybox_rootfs: str) -> None:
    config = config_of(busybox_rootfs, "sleep", "1000")
    config["mounts"].append({"destination": "/x", "source": "/no/such/thing", "type": "bind", "options": ["bind"]})
    with pytest.raises(LaunchError, match="/no/such/thing"):
        Container.create("one", config, root=str(tmp_path), cgroup_manager="systemd", stdin=DEVNULL)
    config = config_of(busybox_rootfs, "sleep", "1000")
    config["annotations"] = {"org.systemd.property.NoSuchProperty": "true"}
    with pytest.raises(HostError, match=r"systemd refuses StartTransientUnit: .*NoSuchProperty"):
        Container.create("one", config, root=str(tmp_path), cgroup_manager="systemd", stdin=DEVNULL)
    assert os.listdir(tmp_path) == [] and not is_known("cycontainer-one.scope")


@pytest.mark.systemd
@needs_limits
def test_of_a_container_that_ran_out_of_memory_no_failed_unit_is_left(tmp_path: Path, busybox_rootfs: str) -> None:
    memory = {"limit": 16 * MIB, "swap": 16 * MIB}
    config = config_of(busybox_rootfs, "sh", "-c", "head -c 100m /dev/zero | tail", memory=memory)
    with container_of(tmp_path, config) as container:
        container.start()
        container.wait(20)
        container.delete()
    assert not is_known("cycontainer-one.scope")


@pytest.mark.systemd
@pytest.mark.root
def test_a_slice_holds_a_container_itself(tmp_path: Path, busybox_rootfs: str) -> None:
    config = config_of(busybox_rootfs, "sleep", "1000", path="::cycontainertest.slice", **LIMITS)
    with container_of(tmp_path, config) as container:
        assert "/cycontainertest.slice" in cgroups_of(container.pid)
        assert shown("cycontainertest.slice", "ActiveState", "TasksMax") == ["active", "33"]
        assert limits(container)[1] == "33"
    assert shown("cycontainertest.slice", "ActiveState") == ["inactive"]
    occupied = config_of(busybox_rootfs, "true", path="::system.slice")
    with pytest.raises(CgroupError, match=r"system\.slice.*EBUSY"):
        Container.create("one", occupied, root=str(tmp_path), cgroup_manager="systemd", stdin=DEVNULL)


@pytest.mark.systemd
@needs_limits
def test_run_has_a_scope_too(busybox_rootfs: str) -> None:
    result = run(["cat", "/proc/self/cgroup"], rootfs=busybox_rootfs, pids=20, cgroup_manager="systemd")
    assert result.returncode == 0 and result.stdout.splitlines()[-1].endswith(b":/"), result
    small = run(
        ["sh", "-c", "(true) & (true) & (true) & wait"], rootfs=busybox_rootfs, pids=2, cgroup_manager="systemd"
    )
    assert b"fork" in small.stderr
    assert "cycontainer-run" not in systemctl("list-units", "--all")


FILLS = "head -c 100m /dev/zero | tail"
LITTLE: dict[str, Any] = {"memory": 16 * MIB, "cgroup_manager": "systemd"}


@pytest.mark.systemd
@needs_limits
def test_a_run_that_is_out_of_memory_is_told_of_though_its_scope_goes_at_once(busybox_rootfs: str) -> None:
    for _ in range(5):
        result = run(["sh", "-c", FILLS], rootfs=busybox_rootfs, **LITTLE)
        assert result.oom_killed, result
        assert result.usage.peak_memory <= 16 * MIB
    ended = run(["sh", "-c", f"{FILLS}; yes"], rootfs=busybox_rootfs, output_limit=1000, **LITTLE)
    assert (ended.output_exceeded, ended.oom_killed) == (True, True)
    assert not run(["true"], rootfs=busybox_rootfs, **LITTLE).oom_killed
    assert "cycontainer-run" not in systemctl("list-units", "--all")


@pytest.mark.systemd
@needs_limits
def test_a_spawned_program_ends_though_nobody_hears_it(busybox_rootfs: str) -> None:
    with spawn(["sh", "-c", FILLS], rootfs=busybox_rootfs, **LITTLE) as spawned:
        watch = select.poll()
        watch.register(spawned.pidfd, select.POLLIN)
        assert watch.poll(20_000 * SLOWER), "it ends though nobody hears it"
        assert spawned.wait().returncode


@pytest.mark.systemd
@needs_limits
@pytest.mark.skipif(systemd_version() < 253, reason="systemd does not keep that of a scope before 253")
def test_without_a_pid_1_of_ours_systemd_tells_of_it(busybox_rootfs: str) -> None:
    assert run(["sh", "-c", FILLS], rootfs=busybox_rootfs, init=False, **LITTLE).oom_killed
    assert not run(["true"], rootfs=busybox_rootfs, init=False, **LITTLE).oom_killed
    assert "cycontainer-run" not in systemctl("list-units", "--all")


@pytest.mark.systemd
@pytest.mark.root
def test_the_command_has_both_options(oci: Oci) -> None:
    oci.write("cat", "/proc/self/cgroup")
    for words in (("--systemd-cgroup",), ("--cgroup-manager", "systemd")):
        assert oci.done(*words, "run", "one").splitlines()[-1].endswith(":/")
    oci.write("sleep", "1000")
    oci.leaving("--systemd-cgroup", "create", "one")
    oci.done("start", "one")
    assert is_known("cycontainer-one.scope")
    assert oci.done("exec", "one", "cat", "/proc/self/cgroup").splitlines()[-1].endswith(":/")
    oci.done("update", "--pids-limit", "44", "one")
    assert shown("cycontainer-one.scope", "TasksMax") == ["44"]
    oci.done("delete", "--force", "one")
    assert not is_known("cycontainer-one.scope")
    config = oci.config("true")
    config["linux"]["cgroupsPath"] = "/some/path"
    oci.write(config=config)
    done = oci("--systemd-cgroup", "create", "one")
    assert done.returncode == 1 and "must be slice:prefix:name for systemd, not '/some/path'" in done.stderr


def test_disabled_is_no_cgroup_and_no_limit(tmp_path: Path, busybox_rootfs: str) -> None:
    config = config_of(busybox_rootfs, "sleep", "1000")
    del config["linux"]["resources"]
    with Container.create("one", config, root=str(tmp_path), cgroup_manager="disabled", stdin=DEVNULL) as container:
        assert cgroups_of(container.pid) == cgroups_of(os.getpid())
    config["linux"]["resources"] = {"pids": {"limit": 5}}
    with pytest.raises(ConfigError, match=r"linux\.resources: the container is to have no cgroup"):
        Container.create("one", config, root=str(tmp_path), cgroup_manager="disabled", stdin=DEVNULL)


# --- whose manager


WHOLE_LIFE = f"""
import json, os, sys
sys.path[:0] = [{ROOT!r}, {ROOT + "/tests"!r}]
from test_systemd import cgroups_of, config_of
from cycontainer.errors import ConfigError
from cycontainer.lifecycle import Container
from cycontainer.streams import DEVNULL
rootfs, root = sys.argv[1:]
seen = {{"own": sorted(cgroups_of(os.getpid()))}}
config = config_of(rootfs, "sleep", "1000", pids={{"limit": 33}})
try:
    Container.create("one", config, root=root, stdin=DEVNULL).delete(force=True)
except ConfigError as error:
    seen["refused"] = str(error)
with Container.create("one", config, root=root, stdin=DEVNULL, cgroup_manager="systemd") as container:
    container.start()
    seen["first"] = sorted(cgroups_of(container.pid))
    with container.exec(["sleep", "1000"], stdin=DEVNULL) as process:
        seen["second"] = sorted(cgroups_of(process.pid))
seen["later"] = sorted(cgroups_of(os.getpid()))
print(json.dumps(seen))
"""
USER = 1000


@pytest.mark.systemd
@pytest.mark.root
@pytest.mark.cgroup2
@pytest.mark.skipif(not os.path.exists(f"/run/user/{USER}/bus"), reason="needs an ordinary user with a manager")
def test_a_caller_in_a_session_gets_a_scope_of_its_user_and_is_not_moved(busybox_rootfs: str) -> None:
    """A session's scope is the system manager's: no one but it may make cgroups there, or move processes out of it."""
    scope = ["systemd-run", "--quiet", "--scope", f"--slice=user-{USER}.slice", f"--uid={USER}", "--gid=1000"]
    env = {**os.environ, "XDG_RUNTIME_DIR": f"/run/user/{USER}"}
    with tempfile.TemporaryDirectory() as directory:
        os.chown(directory, USER, USER)
        command = [*scope, sys.executable, "-c", WHOLE_LIFE, busybox_rootfs, f"{directory}/states"]
        done = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert "no cgroup is delegated to this user; --systemd-cgroup" in seen["refused"]
    assert seen["first"] == seen["second"]
    assert seen["first"][0].endswith(f"/user@{USER}.service/user.slice/cycontainer-one.scope")
    assert seen["own"] == seen["later"] and seen["own"][0].startswith(f"/user.slice/user-{USER}.slice/run-")


@pytest.mark.systemd
@pytest.mark.cgroup2
@pytest.mark.skipif(not ORDINARY, reason="needs an ordinary user")
def test_the_root_of_a_user_namespace_has_its_user_s_manager(tmp_path: Path, busybox_rootfs: str) -> None:
    unshare = ["unshare", "--map-root-user", "--mount"]
    command = [*unshare, sys.executable, "-c", WHOLE_LIFE, busybox_rootfs, f"{tmp_path}/states"]
    env = {name: value for name, value in os.environ.items() if name != "DBUS_SESSION_BUS_ADDRESS"}
    done = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["first"][0].endswith("/user.slice/cycontainer-one.scope")


@pytest.mark.systemd
@needs_limits
def test_of_a_damaged_state_the_unit_is_found(tmp_path: Path, busybox_rootfs: str) -> None:
    config = config_of(busybox_rootfs, "sleep", "1000", path=":some:name")
    with container_of(tmp_path, config) as container:
        container.start()
        pidfd = os.pidfd_open(container.pid)
        with open(tmp_path / "one" / "state", "w") as file:
            file.write("nonsense")
        container.delete(force=True)
        gone(pidfd)
    assert not is_known("some-name.scope")


@pytest.mark.systemd
@pytest.mark.criu
@pytest.mark.root
def test_a_saved_container_comes_back_into_a_scope(tmp_path: Path, busybox_rootfs: str) -> None:
    config = config_of(busybox_rootfs, "sh", "-c", "while :; do sleep 1; done", **LIMITS)
    images = f"{tmp_path}/images"
    where: dict[str, Any] = {"root": f"{tmp_path}/states", "stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL}
    with Container.create("one", config, cgroup_manager="systemd", **where) as container:
        container.start()
        container.checkpoint(images)
    assert not is_known("cycontainer-one.scope")
    with Container.restore("one", config, images, cgroup_manager="systemd", **where) as container:
        assert {path.rpartition("/")[2] for path in cgroups_of(container.pid)} == {"cycontainer-one.scope"}
        assert limits(container)[:2] == (str(64 * MIB), "33")
        assert container.status == "running"
    assert not is_known("cycontainer-one.scope")
