"""Files that go in and come out: through a directory that only the run has, whatever the program leaves there."""

from __future__ import annotations

import os
import resource
from typing import Any

import pytest
from ordinary import OrdinaryUser

from cycontainer import ConfigError, Template, run

MIB = 1 << 20


def script(text: str, **keywords: Any) -> Any:
    return run(["sh", "-c", text], text=True, **keywords)


def test_files_are_there_and_what_is_made_comes_back() -> None:
    result = script(
        "cat main.py; mkdir out && cp sub/in.txt out/a.png && echo no > out/b.txt",
        files={"main.py": b"print(1)\n", "sub/in.txt": "text"},
        collect=["out/*.png"],
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "print(1)\n", "")
    assert (result.files, result.refused) == ({"out/a.png": b"text"}, {})


def test_the_program_owns_them_and_can_execute_them() -> None:
    result = script(
        "./go && echo more >> go && mv go sub/x", files={"go": "#!/bin/sh\npwd\n", "sub/y": b""}, collect=["**"]
    )
    assert (result.stdout, result.stderr) == ("/tmp/work\n", "")
    assert result.files == {"sub/x": b"#!/bin/sh\npwd\nmore\n", "sub/y": b""}


@pytest.mark.parametrize("keywords", [{}, pytest.param({"user_namespace": True}, marks=pytest.mark.root)])
def test_they_can_lie_in_a_home_that_is_hidden(keywords: dict[str, Any]) -> None:
    check_in_a_hidden_home(**keywords)


def test_those_of_an_ordinary_user_can_too(ordinary_user: OrdinaryUser) -> None:
    ordinary_user(check_in_a_hidden_home)


def check_in_a_hidden_home(**keywords: Any) -> None:
    text, place = "pwd; ls -A /home /home/me; cat f > g; touch /home/x", "/home/me/a job"
    seen = script(text, cwd=place, files={"f": "1\n"}, collect=["g"], **keywords)
    listed = f"{place}\n/home:\nme\n\n/home/me:\na job\n"
    assert (seen.files, seen.stdout) == ({"g": b"1\n"}, listed)
    assert "Read-only file system" in seen.stderr


@pytest.mark.root
def test_those_of_a_template_can_too() -> None:
    mount = {"destination": "/home/own", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}
    with Template(cwd="/home/me/job", work_size=MIB, mounts=[mount]) as template:
        assert template.shared
        for _ in range(2):
            seen = template.run(
                ["sh", "-c", "cat f > g; cat ../../own/was; ls .. ../..; cat f > ../../own/was; touch ../x"],
                files={"f": "1\n"}, collect=["*"],
            )  # fmt: skip
            assert (seen.files, seen.stdout) == ({"f": b"1\n", "g": b"1\n"}, b"..:\njob\n\n../..:\nme\nown\n")
            assert seen.stderr.count(b"No such file") == seen.stderr.count(b"Read-only file system") == 1, seen.stderr


@pytest.mark.root
@pytest.mark.parametrize("keywords", [{}, {"user_namespace": True}, {"init": False}, {"cwd": "/data"}, {"user": 1234}])
def test_on_a_root_of_ones_own_nothing_of_it_is_on_the_host(busybox_rootfs: str, keywords: dict[str, Any]) -> None:
    result = script(
        "cat f > g; pwd", rootfs=busybox_rootfs, files={"f": b"in"}, collect=["?"], read_only=False, **keywords
    )
    assert (result.files, result.stderr) == ({"f": b"in", "g": b"in"}, "")
    assert not os.path.exists(f"{busybox_rootfs}/tmp/work")
    assert os.listdir(f"{busybox_rootfs}/tmp") == []
    if "cwd" in keywords:
        os.rmdir(f"{busybox_rootfs}/data")  # where it was mounted


def test_an_ordinary_user_has_them_too(ordinary_user: OrdinaryUser) -> None:
    assert ordinary_user(exchanged) == ({"a/b": b"1\n"}, "0")


def exchanged() -> tuple[dict[str, bytes], str]:
    result = run(["sh", "-c", "cat n > a/b"], files={"n": "1\n", "a/c": b""}, collect=["*/b"])
    return result.files, str(result.returncode)


def test_a_configuration_has_them_where_its_program_works(own_rootfs: str) -> None:
    config = {"ociVersion": "1.3.0", "process": {"cwd": "/tmp/here"}, "linux": {"namespaces": [{"type": "mount"}]}}
    if os.geteuid():
        pytest.skip("needs root")
    result = run(["cat", "/tmp/here/f"], rootfs=own_rootfs, config=config, init=False, files={"f": b"1"}, collect=["f"])
    os.rmdir(f"{own_rootfs}/tmp/here")
    assert (result.stdout, result.files) == (b"1", {"f": b"1"})


