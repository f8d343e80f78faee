"""What cannot be run: one error that names the place, or step and errno; the guard sees that nothing is left."""

from __future__ import annotations

import asyncio
import errno
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from guard import left_since, snapshot
from launching import copy_rootfs
from ordinary import OrdinaryUser

import cycontainer
from cycontainer import ConfigError, Error, LaunchError, Pool, ProgramError, Template, aio, run
from cycontainer.host import current
from cycontainer.launch import not_launched
from cycontainer.spec import default_config

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

TMP = {"destination": "/tmp/x", "type": "tmpfs", "source": "tmpfs"}

# Keywords of run(); where the error stands.
CONFIG = default_config((os.getuid(), os.getgid()) if os.getuid() else None)
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"args": "true"}, "args"),
    ({"args": []}, "args"),
    ({"args": ["true", 1]}, "args[1]"),
    ({"args": ["true", "a\0b"]}, "args[1]"),
    ({"args": ["true", "\ud800"]}, "args[1]"),
    ({"args": ["true", "é" * 65536]}, "args[1]"),
    ({"args": [""]}, "args[0]"),
    ({"env": {"A": "\ud800"}}, "env['A']"),
    ({"env": {"A": "\0"}}, "env['A']"),
    ({"env": {"A": 1}}, "env['A']"),
    ({"env": {"A=": "x"}}, "env['A=']"),
    ({"env": {"A": "x" * (1 << 20)}}, "env['A']"),
    ({"env": {f"A{number}": "x" * 100_000 for number in range(21)}}, "env"),
    ({"env": ["A=b"]}, "env"),
    ({"cwd": "tmp"}, "cwd"),
    ({"cwd": 1}, "cwd"),
    ({"hostname": "\ud800"}, "hostname"),
    ({"rootfs": 1}, "rootfs"),
    ({"rootfs": "\ud800"}, "rootfs"),
    ({"user": True}, "user"),
    ({"user": "1:x"}, "user"),
    ({"user": "9" * 5000}, "user"),
    ({"user": "4294967295"}, "user"),
    ({"user": -1}, "user"),
    ({"timeout": "1"}, "timeout"),
    ({"timeout": math.nan}, "timeout"),
    ({"memory": 2**63}, "memory"),
    ({"memory": 1e9}, "memory"),
    ({"pids": 1.5}, "pids"),
    ({"cpus": math.inf}, "cpus"),
    ({"cpus": 0}, "cpus"),
    ({"network": "host "}, "network"),
    ({"mounts": {"destination": "/tmp/x"}}, "mounts"),
    ({"mounts": ["/tmp/x"]}, "mounts[0]"),
    ({"mounts": [TMP, {}]}, "mounts[1].destination"),
    ({"mounts": [TMP, {"destination": "/x"}]}, "mounts[1].type"),
    ({"mounts": [TMP, {"destination": "/x", "type": "bind"}]}, "mounts[1].source"),
    ({"mounts": [TMP, {**TMP, "options": ["idmap"]}]}, "mounts[1].options"),
    ({"mounts": [TMP, {**TMP, "options": 1}], "user_namespace": True}, "mounts[1].options"),
    ({"mounts": [TMP, {"destination": "/x"}], "config": CONFIG}, "mounts[1].type"),
    ({"config": {**CONFIG, "mounts": (TMP, {"destination": "/x"})}, "mounts": [TMP]}, "mounts[1].type"),
    ({"pids": 1 << 22}, "pids"),
    ({"masked_paths": ["/etc", "etc"]}, "masked_paths[1]"),
    ({"masked_paths": "/etc"}, "masked_paths"),
    ({"config": []}, "config"),
    ({"config": {"process": 1}}, "process"),
    ({"input": 5}, "input"),
    ({"input": "x", "encoding": "no-such"}, "encoding"),
    ({"errors": "no-such", "text": True}, "errors"),
    *[({"read_only": value}, "read_only") for value in (None, "", 0, "no", 1)],
    *[({name: "no"}, name) for name in ("user_namespace", "init", "check", "text", "capture_output")],
    ({"supervisor": {"mkdir": 5}}, "supervisor['mkdir']"),
    *[({"work_size": value}, "work_size") for value in ("x", None, 0, True, 1 << 48)],
]


