"""Hooks of all kinds: where they run, in which order, what they are told, and what their failure does."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from oci_command import Oci
from test_lifecycle import config_of

from cycontainer.errors import HookError
from cycontainer.lifecycle import Container
from cycontainer.streams import DEVNULL, PIPE

pytestmark = pytest.mark.root

SHELL = "/bin/busybox"
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def hook(script: str, **more: object) -> dict[str, object]:
    return {"path": SHELL, "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin", "MARK=mine"], **more}


def share(config: dict[str, object], directory: Path) -> None:
    """Have a directory of the host in the container, under the same path."""
    mounts = config["mounts"]
    assert isinstance(mounts, list)
    bind = {"destination": str(directory), "type": "bind", "source": str(directory), "options": ["rbind"]}
    mounts.append(bind)


def started(root: str, config: dict[str, object], bundle: str = "/") -> Container:
    container = Container.create("one", config, root=root, bundle=bundle, stdin=DEVNULL)
    container.start()
    return container


def test_they_run_in_order_with_the_state_on_their_input(own_rootfs: str, tmp_path: Path) -> None:
    """The image has its own busybox at the same path, and a directory of the host to write to."""
    script = 'read x; echo "$0 $MARK $(readlink /proc/self/ns/mnt) $x" >> {out}/seen'
    os.chmod(tmp_path, 0o777)
    config = config_of(own_rootfs, "sleep", "100")
    share(config, tmp_path)
    config["hooks"] = {
        kind: [{**hook(script.format(out=tmp_path)), "args": ["sh", "-c", script.format(out=tmp_path), kind]}]
        for kind in KINDS
    }
    config["annotations"] = {"a": "b c"}
    with started(f"{tmp_path}/states", config) as container:
        pid = container.pid
    lines = (tmp_path / "seen").read_text().splitlines()
    words = [line.split(" ", 3) for line in lines]
    assert [word[0] for word in words] == list(KINDS)
    assert {word[1] for word in words} == {"mine"}
    host, inside = words[0][2], words[2][2]
    assert [word[2] for word in words] == [host, host, inside, inside, host, host] and host != inside
    states = [json.loads(word[3]) for word in words]
    assert [state["status"] for state in states] == [
        "creating",
        "creating",
        "creating",
        "created",
        "running",
        "stopped",
    ]
    assert [state.get("pid") for state in states] == [pid] * 5 + [None]
    assert all(state["id"] == "one" and state["annotations"] == {"a": "b c"} for state in states)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_failure_while_it_is_created_undoes_all_and_runs_poststop(
    busybox_rootfs: str, tmp_path: Path, kind: str
) -> None:
    config = config_of(busybox_rootfs, "sleep", "100")
    config["hooks"] = {
        kind: [hook("true"), hook("echo because >&2; exit 7")],
        "poststop": [hook(f"echo ended > {tmp_path}/ended")],
    }
    with pytest.raises(HookError) as failure:
        Container.create("one", config, root=f"{tmp_path}/states", stdin=DEVNULL)
    assert (failure.value.kind, failure.value.number, failure.value.output) == (kind, 1, "because\n")
    assert str(failure.value) == f"error running {kind} hook #1: exit status 7, stderr: because"
    assert os.listdir(f"{tmp_path}/states") == []
    assert (tmp_path / "ended").exists()


@pytest.mark.parametrize("kind", ["startContainer", "poststart"])
def test_a_failure_at_the_start_ends_it(busybox_rootfs: str, tmp_path: Path, kind: str) -> None:
    config = config_of(busybox_rootfs, "sleep", "100")
    config["hooks"] = {kind: [hook("exit 7")]}
    with Container.create("one", config, root=f"{tmp_path}/states", stdin=DEVNULL) as container:
        with pytest.raises(HookError, match=f"error running {kind} hook #0: exit status 7"):
            container.start()
        assert container.status == "stopped"


def test_a_hook_behind_the_start_runs_to_its_end_behind_a_program_that_is_gone(
    busybox_rootfs: str, tmp_path: Path
) -> None:
    config = config_of(busybox_rootfs, "true")
    config["hooks"] = {"poststart": [hook(f"sleep 0.5; echo > {tmp_path}/ended")]}
    with Container.create("one", config, root=f"{tmp_path}/states", stdin=DEVNULL) as container:
        container.start()
        assert (tmp_path / "ended").exists() and container.wait(20) == 0


def test_of_the_hooks_after_the_end_all_are_run_and_a_failure_is_told(busybox_rootfs: str, tmp_path: Path) -> None:
    config = config_of(busybox_rootfs, "true")
    config["hooks"] = {"poststop": [hook("exit 7"), hook("exit 8"), hook(f"echo ended > {tmp_path}/ended")]}
    container = started(f"{tmp_path}/states", config)
    assert container.wait(20.0) == 0
    told: list[str] = []
    container.delete(warn=told.append)
    assert told == [f"error running poststop hook #{number}: exit status {7 + number}" for number in (0, 1)]
    assert (tmp_path / "ended").exists()
    assert os.listdir(f"{tmp_path}/states") == []


def test_without_its_configuration_a_container_is_deleted_all_the_same(busybox_rootfs: str, tmp_path: Path) -> None:
    config = config_of(busybox_rootfs, "true")
    config["hooks"] = {"poststop": [hook("exit 7")]}
    container = started(f"{tmp_path}/states", config)
    os.unlink(f"{tmp_path}/states/one/config.json")
    told: list[str] = []
    container.delete(force=True, warn=told.append)
    assert len(told) == 1 and told[0].startswith("its poststop hooks are not known")
    assert os.listdir(f"{tmp_path}/states") == []


def test_a_failing_poststop_hook_is_a_line_in_the_log(oci: Oci) -> None:
    config = oci.config("true")
    config["hooks"] = {"poststop": [hook("echo because >&2; exit 7")]}
    oci.write(config=config)
    log = f"{oci.bundle}/log"
    done = oci("--log", log, "--log-format", "json", "run", "one")
    assert (done.returncode, done.stderr) == (0, "")
    with open(log) as file:
        entry = json.loads(file.read())
    said = "error running poststop hook #0: exit status 7, stderr: because"
    assert (entry["level"], entry["msg"]) == ("warning", said)


def test_a_hook_that_takes_too_long_is_killed_with_what_it_started(busybox_rootfs: str, tmp_path: Path) -> None:
    config = config_of(busybox_rootfs, "true")
    config["hooks"] = {"createRuntime": [hook("sleep 100 & sleep 100", timeout=1)]}
    before = time.monotonic()
    with pytest.raises(HookError, match="took longer than its timeout, 1 seconds"):
        Container.create("one", config, root=f"{tmp_path}/states", stdin=DEVNULL)
    assert time.monotonic() - before < 10


def test_a_missing_hook_is_told(busybox_rootfs: str, tmp_path: Path) -> None:
    config = config_of(busybox_rootfs, "true")
    config["hooks"] = {"createRuntime": [{"path": "/no/such/hook"}]}
    with pytest.raises(HookError, match="hook #0: look up the program /no/such/hook: ENOENT"):
        Container.create("one", config, root=f"{tmp_path}/states", stdin=DEVNULL)


def test_the_container_s_mounts_are_there_for_a_create_container_hook(busybox_rootfs: str, tmp_path: Path) -> None:
    config = config_of(busybox_rootfs, "sleep", "100")
    script = f"pwd > {tmp_path}/where; grep -c ' {busybox_rootfs}/dev/shm ' /proc/self/mounts >> {tmp_path}/where"
    config["hooks"] = {"createContainer": [hook(script)]}
    with started(f"{tmp_path}/states", config):
        assert (tmp_path / "where").read_text().split() == [busybox_rootfs, "1"]


def test_a_prestart_hook_sees_to_the_containers_network(busybox_rootfs: str, tmp_path: Path) -> None:
    """As Docker's does (libnetwork-setkey): from the host, by the pid in the state, before the program is there."""
    config = config_of(busybox_rootfs, "cat", "/sys/class/net/lo/mtu")
    own = 'read x; pid=$(echo "$x" | sed "s/.*\\"pid\\": *\\([0-9]*\\).*/\\1/")'
    config["hooks"] = {"prestart": [hook(f"{own}; busybox nsenter -t $pid -n busybox ip link set lo mtu 1234")]}
    with Container.create("one", config, root=f"{tmp_path}/states", stdin=DEVNULL, stdout=PIPE) as container:
        container.start()
        assert container.process is not None
        assert container.process.communicate()[0] == b"1234\n"


def test_a_hook_inside_has_no_more_than_the_program(own_rootfs: str, tmp_path: Path) -> None:
    """Its program comes from the image, which is not to be trusted."""
    script = f"grep -E 'Cap(Eff|Bnd)|NoNewPrivs|Seccomp:' /proc/self/status > {tmp_path}/seen"
    script += f"; ls /proc/self/fd >> {tmp_path}/seen"
    config = config_of(own_rootfs, "sleep", "100")
    share(config, tmp_path)
    config["hooks"] = {"startContainer": [hook(script)]}
    with started(f"{tmp_path}/states", config) as container:
        lines = (tmp_path / "seen").read_text().splitlines()
        with open(f"/proc/{container.pid}/status") as status:
            own = [line.strip() for line in status if line.startswith(("CapEff", "CapBnd", "NoNewPrivs", "Seccomp:"))]
        assert [line for line in lines if ":" in line] == own
        assert [line for line in lines if ":" not in line] == ["0", "1", "2", "3"]