# --- what a hostile program leaves


def test_links_are_not_followed_and_devices_not_opened() -> None:
    result = script(
        "ln -s /etc/passwd a; ln -s /etc b; mkdir c; ln -s ../.. c/up; mkfifo p; ln -s /proc/self/exe e; echo 1 > f",
        collect=["**", "b/passwd", "c/up/*"],
    )
    assert result.returncode == 0
    assert result.files == {"f": b"1\n"}
    assert set(result.refused) == {"a", "b", "c/up", "p", "e"}


def test_another_mount_is_not_entered() -> None:
    result = run(
        ["true"],
        files={"d/x": b""},
        mounts=[{"destination": "/tmp/other", "type": "tmpfs", "source": "tmpfs"}],
        collect=["**"],
        cwd="/tmp/other/w",
    )
    assert result.files == {"d/x": b""}


def test_no_more_is_read_than_the_directory_can_hold() -> None:
    result = script("truncate -s 1T big; head -c 600000 /dev/zero > z; ln z z2; ln z z3", collect=["*"], work_size=MIB)
    assert set(result.files) & {"z", "z2", "z3"} and len(result.files) == 1
    assert "big" in result.refused and len(result.refused) == 3


@pytest.mark.parametrize(
    "made",
    ["printf x > a; printf x > c; truncate -s 1048575 big", "printf x > a; for i in $(seq 999); do ln a $i; done"],
)
def test_what_comes_back_fits_into_the_next_call(made: str) -> None:
    """Holes and hard links take no room where they are made."""
    result = script(made, collect=["**"], work_size=MIB)
    assert result.files and result.refused
    assert all("work_size" in reason for reason in result.refused.values())
    again = script("ls | wc -l", collect=["**"], work_size=MIB, files=result.files)
    assert int(again.stdout) == len(result.files) and again.files == result.files


def test_the_directory_holds_no_more_than_its_size() -> None:
    result = script("head -c 3000000 /dev/zero > z; echo $?", work_size=MIB, files={"a": b""}, collect=["z"])
    assert result.stdout == "1\n" and len(result.files["z"]) <= MIB


def test_a_deep_tree_and_strange_names_are_no_trouble() -> None:
    result = run(
        [
            "sh",
            "-c",
            "i=0; while [ $i -lt 3000 ]; do mkdir d && cd d; i=$((i+1)); done; echo 1 > f; cd /tmp/work; "
            """printf 2 > "$(printf '\\377\\n*')" """,
        ],
        collect=["**"],
    )
    assert result.returncode == 0
    assert [data for name, data in result.files.items() if "/" not in name] == [b"2"]


@pytest.mark.parametrize("made", ["os.symlink('x', name)", "os.mkdir(name, 0o700); os.mkdir(name + '/' + 'y' * 240)"])
def test_names_are_bounded_too(made: str) -> None:
    text = f"""
import os
for _ in range(15):
    os.mkdir("d" * 240)
    os.chdir("d" * 240)
for number in range(4000):
    name = str(number) + "x" * 240
    {made}
"""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = run(["/usr/bin/python3", "-c", text], collect=["**"], work_size=4096)
    assert result.returncode == 0, result.stderr
    told = [os.fsencode(name) for name in (*result.files, *result.refused)]
    assert "more names" in result.refused[""] and len(told) > 1000 and sum(map(len, told)) <= 4 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10
    assert run(["/usr/bin/python3", "-c", text], collect=["*"], work_size=4096).refused == {}


def test_what_ran_out_of_time_is_collected_all_the_same() -> None:
    result = script("echo 1 > f; exec sleep 100", timeout=1, collect=["f"])
    assert (result.timed_out, result.files) == (True, {"f": b"1\n"})


# --- what is refused before anything is done


@pytest.mark.parametrize(
    "keywords",
    [
        {"files": {"../x": b""}},
        {"files": {"/x": b""}},
        {"files": {"a//b": b""}},
        {"files": {"": b""}},
        {"files": {"a/.": b""}},
        {"files": {"a\0": b""}},
        {"files": {"a": 1}},
        {"files": {"a": b"", "a/b": b""}},
        {"files": {"x" * 256: b""}},
        {"files": {"\udc00\ud800": b""}},
        {"files": ["a"]},
        {"files": {"a": bytes(8192)}, "work_size": 4096},
        {"files": {"a": b""}, "work_size": 0},
        {"files": {"a": b""}, "cwd": "/"},
        {"collect": "a"},
        {"collect": [1]},
        {"collect": ["../a"]},
        {"collect": ["**/**"]},
        {"output_limit": -1},
    ],
)
def test_what_cannot_be_meant_is_refused(keywords: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        run(["true"], **keywords)
