"""`./bootstrap` on a machine that lacks what it needs: which packages it asks for, of which package manager."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOLS = ("sh", "dirname", "env", "id", "sed", "uname")  # what is on any machine

LACKING = {
    "apt-get": {"gcc", "libc6-dev", "uidmap", "iproute2", "procps", "make", "util-linux"},
    "dnf": {"gcc", "glibc-devel", "shadow-utils", "iproute", "procps-ng", "make", "util-linux"},
}


def bare_machine(directory: Path, manager: str) -> dict[str, str]:
    """The environment of a machine with Python, the tools and a package manager, which notes its words and fails."""
    shutil.copy(f"{ROOT}/bootstrap", directory)
    tools = directory / "bin"
    tools.mkdir()
    os.symlink(sys.executable, tools / "python3")
    for name in TOOLS:
        os.symlink(str(shutil.which(name)), tools / name)
    for name, script in ((manager, f'echo "$@" >>"{directory}/asked"; [ "$1" = update ]'), ("sudo", 'shift; "$@"')):
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    return {"PATH": str(tools), "LANG": "C.UTF-8"}


@pytest.mark.parametrize("manager", LACKING)
def test_what_is_missing_is_asked_of_the_package_manager_and_said(manager: str, tmp_path: Path) -> None:
    environment = bare_machine(tmp_path, manager)
    done = subprocess.run(["sh", "bootstrap", "build"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode != 0, "the package manager failed"
    asked = (tmp_path / "asked").read_text().splitlines()[-1].split()
    assert asked[0] == "install"
    assert set(asked) >= LACKING[manager]
    said = next(line for line in done.stdout.splitlines() if "installing with" in line)
    assert set(said.split()) >= LACKING[manager]


def test_without_a_package_manager_it_names_what_is_missing(tmp_path: Path) -> None:
    environment = bare_machine(tmp_path, "none")
    done = subprocess.run(["sh", "bootstrap", "build"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("bootstrap: neither apt-get nor dnf is here") and "gcc" in done.stderr


def test_it_explains_itself() -> None:
    done = subprocess.run(["sh", f"{ROOT}/bootstrap"], capture_output=True, text=True)
    assert done.returncode == 2
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["run", "test", "build"]
