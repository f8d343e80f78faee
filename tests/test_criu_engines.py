"""Images that other runtimes made, and an engine that saves and restores through us."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator

import pytest
from oci_command import COMMAND, Oci

pytestmark = [pytest.mark.root, pytest.mark.criu, pytest.mark.slow]

COUNT = "i=0; while echo $i >/tmp/n; do i=$((i+1)); sleep 0.01; done"


@pytest.fixture
def oci(tmp_path: object, busybox_rootfs: str) -> Iterator[Oci]:
    command = Oci(str(tmp_path), busybox_rootfs)
    config = command.config("sh", "-c", COUNT)
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": []})
    volume = {"destination": "/root", "type": "bind", "source": command.bundle, "options": ["rbind"]}
    config["mounts"].append(volume)
    command.write(config=config)
    yield command
    command.clean()


def test_a_container_of_runc_goes_on_with_us(oci: Oci) -> None:
    if shutil.which("runc") is None or shutil.which("iptables-restore") is None:
        pytest.skip("needs runc and iptables")
    runc = ["runc", "--root", f"{oci.bundle}/runc"]
    null = subprocess.DEVNULL
    subprocess.run(
        [*runc, "run", "--detach", "--bundle", oci.bundle, "one"], stdin=null, stdout=null, stderr=null, check=True
    )
    try:
        before = count_of(
            subprocess.run([*runc, "exec", "one", "cat", "/tmp/n"], stdin=null, capture_output=True).stdout
        )
        done = subprocess.run([*runc, "checkpoint", "one"], cwd=oci.bundle, stdin=null, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    finally:
        subprocess.run([*runc, "delete", "--force", "one"], check=True)
    oci.leaving("restore", "--detach", "one")
    assert count_of(oci.done("exec", "one", "cat", "/tmp/n").encode()) >= before
    assert "config.json" in oci.done("exec", "one", "ls", "/root")
    oci.end(oci.pid())


def count_of(text: bytes) -> int:
    return int(text or b"0")


@pytest.fixture
def top() -> Iterator[str]:
    """A directory whose path is short: podman wants one of 50 letters at most."""
    path = tempfile.mkdtemp(prefix="pod-", dir="/var/tmp")
    yield path
    shutil.rmtree(path)


@pytest.mark.engine
def test_podman_moves_a_container_in_an_archive(top: str, busybox_rootfs: str) -> None:
    if shutil.which("podman") is None:
        pytest.skip("needs podman")
    with open(f"{top}/runtime", "w") as file:
        file.write(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    os.chmod(f"{top}/runtime", stat.S_IRWXU)
    places = ("--root", f"{top}/storage", "--runroot", f"{top}/run", "--tmpdir", f"{top}/tmp")
    how = ("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file")

    def podman(*words: str) -> str:
        command = ["podman", *places, *how, "--runtime", f"{top}/runtime", *words]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout.strip()

    subprocess.run(["tar", "-C", busybox_rootfs, "-cf", f"{top}/image.tar", "."], check=True)
    podman("import", f"{top}/image.tar", "busybox")
    podman("run", "--detach", "--name", "one", "--network", "none", "busybox", "/bin/sh", "-c", COUNT)
    try:
        before = count_of(podman("exec", "one", "/bin/cat", "/tmp/n").encode())
        podman("container", "checkpoint", "--export", f"{top}/saved.tar.gz", "one")
        podman("rm", "--force", "one")
        podman("container", "restore", "--import", f"{top}/saved.tar.gz", "--name", "two")
        assert count_of(podman("exec", "two", "/bin/cat", "/tmp/n").encode()) >= before
        podman("container", "checkpoint", "two")
        podman("container", "restore", "two")
        assert podman("ps", "--format", "{{.Names}}") == "two"
    finally:
        podman("rm", "--all", "--force", "--time", "0")
