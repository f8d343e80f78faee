"""The texts that engines and scripts match: each is brought about, and looked for in what the command says."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_cgroup import needs_v2_alone
from oci_command import COMMAND, Done, Oci

from cycontainer.cli.texts import message_of
from cycontainer.errors import CgroupError, CriuError, Error
from cycontainer.host import current

pytestmark = pytest.mark.root

Change = Callable[[dict[str, Any]], object]


def process(**values: Any) -> Change:
    return lambda config: config["process"].update(values)


def linux(**values: Any) -> Change:
    return lambda config: config["linux"].update(values)


def mount(**values: Any) -> Change:
    return lambda config: config["mounts"].append(values)


def hook(script: str) -> Change:
    path = {"path": "/bin/sh", "args": ["sh", "-c", script]}
    return lambda config: config.update(hooks={"createRuntime": [path]})


def seccomp(*names: str) -> dict[str, Any]:
    rule = {"names": list(names), "action": "SCMP_ACT_NOTIFY"}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule], "listenerPath": "/no/such/socket"}


DEADLINE = {"policy": "SCHED_DEADLINE", "runtime": 20_000_000, "deadline": 50_000_000, "period": 100_000_000}

TEXTS: list[tuple[str, Change]] = [  # what is said: what the configuration has
    ('exec: "no-such": executable file not found in $PATH', process(args=["no-such"])),
    ("/no/such: no such file or directory", process(args=["/no/such"])),
    ('exec: "/etc/passwd": permission denied', process(args=["/etc/passwd"])),
    ("exec /tmp/run.sh: no such file or directory", process(args=["/tmp/run.sh"])),
    ("exec /tmp/none: exec format error", process(args=["/tmp/none"])),
    ("invalid configuration: process.args", process(args=[])),
    ("invalid configuration: linux.namespaces", linux(namespaces=[{"type": "frob"}])),
    ("error running createRuntime hook #0: exit status 3, stderr: oops", hook("echo oops >&2; exit 3")),
    ("bad system call", hook("kill -SYS $$")),
    ("error mounting", mount(destination="/mnt", type="bind", source="/no/such", options=["bind"])),
    ("no such device", mount(destination="/mnt", type="nosuchfs", source="x")),
    ("not a directory", mount(destination="/etc/passwd/x", type="tmpfs", source="tmpfs")),
    ("invalid memory policy mode", linux(memoryPolicy={"mode": "MPOL_FROB"})),
    ("invalid memory policy flag", linux(memoryPolicy={"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_FROB"]})),
    ("invalid memory policy node", linux(memoryPolicy={"mode": "MPOL_BIND", "nodes": "99999"})),
    ("SCMP_ACT_NOTIFY cannot be used for the write syscall", linux(seccomp=seccomp("write"))),
    ("failed to connect with seccomp agent", linux(seccomp=seccomp("mkdir"))),
    ("unable to apply cgroup configuration: write '4000' to /", linux(resources={"cpu": {"cpus": "4000"}})),
    ("/cpuset.cpus: numerical result out of range; there is no such", linux(resources={"cpu": {"cpus": "4000"}})),
    (
        "process scheduler can't be used together with AllowedCPUs",
        lambda config: (linux(resources={"cpu": {"cpus": "0"}})(config), process(scheduler=DEADLINE)(config)),
    ),
]


@pytest.mark.cgroups
@pytest.mark.parametrize(("text", "change"), TEXTS, ids=[text for text, _ in TEXTS])
def test_a_failure_has_runcs_text_and_leaves_nothing(oci: Oci, text: str, change: Change) -> None:
    os.mkdir(f"{oci.bundle}/tmp")
    for name, content in (("run.sh", "#!/no/such/interpreter\n"), ("none", "none\n")):
        with open(f"{oci.bundle}/tmp/{name}", "w") as file:
            file.write(content)
        os.chmod(f"{oci.bundle}/tmp/{name}", 0o755)
    config = oci.config("true")
    mount(destination="/tmp", type="bind", source=f"{oci.bundle}/tmp", options=["bind"])(config)
    change(config)
    oci.write(config=config)
    done = oci("run", "one")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cycontainer: run failed: ") and text in done.stderr
    assert done.stderr.count("\n") == 1
    assert not os.path.exists(oci.states) or os.listdir(oci.states) == []


def test_an_ambient_capability_that_cannot_be_raised_is_a_warning(oci: Oci) -> None:
    sets = {name: ["CAP_KILL"] for name in ("ambient", "bounding", "permitted", "effective")}
    oci.write("true", capabilities=sets)
    done = oci("run", "one")
    assert done.returncode == 0 and "can't raise ambient capability CAP_KILL: " in done.stderr


@pytest.mark.parametrize("text", ["{", '{"a"', '{"a":1,}', '["a', "[1,", "nul", '"\\u12"', "{}{}", ""])
def test_what_is_no_json_is_told_in_one_line(oci: Oci, text: str) -> None:
    with open(f"{oci.bundle}/config.json", "w") as file:
        file.write(text)
    done = oci("run", "one")
    assert done.returncode == 1 and done.stderr.startswith("cycontainer: run failed: invalid configuration: ")
    assert done.stderr.count("\n") == 1


def test_proc_is_mounted_on_an_ordinary_directory(oci: Oci, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("bin", "tmp", "dev", "sys"):
        (root / name).mkdir(parents=True)
    os.symlink("/tmp", root / "proc")
    config = oci.config("true")
    config["root"]["path"] = str(root)
    oci.write(config=config)
    done = oci("run", "one")
    assert done.returncode == 1 and "/proc must be mounted on ordinary directory" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["create", "--bundle", "/no/such", "one"],
        ["create", "--config", "/no/such", "one"],
        ["create", "--pid-file", "/no/such/file", "one"],
        ["spec", "--bundle", "/no/such"],
        ["update", "--resources", "/no/such", "one"],
        ["list"],
    ],
    ids=" ".join,
)
def test_what_is_not_there_is_told_as_engines_match_it(oci: Oci, words: list[str]) -> None:
    done = oci(*words)
    assert done.returncode == 1 and "no such file or directory" in done.stderr


# --- containers that are not what a verb needs


def failing(oci: Oci, *words: str, **keywords: Any) -> str:
    done = oci(*words, **keywords)
    assert done.returncode in (1, 255), (words, done)
    return done.stderr


def test_containers_that_are_not_there_or_there_already(oci: Oci) -> None:
    for words in (["start"], ["kill"], ["delete"], ["state"], ["pause"], ["resume"], ["ps"], ["exec"], ["events"]):
        more = ["true"] if words == ["exec"] else []
        assert "container does not exist: one\n" in failing(oci, *words, "one", *more)
    oci.create()
    assert "container with given ID already exists: one" in failing(oci, "create", "one")
    assert oci.state()["status"] == "created"


def test_containers_in_the_wrong_state(oci: Oci) -> None:
    pid = oci.start()
    assert "cannot start a container in the running state" in failing(oci, "start", "one")
    oci.end(pid)
    assert "container not running" in failing(oci, "kill", "one")
    assert "container not running" in failing(oci, "exec", "one", "true")
    assert "cannot start a container in the stopped state" in failing(oci, "start", "one")


@pytest.mark.parametrize(
    "container_id", ["", "..", ".", "a/b", "../one", "/", "a b", "a\nb", "ä", "x" * 2000, "a\x1b[31m", "\udcff"]
)
def test_ids_that_could_be_paths_or_worse_are_refused(oci: Oci, container_id: str) -> None:
    for words in (["create"], ["state"], ["delete", "--force"]):
        done = oci(*words, "--", container_id)
        assert done.returncode == 1 and "invalid container ID format" in done.stderr
        assert "\x1b" not in done.stderr and done.stderr.count("\n") == 1


def mount_of(controller: str) -> str:
    """Where it is: v1's hierarchy, or the one of v2."""
    layout = current().cgroups
    return next(
        (each.mount for each in layout.all if controller in each.controllers), layout.v2.mount if layout.v2 else ""
    )


