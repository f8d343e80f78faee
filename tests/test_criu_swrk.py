"""A criu process of ours: what is said when there is none, or an old one; and that it goes when we do."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable

import pytest
from ordinary import OrdinaryUser

from cycontainer.criu import log as criu_log
from cycontainer.criu.rpc import RESPONSE, encode
from cycontainer.criu.swrk import Criu
from cycontainer.errors import CriuError, HostError

Other = Callable[..., str]

pytestmark = pytest.mark.root

# Speaks as criu does: answers what it is told to, once, then looks at its descriptors.
OTHER = """#!{python}
import os, socket
with socket.socket(fileno=3) as peer:
    peer.recv(65536)
    open({seen!r}, "w").write(" ".join(sorted(os.listdir("/proc/self/fd"))))
    answer = bytes.fromhex({answer!r})
    if answer:
        peer.send(answer)
        for _ in range({requests}):
            peer.recv(65536)
os.kill(os.getpid(), {signal}) if {signal} else None
"""


@pytest.fixture
def other(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> Other:
    """Puts a program of another name for criu in PATH."""

    def put(answer: bytes, signal: int = 0, requests: int = 1) -> str:
        path, seen = f"{tmp_path}/criu", f"{tmp_path}/seen"
        with open(path, "w") as file:
            file.write(
                OTHER.format(python=sys.executable, seen=seen, answer=answer.hex(), signal=signal, requests=requests)
            )
        os.chmod(path, stat.S_IRWXU)
        monkeypatch.setenv("PATH", str(tmp_path))
        return seen

    return put


def version(major: int, minor: int) -> bytes:
    return encode({"type": 10, "success": True, "version": {"major": major, "minor": minor}}, RESPONSE)


@pytest.mark.criu
def test_criu_says_its_version_and_what_it_can_do() -> None:
    with Criu.start() as criu:
        assert criu.version >= (3, 15, 0)
        assert criu.features("pidfd_store", "lazy_pages")["pidfd_store"] is True


@pytest.mark.criu
def test_a_request_that_criu_refuses_is_told_once() -> None:
    with Criu.start() as criu, pytest.raises(CriuError) as failure:
        criu.ask("DUMP", {"images_dir_fd": 99, "pid": 1})
    assert failure.value.attempt == "checkpoint"
    assert str(failure.value).startswith("criu checkpoint: ")


def test_a_missing_criu_names_what_to_install(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match=r"^criu is missing: install criu 3\.15 or newer"):
        Criu.start()


def test_an_ordinary_user_is_told(ordinary_user: OrdinaryUser) -> None:
    with pytest.raises(HostError, match="criu needs root"):
        ordinary_user(Criu.start)


def test_an_old_criu_is_refused(other: Other) -> None:
    other(version(3, 14))
    with pytest.raises(HostError, match=r"^criu 3\.14\.0 is too old: install criu 3\.15 or newer"):
        Criu.start()


def test_criu_gets_nothing_but_what_it_is_given(other: Other) -> None:
    seen = other(version(3, 15))
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    Criu.start(inherited=(reader,)).close()
    os.close(reader)
    os.close(writer)
    with open(seen) as file:
        assert file.read().split() == list("0123456")  # 5 and 6 are of listing them


def test_what_may_gain_no_privileges_is_restored_by_one_that_may_not(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(f"{tmp_path}/criu", "w") as file:
        file.write(f"#!/bin/sh\n/bin/grep NoNewPrivs /proc/self/status >>{tmp_path}/seen\n")
    os.chmod(f"{tmp_path}/criu", stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path))
    for wanted in (False, True):
        with pytest.raises(CriuError):
            Criu.start(no_new_privileges=wanted)
    with open(f"{tmp_path}/seen") as file:
        assert file.read() == "NoNewPrivs:\t0\nNoNewPrivs:\t1\n"


def test_a_killed_criu_is_told(other: Other) -> None:
    other(version(4, 2), signal=9)
    with Criu.start() as criu, pytest.raises(CriuError, match=r"^criu checkpoint: killed by signal 9$"):
        criu.ask("DUMP", {})


def test_a_criu_that_waits_for_an_answer_to_what_was_interrupted_is_let_go(other: Other) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    other(version(4, 2), requests=2)  # the second never comes
    before = signal.signal(signal.SIGALRM, interrupt)
    with Criu.start() as criu, pytest.raises(KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        criu.ask("DUMP", {})
    signal.signal(signal.SIGALRM, before)


def test_an_answer_that_is_none_is_told(other: Other) -> None:
    other(b"\x08")
    with pytest.raises(CriuError, match="its answer is none"):
        Criu.start()


# --- its log

LOG = """\
(00.000001) Version: 4.2.1
(00.000002) Error (criu/util.c:1): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.000003) one
(00.000004) two
(00.000005) three
(00.000006) four
(00.000007) Error (criu/sk-inet.c:191): inet: Connected TCP socket, consider using --tcp-established option.
(00.000008) five
"""


def test_the_lines_that_matter_are_shown_with_what_can_be_done(tmp_path: object) -> None:
    path = f"{tmp_path}/dump.log"
    with open(path, "w") as file:
        file.write(LOG)
    lines = criu_log.excerpt(criu_log.lines_of(path))
    assert [line.split(":")[0] for line in lines] == ["4", "5", "6", "7"]
    assert "RLIMIT" not in "".join(lines)
    assert criu_log.advice(lines, path) == (
        "established TCP connections are saved and restored with --tcp-established (tcp_established)",
    )


def test_a_log_that_is_not_there_says_nothing(tmp_path: object) -> None:
    assert criu_log.lines_of(f"{tmp_path}/no.log") == []


def test_what_a_log_says_cannot_reach_the_terminal() -> None:
    error = CriuError("restore", "EIO", "/x\x1b.log", ("1: Error \x1b[2J",))
    assert "\x1b" not in str(error) and str(error).count("\n") == 1
