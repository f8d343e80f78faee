"""What other people's tests get from cycontainer."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

THEIRS = """
import os
from cycontainer import PIPE
from cycontainer.spec import default_config

def test_a_run(container_run):
    assert container_run(["echo", "1"]).stdout == b"1\\n"
    assert container_run(["sleep", "100"], timeout=0.1).timed_out

def test_a_container(container):
    if os.geteuid():
        return
    config = default_config()
    config["root"]["path"] = {rootfs!r}
    config["process"]["args"] = ["sh", "-c", "echo $$; exec sleep 100"]
    config["process"]["env"] = ["PATH=/bin"]
    one, other = container(config, stdout=PIPE), container(config)
    one.start()
    assert one.process.stdout.readline() == b"1\\n"
    assert (one.status, other.status) == ("running", "created")
"""


def test_the_fixtures_work_and_clean_up(busybox_rootfs: str, tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(THEIRS.format(rootfs=busybox_rootfs))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    with open(os.path.join(PROJECT, "pyproject.toml"), "rb") as file:
        points = tomllib.load(file)["project"]["entry-points"]["pytest11"]
    plugins = [option for module in points.values() for option in ("-p", module)]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": PROJECT}
    done = subprocess.run(
        [*command, *plugins], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_importing_it_imports_nothing_of_ours() -> None:
    script = (
        "import sys, pytest, cycontainer.pytest_plugin; print([m for m in sys.modules if m.startswith('cycontainer')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout.strip() == "['cycontainer', 'cycontainer.pytest_plugin']"
