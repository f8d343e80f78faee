"""The command's verbs on real containers: what they do, print and return. The contract is runc's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import decline
from oci_command import COMMAND, ROOT, Oci, gone

from cycontainer.cli.__main__ import VERBS

pytestmark = pytest.mark.root


# --- a container's life


def test_a_container_is_created_started_looked_at_and_deleted(oci: Oci) -> None:
    pid = oci.create()
    state = oci.state()
    assert (state["status"], state["pid"], state["owner"]) == ("created", pid, "root")
    assert (state["bundle"], state["rootfs"], state["ociVersion"]) == (oci.bundle, oci.rootfs, "1.3.0")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", state["created"])
    oci.done("start", "one")
    assert oci.state()["status"] == "running"
    oci.end(pid)
    assert (oci.state()["status"], oci.state()["pid"]) == ("stopped", 0)
    oci.done("delete", "one")
    assert oci.done("list") == "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"


def test_run_returns_the_programs_status_and_leaves_nothing(oci: Oci) -> None:
    for script, status in (("exit 7", 7), ("kill -9 $$", 128 + 9), ("true", 0)):  # not pid 1: it could not kill itself
        config = oci.config("sh", "-c", f"echo out; echo err >&2; {script}")
        config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
        config["linux"]["resources"] = {}
        config["mounts"] = [each for each in config["mounts"] if each["type"] != "proc"]
        config["linux"]["maskedPaths"] = config["linux"]["readonlyPaths"] = []
        oci.write(config=config)
        done = oci("run", "one")
        assert (done.returncode, done.stdout, done.stderr) == (status, "out\n", "err\n")
        assert os.listdir(oci.states) == []


def test_run_can_keep_it_or_return_when_it_runs(oci: Oci) -> None:
    oci.write("true")
    oci.done("run", "--keep", "one")
    assert oci.state()["status"] == "stopped"
    oci.write("sleep", "1000")
    oci.leaving("run", "-d", "--pid-file", "pid", "two")
    with open(f"{oci.bundle}/pid") as file:
        assert int(file.read()) == oci.pid("two")
    assert oci.state("two")["status"] == "running"


def test_a_pid_file_is_written_through_no_link_and_leaves_nothing_when_it_fails(oci: Oci) -> None:
    oci.write("sleep", "1000")
    os.symlink(f"{oci.bundle}/precious", f"{oci.bundle}/.pid.cycontainer")
    with open(f"{oci.bundle}/.pid", "w") as file:
        file.write("another's")
    oci.leaving("run", "-d", "--pid-file", "pid", "one")
    assert not os.path.exists(f"{oci.bundle}/precious") and not os.path.islink(f"{oci.bundle}/pid")
    with open(f"{oci.bundle}/.pid") as file:
        assert file.read() == "another's"
    os.mkdir(f"{oci.bundle}/dir")
    assert oci("create", "--pid-file", "dir", "two").returncode == 1
    assert not os.path.exists(f"{oci.bundle}/.dir.cycontainer")


def test_create_fails_already_when_there_is_no_such_program(oci: Oci) -> None:
    oci.write("no-such-program")
    done = oci("create", "one")
    assert done.returncode == 1
    assert 'exec: "no-such-program": executable file not found in $PATH' in done.stderr
    assert os.listdir(oci.states) == []


def test_a_config_by_another_name_and_a_bundle_by_a_relative_path(oci: Oci, tmp_path: Path) -> None:
    with open(tmp_path / "other.json", "w") as file:
        json.dump(oci.config("echo", "other"), file)
    assert oci.done("run", "--config", "../other.json", "one") == "other\n"
    assert oci.done("run", "one", "-b", "bundle", "-f=other.json", cwd=str(tmp_path)) == "other\n"


# --- kill and delete


@pytest.mark.parametrize("name", ["TERM", "SIGTERM", "term", "15", "", None])
def test_a_signal_is_named_in_every_way(oci: Oci, name: str | None) -> None:
    oci.write("sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done")
    command = [*COMMAND, "--root", oci.states, "run", "one"]
    with subprocess.Popen(command, cwd=oci.bundle, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stdout.readline() == b"ready\n"
        oci.done("kill", "one", *([] if name is None else [name]))
        assert running.wait(20) == 3


def test_a_signal_to_the_command_reaches_the_program(oci: Oci) -> None:
    oci.write("sh", "-c", "trap 'exit 4' USR1; echo ready; while :; do sleep 0.01; done")
    command = [*COMMAND, "--root", oci.states, "run", "one"]
    with subprocess.Popen(command, cwd=oci.bundle, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stdout.readline() == b"ready\n"
        running.send_signal(10)
        assert running.wait(20) == 4


def test_kill_all_reaches_every_process_and_is_no_error_when_it_has_stopped(oci: Oci) -> None:
    first = oci.start()
    oci.leaving("exec", "--detach", "--pid-file", "pid", "one", "sleep", "1000")
    with open(f"{oci.bundle}/pid") as file:
        second = os.pidfd_open(int(file.read()))
    oci.done("kill", "--all", "one", "USR1")
    gone(second)
    oci.end(first)
    done = oci("kill", "one", "TERM")
    assert done.returncode == 1 and "container not running" in done.stderr
    oci.done("kill", "--all", "one", "TERM")


def test_delete_refuses_what_runs_and_takes_it_by_force(oci: Oci) -> None:
    oci.start()
    done = oci("delete", "one")
    assert done.returncode == 1 and "cannot delete container that is not stopped: running" in done.stderr
    oci.done("delete", "--force", "one")
    oci.done("delete", "--force", "one")
    assert oci("delete", "one").returncode == 1


def test_delete_takes_a_created_one_and_all_that_match(oci: Oci) -> None:
    oci.create()
    oci.done("delete", "one")
    for name in ("web-1", "web-2", "db"):
        oci.create(name)
    oci.done("delete", "--regex", "^web-")
    assert oci.done("list", "-q") == "db\n"
    assert oci("delete", "-r", "(").returncode == 1


def test_a_program_of_our_own_name_that_ends_at_once_has_been_started(oci: Oci) -> None:
    """As one that runs containers in a container. Whether it is still the init, the name tells."""
    config = oci.config("/tmp/cycontainer")  # a busybox that has no such applet: it returns 127
    os.mkdir(f"{oci.bundle}/tmp")
    shutil.copy(f"{oci.rootfs}/bin/busybox", f"{oci.bundle}/tmp/cycontainer")
    config["mounts"].append({"destination": "/tmp", "type": "bind", "source": f"{oci.bundle}/tmp", "options": ["bind"]})
    oci.write(config=config)
    for _ in range(10):
        assert oci("run", "one").returncode == 127
        oci.leaving("create", "one")
        oci.done("start", "one")
        oci.done("delete", "--force", "one")
    config["process"]["args"] = ["sleep", "1000"]
    oci.write(config=config)
    oci.start()
    for _ in range(20):
        assert oci("exec", "one", "/tmp/cycontainer").returncode == 127


# --- exec


def test_exec_returns_the_programs_status_and_255_for_failures_of_ours(oci: Oci) -> None:
    oci.start()
    assert oci("exec", "one", "sh", "-c", "exit 42").returncode == 42
    assert oci("exec", "one", "sh", "-c", "kill -9 $$").returncode == 128 + 9
    for words in (
        ("one", "no-such-program"),
        ("no-such-container", "true"),
        ("--pid-file", "/no/such/directory/pid", "one", "true"),
        ("--cwd", "tmp", "one", "true"),
        ("--user", "root", "one", "true"),
        ("--frob", "one", "true"),
        ("one",),
    ):
        done = oci("exec", *words)
        assert done.returncode == 255 and done.stderr.startswith("cycontainer: exec failed: "), words


def test_after_execs_id_the_words_are_the_programs(oci: Oci) -> None:
    oci.start()
    assert oci.done("exec", "one", "echo", "--env", "a=b", "-d", "--") == "--env a=b -d --\n"
    assert oci.done("exec", "--", "one", "echo", "-x") == "-x\n"


def test_execs_options_change_the_process(oci: Oci) -> None:
    oci.start()
    environment = oci.done("exec", "-e", "A=1", "--env", "B=2", "--env=A=3", "one", "env").split()
    assert {"PATH=/bin", "A=3", "B=2"} <= set(environment) and "A=1" not in environment
    assert oci.done("exec", "--cwd", "/tmp", "one", "pwd") == "/tmp\n"
    assert oci.done("exec", "--user", "5:6", "-g", "7", "-g=8", "one", "id").startswith("uid=5 gid=6 groups=")
    groups = oci.done("exec", "--user", "5:6", "-g", "7", "-g=8", "one", "id", "-G").split()
    assert {"7", "8"} <= set(groups)
    assert oci.done("exec", "-u", "5", "one", "sh", "-c", "id -u; id -g") == "5\n0\n"


def status_of(oci: Oci, *options: str) -> dict[str, str]:
    lines = oci.done("exec", *options, "one", "cat", "/proc/self/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_exec_is_confined_as_the_container_is(oci: Oci) -> None:
    oci.start()
    with open(f"/proc/{oci.pid()}/status") as file:
        own = {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"):
        assert status_of(oci)[name] == own[name], name


def test_a_capability_for_one_process_is_not_inheritable(oci: Oci) -> None:
    oci.start()
    before, after = status_of(oci), status_of(oci, "--cap", "CAP_NET_ADMIN")
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(after[name], 16) == int(before[name], 16) | 1 << 12
    assert after["CapInh"] == before["CapInh"]  # CVE-2022-29162


def test_a_capability_that_there_is_not_is_a_warning(oci: Oci) -> None:
    oci.start()
    done = oci("exec", "--cap", "CAP_FROB", "one", "true")
    assert (done.returncode, done.stderr) == (0, "cycontainer: warning: --cap: unknown capability CAP_FROB\n")


def test_where_the_hosts_root_is_only_covered_nobody_gets_what_could_uncover_it(oci: Oci, tmp_path: Path) -> None:
    config, line = oci.config("sleep", "1000"), [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"].update(uidMappings=line, gidMappings=line)
    oci.write(config=config)
    oci.leaving("create", "--no-pivot", "one")
    oci.done("start", "one")
    process = {"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}}
    with open(tmp_path / "process.json", "w") as file:  # the bounding set: what a file's capabilities could give
        json.dump({**process, "capabilities": {"bounding": ["CAP_SYS_ADMIN"]}}, file)
    for words in (("--cap", "CAP_SYS_ADMIN", "one", "true"), ("--process", f"{tmp_path}/process.json", "one")):
        done = oci("exec", *words)
        assert done.returncode == 255 and "CAP_SYS_ADMIN could uncover the host's root" in done.stderr
    oci.done("exec", "--cap", "CAP_SYS_PTRACE", "--cap", "CAP_SYS_CHROOT", "one", "true")
    assert oci.state()["status"] == "running"  # that is told by the compiled command, which reads the same state


def test_no_new_privileges_for_one_process(oci: Oci) -> None:
    oci.write("sleep", "1000", noNewPrivileges=False)
    oci.start()
    assert status_of(oci)["NoNewPrivs"] == "0"
    assert status_of(oci, "--no-new-privs")["NoNewPrivs"] == "1"


def test_a_process_file_says_what_it_says_and_the_rest_is_the_containers(oci: Oci, tmp_path: Path) -> None:
    oci.start()
    process = {"args": ["sh", "-c", "echo $X; pwd; id -u; cat /proc/self/status"], "cwd": "/tmp", "user": {"uid": 9}}
    with open(tmp_path / "process.json", "w") as file:
        json.dump({**process, "env": ["PATH=/bin", "X=1"]}, file)
    own = status_of(oci, "--user", "9:0")
    lines = oci.done("exec", "--process", f"{tmp_path}/process.json", "one").splitlines()
    assert lines[:3] == ["1", "/tmp", "9"]
    found = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    for name in ("CapBnd", "CapEff", "NoNewPrivs", "Seccomp"):
        assert found[name] == own[name], name


def test_exec_returns_at_once_when_detached(oci: Oci) -> None:
    oci.start()
    oci.leaving("exec", "--detach", "--pid-file", "pid", "one", "sleep", "1000")
    with open(f"{oci.bundle}/pid") as file:
        pid = int(file.read())
    with open(f"/proc/{pid}/cmdline") as file:
        assert file.read() == "sleep\x001000\x00"


def test_descriptors_are_passed_on(oci: Oci) -> None:
    oci.start()
    script = f'exec "$0" --root {oci.states} exec --preserve-fds "$@" 3>&1'
    words = ["one", "sh", "-c", "echo through >&3"]
    done = subprocess.run(["sh", "-c", script, COMMAND[0], "1", *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "through\n", "")
    done = subprocess.run(["sh", "-c", script, COMMAND[0], "5", *words], capture_output=True, text=True)
    assert done.returncode == 255 and "descriptor 4 is not open" in done.stderr


# --- the other ways in


def test_every_verb_has_help(oci: Oci) -> None:
    for verb in VERBS:
        for words in ((verb, "--help"), (verb, "-h")):
            done = oci(*words)
            assert done.returncode == 0 and done.stdout.startswith(f"usage: cycontainer {verb}"), words
    assert oci("--help").returncode == 0 and "verbs:" in oci("-h").stdout
    assert oci().returncode == 1


def test_the_version_names_the_commit_and_the_specification(oci: Oci) -> None:
    for option in ("--version", "-v"):
        lines = oci.done(option).splitlines()
        assert re.fullmatch(r"cycontainer version \d+\.\d+\.\d+", lines[0])
        assert lines[1].startswith("commit: ") and re.fullmatch(r"spec: \d+\.\d+\.\d+", lines[2])


@pytest.mark.parametrize(
    "command", [[sys.executable, "-m", "cycontainer"], [os.path.join(os.path.dirname(sys.executable), "cycontainer")]]
)
def test_the_module_and_the_installed_command_are_the_same(command: list[str]) -> None:
    if not os.path.exists(command[0]):
        decline("cycontainer is not installed in this environment")
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("cycontainer version")


def test_an_empty_environment_closed_streams_and_a_deleted_directory(oci: Oci, tmp_path: Path) -> None:
    oci.start()
    script = f"""mkdir {tmp_path}/gone && cd {tmp_path}/gone && rmdir {tmp_path}/gone && exec 0<&- 1>&- 2>&-
    exec env -i "$0" --root {oci.states} "$@" """
    for words in (["state", "one"], ["exec", "one", "true"], ["kill", "one", "0"], ["delete", "--force", "one"]):
        assert subprocess.run(["sh", "-c", script, COMMAND[0], *words]).returncode == 0, words
    assert os.listdir(oci.states) == []


def test_a_container_of_closed_streams_has_none_of_our_descriptors(oci: Oci) -> None:
    script = f'exec 0<&- 1>&- 2>&-; exec "$0" --root {oci.states} "$@"'
    words = ["run", "--bundle", oci.bundle, "--detach", "one"]
    assert subprocess.run(["sh", "-c", script, COMMAND[0], *words]).returncode == 0
    directory = f"/proc/{oci.pid()}/fd"
    assert {name: os.readlink(f"{directory}/{name}") for name in os.listdir(directory)} == dict.fromkeys(
        "012", "/dev/null"
    )


# --- list


def test_list_prints_a_table_or_json(oci: Oci) -> None:
    assert oci("list").returncode == 1  # a root that was given, and is not there
    oci.create("two")
    pid = oci.start("one")
    lines = oci.done("list").splitlines()
    assert lines[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert lines[1].split()[:4] == ["one", str(pid), "running", oci.bundle]
    assert lines[2].split()[2] == "created"
    assert [each["id"] for each in json.loads(oci.done("list", "--format", "json"))] == ["one", "two"]
    assert oci.done("list", "--quiet") == "one\ntwo\n"
    assert oci("list", "--format", "yaml").returncode == 1


def test_a_damaged_one_does_not_hide_the_others(oci: Oci) -> None:
    oci.create("one")
    oci.create("two")
    with open(f"{oci.states}/one/state", "r+") as file:
        saved = file.read()
        file.seek(0)
        file.write("x")
    done = oci("list")
    assert done.returncode == 0 and "the state file is damaged: one" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ID", "two"]
    with open(f"{oci.states}/one/state", "w") as file:
        file.write(saved)
