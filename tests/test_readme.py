"""README's blocks do what it says: Python as a doctest, the command in a bundle, `./bootstrap` as it names it."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

from documented import StepsDiffer, blocks, text_of

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
README = f"{ROOT}/README.md"


def python_blocks() -> list[str]:
    return [block.text for block in blocks(README, "python")]


def commands(first: str) -> list[str]:
    """The lines of README's indented blocks that call `first`, without their comments, in order."""
    return re.findall(rf"^ {{4}}({re.escape(first)} .*?)\s*(?:#.*)?$", text_of(README), re.MULTILINE)


def test_the_python_blocks_give_what_they_show() -> None:
    text = "\n".join(python_blocks())
    test = doctest.DocTestParser().get_doctest(text, {}, "README", README, 0)
    assert len(test.examples) >= 9
    said: list[str] = []
    doctest.DocTestRunner(StepsDiffer(), verbose=False).run(test, out=said.append)
    assert not said, "".join(said)


def test_the_command_blocks_work_in_a_bundle(busybox_rootfs: str, tmp_path: Path) -> None:
    os.symlink(busybox_rootfs, tmp_path / "rootfs")
    lines = commands("cycontainer")
    assert {line.split()[1] for line in lines} >= {"spec", "plan", "run"}
    script = "\n".join(["set -eu", f'cycontainer() {{ "{sys.executable}" -m cycontainer "$@"; }}', *lines])
    if os.geteuid() != 0:
        script = script.replace("cycontainer spec", "cycontainer spec --rootless")
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ROOT, "XDG_RUNTIME_DIR": str(tmp_path)},
        input="echo $(hostname) $(id -u) ran this",
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "mount proc on /proc" in done.stdout
    assert "\ncycontainer 0 ran this\n" in done.stdout


def test_the_two_commands_are_ones_that_bootstrap_has() -> None:
    verbs = [line.split()[1] for line in commands("./bootstrap")]
    assert verbs == ["run", "test"]
    for verb in verbs:
        assert re.search(rf"^{verb}\)$", text_of(f"{ROOT}/bootstrap"), re.MULTILINE)
    assert 'bootstrap" test\n' in text_of(f"{ROOT}/.ci/run")
