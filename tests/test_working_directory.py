"""A working directory that is not there: made for a container, as runc and crun do; not for a run or an exec."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from launching import document, launched, plan_of, printed
from oci_command import Oci

from cycontainer import Container, LaunchError, Template, run
from cycontainer.host import current
from cycontainer.spec import default_config
from cycontainer.streams import DEVNULL, PIPE

pytestmark = pytest.mark.root

SHOW = "pwd; stat -c '%a %u:%g' ."
NOBODY = {"uid": 65534, "gid": 65534}


@pytest.fixture
def bundle(own_rootfs: str, tmp_path: Path) -> Iterator[Oci]:
    """The command, with a root file system that it may change."""
    command = Oci(str(tmp_path), own_rootfs)
    yield command
    command.clean()


@pytest.fixture
def volume(tmp_path: Path) -> str:
    """A directory of the host's."""
    path = tmp_path / "volume"
    path.mkdir()
    return str(path)


def bind(destination: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": source, "options": ["bind", *options]}


def beginning_in(rootfs: str, cwd: str, *mounts: dict[str, Any], **linux: Any) -> dict[str, Any]:
    config = document(rootfs, SHOW, **linux)
    config["process"]["cwd"] = cwd
    config["mounts"] += mounts
    return config


def seen(config: dict[str, Any]) -> list[str]:
    """What the program says of the directory that it begins in."""
    return printed(plan_of(config, make_cwd=True)).split()


def refused(config: dict[str, Any]) -> int:
    """Why it could not begin there: as if nothing had been tried."""
    with pytest.raises(LaunchError) as failure:
        launched(plan_of(config, make_cwd=True))
    assert failure.value.attempt == f"change to the working directory {config['process']['cwd']}"
    return failure.value.errno


@pytest.mark.parametrize("read_only", [True, False], ids=["read-only root", "root"])
def test_the_command_makes_it(bundle: Oci, read_only: bool) -> None:
    config = bundle.config("sh", "-c", SHOW, cwd="/new/deep", user=NOBODY)
    config["root"]["readonly"] = read_only
    bundle.write(config=config)
    assert bundle.done("run", "one").split() == ["/new/deep", "755", "0:0"]
    assert os.path.isdir(f"{bundle.rootfs}/new/deep")


def test_the_library_makes_it(own_rootfs: str, tmp_path: Path) -> None:
    config = default_config()
    config["root"]["path"] = own_rootfs
    config["process"].update(args=["sh", "-c", SHOW], env=["PATH=/bin"], cwd="/new", terminal=False)
    with Container.create("one", config, root=str(tmp_path / "states"), stdin=DEVNULL, stdout=PIPE) as container:
        container.start()
        assert container.process is not None
        assert container.process.communicate()[0].split() == [b"/new", b"755", b"0:0"]


def test_a_run_and_a_template_do_not(own_rootfs: str) -> None:
    def in_a_template() -> None:
        with Template(rootfs=own_rootfs, cwd="/new") as template:
            template.run(["true"])

    calls: list[Callable[[], object]] = [
        lambda: run(["true"], rootfs=own_rootfs, cwd="/new", read_only=False),
        lambda: run(["true"], config=beginning_in(own_rootfs, "/new")),
        in_a_template,
    ]
    for call in calls:
        with pytest.raises(LaunchError) as failure:
            call()
        assert (failure.value.attempt, failure.value.errno) == ("change to the working directory /new", errno.ENOENT)
    assert not os.path.exists(f"{own_rootfs}/new")


def test_an_exec_does_not(bundle: Oci) -> None:
    bundle.start()
    done = bundle("exec", "--cwd", "/new", "one", "true")
    assert (done.returncode, "/new: no such file or directory" in done.stderr) == (255, True)
    assert not os.path.exists(f"{bundle.rootfs}/new")


@pytest.mark.parametrize("options", [[], ["ro"]], ids=["writable", "read-only"])
def test_it_is_made_in_a_new_file_system(own_rootfs: str, options: list[str]) -> None:
    tmpfs = {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": options}
    assert seen(beginning_in(own_rootfs, "/data/new", tmpfs)) == ["/data/new", "755", "0:0"]
    assert os.listdir(f"{own_rootfs}/data") == []


def test_in_a_user_namespace_its_root_owns_it(own_rootfs: str) -> None:
    subprocess.run(["chown", "-R", "100000:100000", own_rootfs], check=True)
    line = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
    config = beginning_in(own_rootfs, "/new", uidMappings=line, gidMappings=line)
    config["linux"]["namespaces"].append({"type": "user"})
    assert seen(config) == ["/new", "755", "0:0"]
    assert os.stat(f"{own_rootfs}/new").st_uid == 100_000


def test_a_root_that_is_not_the_containers_stays_as_it_is(own_rootfs: str) -> None:
    line = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
    config = beginning_in(own_rootfs, "/new", uidMappings=line, gidMappings=line)
    config["linux"]["namespaces"].append({"type": "user"})
    assert refused(config) == errno.ENOENT
    assert not os.path.exists(f"{own_rootfs}/new")


def test_it_is_made_in_a_volume_that_may_be_written(own_rootfs: str, volume: str) -> None:
    assert seen(beginning_in(own_rootfs, "/data/new", bind("/data", volume))) == ["/data/new", "755", "0:0"]
    assert (os.listdir(volume), os.listdir(f"{own_rootfs}/data")) == (["new"], [])


def test_it_is_not_made_in_a_volume_that_may_not(own_rootfs: str, volume: str) -> None:
    assert refused(beginning_in(own_rootfs, "/data/new", bind("/data", volume, "ro"))) == errno.ENOENT
    assert os.listdir(volume) == []


@pytest.mark.parametrize("cwd", ["/proc/new", "/proc/self/new", "/proc/sys/new", "/sys/new", "/sys/kernel/new"])
def test_nothing_is_made_among_what_is_the_kernels(own_rootfs: str, cwd: str) -> None:
    assert refused(beginning_in(own_rootfs, cwd)) == errno.ENOENT


def test_no_cgroup_is_made_by_it(own_rootfs: str) -> None:
    """Where a directory would be one."""
    hierarchy = current().cgroups.all[0].mount
    made = f"{hierarchy}/not-to-be-made"
    try:
        assert (
            refused(beginning_in(own_rootfs, f"/data/{os.path.basename(made)}", bind("/data", hierarchy)))
            == errno.ENOENT
        )
        assert not os.path.exists(made)
    finally:
        if os.path.exists(made):
            os.rmdir(made)


def test_a_place_among_the_devices_will_do(own_rootfs: str) -> None:
    assert seen(beginning_in(own_rootfs, "/dev/new")) == ["/dev/new", "755", "0:0"]
    assert os.listdir(f"{own_rootfs}/dev") == []


def test_what_is_masked_stays_empty(own_rootfs: str) -> None:
    assert refused(beginning_in(own_rootfs, "/data/new", maskedPaths=["/data"])) == errno.ENOENT


# --- what a hostile image has in its way


@pytest.mark.parametrize(
    "text", ["{outside}", "{outside}/there", "../../../../../../..{outside}", "/missing", "missing"]
)
def test_a_link_leads_to_a_place_in_the_image(own_rootfs: str, volume: str, text: str) -> None:
    text = text.format(outside=volume)
    os.symlink(text, f"{own_rootfs}/link")
    inside = "/" + os.path.normpath(f"/{text}").lstrip("/")
    assert seen(beginning_in(own_rootfs, "/link/new")) == [f"{inside}/new", "755", "0:0"]
    assert os.path.isdir(f"{own_rootfs}{inside}/new") and os.listdir(volume) == []


def test_no_step_back_leads_out(own_rootfs: str) -> None:
    assert seen(beginning_in(own_rootfs, "/data/../../../../../new-place")) == ["/new-place", "755", "0:0"]
    assert os.path.isdir(f"{own_rootfs}/new-place")
    assert not os.path.exists(f"{own_rootfs}/../new-place") and not os.path.exists("/new-place")


WAYS: dict[str, tuple[Callable[[str], object], str, int]] = {  # what is at /way, the directory asked for, why not
    "a file": (lambda way: os.mknod(way), "/way", errno.ENOTDIR),
    "below a file": (lambda way: os.mknod(way), "/way/new", errno.ENOTDIR),
    "a FIFO": (lambda way: os.mkfifo(way), "/way", errno.ENOTDIR),
    "a link to a file": (lambda way: os.symlink("/etc/passwd", way), "/way", errno.ENOTDIR),
    "a loop": (lambda way: os.symlink("way", way), "/way/new", errno.ELOOP),
    "a loop at the end": (lambda way: os.symlink("way", way), "/way", errno.ELOOP),
    "a magic link": (lambda way: os.symlink("/proc/self/root", way), "/way/new", errno.ENOENT),
    "a link to procfs": (lambda way: os.symlink("/proc/new", way), "/way", errno.ENOENT),
    "a link below sysfs": (lambda way: os.symlink("/sys", way), "/way/new", errno.ENOENT),
}


@pytest.mark.parametrize("kind", WAYS)
def test_what_is_in_the_way_is_told_as_ever(own_rootfs: str, kind: str) -> None:
    make, cwd, why = WAYS[kind]
    make(f"{own_rootfs}/way")
    before = sorted(os.listdir(own_rootfs))
    assert refused(beginning_in(own_rootfs, cwd)) == why
    assert sorted(os.listdir(own_rootfs)) == before and not os.path.exists("/new")
