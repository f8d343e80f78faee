"""Every verb's table, at build time: also where no module is compiled yet, or all are for another machine."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

from cycontainer.cli import __main__ as command
from cycontainer.cli.verb import Verb

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class _Uncompiled:
    """Finds, after all others, a module of any names where a .pyx lies: tables need but its import."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        there = os.path.exists(f"{ROOT}/{name.replace('.', '/')}.pyx")
        return ModuleSpec(name, self) if there else None  # type: ignore[arg-type]  # a loader by its methods

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__getattr__"] = _any_name


def _any_name(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


def every_verb() -> dict[str, Verb]:
    """The tables of all verbs by their names, in the order in which --help has them."""
    finder = _Uncompiled()
    sys.meta_path.append(finder)
    try:
        return {name: import_module(f"cycontainer.cli.{name}").VERB for name in command.VERBS}
    finally:
        sys.meta_path.remove(finder)
