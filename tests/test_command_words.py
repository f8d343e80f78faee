"""How the command's words are read: as runc's are, as crun's are, and both ways of ours alike."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from both_ways import Both
from oci_command import COMMAND, IN_PYTHON, ROOT, Oci, gone

from cycontainer.cli.__main__ import VERBS
from cycontainer.cli.verb import HELP, Option, UsageError, Verb, arguments_of, asks_for_help

pytestmark = pytest.mark.root
TRUE, FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


@pytest.fixture
def both(tmp_path: Path, busybox_rootfs: str) -> Iterator[Both]:
    made = Both(tmp_path, busybox_rootfs)
    yield made
    made.each(Oci.clean)


# --- reading


WORDS = Verb(
    usage="ID",
    help="",
    example="",
    operands=(0, 9),
    options=(
        Option(names=("--detach", "-d"), help=""),
        Option(names=("--tty", "-t"), help=""),
        Option(names=("--user", "-u"), value="UID", help=""),
        Option(names=("--env", "-e"), value="NAME=VALUE", help=""),
    ),
)
READ: list[tuple[str, dict[str, list[str]], list[str]]] = [  # words; options with their values; operands
    ("-dt one", {"--detach": ["true"], "--tty": ["true"]}, ["one"]),
    ("-u5 one", {"--user": ["5"]}, ["one"]),
    ("-du5 one", {"--detach": ["true"], "--user": ["5"]}, ["one"]),
    ("-dtu 5 one", {"--detach": ["true"], "--tty": ["true"], "--user": ["5"]}, ["one"]),
    ("-eA=1 -e B=2 -e=C=3 --env=D=4 -env E=5", {"--env": ["A=1", "B=2", "C=3", "D=4", "E=5"]}, []),
    ("-user 5 -detach one", {"--user": ["5"], "--detach": ["true"]}, ["one"]),
    ("-user=5 -tty=f -t=true", {"--user": ["5"], "--tty": ["true"]}, []),
    ("-d -detach=F one", {}, ["one"]),
    ("-- -dt", {}, ["-dt"]),
    ("- one", {}, ["-", "one"]),
]


@pytest.mark.parametrize(("words", "options", "operands"), READ, ids=[words for words, _, _ in READ])
def test_words_are_read_as_go_and_getopt_read_them(
    words: str, options: dict[str, list[str]], operands: list[str]
) -> None:
    found = arguments_of("exec", WORDS, words.split())
    given = {option.names[0]: found.values(option.names[0]) for option in WORDS.options}
    assert ({name: values for name, values in given.items() if values}, found.operands) == (options, operands)


@pytest.mark.parametrize("words", ["-dx", "-x", "--dt", "-dt=true", "-9", "---tty", "--tty=yes", "--tty=", "-u", "-tu"])
def test_words_that_are_none_are_refused(words: str) -> None:
    with pytest.raises(UsageError):
        arguments_of("exec", WORDS, [words])


def test_help_is_asked_for_where_an_option_may_stand(both: Both) -> None:
    for word in HELP:
        assert asks_for_help(WORDS, ["-dtu", "5", word])
        assert not asks_for_help(WORDS, ["-dtu", word]) and not asks_for_help(WORDS, ["-user", word])
        assert not asks_for_help(WORDS, ["--", word])


@pytest.mark.parametrize("command", [COMMAND, IN_PYTHON])
def test_help_of_a_verb_is_printed_by_either_word_order(command: tuple[str, ...]) -> None:
    def said(*words: str) -> tuple[int, str, str]:
        done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    for name in list(VERBS)[:3]:
        expected = said(name, "--help")
        assert expected[0] == 0 and expected[1].startswith(f"usage: cycontainer {name} ")
        assert {said(*words) for words in (("help", name), ("h", name), (name, "-?"), (name, "--usage"))} == {expected}
    assert {said("help"), said("h"), said("-?"), said("--usage"), said("-help")} == {said("--help")}
    assert said("help", "frob")[0] == 1
    assert said("-V") == said("--version") == said("-version")


# --- what both ways take


def test_truth_is_said_in_all_of_gos_words(both: Both) -> None:
    both.each(lambda oci: oci.create())
    for word in FALSE:
        assert both.same(["--root", "@states", "delete", f"--force={word}", "two"], alone=False)[0] == 1
    for word in TRUE:
        assert both.same(["--root", "@states", "delete", f"--force={word}", "two"], alone=False)[0] == 0
        assert (
            both.same(["--root", "@states", f"--debug={FALSE[0]}", "list", f"-quiet={word}"], alone=False)[1]
            == b"one\n"
        )
    assert both.same(["--root", "@states", "delete", "--force=yes", "two"], alone=False)[0] == 1
    assert both.same(["-root", "@states", "delete", "-force", "one"], alone=False)[0] == 0
    assert both.same(["--root", "@states", "list", "-q"], alone=False)[1] == b""


def test_an_empty_log_format_is_none_and_an_empty_format_is_refused(both: Both) -> None:
    both.each(lambda oci: oci.create())
    assert both.same(["--log-format=", "--root", "@states", "list", "-q"], alone=False)[:2] == (0, b"one\n")
    assert both.same(["--log=", "--root", "@states", "list", "-q"])[:2] == (0, b"one\n")
    for words in (["list", "--format="], ["ps", "--format=", "one"]):
        status, out, err, _ = both.same(["--root", "@states", *words], alone=False)
        assert (status, out) == (1, b"") and b"invalid format option" in err


def test_an_ordinary_user_without_a_runtime_directory_lists_nothing() -> None:
    for command in (COMMAND, IN_PYTHON):
        script = f"import os; os.setuid(65534); os.execve({command[0]!r}, {[*command, 'list', '-q']!r}, {{}})"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- empty values, and what has no effect


def test_create_takes_the_options_of_run_that_have_no_effect_there(oci: Oci) -> None:
    oci.leaving("create", "--detach", "-d", "--keep", "--no-subreaper", "one")
    assert oci.state()["status"] == "created"


def test_an_option_with_an_empty_value_is_not_given(oci: Oci) -> None:
    empty = [word for name in ("pid-file", "console-socket", "pidfd-socket", "config") for word in (f"--{name}", "")]
    oci.leaving("create", *empty, "-b", "", "one")
    oci.done("start", "one")
    for name in (
        "pid-file",
        "user",
        "console-socket",
        "pidfd-socket",
        "process",
        "cwd",
        "apparmor",
        "process-label",
        "cgroup",
    ):
        assert oci.done("exec", f"--{name}", "", "one", "echo", "ran") == "ran\n", name
    for name in ("env", "additional-gids", "preserve-fds"):
        assert oci("exec", f"--{name}", "", "one", "true").returncode == 255, name
    limits = [word for name in ("memory", "memory-swap", "cpu-quota", "cpu-share", "cpuset-cpus", "resources")
              for word in (f"--{name}", "")]  # fmt: skip
    oci.done("update", *limits, "one")
    for name in ("pids-limit", "blkio-weight"):
        assert oci("update", f"--{name}", "", "one").returncode == 1, name


# --- a process as a file


def process_file(**values: Any) -> bytes:
    process = {"args": ["sh", "-c", "id -u; pwd; echo $A"], "cwd": "/tmp", "env": ["PATH=/bin", "A=file"]}
    return json.dumps({**process, "user": {"uid": 5, "gid": 0}, **values}).encode()


def test_a_process_file_alone_says_what_is_started(oci: Oci, tmp_path: Path) -> None:
    """As runc: what options or words say of it beside has no effect."""
    oci.start()
    (tmp_path / "p").write_bytes(process_file())
    path, said = f"{tmp_path}/p", "5\n/tmp\nfile\n"
    for words in (["-u", "9"], ["-e", "A=flag"], ["--cwd", "/"], ["-g", "77"], ["-t"], ["--cap", "CAP_SYS_ADMIN"]):
        assert oci.done("exec", "-p", path, *words, "one") == said, words
    assert oci.done("exec", "-p", path, "one", "echo", "x") == said
    for words in (["--no-new-privs"], ["--apparmor", "a"], ["--process-label", "b"]):  # not in silence
        done = oci("exec", "-p", path, *words, "one")
        assert done.returncode == 255 and f"{words[0]} goes without --process" in done.stderr


def test_a_file_may_be_a_pipe_of_ones_own(oci: Oci, tmp_path: Path) -> None:
    oci.start()
    (tmp_path / "p").write_bytes(process_file())
    call = [*COMMAND, "--root", oci.states]
    for path in ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"):
        words = [*call, "exec", "-p", path, "one"]
        done = subprocess.run(words, input=process_file(), capture_output=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, b"5\n/tmp\nfile\n"), done
        with open(tmp_path / "p", "rb") as file:
            assert subprocess.run(words, stdin=file, capture_output=True, timeout=60).stdout == done.stdout
        limits = b'{"pids": {"limit": 77}}'
        assert subprocess.run([*call, "update", "-r", path, "one"], input=limits, timeout=60).returncode == 0
    script = f"exec {' '.join(call)} exec -p /dev/fd/7 one 7<<'.'\n{process_file().decode()}\n.\n"
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=60)
    assert done.stdout == b"5\n/tmp\nfile\n", done


def test_a_file_that_is_something_else_is_told_and_not_waited_for(oci: Oci, tmp_path: Path) -> None:
    oci.start()
    os.mkfifo(tmp_path / "fifo")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for path in (f"{tmp_path}/fifo", "/dev/zero", "/dev/stdin", "/dev/fd/99", "/dev/fd/x", "-"):
            done = oci("exec", "-p", path, "one", stdin=theirs)
            assert done.returncode == 255 and done.stderr.count("\n") == 1, path
            assert oci("update", "-r", path, "one", stdin=subprocess.DEVNULL).returncode == 1, path


# --- crun's


def test_kill_takes_all_that_match_and_run(oci: Oci) -> None:
    for name in ("web-1", "web-2", "db"):
        oci.start(name)
    ended = [os.pidfd_open(oci.pid(name)) for name in ("web-1", "web-2")]
    oci.done("kill", "-r", "^web-", "KILL")
    for pidfd in ended:
        gone(pidfd)
    oci.done("kill", "-ar", "^web-", "KILL")
    oci.done("kill", "--regex", "no-such", "KILL")
    assert oci("kill", "-r", "(", "KILL").returncode == 1
    assert oci.state("db")["status"] == "running"


def test_spec_writes_to_a_file_of_another_name(oci: Oci, tmp_path: Path) -> None:
    oci.done("spec", "-f", "other.json")
    oci.done("spec", "-f", "other.json")
    oci.done("spec", "--bundle", oci.bundle, "--file", f"{tmp_path}/third.json")
    with open(f"{oci.bundle}/other.json") as other, open(tmp_path / "third.json") as third:
        assert json.load(other) == json.load(third)
    assert oci("spec").returncode == 1  # a config.json is there


def test_the_log_level_says_what_is_told(oci: Oci) -> None:
    oci.start()
    words = ("exec", "--cap", "CAP_FROB", "one", "true")
    for level, told in (("error", 0), ("warning", 1), ("debug", 3)):
        assert oci("--log-level", level, *words).stderr.count("\n") == told, level
    assert oci("--log-level=frob", "list").returncode == 1
