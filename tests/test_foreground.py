"""The command in the foreground: whose the container's orphans are."""

from __future__ import annotations

import subprocess

import pytest
from oci_command import COMMAND, PATIENCE, Oci

pytestmark = pytest.mark.root

ORPHAN = """
pid=$(sh -c 'sleep 1000 >/dev/null & echo $!')
grep PPid: /proc/$pid/status
kill $pid
"""
UNTIL_IT_IS_REAPED = "while [ -e /proc/$pid ]; do usleep 1000; done"


def parents_of_an_orphan(oci: Oci, script: str, *options: str) -> tuple[int, int]:
    """Who gets the orphan of a container without a pid namespace, and the command's pid."""
    config = oci.config("sh", "-c", script)
    config["linux"]["namespaces"] = [{"type": "mount"}]
    del config["hostname"]
    oci.write(config=config)
    command = [*COMMAND, "--root", oci.states, "run", "--bundle", oci.bundle, *options, "one"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    return int(printed.split()[1]), process.pid


def test_orphans_are_the_commands_who_waits_for_them(oci: Oci) -> None:
    parent, command = parents_of_an_orphan(oci, ORPHAN + UNTIL_IT_IS_REAPED)
    assert parent == command


def test_without_a_subreaper_orphans_are_left_to_the_system(oci: Oci) -> None:
    parent, command = parents_of_an_orphan(oci, ORPHAN, "--no-subreaper")
    assert parent != command
