"""Ids of containers and of their mounts, on the real kernel: user namespaces, idmapped mounts, subordinate ids."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from launching import copy_rootfs
from ordinary import OrdinaryUser

from cycontainer import ConfigError, LaunchError, run
from cycontainer.host import current
from cycontainer.spec import default_config

HERE = {"containerID": 0, "hostID": 100_000, "size": 65_536}
ELSEWHERE = {"containerID": 0, "hostID": 300_000, "size": 65_536}


def document(rootfs: str, *mounts: dict[str, Any], user: bool = False) -> dict[str, Any]:
    """The default configuration with more mounts, and with a user namespace if asked."""
    config = default_config()
    config["root"]["path"] = rootfs
    config["mounts"] += mounts
    if user:
        config["linux"]["namespaces"].append({"type": "user"})
        config["linux"].update(uidMappings=[HERE], gidMappings=[HERE])
    return config


def owners(config: dict[str, Any], *paths: str) -> list[str]:
    """uid:gid of each path, seen from inside."""
    result = run(["stat", "-c", "%u:%g", *paths], config=config, text=True)
    assert result.stderr == ""
    return str(result.stdout).split()


def bind(source: str, *options: str, **maps: object) -> dict[str, Any]:
    return {"destination": "/data", "type": "bind", "source": source, "options": ["bind", *options], **maps}


def mapped(line: dict[str, int]) -> dict[str, Any]:
    return {"uidMappings": [line], "gidMappings": [line]}


@pytest.fixture
def volume(tmp_path: object) -> Iterator[str]:
    """A directory of root's with a file of 1000:1001, and a tmpfs on `below` with one of 5:6."""
    path = f"{tmp_path}/volume"
    os.mkdir(path)
    os.chmod(path, 0o777)
    os.mkdir(f"{path}/below")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=777", "tmpfs", f"{path}/below"], check=True)
    for name, uid, gid in (("file", 1000, 1001), ("below/file", 5, 6)):
        with open(f"{path}/{name}", "w"):
            os.chown(f"{path}/{name}", uid, gid)
    yield path
    subprocess.run(["umount", f"{path}/below"], check=True)
    shutil.rmtree(path)


# --- the root


@pytest.mark.root
def test_the_files_of_a_mapped_root_keep_their_owners(busybox_rootfs: str, tmp_path: object) -> None:
    root = f"{tmp_path}/root"
    copy_rootfs(busybox_rootfs, root)
    with open(f"{root}/theirs", "w"):
        os.chown(f"{root}/theirs", 1000, 1001)
    script = "stat -c %u:%g /bin/busybox /theirs; echo new > /new && stat -c %u:%g /new; ls -ln /proc/self/exe | wc -l"
    result = run(["sh", "-c", script], rootfs=root, user_namespace=True, read_only=False, text=True)
    assert (result.stdout.split()[:3], result.stderr) == (["0:0", "1000:1001", "0:0"], "")
    assert os.stat(f"{root}/new").st_uid == 0  # in the image, an id that it knows


@pytest.mark.root
def test_the_hosts_root_is_never_mapped() -> None:
    result = run(["sh", "-c", "stat -c %u /etc/shadow; cat /etc/shadow"], user=0, user_namespace=True, text=True)
    assert result.stdout == "65534\n"
    assert "denied" in result.stderr


@pytest.mark.root
def test_an_engines_root_is_mapped_by_the_engine(busybox_rootfs: str) -> None:
    assert owners(document(busybox_rootfs, user=True), "/bin/busybox") == ["65534:65534"]


@pytest.mark.root
def test_a_root_that_cannot_be_mapped_is_named_with_its_file_system(busybox_rootfs: str, tmp_path: object) -> None:
    root = f"{tmp_path}/root"
    copy_rootfs(busybox_rootfs, root)
    subprocess.run(["mount", "-t", "proc", "proc", f"{root}/sys"], check=True)
    try:
        with pytest.raises(LaunchError, match=f"{root}/sys: proc cannot be mapped") as failure:
            run(["true"], rootfs=root, user_namespace=True)
        assert failure.value.errno == errno.EINVAL
    finally:
        subprocess.run(["umount", f"{root}/sys"], check=True)


