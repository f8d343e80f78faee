"""Plans on the real kernel: what each configuration makes of a container, and what is left when a step fails."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from launching import document, launched, plan_of

from cycontainer import _clone, run
from cycontainer.errors import LaunchError

pytestmark = pytest.mark.root


def test_whichever_step_fails_it_is_named_and_nothing_is_left(busybox_rootfs: str) -> None:
    config = document(busybox_rootfs, resources={})
    plan = plan_of(config)
    for step, attempt in enumerate(plan.attempts):
        with pytest.raises(LaunchError) as failure:
            launched(plan.broken_at(step))
        assert (failure.value.attempt, failure.value.errno) == (attempt, errno.ENOSYS)


def test_the_same_configuration_gives_the_same_bytes(busybox_rootfs: str) -> None:
    assert plan_of(document(busybox_rootfs)).data == plan_of(document(busybox_rootfs)).data


def inside(rootfs: str, script: str, **keywords: Any) -> str:
    """What a script prints in a container of the default configuration."""
    config = document(rootfs, script, **keywords)
    result = run(["sh", "-c", script], config=config, text=True)
    assert result.stderr == "" and isinstance(result.stdout, str)
    return result.stdout


def test_masked_and_readonly_paths(busybox_rootfs: str) -> None:
    script = "cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l; grep -c ' /proc/sys .*ro,' /proc/mounts"
    assert inside(busybox_rootfs, script).split() == ["0", "0", "1"]


def test_the_root_is_read_only_and_dev_is_its_own(busybox_rootfs: str) -> None:
    script = "touch /x 2>/dev/null || echo ro; stat -c %t:%T /dev/null /dev/zero; readlink /dev/fd; readlink /dev/ptmx"
    assert inside(busybox_rootfs, script).split() == ["ro", "1:3", "1:5", "/proc/self/fd", "pts/ptmx"]


def test_a_namespace_is_joined_by_its_path(busybox_rootfs: str) -> None:
    holder = subprocess.Popen(["unshare", "--uts", "sh", "-c", "hostname joined; echo; read x"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert holder.stdin and holder.stdout
    holder.stdout.readline()
    kinds = [{"type": kind} for kind in ("pid", "mount", "ipc", "network", "cgroup")]
    config = document(busybox_rootfs, namespaces=[*kinds, {"type": "uts", "path": f"/proc/{holder.pid}/ns/uts"}])
    del config["hostname"]
    assert run(["hostname"], config=config).stdout == b"joined\n"
    holder.communicate(b"\n")


def test_a_time_namespace_has_its_offsets(busybox_rootfs: str) -> None:
    kinds = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network", "cgroup", "time")]
    offsets = {"boottime": {"secs": 1_000_000}}
    with open("/proc/uptime") as file:
        before = float(file.read().split()[0])
    now = float(inside(busybox_rootfs, "cat /proc/uptime", namespaces=kinds, timeOffsets=offsets).split()[0])
    assert 999_990 < now - before < 1_000_100


def test_sysctls_of_its_namespaces(busybox_rootfs: str) -> None:
    sysctl = {"net.ipv4.ip_forward": "1", "kernel.shmmni": "77"}
    script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni"
    assert inside(busybox_rootfs, script, sysctl=sysctl).split() == ["1", "77"]


@pytest.mark.parametrize("link", ["/etc", "../../../../etc", "/proc/self/exe", "loop"])
def test_a_hostile_link_at_a_mount_target_stays_inside(busybox_rootfs: str, link: str, tmp_path: object) -> None:
    root = f"{tmp_path}/root"
    subprocess.run(["cp", "-a", busybox_rootfs, root], check=True)
    os.symlink(link, f"{root}/loop")
    before = sorted(os.listdir("/etc"))
    mount = {"destination": "/loop", "type": "tmpfs", "source": "tmpfs", "options": []}
    try:
        result = run(["sh", "-c", "grep -c tmpfs /proc/mounts"], rootfs=root, mounts=[mount])
        assert result.returncode == 0
    except LaunchError as failure:
        assert failure.errno in (errno.ELOOP, errno.EPERM, errno.ENOTDIR)
    assert sorted(os.listdir("/etc")) == before


def test_a_rootfs_whose_proc_is_a_link_is_refused(busybox_rootfs: str, tmp_path: object) -> None:
    root = f"{tmp_path}/root"
    subprocess.run(["cp", "-a", busybox_rootfs, root], check=True)
    os.rmdir(f"{root}/proc")
    os.symlink("/tmp", f"{root}/proc")
    with pytest.raises(LaunchError) as failure:
        run(["true"], rootfs=root)
    assert failure.value.errno == errno.ELOOP


def test_a_target_behind_a_dangling_link_is_made_inside(busybox_rootfs: str, tmp_path: object) -> None:
    root = f"{tmp_path}/root"
    subprocess.run(["cp", "-a", busybox_rootfs, root], check=True)
    os.symlink("/made/by/us", f"{root}/link")
    mount = {"destination": "/link", "type": "bind", "source": "/etc/hostname", "options": ["bind", "ro"]}
    result = run(["cat", "/made/by/us"], rootfs=root, mounts=[mount])
    with open("/etc/hostname", "rb") as file:
        assert result.stdout == file.read()
    assert not os.path.exists("/made")


def test_a_mount_inside_procfs_is_refused(busybox_rootfs: str) -> None:
    mount = {"destination": "/proc/self/attr", "type": "tmpfs", "source": "tmpfs"}
    with pytest.raises(LaunchError) as failure:
        run(["true"], rootfs=busybox_rootfs, mounts=[mount])
    assert failure.value.errno == errno.EPERM


def test_mount_options_are_the_kernels(busybox_rootfs: str) -> None:
    options = ["nosuid", "noexec", "nodev", "noatime", "ro", "size=1m", "mode=711"]
    mounts = [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": options}]
    result = run(["sh", "-c", "grep ' /tmp ' /proc/mounts"], rootfs=busybox_rootfs, mounts=mounts, text=True)
    line = result.stdout.splitlines()[-1]
    assert line.startswith("tmpfs /tmp tmpfs ro,nosuid,nodev,noexec,noatime,size=1024k,mode=711")


def test_the_command_runs_a_bundle(busybox_rootfs: str, tmp_path: object) -> None:
    command = [sys.executable, "-m", "cycontainer", "--root", f"{tmp_path}/states"]
    subprocess.run([*command, "spec", "--bundle", str(tmp_path)], check=True)
    os.symlink(busybox_rootfs, f"{tmp_path}/rootfs")
    path = f"{tmp_path}/config.json"
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(text.replace('"sh"', '"sh", "-c", "echo $0; exit 7", "hello"'))
    result = subprocess.run([*command, "run", "--bundle", str(tmp_path), "test-1"], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (7, "hello\n", "")
    steps = subprocess.run([*command, "plan", str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert "mount proc on /proc" in steps
    listed = json.loads(subprocess.run([*command, "plan", "--json", str(tmp_path)], capture_output=True).stdout)
    assert [f"{step['step']:4} {step['attempt']}" for step in listed] == steps.splitlines()


@pytest.mark.parametrize("words", [["run"], ["run", "../x"], ["run", ""], ["nothing"], ["run", "--bundle"]])
def test_wrong_words_are_one_line(words: list[str]) -> None:
    result = subprocess.run([sys.executable, "-m", "cycontainer", *words], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("cycontainer: ") and result.stderr.count("\n") == 1


def test_who_was_reaped_by_another_cannot_be_taken() -> None:
    gone = subprocess.Popen(["true"])
    pidfd = os.pidfd_open(gone.pid)
    gone.wait()
    with pytest.raises(ProcessLookupError):
        _clone.Child().take(pidfd)
    os.close(pidfd)
