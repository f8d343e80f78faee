"""The command in the foreground: whose the container's orphans are."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from oci_command import COMMAND, PATIENCE, ROOT, Oci

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


REAPS_NONE = f"""
import signal, sys
sys.path.insert(0, {ROOT!r})
from cycontainer.cli.__main__ import main
from cycontainer.lifecycle import Container

def delete(container, *, real=Container.delete, **more):
    print(signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL, file=sys.stderr)
    real(container, **more)

Container.delete = delete
sys.exit(main(sys.argv[1:]))
"""


def test_nobody_reaps_the_hooks_of_a_containers_end_before_who_waits_for_them(oci: Oci) -> None:
    """Their statuses would be unknown on kernels before 6.15, and the container left."""
    oci.write("sh", "-c", "echo a; exec sleep 1000", terminal=True)
    words = [sys.executable, "-I", "-c", REAPS_NONE, "--root", oci.states, "run", "--bundle", oci.bundle, "one"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE)
    assert done.stderr == b"True\ncycontainer: run failed: no space left on device\n"
    assert os.listdir(oci.states) == []
