"""The documentation: what its pages show is what happens, its links lead somewhere, and the site can be built."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import decline, lacks
from documented import blocks, console_fails, python_fails, text_of
from oci_command import COMMAND, PATIENCE
from test_engines import LIMITS, Podman
from test_engines import podman as podman

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGES = sorted(os.path.relpath(path, f"{ROOT}/docs") for path in glob(f"{ROOT}/docs/**/*.md", recursive=True))
ORDINARY = ["index.md", "tutorial.md", "howto/ci.md", "howto/notebooks.md", "howto/agent.md", "howto/dask-ray.md"]
ORDINARY += ["reference/aio.md"]
NEED_ROOT = ["howto/judge.md"]  # for limits
ENGINES = ["howto/docker.md", "howto/podman.md"]
ELSEWHERE = ["howto/pytest.md"]  # test_pytest_plugin.py
ELSEWHERE += ["checkpoint.md"]  # its calls, with a container, are those of test_criu_container.py and test_snapshot.py
ELSEWHERE += ["from-runc.md"]  # test_container_calls.py
READ_ONLY_LANGUAGES = {"sh", "toml", "json", "yaml", "text"}


def page(name: str) -> str:
    return f"{ROOT}/docs/{name}"


def test_every_block_that_runs_is_run() -> None:
    running = {name for name in PAGES if blocks(page(name), "python", "console")}
    assert running == {*ORDINARY, *NEED_ROOT, *ENGINES, *ELSEWHERE}
    others = {block for name in PAGES for block in re.findall(r"^```(\w+)$", text_of(page(name)), re.MULTILINE)}
    assert others <= {"python", "console", *READ_ONLY_LANGUAGES}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to be in, where `cycontainer` is this tree's."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/cycontainer"
    command.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    command.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def environment(place: Path) -> dict[str, str]:
    return {**os.environ, "PATH": f"{place}/bin:{os.environ['PATH']}", "XDG_RUNTIME_DIR": str(place)}


def run_page(name: str, place: Path) -> None:
    """Its console first: what that makes, its Python may use."""
    for block in blocks(page(name), "console"):
        assert not console_fails(block, str(place), environment(place)), f"{name}:{block.line}"
    names: dict[str, Any] = {}
    try:
        assert not (said := python_fails(page(name), names)), said
    finally:
        if "pool" in names:
            names["pool"].close()


@pytest.mark.parametrize("name", ORDINARY)
def test_a_page_does_what_it_shows(name: str, place: Path) -> None:
    run_page(name, place)


@pytest.mark.root
@pytest.mark.parametrize("name", NEED_ROOT)
def test_a_page_with_limits_does_what_it_shows(name: str, place: Path) -> None:
    run_page(name, place)


# --- other people's programs


@pytest.fixture
def podman_here(podman: Podman, place: Path, busybox_rootfs: str) -> Iterator[Path]:
    """`podman` with a store of the tests' own, and with the configuration that the page shows, but for the path."""
    (settings,) = blocks(page("howto/podman.md"), "toml")
    ulimits = f"[containers]\ndefault_ulimits = {json.dumps(LIMITS[1::2])}\n"
    (place / "containers.conf").write_text(settings.text.replace("/usr/local/bin/cycontainer", COMMAND[0]) + ulimits)
    os.symlink(busybox_rootfs, place / "rootfs")
    words = shlex.join(podman.words[1 : podman.words.index("--runtime")])
    program = place / "bin/podman"
    program.write_text(
        f'#!/bin/sh\nCONTAINERS_CONF={place}/containers.conf exec {shutil.which("podman")} {words} "$@"\n'
    )
    program.chmod(0o755)
    yield place


@pytest.mark.root
@pytest.mark.engine
def test_podman_takes_it_as_the_page_says(podman_here: Path) -> None:
    for block in blocks(page("howto/podman.md"), "console"):
        assert not console_fails(block, str(podman_here), environment(podman_here)), f"line {block.line}"


def of_kind(kind: str, name: str) -> list[Any]:
    """What the fragments of a page say, in one language."""
    yaml = pytest.importorskip("yaml") if kind == "yaml" else None
    readers = {"toml": tomllib.loads, "json": json.loads, "yaml": yaml.safe_load if yaml else None}
    return [readers[kind](block.text) for block in blocks(page(name), kind)]  # type: ignore[misc]  # none is None


# A daemon writes to /etc/docker and /run, whatever it is told, and mounts what it leaves.
DOCKERS_MOUNTS = "mount -t tmpfs run /run; mkdir /run/etc /run/work"
DOCKERS_MOUNTS += "; mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work overlay /etc"