@pytest.mark.cgroups
def test_cgroups_that_are_in_use_or_frozen(oci: Oci) -> None:
    config = oci.config("true")
    config["linux"]["cgroupsPath"] = "/cycontainer-taken"
    oci.write(config=config)
    freezer, taken = f"{mount_of('freezer')}/cycontainer-taken", f"{mount_of('pids')}/cycontainer-taken"
    os.mkdir(freezer)  # empty: it is taken over, and removed
    file, frozen = ("cgroup.freeze", "1") if current().cgroups.mode == "v2" else ("freezer.state", "FROZEN")
    Path(freezer, file).write_text(frozen)
    assert "container's cgroup unexpectedly frozen" in failing(oci, "run", "one")
    os.mkdir(taken)
    with subprocess.Popen(["sleep", "100"]) as other:
        Path(taken, "cgroup.procs").write_text(str(other.pid))
        assert "container's cgroup is not empty" in failing(oci, "run", "one")
        other.kill()
    os.rmdir(taken)


@pytest.mark.cgroup1
def test_sub_cgroups_of_exec_in_each_hierarchy(oci: Oci) -> None:
    oci.start()
    os.mkdir(f"{mount_of('pids')}/cycontainer/one/below")
    assert "unknown controller frob" in failing(oci, "exec", "--cgroup", "frob:below", "one", "true")
    for path in ("..", "../..", "below/../..", "pids:../one"):
        assert "bad sub cgroup path" in failing(oci, "exec", "--cgroup", path, "one", "true")
    assert "no such file or directory" in failing(oci, "exec", "--cgroup", "pids:none", "one", "true")
    lines = oci.done("exec", "--cgroup", "pids:below", "one", "cat", "/proc/self/cgroup").splitlines()
    assert [line for line in lines if line.endswith("/below") and ":pids:" in line]