# --- mounts


@pytest.mark.root
@pytest.mark.parametrize("user", [False, True])
def test_a_mount_is_mapped_by_its_own_ids(own_rootfs: str, volume: str, user: bool) -> None:
    """On disk 1000; the mount makes it the host's 301000, which is 201000 of the container's, that has no such id."""
    seen = owners(document(own_rootfs, bind(volume, **mapped(ELSEWHERE)), user=user), "/data/file")
    assert seen == ["65534:65534" if user else "301000:301001"]
    assert owners(document(own_rootfs, bind(volume, **mapped(HERE)), user=user), "/data/file") == [
        "1000:1001" if user else "101000:101001"
    ]


@pytest.mark.root
def test_what_is_written_through_a_mapped_mount_has_the_images_ids(own_rootfs: str, volume: str) -> None:
    config = document(own_rootfs, bind(volume, **mapped(HERE)), user=True)
    assert run(["touch", "/data/new"], config=config).returncode == 0
    assert (os.stat(f"{volume}/new").st_uid, os.stat(f"{volume}/new").st_gid) == (0, 0)


@pytest.mark.root
@pytest.mark.parametrize(
    ("options", "below"),
    [(("rbind",), "5:6"), (("rbind", "idmap"), "5:6"), (("rbind", "ridmap"), "100005:100006")],
    ids=["no option", "idmap", "ridmap"],
)
def test_what_is_mounted_below_is_mapped_with_ridmap(
    own_rootfs: str, volume: str, options: tuple[str, ...], below: str
) -> None:
    config = document(own_rootfs, bind(volume, *options, **mapped(HERE)))
    assert owners(config, "/data/file", "/data/below/file") == ["101000:101001", below]


@pytest.mark.root
def test_idmap_without_ids_maps_as_the_container_does(own_rootfs: str, volume: str) -> None:
    assert owners(document(own_rootfs, bind(volume, "idmap"), user=True), "/data/file") == ["1000:1001"]
    assert owners(document(own_rootfs, bind(volume), user=True), "/data/file") == ["65534:65534"]


@pytest.mark.root
def test_a_file_system_that_cannot_be_mapped_is_named(busybox_rootfs: str) -> None:
    config = document(busybox_rootfs, bind("/proc", **mapped(HERE)))
    with pytest.raises(LaunchError, match="/proc: proc cannot be mapped") as failure:
        run(["true"], config=config)
    assert failure.value.errno == errno.EINVAL


@pytest.mark.root
def test_three_hundred_mapped_mounts_are_no_limit(busybox_rootfs: str, volume: str) -> None:
    many = [{**bind(volume, "idmap"), "destination": f"/tmp/{number}"} for number in range(300)]
    tmpfs = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}
    assert owners(document(busybox_rootfs, tmpfs, *many, user=True), "/tmp/299/file") == ["1000:1001"]


@pytest.mark.root
@pytest.mark.parametrize(
    ("mount", "where"),
    [
        (bind("/", "idmap"), "options"),
        ({"destination": "/d", "type": "tmpfs", **mapped(HERE)}, "uidMappings"),
        ({"destination": "/d", "type": "tmpfs", "options": ["ridmap"]}, "options"),
    ],
    ids=["no ids anywhere", "a new file system", "ridmap of one"],
)
def test_what_cannot_be_mapped_is_refused_with_its_place(busybox_rootfs: str, mount: Any, where: str) -> None:
    with pytest.raises(ConfigError, match=rf"mounts\[7\].{where}"):
        run(["true"], config=document(busybox_rootfs, mount))


# --- as an ordinary user