@pytest.mark.parametrize(("keywords", "path"), WRONG)
def test_a_wrong_keyword_is_named_and_nothing_is_started(keywords: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        run(**{"args": ["no-such-program"], **keywords})
    assert refusal.value.path == path
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 500


UNCHECKED: Any = cycontainer  # by mypy: what it would say is said to who does not use it
UNCHECKED_AIO: Any = aio
MISTAKEN: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("a template's reuse", lambda: UNCHECKED.Template(reuse=None), ConfigError, "reuse: "),
    ("its networks", lambda: UNCHECKED.Template(networks=None), ConfigError, "networks: "),
    ("its work_size", lambda: UNCHECKED.Template(work_size=[]), ConfigError, "work_size: "),
    ("its small work_size", lambda: UNCHECKED.Template(work_size=1), ConfigError, "work_size: "),
    ("its read_only", lambda: UNCHECKED.Template(read_only=0), ConfigError, "read_only: "),
    ("a pool's size", lambda: UNCHECKED.Pool(None), ConfigError, "size: "),
    ("its reset", lambda: UNCHECKED.Pool(1, reset="no"), ConfigError, "reset: "),
    ("a name of a template's", lambda: UNCHECKED.Template(supervised=1), TypeError, "Template() got"),
    ("a name of a pool's", lambda: UNCHECKED.Pool(1, reuse=True), TypeError, "Pool() got"),
    ("a name of spawn's", lambda: UNCHECKED.spawn(["true"], check=True), TypeError, "spawn() got"),
    ("a name of stream's", lambda: UNCHECKED.stream(["true"], x=1), TypeError, "stream() got"),
    ("a name on a loop", lambda: asyncio.run(UNCHECKED_AIO.run(["true"], x=1)), TypeError, "aio.run() got"),
    ("a check there", lambda: asyncio.run(UNCHECKED_AIO.run(["x"], check=None)), ConfigError, "check: "),
]


@pytest.mark.parametrize(("call", "kind", "said"), [row[1:] for row in MISTAKEN], ids=[row[0] for row in MISTAKEN])
def test_a_mistake_is_told_by_public_names(call: Callable[[], object], kind: type[Exception], said: str) -> None:
    before = snapshot()
    with pytest.raises(kind) as refusal:
        call()
    assert str(refusal.value).startswith(said)
    assert not left_since(before)


def test_a_mistaken_call_of_a_template_or_a_pool_is_told_by_public_names() -> None:
    template: Any
    pool: Any
    acquired: Any
    with Template() as template, Pool(1) as pool, pool.acquire() as acquired:
        wrong: list[tuple[Callable[[], object], type[Exception], str]] = [
            (lambda: template.run(["true"], memory=1), TypeError, "Template.run() got"),
            (lambda: template.run(["true"], environment=()), TypeError, "Template.run() got"),
            (lambda: template.spawn(["true"], check=True), TypeError, "Template.spawn() got"),
            (lambda: template.run(["x"], check=1), ConfigError, "check: "),
            (lambda: template.fill("x"), ConfigError, "timeout: "),
            (lambda: pool.run(["true"], memory=1), TypeError, "Pool.run() got"),
            (lambda: pool.run(["x"], text=None), ConfigError, "text: "),
            (lambda: pool.run(["x"], check="no"), ConfigError, "check: "),
            (lambda: pool.run(["x"], acquire_timeout="x"), ConfigError, "acquire_timeout: "),
            (lambda: acquired.run(["x"], check=0), ConfigError, "check: "),
            (lambda: pool.fill("x"), ConfigError, "timeout: "),
        ]
        for call, kind, said in wrong:
            with pytest.raises(kind) as refusal:
                call()
            assert str(refusal.value).startswith(said)
        assert pool.fill(math.inf)
        pool.close()
        with pytest.raises(Error, match="the pool is closed"):
            pool.run(["true"])


def test_what_a_signal_handler_raises_is_no_answer_of_the_kernel() -> None:
    with pytest.raises(TimeoutError, match="late"):
        not_launched(TimeoutError("late"))
    assert not_launched(OSError(errno.EMFILE, os.strerror(errno.EMFILE))).args[1] == errno.EMFILE


