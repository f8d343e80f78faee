"""Throw-away machines under plain emulation (QEMU, no KVM): booted once, then a private copy of that snapshot."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from image import CACHE, Failure, digest, image, making, place_of, say

PR_SET_PDEATHSIG = 1
KERNEL_ARGS = (
    *("console=ttyS0", "quiet", "root=/dev/vda", "rw", "net.ifnames=0", "mitigations=off", "nokaslr", "panic=-1"),
    *("systemd.show_status=0", "systemd.machine_id=0123456789abcdef0123456789abcdef"),
)
MEMORY, PROCESSORS = "2G", 2
QEMU = (
    *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
    *("-machine", "pc,hpet=off,memory-backend=memory", "-accel", "tcg,thread=multi,tb-size=256"),
    *("-cpu", "max,la57=off,svm=off", "-device", "virtio-net-pci,netdev=net,romfile="),
    *("-device", "virtio-9p-pci,fsdev=tree,mount_tag=tree", "-smp", str(PROCESSORS), "-m", MEMORY),
)
BOOT_SECONDS = 600
GIVEN_UP = 124  # the status of what took too long
LEGACY = ("systemd.unified_cgroup_hierarchy=0",)
MODES = {  # the cgroup layouts that systemd can boot with
    "v2": (),
    "hybrid": (*LEGACY, "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"),
    "v1": (*LEGACY, "systemd.legacy_systemd_cgroup_controller=1", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"),
}


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Qemu:
    """A QEMU and its control socket. Its files are in `state`; what it changes of the memory and disk in `base` stays
    its own, unless the two are the same."""

    def __init__(self, state: Path, base: Path, tree: Path, port: int, *extra: str) -> None:
        private = state != base
        argv = (
            *QEMU,
            *("-serial", f"file:{state}/console.log", "-qmp", f"unix:{state}/qmp,server=on,wait=off"),
            *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:1"),
            *("-drive", f"file={base}/disk,if=virtio,format=qcow2,snapshot={'on' if private else 'off'}"),
            *("-object", f"memory-backend-file,id=memory,size={MEMORY},mem-path={base}/memory,"
                         f"share={'off' if private else 'on'}"),
            *("-fsdev", f"local,id=tree,path={tree},security_model=none,readonly=on,multidevs=remap"),
            *extra,
        )  # fmt: skip
        self.state = state
        with open(state / "qemu.log", "w") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=die_with_parent,
            )  # fmt: skip
        control, end = socket.socket(socket.AF_UNIX), time.monotonic() + 30
        while control.connect_ex(str(state / "qmp")):
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise Failure("QEMU does not start: " + (state / "qemu.log").read_text())
            time.sleep(0.01)
        self.stream = control.makefile("rwb")
        self.ask("qmp_capabilities")
        self.ask("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])

    def ask(self, command: str, **arguments: object) -> object:
        self.stream.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        self.stream.flush()
        for answer in map(json.loads, self.stream):
            if "error" in answer:
                raise Failure(f"QEMU: {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise Failure("QEMU is gone: " + self.console()[-2000:])

    def transfer(self, command: str, shell: str) -> None:
        """Save or load what there is of a machine beside memory and disk."""
        self.ask(command, uri=f"exec:{shell}")
        status: object = None
        while status != "completed":
            found = self.ask("query-migrate")
            status = found.get("status") if isinstance(found, dict) else None
            if status in ("failed", "cancelled"):
                raise Failure("QEMU: the snapshot failed")
            time.sleep(0.01)

    def console(self) -> str:
        path = self.state / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def snapshot_of(base: Path, mode: str) -> Path:
    """Where a booted machine of an image is, or would be."""
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, check=True).stdout
    return base / f"boot-{digest(version, QEMU, KERNEL_ARGS, MODES[mode])}"


def at_hand(suite: str, mode: str) -> bool:
    """Whether a machine is there without anything being made."""
    base = place_of(suite)
    return bool(shutil.which("qemu-system-x86_64")) and base.exists() and snapshot_of(base, mode).exists()


def snapshot(suite: str, mode: str) -> Path:
    """The directory of a booted machine: memory, disk and state. It is booted, in a minute, when it is missing."""
    base = image(suite)
    target = snapshot_of(base, mode)
    if target.exists():
        return target
    with making(target) as new:
        if new is not None:
            say("booting", suite, mode)
            boot(base, new, (*KERNEL_ARGS, *MODES[mode]))
    return target


def boot(base: Path, new: Path, arguments: tuple[str, ...]) -> None:
    backing = ("-f", "qcow2", "-F", "raw", "-b", "../root.ext4")
    subprocess.run(["qemu-img", "create", "-q", *backing, str(new / "disk")], check=True)
    kernel = ("-kernel", f"{base}/vmlinuz", "-initrd", f"{base}/initrd", "-append", " ".join(arguments))
    qemu = Qemu(new, new, new, 0, *kernel)
    try:
        end = time.monotonic() + BOOT_SECONDS
        while "agent: ready" not in qemu.console():
            if qemu.process.poll() is not None or time.monotonic() > end:
                raise Failure("the machine does not boot:\n" + qemu.console()[-4000:])
            time.sleep(0.1)
        qemu.ask("stop")
        qemu.transfer("migrate", f"cat > {shlex.quote(str(new / 'state'))}")
    finally:
        qemu.kill()


@contextmanager
def machine(tree: Path, suite: str = "bookworm", mode: str = "v2") -> Iterator[Machine]:
    """A fresh machine, which sees `tree` under its own path. Nothing that is done to it is kept."""
    base = snapshot(suite, mode)
    state = Path(tempfile.mkdtemp(prefix="machine-", dir=CACHE))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    try:
        qemu = Qemu(state, base, tree, port, "-incoming", "defer")
        try:
            qemu.transfer("migrate-incoming", f"cat {shlex.quote(str(base / 'state'))}")
            qemu.ask("cont")
            yield Machine(qemu, tree, port)
        finally:
            qemu.kill()
    finally:
        shutil.rmtree(state, ignore_errors=True)


class Machine:
    """One that runs."""

    def __init__(self, qemu: Qemu, tree: Path, port: int) -> None:
        self._qemu, self._tree, self._port = qemu, tree, port

    def run(
        self, argv: list[str], *, user: bool = False, env: dict[str, str] | None = None, timeout: float = 3600
    ) -> int:
        """Carry a command out as root, or as an ordinary user, in a delegated scope of systemd; its output is ours.

        Returns:
            Its exit status, 128 and a signal's number, 127 when there is no such command, 124 after `timeout` seconds.
        """
        request = {"argv": argv, "cwd": str(self._tree), "tree": str(self._tree), "user": user, "env": env or {}}
        with socket.create_connection(("127.0.0.1", self._port), timeout=30) as connection:
            connection.sendall(json.dumps(request | {"time": time.time()}).encode() + b"\n")
            stream, end = connection.makefile("rb"), time.monotonic() + timeout
            while True:
                connection.settimeout(max(0.001, end - time.monotonic()))
                try:
                    head = stream.read(5)
                    kind, size = struct.unpack(">cI", head)
                    data = stream.read(size)
                except TimeoutError:
                    say(f"given up after {timeout:g} s")
                    return GIVEN_UP
                except struct.error:
                    raise Failure("the machine is gone\n" + self._qemu.console()[-2000:]) from None
                if kind == b"x":
                    return int(data)
                out = sys.stdout if kind == b"o" else sys.stderr
                out.buffer.write(data)
                out.flush()


def python_path(tree: Path) -> str:
    """The tree, and what is installed in its virtual environment: of pure Python, or for the stable ABI."""
    installed = [path for path in sys.path if path.endswith("site-packages") and path.startswith(f"{tree}/")]
    if not installed:
        raise Failure(f"run this by an interpreter that the machine sees, too: {tree}/.venv/bin/python")
    return os.pathsep.join([str(tree), *installed])