# A user of its own, with subordinate ids, in a mount namespace of its own: /etc is not touched.
WITH_RANGES = """
for name in passwd subuid subgid; do cp /etc/$name $1/$name; done
echo 'ranged:x:65432:65432::/nowhere:/bin/false' >> $1/passwd
echo 'ranged:700000:65536' | tee -a $1/subuid >> $1/subgid
for name in passwd subuid subgid; do mount --bind $1/$name /etc/$name; done
shift; exec setpriv --reuid 65432 --regid 65432 --clear-groups "$@"
"""
RANGED = """
import json, sys
sys.path.insert(0, sys.argv[1])
from cycontainer import LaunchError, run
config = json.loads(sys.argv[2])
try:
    result = run(config["process"]["args"], config=config, text=True)
    print(result.stdout, end=result.stderr)
except LaunchError as failure:
    print(failure)
"""


def with_ranges(tmp_path: object, config: dict[str, Any]) -> str:
    """What the configuration's program prints when a user that has 65536 subordinate ids from 700000 on runs it."""
    config = {**config, "mounts": [mount for mount in config["mounts"] if "cgroup" not in mount["destination"]]}
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    command = ["unshare", "--mount", "sh", "-ec", WITH_RANGES, "sh", str(tmp_path), sys.executable, "-I", "-S", "-c",
               RANGED, root, json.dumps(config)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout


def ranged(rootfs: str, script: str, first: int = 700_000) -> dict[str, Any]:
    """A configuration of that user's: root is itself, and the rest is its range."""
    config = document(rootfs, user=True)
    lines = [{"containerID": 0, "hostID": 65_432, "size": 1}, {"containerID": 1, "hostID": first, "size": 65_536}]
    config["linux"].update(uidMappings=lines, gidMappings=lines, resources={})
    config["process"].update(args=["sh", "-c", script], user={"uid": 7, "gid": 8, "additionalGids": [9, 10]})
    return config


needs_id_mappers = pytest.mark.skipif(current().id_mappers is None, reason="needs newuidmap and newgidmap (uidmap)")


@pytest.mark.root
@needs_id_mappers
def test_subordinate_ids_are_mapped_by_newuidmap(busybox_rootfs: str, tmp_path: object) -> None:
    script = (
        "id -u; id -g; id -G; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; stat -c %g /dev/pts/ptmx"
    )
    words = with_ranges(tmp_path, ranged(busybox_rootfs, script)).split()
    assert words[:5] == ["7", "8", "8", "9", "10"]
    assert words[5:] == [*["0", "65432", "1", "1", "700000", "65536"] * 2, "allow", "0"]


@pytest.mark.root
@needs_id_mappers
def test_what_newuidmap_says_is_told(busybox_rootfs: str, tmp_path: object) -> None:
    said = with_ranges(tmp_path, ranged(busybox_rootfs, "true", first=800_000))
    assert said.startswith(
        "write the id maps of the user namespace (/usr/bin/newuidmap: newuidmap: uid range [1-65537)"
    )
    assert "EPERM" in said and said.count("\n") == 1


def with_one_id(rootfs: str) -> str:
    config = ranged(rootfs, "id -u; id -g; cat /proc/self/uid_map /proc/self/setgroups")
    config["process"]["user"] = {"uid": 7, "gid": 8}
    config["mounts"] = [mount for mount in config["mounts"] if "cgroup" not in mount["destination"]]
    config["mounts"][2]["options"].remove("gid=5")
    for key, inside, number in (("uidMappings", 7, os.getuid()), ("gidMappings", 8, os.getgid())):
        config["linux"][key] = [{"containerID": inside, "hostID": number, "size": 1}]
    return str(run(config["process"]["args"], config=config, text=True).stdout)


def test_without_subordinate_ids_a_user_is_one_id(busybox_rootfs: str, ordinary_user: OrdinaryUser) -> None:
    words = ordinary_user(with_one_id, busybox_rootfs).split()
    assert words == ["7", "8", "7", str(ordinary_user.uid), "1", "deny"]