# --- the program


@pytest.fixture
def rootfs(busybox_rootfs: str, tmp_path: Path) -> str:
    """A root file system with programs that cannot be executed."""
    root = str(tmp_path / "rootfs")
    copy_rootfs(busybox_rootfs, root)
    for name, text, mode in (
        ("lost", "#!/no/such/interpreter\n", 0o755),
        ("plain", "#!/bin/sh\n", 0o644),
        ("garbage", "\1\2\3", 0o755),
        ("itself", "#!/proc/self/exe\n", 0o755),
    ):
        (tmp_path / "rootfs/bin" / name).write_text(text)
        (tmp_path / "rootfs/bin" / name).chmod(mode)
    return root


@pytest.mark.parametrize(
    ("program", "attempt", "code", "status"),
    [
        ("missing", "look up the program", errno.ENOENT, 127),
        ("/bin/missing", "look up the program", errno.ENOENT, 127),
        ("plain", "look up the program", errno.EACCES, 126),
        ("/bin", "look up the program", errno.EACCES, 126),
        ("lost", "execute the program", errno.ENOENT, 127),
        ("garbage", "execute the program", errno.ENOEXEC, 126),
    ],
)
def test_a_program_that_cannot_start_is_told_apart(
    program: str, attempt: str, code: int, status: int, rootfs: str
) -> None:
    run(["true"], rootfs=rootfs)  # so that the plan is a kept one, made for another program
    with pytest.raises(ProgramError) as failure:
        run([program], rootfs=rootfs)
    found = failure.value
    assert (found.attempt, found.errno, found.status, found.program) == (attempt, code, status, program)
    assert str(found).startswith(f"{attempt} {program}: {errno.errorcode[code]}")
    assert ("its interpreter" in str(found)) == (program == "lost")


def test_an_interpreter_that_is_the_init_is_an_init_without_a_plan(rootfs: str) -> None:
    result = run(["itself"], rootfs=rootfs)
    assert (result.returncode, result.stdout, result.stderr) == (126, b"", b"")


# --- the machine


def test_what_is_missing_is_named_with_its_place(tmp_path: Path) -> None:
    bind = {"destination": "/tmp/x", "source": "/no/such", "options": ["bind"]}
    unknown = {"destination": "/tmp/x", "type": "nosuchfs", "source": "x"}
    option = {"destination": "/tmp/x", "type": "tmpfs", "source": "x", "options": ["nonsense=1"]}
    (tmp_path / "file").touch()
    for keywords, attempt, code in (
        ({"cwd": "/no/such"}, "change to the working directory /no/such", errno.ENOENT),
        ({"cwd": "/etc/passwd"}, "change to the working directory /etc/passwd", errno.ENOTDIR),
        ({"rootfs": "/no/such"}, "take the file tree /no/such", errno.ENOENT),
        ({"rootfs": str(tmp_path / "file")}, f"attach the root {tmp_path}/file", errno.EINVAL),
        ({"mounts": [bind]}, "take the file tree /no/such for /tmp/x", errno.ENOENT),
        ({"mounts": [unknown]}, "open a nosuchfs file system for /tmp/x", errno.ENODEV),
        ({"mounts": [option]}, "set option nonsense=1 of the file system for /tmp/x", errno.EINVAL),
    ):
        with pytest.raises(LaunchError) as failure:
            run(["true"], **keywords)
        assert (failure.value.attempt, failure.value.errno) == (attempt, code)
        assert 0 < failure.value.step <= failure.value.steps


def document(rootfs: str, *, ids: tuple[int, int] | None = None, **paths: str) -> dict[str, Any]:
    """The default configuration, some of its namespaces joined by path."""
    config = default_config(ids)
    del config["hostname"]
    config["root"]["path"] = rootfs
    for namespace in config["linux"]["namespaces"]:
        namespace.update({"path": paths[namespace["type"]]} if namespace["type"] in paths else {})
    return config


