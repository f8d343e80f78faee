"""The compiled command and the one in Python, each on containers of its own that are alike."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oci_command import COMMAND, IN_PYTHON, PATIENCE, Oci

Said = tuple[int, bytes, bytes, bytes]
WAYS = ("alone", "compiled", "python")  # the first is the compiled one where it has nothing to hand anything on to


class Placed(Oci):
    """Containers that may have the same id as another place's: their cgroups differ."""

    def __init__(self, directory: str, rootfs: str) -> None:
        os.mkdir(directory)
        super().__init__(directory, rootfs)
        self.number = os.path.basename(directory)

    def create(self, container_id: str = "one") -> int:
        with open(f"{self.bundle}/config.json") as file:
            config = json.load(file)
        config["linux"]["cgroupsPath"] = f"/cycontainer/{self.number}-{container_id}"
        self.write(config=config)
        return super().create(container_id)


class Both:
    """The same container in a place of its own for each way of calling."""

    def __init__(self, directory: Path, rootfs: str) -> None:
        self.places: dict[str, Oci] = {way: Placed(f"{directory}/{number}", rootfs) for number, way in enumerate(WAYS)}
        shutil.copy(COMMAND[0], directory / "cycontainer")
        self.calls = {"alone": (f"{directory}/cycontainer",), "compiled": COMMAND, "python": IN_PYTHON}

    def said(self, way: str, words: list[str], **keywords: Any) -> Said:
        """Exit status, standard output, standard error and log of a call; its place and the time taken out."""
        oci, path = self.places[way], f"{self.places[way].bundle}/said"
        keywords = {"stdin": subprocess.DEVNULL, "capture_output": True, "cwd": oci.bundle, **keywords}
        words = [word.replace("@states", oci.states).replace("@log", path) for word in words]
        done = subprocess.run([*self.calls[way], *words], timeout=PATIENCE, **keywords)
        logged = Path(path).read_bytes() if os.path.exists(path) else b""
        if logged:
            os.unlink(path)
        out, err, log = (self.neutral(way, text or b"") for text in (done.stdout, done.stderr, logged))
        return done.returncode, out, err, log

    def neutral(self, way: str, text: bytes) -> bytes:
        """Without what differs from one container to the next."""
        text = text.replace(os.path.dirname(self.places[way].states).encode(), b"@place")
        text = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", b"@time", text)
        return re.sub(rb'("pid": ?|\n[\w-]+ +)[1-9]\d* *', rb"\1@pid ", text)

    def same(self, words: list[str], *, alone: bool = True, **keywords: Any) -> Said:
        """What all ways say; `alone`: the compiled command must not need the interpreter."""
        ways = WAYS if alone else WAYS[1:]
        answers = {way: self.said(way, words, **keywords) for way in ways}
        assert all(answer == answers["python"] for answer in answers.values()), answers
        return answers["python"]

    def each(self, do: Callable[[Oci], object]) -> None:
        for oci in self.places.values():
            do(oci)

    @contextmanager
    def with_states(self, change: Callable[[bytes], bytes]) -> Iterator[None]:
        """While it is entered, the states are changed."""
        paths = [Path(f"{oci.states}/one/state") for oci in self.places.values()]
        kept = [path.read_bytes() for path in paths]
        for path, text in zip(paths, kept):
            path.write_bytes(change(text))
        try:
            yield
        finally:
            for path, text in zip(paths, kept):
                path.write_bytes(text)
