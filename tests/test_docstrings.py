"""Docstrings are contracts: they name every parameter and field that there is, and no error that there is not."""

from __future__ import annotations

import builtins
import importlib
import inspect
import re
from collections.abc import Callable

import pytest
from test_house import STUBBED, module_of, public

import cycontainer
from cycontainer import errors
from cycontainer.record import Record

PUBLIC = {name: getattr(cycontainer, name) for name in cycontainer._HOME}
FUNCTIONS = [name for name, value in PUBLIC.items() if inspect.isfunction(value)]
RECORDS = [name for name, value in PUBLIC.items() if isinstance(value, type) and issubclass(value, Record)]
ERRORS = [name for name, value in PUBLIC.items() if isinstance(value, type) and issubclass(value, Exception)]


def section(value: object, title: str) -> str:
    """A section of a docstring, "Args", without its indentation; empty when it has none."""
    text = f"{inspect.getdoc(value)}\n"
    found = re.search(rf"^{title}:\n((?:    .*\n|\n)+)|^{title}: (.*)\n", text, re.MULTILINE)
    return inspect.cleandoc(found[1] or found[2]) if found else ""


def named(value: object, title: str) -> set[str]:
    """What the entries of a section speak of: "stdin, stdout: a descriptor" speaks of both."""
    entries = re.findall(r"^(\w+(?:, \w+)*): ", section(value, title), re.MULTILINE)
    return {name for entry in entries for name in entry.split(", ")}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_what_it_takes_returns_and_raises(name: str) -> None:
    function: Callable[..., object] = PUBLIC[name]
    assert named(function, "Args") == set(inspect.signature(function).parameters)
    assert section(function, "Returns") and section(function, "Source")
    assert named(function, "Raises")
    assert all(hasattr(errors, raised) or hasattr(builtins, raised) for raised in named(function, "Raises"))


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_says_what_its_fields_are(name: str) -> None:
    record = PUBLIC[name]
    properties = {key for key, value in vars(record).items() if isinstance(value, property)}
    documented = named(record, "Attributes") | set(re.findall(r"`(\w+)`", inspect.getdoc(record) or ""))
    assert properties <= documented


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_says_what_a_caller_may_act_on(name: str) -> None:
    error = PUBLIC[name]
    making = inspect.getsource(error).partition("def __init__")[2].partition("    def ")[0]
    stored = set(re.findall(r"self\.(\w+)", making)) - {"args"}  # what pickles and every exception has
    assert inspect.getdoc(error)
    assert stored <= named(error, "Attributes")


@pytest.mark.parametrize("path", STUBBED)
def test_what_is_compiled_says_what_it_does(path: str) -> None:
    name = f"cycontainer.{module_of(path)}"
    module = importlib.import_module(name)
    assert inspect.getdoc(module), "the first line says what the file is about"
    own = {key: value for key, value in public(vars(module), name).items() if callable(value)}
    assert not [key for key, value in own.items() if not inspect.getdoc(value)]