@pytest.fixture
def docker_here(place: Path, busybox_rootfs: str) -> Iterator[Path]:
    """`docker` with a daemon of the tests' own that has the page's fragment, but for the path; and its image."""
    if not shutil.which("dockerd"):
        lacks("dockerd: apt-get install docker.io")
    (settings,) = blocks(page("howto/docker.md"), "json")
    (place / "daemon.json").write_text(settings.text.replace("/usr/local/bin/cycontainer", COMMAND[0]))
    top = tempfile.mkdtemp(prefix="docker-", dir="/var/tmp")  # a socket's path has at most 107 letters
    ours = {"config-file": f"{place}/daemon.json", "data-root": f"{top}/data", "exec-root": f"{top}/run"}
    ours |= {"pidfile": f"{top}/pid", "host": f"unix://{top}/socket", "exec-opt": "native.cgroupdriver=cgroupfs"}
    ours |= {
        "storage-driver": "vfs",
        "bridge": "none",
        "iptables": "false",
        "ip6tables": "false",
        "ip-forward": "false",
    }
    start = shlex.join(["exec", "dockerd", *(f"--{name}={value}" for name, value in ours.items())])
    words = ["unshare", "--mount", "sh", "-euc", f"{DOCKERS_MOUNTS}; {start}"]
    program = place / "bin/docker"
    program.write_text(f'#!/bin/sh\nexec {shutil.which("docker")} --host unix://{top}/socket "$@"\n')
    program.chmod(0o755)
    with open(f"{top}/log", "w") as log:
        daemon = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE
        while subprocess.run([program, "version"], capture_output=True).returncode:
            assert daemon.poll() is None and time.monotonic() < deadline, text_of(f"{top}/log")
            time.sleep(0.1)
        image = subprocess.run(["tar", "-C", busybox_rootfs, "-c", "."], check=True, capture_output=True).stdout
        subprocess.run([program, "import", "-", "busybox"], input=image, check=True, capture_output=True)
        yield place
    finally:
        daemon.terminate()
        daemon.wait(PATIENCE)
        shutil.rmtree(top)


@pytest.mark.root
@pytest.mark.engine
def test_docker_takes_it_as_the_page_says(docker_here: Path) -> None:
    for block in blocks(page("howto/docker.md"), "console"):
        assert not console_fails(block, str(docker_here), environment(docker_here)), f"line {block.line}"


def test_the_fragments_for_kubernetes_name_one_another() -> None:
    first, second, crio = of_kind("toml", "howto/kubernetes.md")
    for settings, version, plugin in (
        (first, 2, "io.containerd.grpc.v1.cri"),
        (second, 3, "io.containerd.cri.v1.runtime"),
    ):
        runtime = settings["plugins"][plugin]["containerd"]["runtimes"]["cycontainer"]
        assert settings["version"] == version and runtime["runtime_type"] == "io.containerd.runc.v2"
        assert runtime["options"] == {"BinaryName": "/usr/local/bin/cycontainer", "SystemdCgroup": True}
    assert crio["crio"]["runtime"]["runtimes"]["cycontainer"]["runtime_path"] == "/usr/local/bin/cycontainer"
    runtime_class, pod = of_kind("yaml", "howto/kubernetes.md")
    assert (runtime_class["kind"], runtime_class["apiVersion"]) == ("RuntimeClass", "node.k8s.io/v1")
    assert runtime_class["handler"] == "cycontainer"
    assert pod["spec"]["runtimeClassName"] == runtime_class["metadata"]["name"]


@pytest.mark.engine
def test_containerd_reads_its_fragment(tmp_path: Path) -> None:
    if not shutil.which("containerd"):
        lacks("containerd")
    version = subprocess.run(["containerd", "--version"], check=True, capture_output=True, text=True).stdout
    major = int(re.findall(r" v?(\d+)\.\d+", version)[0])
    plugin = "io.containerd.grpc.v1.cri" if major == 1 else "io.containerd.cri.v1.runtime"
    for block in blocks(page("howto/kubernetes.md"), "toml")[:major]:  # the second takes the first's, too
        (tmp_path / "config.toml").write_text(block.text)
        command = ["containerd", "--config", str(tmp_path / "config.toml"), "config", "dump"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        runtimes = tomllib.loads(done.stdout)["plugins"][plugin]["containerd"]["runtimes"]
        assert runtimes["cycontainer"]["options"]["BinaryName"] == "/usr/local/bin/cycontainer"


# --- links, and the site


def anchors(path: str) -> set[str]:
    """A page's headings as links call them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text_of(path), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "name", [f"docs/{name}" for name in PAGES] + ["README.md", "CONTRIBUTING.md", "bench/README.md"]
)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(f"{ROOT}/{name}")):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        path, _, anchor = target.partition("#")
        there = os.path.join(ROOT, os.path.dirname(name), path) if path else f"{ROOT}/{name}"
        assert os.path.exists(there), target
        assert not anchor or anchor in anchors(there), target


def test_every_page_is_in_a_table_of_contents() -> None:
    listed = {f"{entry}.md" for block in re.findall(r"\{toctree\}\n(.*?)```", text_of(page("index.md")), re.S)
              for entry in re.findall(r"^([a-z][\w/-]*)$", block, re.MULTILINE)}  # fmt: skip
    assert listed == {*PAGES} - {"index.md"}


def test_the_reference_has_every_public_name() -> None:
    import cycontainer

    text = "\n".join(text_of(page(name)) for name in PAGES if name.startswith("reference/"))
    for name, home in cycontainer._HOME.items():
        assert re.search(rf"auto\w+:: {name}$|`{name}`", text, re.M) or home == "cycontainer.errors", name


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    if not all(find_spec(name) for name in ("sphinx", "furo", "myst_parser")):
        decline("needs the extra docs")
    command = [
        sys.executable,
        "-B",
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        f"{ROOT}/docs",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("run", "aio", "command"):
        html = (tmp_path / f"site/reference/{name}.html").read_text()
        assert "timeout" in html or "--bundle" in html
