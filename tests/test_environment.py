"""What a program finds around it that no property of its configuration asked for in so many words."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from launching import copy_rootfs, document, plan_of, printed
from ordinary import OrdinaryUser

from cycontainer.json_text import to_json
from cycontainer.lifecycle import Container
from cycontainer.streams import DEVNULL, PIPE
from cycontainer.users import with_home

PASSWD = """root:x:0:0:root:/home of root:/bin/sh
# no user
first:x:1000:1000::/home/first:/bin/sh
second:x:1000:1000::/home/second:/bin/sh
relative:x:1001:1001::home:/bin/sh
short:x:1002:1002
nul:x:1003:1003::/a\0b:/bin/sh
empty:x:1004:1004:::/bin/sh
latin:x:1005:1005::/h\udce9:/bin/sh
"""


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    """A directory with a passwd."""
    etc = tmp_path / "image" / "etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text(PASSWD, "utf-8", "surrogateescape")
    yield etc.parent


# --- HOME


@pytest.mark.parametrize(
    ("uid", "home"),
    [
        (0, "/home of root"), (1000, "/home/first"), (1001, "/"), (1002, "/"), (1003, "/"), (1004, "/"),
        (1005, "/h\udce9"), (7777, "/"),
    ],
)  # fmt: skip
def test_home_is_the_users_in_the_images_passwd(image: Path, uid: int, home: str) -> None:
    assert with_home(("A=1",), uid, str(image)) == ("A=1", f"HOME={home}")
    assert with_home(("HOME=", "A=1"), uid, str(image)) == ("A=1", f"HOME={home}")
    assert with_home(("HOME=/mine", "A=1"), uid, str(image)) == ("HOME=/mine", "A=1")


@pytest.mark.parametrize("kind", ["missing", "fifo", "directory", "link out", "huge"])
def test_a_passwd_that_is_none_gives_the_root(image: Path, kind: str) -> None:
    passwd = image / "etc" / "passwd"
    passwd.unlink()
    if kind == "fifo":
        os.mkfifo(passwd)
    elif kind == "directory":
        passwd.mkdir()
    elif kind == "link out":  # of the image, were its root not the image
        (image.parent / "outside").write_text("evil:x:0:0::/outside:/bin/sh\n")
        passwd.symlink_to("../../outside")
    elif kind == "huge":
        passwd.write_bytes(b"root:x:0:0::/root:/bin/sh\n" + b"#" * (2 << 20))
    assert with_home((), 0, str(image)) == ("HOME=/",)


@pytest.mark.root
def test_a_container_and_an_exec_have_their_users_home(busybox_rootfs: str, tmp_path: Path) -> None:
    root = f"{tmp_path}/root"
    copy_rootfs(busybox_rootfs, root)
    Path(f"{root}/etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nu:x:5:5::/home/u:/bin/sh\n")
    config = document(root, "echo $HOME; read x")
    config["process"]["env"] += ["HOME=", "A=1", "A=2"]
    with Container.create("home", config, root=f"{tmp_path}/states", stdin=PIPE, stdout=PIPE) as container:
        container.start()
        assert container.process is not None and container.process.stdout is not None
        assert container.process.stdout.readline() == b"/root\n"
        with container.exec(["sh", "-c", "echo $HOME $A"], user=(5, 5), stdin=DEVNULL, stdout=PIPE) as process:
            assert process.communicate()[0] == b"/home/u 2\n"


# --- descriptors of a service manager


@pytest.mark.root
def test_sockets_that_listen_are_the_programs(busybox_rootfs: str, tmp_path: Path) -> None:
    """The caller of sd_listen_fds(3) checks LISTEN_PID: it is 1 in there."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    script = "echo $LISTEN_FDS $LISTEN_PID $(for fd in 3 4; do readlink /proc/self/fd/$fd; done | cut -d: -f1)"
    config = document(busybox_rootfs, script)
    config["process"]["env"] += ["LISTEN_FDS=9", "LISTEN_PID=9"]
    (bundle / "config.json").write_text(to_json(config))
    with socket.socket() as listener:
        listener.listen()
        program = (
            f"import os, sys; os.dup2({listener.fileno()}, 3); os.dup2(2, 4); "
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
            "os.execv(sys.executable, [sys.executable, '-m', 'cycontainer', *sys.argv[1:]])"
        )
        arguments = ["--root", f"{tmp_path}/states", "run", "--preserve-fds", "1", "--bundle", str(bundle), "listens"]
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, pass_fds=(listener.fileno(),)
        )
    assert (done.stdout, done.stderr) == ("1 1 socket pipe\n", "")


