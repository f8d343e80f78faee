"""What a machine boots: a Debian root file system, its kernel and an initramfs, kept by what went into them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import lzma
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CACHE = Path(os.environ.get("CYCONTAINER_VM_CACHE") or Path.home() / ".cache/cycontainer-machines").absolute()
TOOLS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "qemu-system-x86_64": "qemu-system-x86"}
TOOLS |= {"qemu-img": "qemu-utils"}
SUITES = ("bookworm", "trixie")
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "udev", "kmod", "linux-image-amd64"),
    *("apparmor", "uidmap", "iproute2", "procps", "strace", "busybox-static", "criu", "python3", "runc"),
)
MORE = {"trixie": ("passwd",)}  # no longer essential there
MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "9pnet_virtio", "9p", "overlay", "virtio_net")
UNWANTED = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/etc/kernel/postinst.d/initramfs-tools")
DRIVERS = ("sound", "drivers/gpu", "drivers/media", "drivers/staging", "drivers/net/ethernet", "drivers/net/wireless")
MASKED = ("systemd-random-seed.service", "apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer", "getty.target")
USER = "dev"  # whose systemd --user always runs
FILES = {
    "etc/systemd/system/agent.service": (
        "[Unit]\nAfter=basic.target\n[Service]\nExecStart=/usr/bin/python3 -ISu /run/machine/agent.py\n"
        "Delegate=yes\nKillMode=process\nOOMScoreAdjust=-900\nTasksMax=infinity\n[Install]\nWantedBy=multi-user.target\n"
    ),
    "etc/systemd/system/user@.service.d/delegate.conf": "[Service]\nDelegate=cpu cpuset io memory pids\n",
    "etc/systemd/journald.conf.d/machine.conf": "[Journal]\nStorage=volatile\n",
    "etc/modules-load.d/machine.conf": "tun\nloop\nveth\nfuse\n",
    "etc/hostname": "machine\n",
    "etc/hosts": "127.0.0.1 localhost machine\n::1 localhost\n",
    f"var/lib/systemd/linger/{USER}": "",
}
INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /bin/busybox insmod $module; done
/bin/busybox mount -t ext4 -o noatime /dev/vda /root
/bin/busybox mount -t tmpfs -o mode=755 run /root/run
/bin/busybox mkdir /root/run/machine
/bin/busybox cp /agent.py /root/run/machine
/bin/busybox umount /dev
exec /bin/busybox switch_root /root /sbin/init
"""
AGENT = Path(__file__).with_name("agent.py")


class Failure(Exception):
    """The machine, or the making of it, failed; not the command that was to run on it."""


def say(*words: object) -> None:
    print("machine:", *words, file=sys.stderr, flush=True)


def digest(*what: object) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()[:12]


@contextlib.contextmanager
def making(target: Path) -> Iterator[Path | None]:
    """A directory that becomes `target` when the block succeeds; None when that is there. One at a time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            yield None
            return
        scratch = target.with_name(f"{target.name}.new")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            yield scratch
            scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def cpio(files: dict[str, tuple[int, bytes]]) -> bytes:
    """A `newc` archive of {name: (mode, content)}. Source: initramfs buffer format, driver-api/early-userspace."""
    out = bytearray()
    for number, (name, (mode, data)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def initramfs(root: Path) -> bytes:
    """busybox, our init and agent, and the modules that it takes to mount the root, after those they need."""
    tree = next((root / "usr/lib/modules").iterdir())
    needs = dict(line.split(":") for line in (tree / "modules.dep").read_text().splitlines())
    paths = {Path(path).name.split(".")[0].replace("-", "_"): path for path in needs}
    order: dict[str, None] = {}
    for path in [paths[name] for name in MODULES if name in paths]:  # the others are built in
        order |= dict.fromkeys([*reversed(needs[path].split()), path])
    files = {name: (0o40755, b"") for name in ("bin", "dev", "root", "modules")}
    files["bin/busybox"] = (0o100755, (root / "usr/bin/busybox").read_bytes())
    files["init"], files["agent.py"] = (0o100755, INIT.encode()), (0o100644, AGENT.read_bytes())
    for number, path in enumerate(order):
        data = (tree / path).read_bytes()
        files[f"modules/{number:02}"] = (0o100644, lzma.decompress(data) if path.endswith(".xz") else data)
    return cpio(files)


def call(*argv: str) -> None:
    log = CACHE / "build.log"
    with open(log, "ab") as file:
        if subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file).returncode:
            raise Failure(f"{argv[0]} failed: see {log}")


def install_tools() -> None:
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if missing:
        say("installing", *missing)
        call("apt-get", "-q", "update")
        call("apt-get", "-qy", "install", "--no-install-recommends", *missing)


def place_of(suite: str) -> Path:
    """Where a suite's image is, or would be."""
    recipe = (PACKAGES, UNWANTED, DRIVERS, MASKED, FILES, MODULES, INIT, AGENT.read_bytes(), *MORE.get(suite, ()))
    return CACHE / f"{suite}-{digest(*recipe)}"


def image(suite: str) -> Path:
    """The directory of a suite's image: root.ext4, vmlinuz, initrd. It is made, in two minutes, when it is missing."""
    target = place_of(suite)
    if target.exists():
        return target
    with making(target) as new:
        if new is not None:
            install_tools()
            say("building the image of", suite)
            build(suite, new)
    return target


def build(suite: str, new: Path) -> None:
    root = new / "root"
    drivers = [f"{usr}/lib/modules/*/kernel/{kind}/*" for usr in ("", "/usr") for kind in DRIVERS]
    excluded = [f"--dpkgopt=path-exclude={path}" for path in (*UNWANTED, *drivers)]
    options = (
        "--variant=apt",
        f"--include={','.join((*PACKAGES, *MORE.get(suite, ())))}",
        '--aptopt=APT::Install-Recommends "false"',
    )
    call("mmdebstrap", *options, *excluded, suite, str(root))
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    call("chroot", str(root), "useradd", "--create-home", "--uid=1000", "--shell=/bin/bash", USER)
    call("chroot", str(root), "systemctl", "enable", "agent.service")
    call("chroot", str(root), "systemctl", "mask", *MASKED)
    (root / "root").chmod(0o755)
    shutil.copy(next((root / "boot").glob("vmlinuz*")), new / "vmlinuz")
    (new / "initrd").write_bytes(initramfs(root))
    call("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(new / "root.ext4"), "4G")
    shutil.rmtree(root)
