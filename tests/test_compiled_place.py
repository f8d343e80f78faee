"""Where the compiled command looks for its package and interpreter: where it lies, and nowhere else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from elf import PT_INTERP, program_headers
from oci_command import COMMAND, ROOT

VERSION = f"python3.{sys.version_info.minor}"
PYTHON = os.path.realpath(sys.executable)


def install(prefix: Path, packages: str = f"lib/{VERSION}/site-packages", python: str = VERSION) -> Path:
    """An installation below a prefix, as pip would leave it; its command."""
    for directory in (prefix / "bin", prefix / packages):
        directory.mkdir(parents=True, exist_ok=True)
    os.symlink(f"{ROOT}/cycontainer", prefix / packages / "cycontainer")
    if python:
        os.symlink(PYTHON, prefix / "bin" / python)
    shutil.copy(COMMAND[0], prefix / "bin")
    return prefix / "bin/cycontainer"


def calls(command: Path, *words: str, **keywords: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([command, *(words or ("features",))], capture_output=True, text=True, **keywords)  # type: ignore[call-overload,no-any-return]  # keywords of run()


def works(command: Path, **keywords: object) -> None:
    done = calls(command, **keywords)
    assert (done.returncode, done.stderr) == (0, "") and "ociVersionMax" in done.stdout


@pytest.mark.parametrize(
    "packages",
    [f"lib/{VERSION}/site-packages", f"lib64/{VERSION}/site-packages", f"local/lib/{VERSION}/dist-packages"],
)
def test_below_a_prefix(packages: str, tmp_path: Path) -> None:
    works(install(tmp_path / "prefix", packages))


def test_in_a_virtual_environment_whose_interpreter_has_no_version_in_its_name(tmp_path: Path) -> None:
    command = install(tmp_path / "venv", python="python3")
    (tmp_path / "venv/pyvenv.cfg").write_text(f"home = {os.path.dirname(PYTHON)}\n")
    works(command)


def test_in_a_user_s_installation_the_interpreter_is_the_system_s(tmp_path: Path) -> None:
    command = install(tmp_path / ".local", python="")
    if os.path.exists(f"/usr/bin/{VERSION}") or os.path.exists(f"/usr/local/bin/{VERSION}"):
        works(command)
    else:
        assert "no interpreter of the version" in calls(command).stderr


def test_the_interpreter_looks_at_no_site_no_environment_and_no_locale(tmp_path: Path) -> None:
    command = install(tmp_path / "prefix", python="")
    interpreter = tmp_path / "prefix/bin" / VERSION
    interpreter.write_text('#!/bin/sh\necho "$@"\n')
    interpreter.chmod(0o755)
    assert calls(command).stdout.startswith("-I -S -X utf8 -c ")


def test_by_a_symbolic_link_and_from_anywhere(tmp_path: Path) -> None:
    command = install(tmp_path / "prefix")
    os.mkdir(tmp_path / "elsewhere")
    os.symlink(command, tmp_path / "elsewhere/runtime")
    works(tmp_path / "elsewhere/runtime", cwd="/", env={})
    works(Path("../elsewhere/runtime"), cwd=tmp_path / "prefix")


def test_what_lies_nowhere_has_no_package() -> None:
    fd = os.memfd_create("command")
    try:
        os.write(fd, Path(COMMAND[0]).read_bytes())
        done = subprocess.run([f"/proc/self/fd/{fd}", "features"], pass_fds=[fd], capture_output=True, text=True)
    finally:
        os.close(fd)
    assert done.returncode == 1
    assert done.stderr == "cycontainer: the package cycontainer is not where this command was installed\n"


def test_the_newest_version_counts(tmp_path: Path) -> None:
    command = install(tmp_path / "prefix")
    older = tmp_path / "prefix/lib/python3.9/site-packages/cycontainer/cli"
    older.mkdir(parents=True)
    (older / "__main__.py").write_text("def run_command(): raise SystemExit(9)\n")
    works(command)


def test_neither_environment_nor_working_directory_change_what_is_executed(tmp_path: Path) -> None:
    """A package, modules of the library and a startup file of the caller's are not even looked at."""
    trap = tmp_path / "trap"
    (trap / "cycontainer/cli").mkdir(parents=True)
    text = f"open({str(tmp_path / 'trapped')!r}, 'w')\n"
    for name in ("sitecustomize.py", "usercustomize.py", "os.py", "errno.py", "fcntl.py", "cycontainer/__init__.py"):
        (trap / name).write_text(text)
    os.symlink("/bin/false", trap / VERSION)
    os.symlink("/bin/false", trap / "python3")
    environment = {
        **{name: str(trap) for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "HOME", "PATH", "VIRTUAL_ENV")},
        **{"PYTHONSTARTUP": f"{trap}/os.py", "PYTHONEXECUTABLE": "/bin/false", "PYTHONPLATLIBDIR": str(trap)},
        "PYTHONINSPECT": "1",
    }
    for command in (Path(COMMAND[0]), install(tmp_path / "prefix")):
        works(command, cwd=trap, env=environment)
    assert not (tmp_path / "trapped").exists()


def test_it_says_what_is_missing(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "bin")
    shutil.copy(COMMAND[0], tmp_path / "bin")
    done = calls(tmp_path / "bin/cycontainer")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "cycontainer: the package cycontainer is not where this command was installed\n"


def test_it_is_small_and_needs_libc_only() -> None:
    assert os.path.getsize(COMMAND[0]) < 200 * 1024
    assert PT_INTERP in {kind for kind, _ in program_headers(COMMAND[0])}
    listed = subprocess.run(["ldd", COMMAND[0]], check=True, capture_output=True, text=True).stdout
    assert {line.split()[0].rpartition("/")[2].partition(".")[0] for line in listed.splitlines()} <= {
        "linux-vdso", "libc", "ld-linux-x86-64", "ld-linux-aarch64",
    }  # fmt: skip
