"""States that nobody wrote: the compiled command reads none past its end, and none otherwise than Python does."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from glob import glob
from pathlib import Path

import pytest
from conftest import lacks
from oci_command import ROOT

from cycontainer.errors import StateError
from cycontainer.intelrdt import Group
from cycontainer.state import MOST_BYTES
from cycontainer.state_text import CgroupPlace, State, from_text, to_text

SEEDS = (
    State(id="one", bundle="/b", version="1.3.0", created="2026-11-24T18:00:00.0Z", owner=0),
    State(
        id="a_b+c-d.e", bundle="/with \\ and \n and  ", version="", created="now", owner=54321, pid=12, start_time=345,
        rootless=True, rootfs="/r", program="sh",
        cgroups=(
            CgroupPlace(mount="/sys/fs/cgroup/a", controllers=("cpu", "cpuacct"), path="/c/one"),
            CgroupPlace(mount="/sys/fs/cgroup/unified", controllers=(), path="/c/one"),
        ),
        annotations=(("a", ""), ("", "b"), ("key \\s", "\\e\n")),
        resctrl=Group(root="/sys/fs/resctrl", name="", monitor="m", made=True, shared=False),
        supervised=("mkdir", "mknod"), python=("start", "delete"),
    ),
)  # fmt: skip
LETTERS = b"\\ \n\0sen019-+_aZ\xff\x80"
LINES = (b"unit x.scope\n", b"later words of\\sanother\n", b"annotation a 2\n", b"pid 1\n", b"\n", b"cgroup a b\n")


def with_facts(place: Path) -> list[str]:
    """The command's headers, those that are made at build time too, as options of a compiler."""
    subprocess.run([sys.executable, f"{ROOT}/cycontainer/command/facts.py", f"{place}/facts.h"], check=True)
    return [f"-I{place}", f"-I{ROOT}/cycontainer"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What reads files as the command does, with all checks that the compiler has."""
    place = tmp_path_factory.mktemp("reader")
    made, include = f"{place}/reader", with_facts(place)
    flags = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", *include]
    done = subprocess.run(["cc", *flags, f"{ROOT}/tests/fuzz_state.c", "-o", made], capture_output=True, text=True)
    if "cannot find" in done.stderr and "san" in done.stderr:
        lacks("the compiler's sanitizers")
    assert done.returncode == 0, done.stderr
    return made


def spoiled(text: bytes, chance: random.Random) -> bytes:
    """A state with up to four changes of the kinds that a disk, a person or an attacker makes."""
    for _ in range(chance.randrange(5)):
        at, other = chance.randrange(len(text) + 1), chance.randrange(len(text) + 1)
        lines = text.splitlines(True) or [b""]
        line = chance.choice(lines)
        letter = bytes([chance.choice(LETTERS)])
        text = chance.choice(
            (
                text[:at],
                text[:at] + text[other:],
                text[:at] + letter + text[at:],
                text[:at] + letter + text[at + 1 :],
                text.replace(line, b"", 1),
                text.replace(line, line + line, 1),
                text.replace(line, line + chance.choice(LINES), 1),
                text.replace(line, line[:-1] + b" word\n", 1),
            )
        )
    return text


def values(state: State, unit: str) -> list[bytes]:
    """What a state has, in the reader's order."""
    words: list[str] = [state.id, state.bundle, state.rootfs, state.version, state.created, state.program]
    words += [str(int(number)) for number in (state.owner, state.pid, state.start_time, state.rootless)]
    for place in state.cgroups:
        words += [place.mount, place.path, *[name for name in place.controllers if name]]
    words += [word for pair in state.annotations for word in pair]
    words += [*state.python, str(int(state.resctrl is not None)), unit]
    return [word.encode("utf-8", "surrogateescape") for word in words]


def read_by(reader: str, paths: list[str]) -> list[list[bytes] | None]:
    """What it says of each file; None is that it hands it on."""
    done = subprocess.run([reader, *paths], capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    found = done.stdout.decode().split(".\n")[:-1]
    return [None if text == "-\n" else [bytes.fromhex(line) for line in text.split("\n")[:-1]] for text in found]


def read_in_python(text: bytes) -> list[bytes] | None:
    try:
        state = from_text(text.decode("utf-8", "surrogateescape"), "one")
    except StateError:
        return None
    units = [line[5:] for line in text.decode("utf-8", "surrogateescape").splitlines() if line.startswith("unit ")]
    return values(state, units[0].replace("\\e", "") if units else "")


@pytest.mark.parametrize("seed", range(4))
def test_what_it_accepts_python_reads_alike(reader: str, tmp_path: Path, seed: int) -> None:
    chance, texts = random.Random(seed), []
    originals = [to_text(state).encode() for state in SEEDS]
    texts = originals + [spoiled(chance.choice(originals), chance) for _ in range(1000)]
    for number, text in enumerate(texts):
        (tmp_path / str(number)).write_bytes(text)
    answers = read_by(reader, [f"{tmp_path}/{number}" for number in range(len(texts))])
    assert answers[:2] == [read_in_python(text) for text in originals]
    for text, answer in zip(texts, answers, strict=True):
        assert answer is None or answer == read_in_python(text), text
    assert sum(answer is not None for answer in answers) > 200


def test_what_a_fuzzer_has_found_interesting_is_read_within_bounds(reader: str, tmp_path: Path) -> None:
    """tests/states: what libFuzzer kept of some minutes, and what is too large, too many or too long."""
    (tmp_path / "huge").write_bytes(b"cycontainer-state 1\n" + b"annotation a b\n" * (MOST_BYTES // 15))
    (tmp_path / "long").write_bytes(b"cycontainer-state 1\n" + b"x" * (MOST_BYTES - 100))
    (tmp_path / "larger").write_bytes(b"cycontainer-state 1\n" + b"x" * MOST_BYTES)
    (tmp_path / "words").write_bytes(b"cycontainer-state 1\n" + b" " * 100_000 + b"\n")
    (tmp_path / "controllers").write_bytes(b"cycontainer-state 1\ncgroup /a " + b"c," * 10_000 + b" /p\n")
    (tmp_path / "cgroups").write_bytes(b"cycontainer-state 1\n" + b"cgroup /a b /p\n" * 1000)
    paths = sorted([*glob(f"{ROOT}/tests/states/*"), *map(str, tmp_path.iterdir())])
    for path, answer in zip(paths, read_by(reader, paths), strict=True):
        assert answer is None or answer == read_in_python(Path(path).read_bytes()), path


@pytest.mark.slow
def test_a_fuzzer_finds_nothing_in_half_a_minute(tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        lacks("clang")
    flags = ["-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-DFUZZER", *with_facts(tmp_path)]
    subprocess.run(["clang", *flags, f"{ROOT}/tests/fuzz_state.c", "-o", f"{tmp_path}/fuzzer"], check=True)
    os.mkdir(tmp_path / "new")
    words = ["-max_total_time=30", "-max_len=8192", f"{tmp_path}/new", f"{ROOT}/tests/states"]
    done = subprocess.run([f"{tmp_path}/fuzzer", *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
