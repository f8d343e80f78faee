"""The configuration that `cycontainer spec` writes works as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ordinary import OrdinaryUser

from cycontainer.config import IdMap
from cycontainer.read_config import parse, read_config
from cycontainer.spec import MASKED_PATHS, READONLY_PATHS, default_config

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def write_bundle(directory: str, rootfs: str, ids: tuple[int, int] | None) -> None:
    config = default_config(ids)
    config["root"]["path"] = rootfs
    config["process"]["args"] = ["sh", "-c", "test -c /dev/null && ! touch /x 2> /dev/null && id -u && hostname"]
    with open(f"{directory}/config.json", "w") as file:
        json.dump(config, file)


@pytest.mark.parametrize("ids", [None, (1000, 1001)])
def test_it_reads_as_it_was_written_and_without_a_warning(ids: tuple[int, int] | None) -> None:
    config = read_config(parse(json.dumps(default_config(ids)).encode()), bundle="/b")
    assert config == read_config(default_config(ids), bundle="/b")
    assert config.warnings == ()
    assert config.process is not None and config.process.no_new_privileges
    assert (config.linux.masked_paths, config.linux.readonly_paths) == (MASKED_PATHS, READONLY_PATHS)


def test_an_ordinary_users_maps_only_itself() -> None:
    config = read_config(default_config((1000, 1001)), bundle="/b")
    assert config.linux.uid_map == (IdMap(container=0, host=1000, size=1),)
    assert config.linux.gid_map == (IdMap(container=0, host=1001, size=1),)
    assert not any("gid=5" in mount.options for mount in config.mounts)
    assert config.linux.resources.devices == ()


def test_each_call_gives_a_configuration_of_its_own() -> None:
    first = default_config()
    first["mounts"][0]["options"].append("ro")
    first["process"]["capabilities"]["bounding"].clear()
    first["linux"]["maskedPaths"].clear()
    assert default_config() != first
    assert default_config() == default_config()


@pytest.mark.root
def test_root_can_run_it(busybox_rootfs: str, tmp_path: Path) -> None:
    write_bundle(str(tmp_path), busybox_rootfs, None)
    command = [sys.executable, "-m", "cycontainer", "--root", f"{tmp_path}/states"]
    command += ["run", "--bundle", str(tmp_path), "test-spec"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\ncycontainer\n", "")


def run_in_process(rootfs: str) -> tuple[int, str]:
    from cycontainer import run

    ids = os.getuid(), os.getgid()
    write_bundle(".", rootfs, ids)
    with open("config.json", "rb") as file:
        config = parse(file.read())
    assert isinstance(config, dict)
    done = run(config["process"]["args"], config=config, text=True, capture_output=True)
    return done.returncode, f"{done.stdout}{done.stderr}"


def test_an_ordinary_user_can_run_its_own(busybox_rootfs: str, ordinary_user: OrdinaryUser) -> None:
    assert ordinary_user(run_in_process, busybox_rootfs) == (0, "0\ncycontainer\n")
