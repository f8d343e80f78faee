"""What a program of `run()` prints and reads: files, pipes, limits, encodings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cycontainer import STDOUT, RunError, run


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize("where", ["", ">&2"])
def test_more_output_than_the_limit_ends_it_and_is_told(where: str, init: bool) -> None:
    result = run(["sh", "-c", f"setsid sleep 1000 & yes {where}"], output_limit=100_001, init=init, timeout=60)
    assert (result.output_exceeded, result.timed_out, result.returncode) == (True, False, -9)
    assert result.stdout + result.stderr == b"y\n" * 50_000 + b"y"
    with pytest.raises(RunError, match="more than its output_limit"):
        result.check_returncode()


def test_a_letter_that_was_cut_through_is_left_out() -> None:
    assert run(["printf", "a\\303\\244"], output_limit=2, text=True).stdout == "a"
    assert run(["sh", "-c", "printf 'a\\303'; sleep 1000"], timeout=0.3, text=True).stdout == "a"


def test_what_is_no_text_is_decoded_as_errors_says() -> None:
    printing = ["printf", "a\\377b"]
    with pytest.raises(UnicodeDecodeError):
        run(printing, text=True)
    assert run(printing, errors="replace").stdout == "a\ufffdb"
    assert run(printing, encoding="latin-1").stdout == "a\xffb"
    assert run(["cat"], input="\xe4\u20ac", encoding="latin-1", errors="xmlcharrefreplace").stdout == "\xe4&#8364;"


def test_standard_input_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one\ntwo\n")
    with open(tmp_path / "file") as file:
        assert run(["cat"], stdin=file).stdout == b"one\ntwo\n"
        os.lseek(file.fileno(), 4, os.SEEK_SET)
        assert run(["cat"], stdin=file.fileno()).stdout == b"two\n"  # as with subprocess, the offset is shared


def test_outputs_may_be_files(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as out:
        result = run(["sh", "-c", "echo a; echo b >&2"], stdout=out, stderr=STDOUT)
    assert ((tmp_path / "out").read_bytes(), result.stdout, result.stderr) == (b"a\nb\n", None, None)


PIPES_KILL = """
import cycontainer, signal
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
result = cycontainer.run(["sh", "-c", "exec 0<&-; exit 3"], input=b"x" * (1 << 20))
assert signal.sigpending() == set() and signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
print(result.returncode)
"""


def test_a_program_that_reads_no_input_does_not_end_a_caller_that_dies_of_sigpipe() -> None:
    assert subprocess.run([sys.executable, "-c", PIPES_KILL], capture_output=True, check=True).stdout == b"3\n"


def test_the_arguments_of_a_result_are_those_that_were_given() -> None:
    assert run(["true", "a"]).args == ["true", "a"]
    assert run((Path("/bin/true"), "a")).args == ["/bin/true", "a"]
