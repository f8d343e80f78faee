"""Pickling a call for a container that has the interpreter's modules, but not those of the caller's program. Face.

cloudpickle takes functions and classes along whose modules are registered for it, and all others by name. What no
container could import is registered while a call is pickled, and no longer: the registry is the whole process's.

An `Opaque` goes in as what is loaded there. Only the pickler of the call does that: what the caller's own objects copy
or pickle while they are pickled may be loaded here, and has it closed.
"""

from __future__ import annotations

import io
import os
import sys

from cycontainer._answers import Opaque

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any, Final

INSTALLED: Final = ("site-packages", "dist-packages")
OURS: Final = ("cycontainer", "cloudpickle")  # the one runs no tasks, the other is in every container
_locks: dict[int, threading.RLock] = {}  # by process: a fork may come while another thread holds its parent's


def own_modules(paths: Sequence[str]) -> list[ModuleType]:
    """The loaded top-level modules and packages that are not the interpreter's, nor installed, nor below `paths`."""
    library = os.path.dirname(os.__file__)
    found = []
    for name, module in list(sys.modules.items()):
        file = None if "." in name or name in OURS else getattr(module, "__file__", None)
        if not isinstance(file, str) or module.__name__ != name:
            continue  # built in, or another name of one that has its own
        path = os.path.abspath(file)
        installed = any(f"/{each}/" in path for each in INSTALLED)
        if not installed and not any(path.startswith(f"{place}/") for place in (library, *paths)):
            found.append(module)
    return found


def dumps(cloudpickle: Any, value: object, paths: Sequence[str]) -> bytes:
    """`cloudpickle.dumps`, by value of all that is the program's own, each `Opaque` open. Raises what that does."""
    import threading

    with _locks.setdefault(os.getpid(), threading.RLock()):
        theirs = cloudpickle.list_registry_pickle_by_value()
        added = [module for module in own_modules(paths) if module.__name__ not in theirs]
        for module in added:
            cloudpickle.register_pickle_by_value(module)
        try:
            return _pickled(cloudpickle, value)
        finally:
            for module in added:
                cloudpickle.unregister_pickle_by_value(module)


def _pickled(cloudpickle: Any, value: object) -> bytes:
    import pickle

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # it has no types
        def reducer_override(self, value: object) -> Any:
            if isinstance(value, Opaque):
                return pickle.loads, (value.data,)
            return super().reducer_override(value)

    with io.BytesIO() as file:
        Pickler(file).dump(value)
        return file.getvalue()
