"""A verb's imports from one file: what it answers is the same with it, without it, and when it is old or damaged."""

from __future__ import annotations

import marshal
import re
import shutil
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import pytest
from inject import AVAILABLE, KILLED, Trial

from cycontainer.cli.__main__ import VERBS
from cycontainer.cli.gathered import VERBS as KEPT
from cycontainer.cli.gathered import VERSION, _write

ROOT = Path(__file__).parent.parent
SOURCE = (ROOT / "cycontainer/command/interpreter.c").read_text()
BOOT = "".join(re.findall(r'"(.*)"', SOURCE[SOURCE.index(" BOOT[] =") : SOURCE.index(" INSIDE[] =")]))


class Installation:
    """A copy of the package, and calls of its command as the compiled one makes them."""

    def __init__(self, directory: Path, of: Path = ROOT, without: str = "features.*.pyc") -> None:
        self.directory = directory
        shutil.copytree(of / "cycontainer", directory / "cycontainer", ignore=shutil.ignore_patterns(without))
        self.package = directory / "cycontainer"

    @property
    def file(self) -> Path:
        return Path(cache_from_source(str(self.package / "cli/features.py")))

    def keeps(self) -> bool:
        """Whether more than the module's own code is in it."""
        return self.file.exists() and VERSION in self.file.read_bytes()

    def features(self, *options: str) -> str:
        return self.call("features", options=options)

    def call(self, *words: str, options: tuple[str, ...] = ()) -> str:
        done = self.done(*words, options=options)
        assert not done.stderr
        return done.stdout

    def done(self, *words: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-I", "-S", *options, "-c", BOOT, str(self.directory), str(self.directory), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True)

    def modules(self) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = marshal.loads(self.file.read_bytes().partition(VERSION)[2])
        return found

    def write(self, modules: list[tuple[Any, ...]]) -> None:
        own = self.file.read_bytes().partition(VERSION)[0]
        self.file.write_bytes(own + VERSION + marshal.dumps(modules))

    def with_version(self, number: str) -> list[tuple[Any, ...]]:
        """What is kept, but for the code of the module that has the version."""
        code = compile(f"SPEC, VERSION = '1', '{number}'", "version.py", "exec")
        name = "cycontainer.version"
        return [(*one[:4], code, one[5]) if one[0] == name else one for one in self.modules()]


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def test_what_is_kept_is_of_verbs() -> None:
    assert set(KEPT) <= set(VERBS)


def test_the_second_start_takes_from_the_file_what_the_first_has_imported(installation: Installation) -> None:
    first = installation.features()
    assert {"cycontainer.features", "cycontainer.cli.__main__"} <= {module[0] for module in installation.modules()}
    assert installation.features() == first
    installation.write(installation.with_version("9.8.7"))
    assert "9.8.7" in installation.features()


def test_what_is_kept_passes_the_importer_by(installation: Installation) -> None:
    installation.features()
    told = installation.done("features", options=("-X", "importtime")).stderr
    imported = {line.rpartition("|")[2].strip() for line in told.splitlines() if "| " in line}
    assert not {name for name in imported if name.startswith("cycontainer")}
    assert len(imported) <= 34, sorted(imported)  # of them the interpreter's own: 27
    assert [name for name, *_, code, _ in installation.modules() if code is None]  # machine code is among them
    assert len(installation.modules()) <= 18


def test_a_source_that_has_changed_ends_it(installation: Installation) -> None:
    installation.features()
    installation.write(installation.with_version("9.8.7"))
    source = installation.package / "version.py"
    source.write_text(source.read_text() + "VERSION = '5.5.5'\n")
    assert "5.5.5" in installation.features()
    assert "5.5.5" in installation.features()
    assert "9.8.7" not in str(installation.modules())


def test_a_copy_takes_nothing_from_where_it_was_copied_from(installation: Installation) -> None:
    first = installation.features()
    assert not [module for module in installation.modules() if module[1].startswith("/")]
    copy = Installation(installation.directory / "copy", installation.directory, without="copy")
    shutil.rmtree(installation.package)
    assert copy.keeps() and copy.features() == first
    source = copy.package / "version.py"
    source.write_text(source.read_text() + "VERSION = '5.5.5'\n")
    assert "5.5.5" in copy.features()


def test_a_package_that_is_replaced_meanwhile_is_no_failure(installation: Installation) -> None:
    source = installation.package / "cli/features.py"
    source.write_text(source.read_text() + f"import os\nos.unlink({str(installation.package / 'version.py')!r})\n")
    assert installation.features()
    assert not installation.keeps()


def test_a_word_that_is_not_the_verb_keeps_nothing(installation: Installation) -> None:
    installation.call("plan", "--help", "features")
    assert not installation.keeps()


@pytest.mark.parametrize("left", [-len(VERSION), -5, 0, 5, 3000, 30_000])
def test_a_damaged_file_is_none(installation: Installation, left: int) -> None:
    first = installation.features()
    data = installation.file.read_bytes()
    installation.file.write_bytes(data[: data.index(VERSION) + len(VERSION) + left])
    assert installation.features() == first
    assert installation.modules()  # made anew


def test_another_interpreters_is_none(installation: Installation) -> None:
    first = installation.features()
    installation.write(installation.with_version("9.8.7"))
    data = installation.file.read_bytes()
    installation.file.write_bytes(data.replace(VERSION, b"4" + VERSION[1:]))
    assert installation.features() == first


def test_the_interpreter_reads_the_modules_own_code_as_ever(installation: Installation) -> None:
    installation.features()
    kept = installation.file.read_bytes()
    look = "import cycontainer.cli.features as verb; print(verb.VERB.example)"
    for _ in range(2):
        words = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(installation.directory)!r}); {look}"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("cycontainer features\n", "")
    compiler = [sys.executable, "-m", "compileall", "-q", str(installation.package / "cli")]
    subprocess.run(compiler, check=True)
    assert installation.file.read_bytes() == kept


def test_none_is_written_where_no_bytecode_is_to_be(installation: Installation) -> None:
    installation.features("-B")
    assert not installation.keeps()


def test_where_it_cannot_be_written_all_goes_on(installation: Installation) -> None:
    shutil.rmtree(installation.file.parent)
    installation.file.parent.write_text("no directory")
    assert installation.features() == installation.features() != ""


def test_a_failure_keeps_nothing(installation: Installation) -> None:
    source = installation.package / "cli/features.py"
    source.write_text("raise OSError(5, 'broken')\n")
    with pytest.raises(subprocess.CalledProcessError):
        installation.features()
    assert not installation.keeps()


@pytest.mark.skipif(not AVAILABLE, reason="the tracer knows the registers of x86_64 only")
def test_killed_while_it_is_written_it_is_whole_or_not_there(tmp_path: Path) -> None:
    path, n, missing = tmp_path / "kept", 0, 0
    while True:
        path.write_bytes(b"old")
        n += 1
        ended = Trial(lambda: _write(str(path), b"new" * 1000), 0, n, KILLED, follow=False).run().call < 0
        assert [entry.name for entry in tmp_path.iterdir()] in ([], ["kept"])
        missing += not path.exists()
        assert not path.exists() or path.read_bytes() in (b"old", b"new" * 1000)
        if ended:
            break
    assert n > 5 and missing == 1 and path.read_bytes() != b"old"


def test_what_is_imported_and_is_no_module_is_left_out() -> None:
    code = "import sys; sys.modules['x'] = object(); from cycontainer.cli import gathered; gathered.keep('none')"
    subprocess.run([sys.executable, "-B", "-c", code], check=True, timeout=60)