def test_a_path_that_is_no_namespace_is_named_with_its_place(busybox_rootfs: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    ids = None if os.geteuid() == 0 else (os.getuid(), os.getgid())
    for path, problem in (
        (str(tmp_path / "fifo"), "is no ipc namespace"),
        ("/proc/self/ns/uts", "is no ipc namespace"),
        ("/no/such", "cannot be opened: ENOENT"),
    ):
        config = document(busybox_rootfs, ids=ids, ipc=path)
        place = [each["type"] for each in config["linux"]["namespaces"]].index("ipc")
        with pytest.raises(ConfigError) as refusal:
            run(["true"], config=config)
        assert refusal.value.path == f"linux.namespaces[{place}].path"
        assert f"{path} {problem}" in refusal.value.problem


def join_of_root(rootfs: str) -> tuple[str, int]:
    config = document(rootfs, ids=(os.getuid(), os.getgid()), network=f"/proc/{os.getpid()}/ns/net")
    with pytest.raises(LaunchError) as failure:
        run(["true"], config=config)
    return failure.value.attempt, failure.value.errno


@pytest.mark.root  # as one's own user, the namespace may be one's own
def test_a_namespace_that_one_may_not_join_is_named(busybox_rootfs: str, ordinary_user: OrdinaryUser) -> None:
    assert ordinary_user(join_of_root, busybox_rootfs) == ("join the network namespace", errno.EPERM)


def told(prepare: str, statement: str, *namespaces: str) -> str:
    """The error of a statement in a process of its own, after a shell command in new namespaces."""
    program = "from cycontainer import Error, run\n"
    program += f"try: {statement}\nexcept Error as error: print(type(error).__name__, error)"
    command = ["unshare", *namespaces, "sh", "-c", f'{prepare} && exec "$0" -c "$1"', sys.executable, program]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": ROOT}, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.root
@pytest.mark.cgroups
def test_a_cgroup_that_cannot_be_written_is_named() -> None:
    mount = next(each.mount for each in current().cgroups.all if "pids" in each.controllers)
    said = told(f"mount -o remount,bind,ro {mount}", "run(['true'], pids=5)", "--mount")
    assert said.startswith(f"CgroupError {mount}/cycontainer")
    assert "EROFS (Read-only file system); the cgroup file system is mounted read-only here" in said


def test_namespaces_beyond_the_machines_limit_are_named() -> None:
    said = told("echo 0 >/proc/sys/user/max_net_namespaces", "run(['true'])", "--user", "--map-root-user")
    assert said.startswith("LaunchError start the first process in new ") and "network" in said and "ENOSPC" in said


@pytest.fixture
def full_rootfs(busybox_rootfs: str, tmp_path: Path) -> Iterator[str]:
    """A root file system in which there is no inode left."""
    root = str(tmp_path / "full")
    os.mkdir(root)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=9,mode=755", "tmpfs", root], check=True)
    try:
        for name in ("bin", "dev", "proc", "sys", "etc", "tmp"):
            os.mkdir(f"{root}/{name}")
        shutil.copy(f"{busybox_rootfs}/bin/busybox", f"{root}/bin/true")
        while True:
            try:
                os.close(os.open(f"{root}/more-{os.urandom(4).hex()}", os.O_CREAT | os.O_WRONLY))
            except OSError as full:
                assert full.errno == errno.ENOSPC
                break
        yield root
    finally:
        subprocess.run(["umount", root], check=True)


@pytest.mark.root
def test_a_target_that_cannot_be_made_on_a_full_file_system_is_named(full_rootfs: str) -> None:
    mount = {"destination": "/data", "type": "tmpfs", "source": "tmpfs"}
    with pytest.raises(LaunchError) as failure:
        run(["true"], rootfs=full_rootfs, mounts=[mount])
    assert (failure.value.attempt, failure.value.errno) == ("find or make /data", errno.ENOSPC)


# --- what is but warned of


@pytest.mark.root
def test_an_unknown_capability_is_a_warning_and_the_container_runs(busybox_rootfs: str, tmp_path: Path) -> None:
    config = document(busybox_rootfs)
    config["process"].update(args=["true"], terminal=False)
    config["process"]["capabilities"]["bounding"].append("CAP_NEW")
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = [
        sys.executable,
        "-m",
        "cycontainer",
        "--root",
        str(tmp_path / "states"),
        "run",
        "--bundle",
        str(tmp_path),
        "one",
    ]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0
    assert "CAP_NEW" in done.stderr and done.stderr.count("\n") == 1