@pytest.mark.cgroup2
@needs_v2_alone
def test_a_sub_cgroup_of_exec(oci: Oci) -> None:
    oci.start()
    os.mkdir(f"{mount_of('pids')}/cycontainer/one/below")
    assert "unknown controller frob" in failing(oci, "exec", "--cgroup", "frob:below", "one", "true")
    for path in ("..", "../..", "below/../.."):
        assert "bad sub cgroup path" in failing(oci, "exec", "--cgroup", path, "one", "true")
    assert "no such file or directory" in failing(oci, "exec", "--cgroup", "none", "one", "true")
    assert oci.done("exec", "--cgroup", "below", "one", "cat", "/proc/self/cgroup") == "0::/below\n"


# --- the log


def test_the_log_has_a_json_object_a_line(oci: Oci, tmp_path: Path) -> None:
    log = f"{tmp_path}/log"
    oci.write("true", capabilities={"ambient": ["CAP_KILL"]})
    for words in (["run", "one"], ["state", "two"]):
        for path in (log, f"file:{log}"):
            oci("--log", path, "--log-format", "json", *words)
    with open(log) as file:
        entries = [json.loads(line) for line in file]
    assert [entry["level"] for entry in entries] == ["warning"] * 2 + ["error"] * 2
    assert all(set(entry) == {"level", "msg", "time"} for entry in entries)
    assert entries[-1]["msg"] == "container does not exist: two"


def test_the_log_as_text_and_the_last_error_on_stderr_as_well(oci: Oci, tmp_path: Path) -> None:
    done = oci("--log", f"{tmp_path}/log", "state", "two")
    assert done.stderr == "cycontainer: container does not exist: two\n"
    with open(f"{tmp_path}/log") as file:
        time, level, message = file.read().strip().split(" ", 2)
    assert time.startswith('time="') and level == "level=error" and message == 'msg="container does not exist: two"'


@pytest.mark.parametrize("words", [["state", "two"], ["frob"]], ids=["compiled", "python"])
def test_a_log_that_nobody_reads_is_not_waited_for(oci: Oci, tmp_path: Path, words: list[str]) -> None:
    os.mkfifo(tmp_path / "log")
    done = oci("--log", f"{tmp_path}/log", *words)
    assert done.returncode == 1 and "--log" in done.stderr


