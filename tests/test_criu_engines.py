"""Images that another runtime made, and images that it takes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import lacks
from oci_command import COMMAND, Oci

pytestmark = [pytest.mark.root, pytest.mark.criu, pytest.mark.slow]

COUNT = "i=0; while echo $i >/tmp/m && mv /tmp/m /tmp/n; do i=$((i+1)); sleep 0.01; done"


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
        lacks("runc, and iptables")
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


def test_a_container_of_ours_goes_on_with_runc(oci: Oci) -> None:
    if shutil.which("runc") is None or shutil.which("iptables-restore") is None:
        lacks("runc, and iptables")
    runc, images = ["runc", "--root", f"{oci.bundle}/runc", "--log", f"{oci.bundle}/log"], f"{oci.bundle}/images"
    reader, writer = os.pipe()
    pipes: dict[str, Any] = {"stdin": reader, "stdout": writer, "stderr": writer}  # what runc finds again, too
    subprocess.run([*COMMAND, "--root", oci.states, "run", "--detach", "one"], cwd=oci.bundle, check=True, **pipes)
    before = count_of(oci.done("exec", "one", "cat", "/tmp/n").encode())
    oci.done("checkpoint", "--image-path", images, "one")
    try:
        words = ["restore", "--detach", "--bundle", oci.bundle, "--image-path", images, "one"]
        done = subprocess.run([*runc, *words], **pipes)
        assert done.returncode == 0, os.read(reader, 10000)
        seen = subprocess.run([*runc, "exec", "one", "cat", "/tmp/n"], stdin=subprocess.DEVNULL, capture_output=True)
        assert count_of(seen.stdout) >= before
    finally:
        subprocess.run([*runc, "delete", "--force", "one"], check=True)
        os.close(reader)
        os.close(writer)
