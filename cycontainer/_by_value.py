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
OF_THE_IMPORT: Final = ("__builtins__", "__loader__", "__path__", "__spec__")  # of a module: where this process has it
_locks: dict[int, threading.RLock] = {}  # by process: a fork may come while another thread holds its parent's


def own_modules(paths: Sequence[str]) -> list[ModuleType]:
    """The loaded modules and packages that are not the interpreter's, nor installed, nor below `paths`.

    A package stands for all in it. One without an __init__.py can be ours in one place and installed in another: so
    what is in such a one stands for itself, too.
    """
    foreign = tuple(f"{place}/" for place in (os.path.dirname(os.__file__), *paths))
    found, loaded = [], sys.modules.copy()
    for name, module in loaded.items():
        if name in OURS or ("." in name and not _spread(loaded.get(name[: name.rindex(".")]))):
            continue
        if getattr(module, "__name__", None) != name:
            continue  # another name of one that has its own
        places = _spread(module) or [getattr(module, "__file__", None)]  # None is built in
        if all(isinstance(place, str) and _is_own(place, foreign) for place in places):
            found.append(module)
    return found


def _spread(module: object) -> Sequence[object]:
    """The directories of a package that has no file of its own."""
    return () if getattr(module, "__file__", None) is not None else tuple(getattr(module, "__path__", ()))


def _is_own(place: str, foreign: tuple[str, ...]) -> bool:
    path = f"{os.path.abspath(place)}/"
    return not path.startswith(foreign) and not any(f"/{each}/" in path for each in INSTALLED)


def dumps(cloudpickle: Any, value: object, paths: Sequence[str]) -> bytes:
    """`cloudpickle.dumps`, by value of all that is the program's own, each `Opaque` open. Raises what that does."""
    import threading

    with _locks.setdefault(os.getpid(), threading.RLock()):
        theirs = cloudpickle.list_registry_pickle_by_value()
        added = [module for module in own_modules(paths) if module.__name__ not in theirs]
        try:
            for module in added:
                cloudpickle.register_pickle_by_value(module)
            return _pickled(cloudpickle, value)
        finally:
            registered = cloudpickle.list_registry_pickle_by_value()
            for module in [each for each in added if each.__name__ in registered]:
                cloudpickle.unregister_pickle_by_value(module)


def _pickled(cloudpickle: Any, value: object) -> bytes:
    import pickle
    from types import ModuleType

    registered = cloudpickle.list_registry_pickle_by_value()

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # it has no types
        def reducer_override(self, value: object) -> Any:
            if isinstance(value, Opaque):
                return pickle.loads, (value.data,)
            if isinstance(value, ModuleType) and _is_in(value.__name__, registered):
                content = {name: each for name, each in vars(value).items() if name not in OF_THE_IMPORT}
                return ModuleType, (value.__name__,), content  # made before what is in it: that may name the module
            return super().reducer_override(value)

    with io.BytesIO() as file:
        Pickler(file).dump(value)
        return file.getvalue()


def _is_in(name: str, registered: set[str]) -> bool:
    """Whether a module, or a package that it is in, goes by value."""
    while name and name not in registered:
        name = name.rpartition(".")[0]
    return bool(name)
