"""A verb's imports at once, from one file: to find, check and read fifty takes longer than to execute them. Face.

The compiled command starts here. What a verb has imported is kept as code behind that of its own module, in the
interpreter's cache of that (marshal reads no further than its end): it goes where this goes, also when the package is
uninstalled. A source that is not as it was ends it. Where the file cannot be written, or is not there yet, modules are
imported as ever, and always those that it does not have.
"""

from __future__ import annotations

import os
import sys
from _frozen_importlib import ModuleSpec  # importlib.machinery has these, and costs 0.8 ms
from _frozen_importlib_external import SourceFileLoader, cache_from_source
from _imp import create_dynamic, exec_dynamic
from marshal import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Final, NamedTuple

    class Module(NamedTuple):
        """In the file a plain tuple."""

        name: str
        path: str  # below the package: a copy of an installation is no other's
        modified: int  # st_mtime_ns of its source
        size: int
        code: CodeType | None  # None: it is compiled to machine code
        package: bool


VERBS: Final = ("create", "run", "exec", "checkpoint", "restore", "update", "ps", "events", "features", "spec")
PACKAGE: Final = os.path.dirname(os.path.dirname(__file__)) + "/"
VERSION: Final = sys.version.encode()  # in front of it: code is of one interpreter


def run_command() -> None:
    """The whole command."""
    verb = next((word for word in sys.argv[1:] if word in VERBS), "")
    kept = bool(verb) and load(verb)
    from cycontainer.cli.__main__ import main

    status = main(sys.argv[1:])
    if not kept and status == 0 and not sys.dont_write_bytecode and f"cycontainer.cli.{verb}" in sys.modules:
        keep(verb)
    os._exit(status)  # all is written and closed: the interpreter need not tidy up, 2 ms


def load(verb: str) -> bool:
    """Whether there is such a file, and all as it was; then imports take from it what it has."""
    try:
        with open(_place(verb), "rb") as file:
            data = file.read()
        at = data.find(VERSION)
        found: list[Module] = loads(memoryview(data)[at + len(VERSION) :]) if at >= 0 else []
        for _, path, modified, size, _, _ in found:
            status = os.stat(PACKAGE + path)
            if (status.st_mtime_ns, status.st_size) != (modified, size):
                return False
    except (OSError, EOFError, ValueError, TypeError):  # none, or not whole
        return False
    for name, path, _, _, code, package in found:
        if name not in sys.modules:
            _execute(name, PACKAGE + path, code, package=package)
    return bool(found)


def _execute(name: str, path: str, code: CodeType | None, *, package: bool) -> None:
    """Import a module without the importer, which takes longer than most of them do."""
    module = type(sys)(name) if code else create_dynamic(ModuleSpec(name, None, origin=path))
    sys.modules[name] = module
    module.__file__ = path
    if package:
        module.__path__ = [os.path.dirname(path)]
    parent, dot, child = name.rpartition(".")
    if dot:
        setattr(sys.modules[parent], child, module)
    if code:
        exec(code, module.__dict__)
    else:
        exec_dynamic(module)


def keep(verb: str) -> None:
    """Write down what is imported now. Without it the next start is slower, and nothing else."""
    modules = []
    try:
        for name, module in list(sys.modules.items()):  # as their imports ended: none needs a later one
            spec = getattr(module, "__spec__", None)  # typing.io has none
            if spec is None or spec.origin is None or not spec.origin.startswith(PACKAGE) or name == __name__:
                continue
            status = os.stat(spec.origin)
            code = spec.loader.get_code(name) if isinstance(spec.loader, SourceFileLoader) else None
            path, package = spec.origin.removeprefix(PACKAGE), hasattr(module, "__path__")
            modules.append((name, path, status.st_mtime_ns, status.st_size, code, package))
        with open(_place(verb), "rb") as file:
            own, _, _ = file.read().partition(VERSION)
        _write(_place(verb), own + VERSION + dumps(modules))
    except (OSError, SyntaxError, ValueError):  # the package was replaced meanwhile, or the directory is not ours
        return


def _place(verb: str) -> str:
    return cache_from_source(f"{PACKAGE}cli/{verb}.py")


def _write(path: str, data: bytes) -> None:
    """All of it or nothing, as readable as this source is; who is killed meanwhile leaves nothing. Raises OSError."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
    try:
        with open(os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=directory), "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), os.stat(__file__).st_mode & 0o666)
            os.fsync(file.fileno())  # half of it, after a power failure, the interpreter would choke on
            os.unlink(path)  # linkat(2) replaces nothing
            os.link(f"/proc/self/fd/{file.fileno()}", path, src_dir_fd=directory)  # with a descriptor it follows links
    finally:
        os.close(directory)


if __name__ == "__main__":
    run_command()
