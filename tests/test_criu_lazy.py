"""Memory that stays behind: a restored container runs at once, and fetches a page when it needs it."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from saved import Obedient, config_of

from cycontainer._fd import effective_capabilities

CAP_SYS_RESOURCE = 24

pytestmark = [pytest.mark.root, pytest.mark.criu, pytest.mark.slow]


def test_memory_follows_when_it_is_needed(busybox_rootfs: str, tmp_path: object) -> None:
    if not effective_capabilities() >> CAP_SYS_RESOURCE & 1:
        pytest.skip("criu needs pipes of 4 MB for that, and they need CAP_SYS_RESOURCE")
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
