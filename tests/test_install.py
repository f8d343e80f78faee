"""What pip installs: an sdist has all that a wheel is built of, and a wheel all that a bare environment needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from glob import glob
from pathlib import Path

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PARTS = {path.removesuffix(".pyx") for path in glob("cycontainer/_cgroup*.pyx", root_dir=ROOT)}  # no modules
BUILT = ("*.so", "init", "build", "*.egg-info", ".venv", ".git", ".*_cache", "__pycache__", ".benchmarks")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="who builds makes no difference: root did"),
]


def checkout(target: Path) -> Path:
    """A copy of the sources without anything that was built of them."""

    def ignored(directory: str, names: list[str]) -> set[str]:
        found = shutil.ignore_patterns(*BUILT)(directory, names)
        return found - {"init"} if directory.endswith("/cycontainer") else found

    shutil.copytree(ROOT, target, ignore=ignored)
    return target


def python(*words: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The wheel of the sdist of a checkout. This environment has what a build needs: no network is used."""
    place = tmp_path_factory.mktemp("install")
    python("-W", "ignore", "setup.py", "-q", "sdist", "-d", str(place), cwd=checkout(place / "checkout"))
    (sdist,) = glob(f"{place}/cycontainer-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(place)
    source = sdist.removesuffix(".tar.gz")
    python("-m", "pip", "-q", "wheel", "--no-build-isolation", "--no-deps", "-w", str(place), source, cwd=place)
    (built,) = glob(f"{place}/*.whl")
    return built


def test_the_wheel_has_what_runs_and_no_sources(wheel: str) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("cycontainer/")}
    modules = {path.removesuffix(".pyx") for path in glob("cycontainer/*.pyx", root_dir=ROOT)} - PARTS
    assert {f"{module}.abi3.so" for module in modules} | {f"{module}.pyi" for module in modules} <= names
    assert {"cycontainer/init/init", "cycontainer/py.typed", "cycontainer/cli/run.py"} <= names
    assert not [name for name in names if name.endswith((".pyx", ".pxd", ".c", ".h", ".S", ".o"))]
    assert not [name for name in names if name.startswith("cycontainer/command")]
    (script,) = [info for info in zipfile.ZipFile(wheel).infolist() if info.filename.endswith("/scripts/cycontainer")]
    assert script.file_size < 200 * 1024 and script.external_attr >> 16 & 0o111 == 0o111
    shared = {name.partition(".data/data/")[2] for name in zipfile.ZipFile(wheel).namelist()}
    assert {
        "share/man/man1/cycontainer.1",
        "share/bash-completion/completions/cycontainer",
        "share/zsh/site-functions/_cycontainer",
        "share/fish/vendor_completions.d/cycontainer.fish",
    } <= shared
    assert "-cp311-abi3-linux" in wheel or "cp311-abi3-manylinux" in wheel


def test_a_bare_environment_runs_a_container(wheel: str, tmp_path: Path) -> None:
    python("-m", "venv", str(tmp_path / "venv"), cwd=tmp_path)
    bare = str(tmp_path / "venv/bin")
    command = [f"{bare}/pip", "-q", "install", "--no-index", "--no-deps", wheel]
    subprocess.run(command, check=True, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
    script = "import cycontainer; print(cycontainer.run(['echo', 'hello'], text=True).stdout, end='')"
    with open(f"{bare}/cycontainer", "rb") as file:
        assert file.read(4) == b"\x7fELF"
    os.symlink(f"{bare}/cycontainer", tmp_path / "link")
    for words, printed in (
        ([f"{bare}/python", "-c", script], "hello\n"),
        ([f"{bare}/cycontainer", "-v"], "version"),
        ([f"{bare}/cycontainer", "features"], "ociVersionMax"),  # in Python
        ([f"{tmp_path}/link", "features"], "ociVersionMax"),
    ):
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env={})
        assert (done.returncode, done.stderr) == (0, "")
        assert printed in done.stdout
    subprocess.run([f"{bare}/pip", "-q", "uninstall", "--yes", "cycontainer"], check=True, env={"PATH": ""})
    assert not [path for path in (tmp_path / "venv").rglob("*") if "cycontainer" in path.name]  # nor what it keeps
