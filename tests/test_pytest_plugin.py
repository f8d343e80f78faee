"""What other people's tests get from cycontainer."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from documented import blocks

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

PAGE = os.path.join(PROJECT, "docs/howto/pytest.md")


def test_the_fixtures_do_what_their_page_shows_and_clean_up(busybox_rootfs: str, tmp_path: Path) -> None:
    first, second = (block.text for block in blocks(PAGE, "python"))
    (tmp_path / "test_run.py").write_text(first)
    if os.geteuid() == 0:
        (tmp_path / "test_container.py").write_text(second.replace("/srv/image", busybox_rootfs))
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
    assert f"{2 if os.geteuid() else 3} passed" in done.stdout


def test_importing_it_imports_nothing_of_ours() -> None:
    script = (
        "import sys, pytest, cycontainer.pytest_plugin; print([m for m in sys.modules if m.startswith('cycontainer')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout.strip() == "['cycontainer', 'cycontainer.pytest_plugin']"
