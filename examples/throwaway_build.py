"""A build in a throw-away root: sources go in through one pipe, what was installed comes out through another.

The build finds a whole machine, with the host's compiler, and installs to /usr/local as it would on any. But all that
it can write is memory, which goes with the container; it has no network, and no path of the host is writable.
"""

from __future__ import annotations

import io
import os
import tarfile
import tempfile

from cycontainer import run

PREFIX = {
    "destination": "/usr/local",
    "type": "tmpfs",
    "source": "tmpfs",
    "options": ["nosuid", "nodev", "mode=1777", "size=64m"],
}
BUILD = "cd /tmp; tar x; cd sources; make >&2; make install >&2; tar c -C /usr/local ."


def build(sources: str) -> tarfile.TarFile:
    """What `make install` in a copy of the directory `sources` leaves in /usr/local."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as packed:
        packed.add(sources, arcname="sources")
    result = run(["sh", "-euc", BUILD], input=archive.getvalue(), mounts=[PREFIX], timeout=60, check=True)
    return tarfile.open(fileobj=io.BytesIO(result.stdout))


PROJECT = {
    "greet.c": '#include <stdio.h>\nint main(void) { puts("hello"); }\n',
    "Makefile": "greet: greet.c\ninstall: greet\n\tmkdir -p /usr/local/bin && cp greet /usr/local/bin\n",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        for name, text in PROJECT.items():
            with open(f"{directory}/{name}", "w") as file:
                file.write(text)
        with build(directory) as installed:
            print("installed:", *(member.name for member in installed if member.isfile()))
        print("beside the sources:", *sorted(set(os.listdir(directory)) - PROJECT.keys()) or ["nothing"])
    print("on this machine:", "greet" if os.path.exists("/usr/local/bin/greet") else "nothing")


if __name__ == "__main__":
    main()