@pytest.mark.root
def test_sockets_for_another_process_are_not_passed_on(busybox_rootfs: str, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_text(to_json(document(busybox_rootfs, "echo $LISTEN_FDS; ls /proc/self/fd")))
    done = subprocess.run(
        [sys.executable, "-m", "cycontainer", "--root", f"{tmp_path}/states", "run", "--bundle", str(bundle), "none"],
        env={"LISTEN_FDS": "1", "LISTEN_PID": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == ["0", "1", "2", "3"]


# --- CPUs


@pytest.mark.root
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_a_container_and_an_exec_use_all_cpus_of_their_cpuset(busybox_rootfs: str, tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    config = document(busybox_rootfs, "grep Cpus_allowed_list /proc/self/status; read x")
    os.sched_setaffinity(0, {min(before)})
    try:
        with Container.create("cpus", config, root=f"{tmp_path}/states", stdin=PIPE, stdout=PIPE) as container:
            container.start()
            assert container.process is not None and container.process.stdout is not None
            first = container.process.stdout.readline().split()[1]
            command = ["grep", "Cpus_allowed_list", "/proc/self/status"]
            with container.exec(command, stdin=DEVNULL, stdout=PIPE) as process:
                second = process.communicate()[0].split()[1]
    finally:
        os.sched_setaffinity(0, before)
    assert len(before) > 1 and first == second == listed(before)


def listed(cpus: set[int]) -> bytes:
    """As /proc/PID/status writes it, for CPUs in one row."""
    assert max(cpus) - min(cpus) == len(cpus) - 1
    return f"{min(cpus)}-{max(cpus)}".encode()


# --- names, sysctls, modes


@pytest.mark.root
def test_the_host_and_domain_names_are_its_own(busybox_rootfs: str) -> None:
    config = document(busybox_rootfs, "hostname; cat /proc/sys/kernel/domainname")
    config.update(hostname="some-host", domainname="some.domain")
    assert printed(plan_of(config)).split() == ["some-host", "some.domain"]


USER = [{"type": kind} for kind in ("user", "pid", "mount", "ipc", "uts", "network", "cgroup")]
SYSCTL = {"user.max_inotify_watches": "77"}


@pytest.mark.root
def test_sysctls_of_a_user_namespace(busybox_rootfs: str) -> None:
    line = [{"containerID": 0, "hostID": 100_000, "size": 1000}]
    config = document(
        busybox_rootfs, "cat /proc/sys/user/max_inotify_watches", namespaces=USER, uidMappings=line, gidMappings=line,
        sysctl=SYSCTL,
    )  # fmt: skip
    assert printed(plan_of(config)) == "77\n"


def sysctl_of_mine(rootfs: str) -> str:
    ids = [[{"containerID": 0, "hostID": own, "size": 1}] for own in (os.getuid(), os.getgid())]
    config = document(
        rootfs, "cat /proc/sys/user/max_inotify_watches", namespaces=USER, uidMappings=ids[0], gidMappings=ids[1],
        sysctl=SYSCTL,
    )  # fmt: skip
    for mount in config["mounts"]:
        mount["options"] = [option for option in mount.get("options", []) if option != "gid=5"]
    config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
    return printed(plan_of(config))


def test_sysctls_of_an_ordinary_users_namespace(busybox_rootfs: str, ordinary_user: OrdinaryUser) -> None:
    assert ordinary_user(sysctl_of_mine, busybox_rootfs) == "77\n"


@pytest.mark.root
@pytest.mark.parametrize(
    ("options", "mode"),
    [([], "1750"), (["ro"], "1750"), (["size=1m"], "1750"), (["mode=711"], "711"), (["mode=711", "ro"], "711")],
)
def test_a_tmpfs_takes_the_mode_of_what_it_covers(
    busybox_rootfs: str, tmp_path: Path, options: list[str], mode: str
) -> None:
    root = f"{tmp_path}/root"
    copy_rootfs(busybox_rootfs, root)
    os.mkdir(f"{root}/there")
    os.chmod(f"{root}/there", 0o1750)
    config = document(root, "stat -c %a /there /new; grep ' /there ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1")
    for name in ("there", "new"):
        mount = {"destination": f"/{name}", "type": "tmpfs", "source": "tmpfs", "options": options}
        config["mounts"].append(mount)
    new = mode if "mode=711" in options else "1777"
    assert printed(plan_of(config)).split() == [mode, new, "ro" if "ro" in options else "rw"]
