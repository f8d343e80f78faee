"""Memory that stays behind: a restored container runs at once, and fetches a page when it needs it."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from saved import Obedient, config_of

from cycontainer._fd import effective_capabilities
from cycontainer.criu.options import CheckpointOptions, check_status
from cycontainer.errors import ConfigError, HostError

CAP_SYS_RESOURCE = 24

pytestmark = [pytest.mark.root, pytest.mark.criu]


def has_large_pipes() -> bool:
    """criu's are of 4 MiB."""
    with open("/proc/sys/fs/pipe-max-size") as file:
        return bool(effective_capabilities() >> CAP_SYS_RESOURCE & 1) or int(file.read()) >= 4 << 20


def test_where_pipes_are_small_it_is_refused(busybox_rootfs: str, tmp_path: object) -> None:
    if has_large_pipes():
        pytest.skip("criu has its pipes here")
    with Obedient.start("one", config_of(busybox_rootfs), f"{tmp_path}/states") as first:
        with pytest.raises(HostError, match=r"pipes of 4 MiB: raise the sysctl fs\.pipe-max-size, or have CAP_SYS_RES"):
            first.container.checkpoint(f"{tmp_path}/images", lazy_pages=True, page_server="127.0.0.1:27100")
        assert first.do("echo here") == "here\n" and not os.path.exists(f"{tmp_path}/images")


@pytest.mark.slow
def test_memory_follows_when_it_is_needed(busybox_rootfs: str, tmp_path: object) -> None:
    if not has_large_pipes():
        pytest.skip("criu needs pipes of 4 MiB for that: fs.pipe-max-size, or CAP_SYS_RESOURCE")
    top, images = str(tmp_path), f"{tmp_path}/images"
    config, server = config_of(busybox_rootfs), ("--address", "127.0.0.1", "--port", "27100")
    reader, writer = os.pipe()
    with ThreadPoolExecutor(1) as pool, Obedient.start("one", config, f"{top}/states") as first:
        first.do("a=1; b=$(head -c 1000000 /dev/zero | tr '\\0' x)")
        dump = pool.submit(
            first.container.checkpoint, images, lazy_pages=True, status_fd=writer, page_server="127.0.0.1:27100"
        )
        assert os.read(reader, 1) == b"\0"
        os.close(reader)
        words = ["criu", "lazy-pages", "--page-server", *server, "--images-dir", images, "--work-dir", images]
        with subprocess.Popen([*words, "--status-fd", "1"], stdout=subprocess.PIPE) as daemon:
            assert daemon.stdout is not None and daemon.stdout.read(1) == b"\0"
            with Obedient.restore("two", config, images, f"{top}/states", lazy_pages=True) as second:
                assert second.do("echo $a ${#b}") == "1 1000000\n"
                assert daemon.wait(60) == 0
        dump.result(60)


def test_a_status_descriptor_that_is_only_read_is_refused() -> None:
    reader, writer = os.pipe()
    check_status(CheckpointOptions(lazy_pages=True, status_fd=writer))
    with pytest.raises(ConfigError, match=f"status-fd: {reader} is not open for writing"):
        check_status(CheckpointOptions(lazy_pages=True, status_fd=reader))
    os.close(reader)
    os.close(writer)
