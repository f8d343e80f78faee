"""The compiled command and the one in Python, case by case: what they print, return and log is the same, byte by byte.

What the compiled one answers itself is asked of a copy that lies alone: it has no interpreter to hand anything on to.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from both_ways import WAYS, Both
from oci_command import COMMAND, PATIENCE, Oci

pytestmark = pytest.mark.root


@pytest.fixture
def both(tmp_path: Path, busybox_rootfs: str) -> Iterator[Both]:
    found = Both(tmp_path, busybox_rootfs)
    yield found
    found.each(Oci.clean)


def paused(oci: Oci) -> None:
    oci.start()
    oci.done("pause", "one")


def stopped(oci: Oci) -> None:
    oci.end(oci.start())


def annotated(oci: Oci) -> None:
    config = oci.config("sleep", "1000")
    config["annotations"] = {"a": "1", 'key "quoted"\\': "tab\t, newline\n, DEL \x7f, \x01"}
    oci.write(config=config)
    oci.create()


SITUATIONS: dict[str, Callable[[Oci], object]] = {
    "none": lambda oci: os.makedirs(oci.states),
    "created": lambda oci: oci.create(),
    "running": lambda oci: oci.start(),
    "paused": paused,
    "stopped": stopped,
    "annotated": annotated,
    "half made": lambda oci: os.makedirs(f"{oci.states}/one"),
}
LOOKS: list[list[str]] = [
    ["state", "one"],
    ["list"],
    ["list", "--format", "table"],
    ["list", "--format=json"],
    ["list", "-f", "json"],
    ["list", "--quiet"],
    ["list", "-q", "--format", "json"],
]
REPORTS: list[list[str]] = [
    [],
    ["--log-format", "json"],
    ["--log", "@log"],
    ["--log=file:@log", "--log-format=json"],
    ["--log", "@log", "--log-format", "text"],
    ["--log", "/no/such/log"],
    ["--log", "/proc/version/log"],
    ["--log", "/"],
    ["--log", '/no/"such"\\log'],
]
STRANGE_LOGS: list[list[str]] = [
    ["--log", "/no/\n\x1b[2J"],
    ["--log", os.fsdecode(b"/no/\xff")],
    ["--log", "/no/\u00fc"],
]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_looking_is_the_same_in_every_situation(situation: str, both: Both) -> None:
    both.each(SITUATIONS[situation])
    for words in LOOKS:
        both.same(["--root", "@states", *words])
    for options in REPORTS:
        both.same([*options, "--root=@states", "state", "two"])


def test_a_file_that_may_not_grow_is_an_error_and_no_signal(both: Both) -> None:
    def forbid() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    told = both.same(["--log", "@log", "--root=@states", "state", "two"], preexec_fn=forbid)[2]
    assert told.count(b"File too large") == 1 and told.count(b"\n") == 2


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_a_directory_as_a_standard_stream_is_told_of_in_one_line(stream: str) -> None:
    fd = os.open("/", os.O_RDONLY)
    try:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: fd}
        done = subprocess.run([*COMMAND, "features"], **streams)  # type: ignore[call-overload]  # keywords of run()
    finally:
        os.close(fd)
    assert done.returncode == 1
    assert done.stderr == b"cycontainer: standard input, output or error is a directory\n"


def test_a_log_that_cannot_be_opened_has_its_own_reason(both: Both) -> None:
    told = both.same(["--log", "/", "--root=@states", "state", "two"], env={"TZ": ":no/such/zone"})[2]
    assert b"--log /: Is a directory" in told


@pytest.mark.parametrize("options", STRANGE_LOGS, ids=ascii)
def test_a_log_of_a_strange_name_is_told_of_in_plain_letters(options: list[str], both: Both) -> None:
    told = both.same([*options, "--root=@states", "state", "two"], alone=False)[2]
    assert told.isascii() and told.count(b"\n") == 2 and told.replace(b"\n", b"").decode().isprintable()


@pytest.mark.root
def test_a_root_directory_that_is_not_there_yet_has_no_containers(both: Both) -> None:
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh"]
    for call in both.calls.values():
        done = subprocess.run([*hidden, *call, "list", "-q"], capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_several_containers_are_listed_in_order(both: Both) -> None:
    for name in ("two", "b", "A-1", "one"):
        both.each(lambda oci, name=name: oci.create(name))  # type: ignore[misc]  # a default binds the name
    both.each(lambda oci: Path(f"{oci.states}/no id").write_bytes(b""))
    assert both.same(["--root", "@states", "list", "-q"])[1] == b"A-1\nb\none\ntwo\n"
    for words in LOOKS:
        both.same(["--root", "@states", *words])


# --- words


ALONE: list[list[str]] = [
    ["--systemd-cgroup", "list"],
    ["--cgroup-manager", "disabled", "list"],
    ["--cgroup-manager=systemd", "list", "-q"],
    ["--version"],
    ["-v"],
    ["--log", "x", "-v", "frob"],
    ["--root", "", "-v"],
    ["list"],
]
HANDED_ON: list[list[str]] = [
    [],
    ["--help"],
    ["frob"],
    ["-"],
    ["--", "list"],
    ["--frob", "list"],
    ["--root"],
    ["--root", "relative", "list"],
    ["--root", "/no/such", "list"],
    ["--root", "/tmp/../no", "state", "one"],
    ["--root", "//no", "state", "one"],
    ["--root", "", "state", "one"],
    ["--debug=perhaps", "list"],
    ["--log-format", "xml", "list"],
    ["--log-format=", "list"],
    ["--rootless", "perhaps", "list"],
    ["--version=false", "list"],
    ["--cgroup-manager", "frob", "list"],
    ["--systemd-cgroup=true", "list"],
    ["state"],
    ["state", ""],
    ["state", "."],
    ["state", ".."],
    ["state", "a/b"],
    ["state", "\udcff"],
    ["state", "\N{SNOWMAN}"],
    ["state", "a\nb"],
    ["state", "x" * 256],
    ["state", "x" * 100_000],
    ["state", "one", "two"],
    ["state", "--frob", "one"],
    ["state", "-h"],
    ["list", "one"],
    ["list", "--format"],
    ["list", "--format", "xml"],
    ["list", "--quiet=perhaps"],
]


@pytest.mark.parametrize("words", ALONE, ids=" ".join)
def test_words_that_it_understands(words: list[str], both: Both) -> None:
    both.same(words)


@pytest.mark.parametrize("words", HANDED_ON, ids=lambda words: " ".join(words)[:40].encode("unicode_escape").decode())
def test_words_that_it_hands_on(words: list[str], both: Both) -> None:
    both.same(words, alone=False)
    status, out, err, _ = both.said("alone", words)
    assert (status, out, err) == (
        1,
        b"",
        b"cycontainer: the package cycontainer is not where this command was installed\n",
    )


# --- states


def with_line(line: bytes) -> Callable[[bytes], bytes]:
    return lambda text: text.replace(b"end of\\sstate\n", line + b"\nend of\\sstate\n")


def without(key: bytes) -> Callable[[bytes], bytes]:
    return lambda text: b"".join(line for line in text.splitlines(True) if not line.startswith(key + b" "))


def changed(key: bytes, value: bytes) -> Callable[[bytes], bytes]:
    return lambda text: re.sub(rb"(?m)^%s .*$" % key, lambda _: key + b" " + value, text)


STRANGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda text: b"",
    "half": lambda text: text[: len(text) // 2],
    "without its end": lambda text: text[:-1],
    "twice": lambda text: text * 2,
    "of a later version": lambda text: text.replace(b"cycontainer-state 1", b"cycontainer-state 99"),
    "of another kind": lambda text: b"\x7fELF" + bytes(range(256)) * 8,
    "huge": lambda text: text + b"x" * (2 << 20),
    "with a NUL": with_line(b"annotation a\0 b"),
    "with a line more": with_line(b"later word"),
    "with a longer line": with_line(b"later word word"),
    "with many words": with_line(b"annotation " + b"x " * 1000),
    "with a key twice": with_line(b"pid 1"),
    "with an annotation twice": with_line(b"annotation a 1\nannotation b 2\nannotation a 3"),
    "with many annotations": with_line(b"\n".join(b"annotation key%d v" % number for number in range(1000))),
    "with other letters": with_line("annotation schlüssel Größe".encode()),
    "with bytes that are no text": with_line(b"annotation a \xff\xfe"),
    "with an unknown escape": with_line(b"annotation a \\q\\"),
    "without an id": without(b"id"),
    "without a pid": without(b"pid"),
    "of another container": changed(b"id", b"two"),
    "with a negative pid": changed(b"pid", b"-1"),
    "with an init that cannot be": with_line(b"init_pid 4294967297"),
    "that is being made": lambda text: with_line(b"init_pid 1\ninit_start_time 2")(changed(b"pid", b"0")(text)),
    "with a large pid": changed(b"pid", b"99999999999999999999999999"),
    "with a pid that is too large": changed(b"pid", b"4294967297"),
    "with a pid that is none": changed(b"pid", b"one"),
    "with a start time that is another's": changed(b"start_time", b"1"),
    "that was never started": changed(b"pid", b"0"),
    "with a bundle that does not print": changed(b"bundle", b"/a\\nb\x1b"),
    "with an owner that nobody is": changed(b"owner", b"54321"),
    "with an owner that cannot be": changed(b"owner", b"99999999999"),
    "with a cgroup that is a file": changed(b"cgroup", b"/etc freezer /passwd"),
    "with a cgroup elsewhere": changed(b"cgroup", b"relative freezer path"),
}


@pytest.mark.parametrize("change", STRANGE.values(), ids=STRANGE)
def test_a_strange_state_is_judged_alike(change: Callable[[bytes], bytes], both: Both) -> None:
    both.each(lambda oci: oci.create())
    with both.with_states(change):
        for words in LOOKS:
            both.same(["--root", "@states", *words], alone=False)


def link(path: str) -> None:
    os.rename(path, f"{path}.real")
    os.symlink("state.real", path)


def make_fifo(path: str) -> None:
    os.unlink(path)
    os.mkfifo(path)


def make_directory(path: str) -> None:
    os.unlink(path)
    os.mkdir(path)


@pytest.mark.parametrize("change", [link, make_fifo, make_directory, os.unlink])
def test_a_state_that_is_no_file_is_judged_alike(change: Callable[[str], None], both: Both) -> None:
    for oci in both.places.values():
        os.makedirs(f"{oci.states}/one")
        Path(f"{oci.states}/one/state").write_bytes(b"")
        change(f"{oci.states}/one/state")
    for words in LOOKS:
        both.same(["--root", "@states", *words], alone=False)
    both.each(lambda oci: shutil.rmtree(oci.states))


def test_a_container_that_is_a_link_or_a_file_is_none(both: Both) -> None:
    for oci in both.places.values():
        os.makedirs(f"{oci.states}/real")
        os.symlink("real", f"{oci.states}/one")
        Path(f"{oci.states}/two").write_bytes(b"")
    for name in ("one", "two", "three"):
        both.same(["--root", "@states", "state", name])
    both.each(lambda oci: shutil.rmtree(oci.states))


# --- how it is called

CALLS: dict[str, list[str]] = {  # a shell's words in front of the command
    "closed input": ["exec 0<&-; exec"],
    "closed output": ["exec 1>&-; exec"],
    "all closed": ["exec 0<&- 1>&- 2>&-; exec"],
    "a full disk": ["exec 1>/dev/full; exec"],
    "nobody who reads": ["exec 1>&2; exec 2>/dev/full; exec"],
    "no environment": ["exec env -i"],
    "a deleted directory": ["mkdir gone; cd gone; rmdir ../gone; exec"],
    "an environment that would have it otherwise": [
        "PYTHONPATH=/no PYTHONHOME=/no PYTHONSTARTUP=/no PYTHONINSPECT=1 PYTHONVERBOSE=1 PYTHONSAFEPATH= exec"
    ],
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_however_it_is_called(call: list[str], both: Both) -> None:
    both.each(lambda oci: oci.create())
    for words in ("state one", "state two", "list", "-v", "frob"):
        answers = {}
        for way in WAYS[1:]:
            oci = both.places[way]
            words_of = shlex.join(both.calls[way])
            line = f"{call[0]} {words_of} --root {oci.states} {words}"
            done = subprocess.run(["sh", "-c", line], capture_output=True, cwd=oci.bundle, timeout=PATIENCE)
            answers[way] = done.returncode, both.neutral(way, done.stdout), both.neutral(way, done.stderr)
        assert answers["compiled"] == answers["python"], words


def test_without_any_word_at_all() -> None:
    """execve(2) with an empty argument list: the kernel adds an empty one, or refuses."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writer, 2)
        none = (ctypes.c_char_p * 1)()
        ctypes.CDLL(None).execve(COMMAND[0].encode(), none, none)
    os.close(writer)
    with open(reader, "rb") as said:
        said.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_set_user_id_is_refused() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        shutil.copy(COMMAND[0], directory)
        os.chmod(f"{directory}/cycontainer", 0o4755)
        words = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", f"{directory}/cycontainer", "-v"]
        done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cycontainer: refused: it has a set-user-id")