def test_a_root_directory_that_cannot_be_one_is_told(oci: Oci, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root, text in ((f"{tmp_path}/file", "file: file exists"), ("/x" * 1500, "longer than 1024 letters")):
        done = oci("--root", root, "create", "one")
        assert done.returncode == 1 and text in done.stderr


def test_debug_says_more_and_an_unusable_log_is_told(oci: Oci) -> None:
    assert "level=debug" in oci("--debug", "list", "-q").stderr
    done = oci("--log", "/no/such/log", "state", "two")
    assert done.returncode == 1 and "--log /no/such/log: No such file or directory" in done.stderr


# --- words that are off

WRONG: list[list[str]] = [
    ["frob"],
    ["--frob"],
    ["--root"],
    ["--log-format", "xml", "list"],
    ["--rootless", "perhaps", "list"],
    ["--cgroup-manager", "frob", "list"],
    ["create"],
    ["create", "one", "two"],
    ["create", "--bundle"],
    ["create", "--frob", "one"],
    ["create", "--preserve-fds", "x", "one"],
    ["create", "--preserve-fds", "-1", "one"],
    ["create", "--bundle", "/no/such", "one"],
    ["create", "--bundle", "/dev/null", "one"],
    ["create", "--config", "/dev/zero", "one"],
    ["create", "--no-pivot=perhaps", "one"],
    ["start"],
    ["kill", "one", "FROB"],
    ["kill", "one", "99"],
    ["kill", "one", "-1"],
    ["kill", "one", "9", "9"],
    ["delete"],
    ["state", "one", "two"],
    ["list", "one"],
    ["list", "--format"],
    ["restore", "--lsm-mount-context"],
    ["update", "--memory"],
    ["events", "--interval", "one"],
]


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_wrong_words_are_one_line_and_no_traceback(oci: Oci, words: list[str]) -> None:
    done = oci(*words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cycontainer: ") and done.stderr.count("\n") == 1
    assert "defect" not in done.stderr


def test_engines_probe_by_wrong_words(oci: Oci) -> None:
    assert "flag needs an argument" in oci("restore", "--lsm-mount-context").stderr
    assert oci("checkpoint", "--help").returncode == 0


def test_options_of_two_kinds_of_truth(oci: Oci) -> None:
    oci.write("true")
    oci.done(
        "--systemd-cgroup=false", "--debug=false", "run", "--detach=false", "--no-pivot=false", "--keep=false", "one"
    )
    assert os.listdir(oci.states) == []


# --- two at once


def test_of_two_creations_at_once_one_wins(oci: Oci) -> None:
    results: list[Done] = []

    def create() -> None:
        log = f"{oci.bundle}/log-{threading.get_ident()}"
        command = [*COMMAND, "--root", oci.states, "--log", log, "create", "--bundle", oci.bundle, "one"]
        null = subprocess.DEVNULL
        done = subprocess.run(command, stdin=null, stdout=null, stderr=null)
        with open(log) if done.returncode else open(os.devnull) as file:
            results.append(Done([], done.returncode, "", file.read()))

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done.returncode for done in results) == [0, 1, 1, 1]
    assert all("already exists" in done.stderr for done in results if done.returncode)
    assert oci.state()["status"] == "created"


def test_of_two_starts_at_once_one_fails(oci: Oci) -> None:
    oci.create()
    command = [*COMMAND, "--root", oci.states, "start", "one"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=20)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    assert b"cannot start a container in the running state" in b"".join(said)


# --- translation alone


def test_texts_that_this_machine_cannot_bring_about() -> None:
    busy = CgroupError("/sys/fs/cgroup/x/memory.current", 16, "5")
    assert message_of("update", busy).startswith("rejecting memory limit")
    error = Error("a")
    error.add_note("could not b\x1b")
    assert message_of("delete", error) == "a; could not b\\x1b"
    assert message_of("state", CriuError("dump", "EIO", lines=("12: x",))) == "criu dump: EIO\n  12: x"
    assert message_of("list", FileNotFoundError(2, "No such file", "/r")) == "/r: no such file or directory"
