"""docs/spec-conformance.md has every property of the specification, and names tests that there are.

data/config-properties.txt: the paths in runtime-spec 1.3's config-schema.json that concern Linux.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

TESTS = os.path.dirname(os.path.abspath(__file__))


def properties() -> set[str]:
    with open(f"{TESTS}/data/config-properties.txt", encoding="utf-8") as file:
        return set(file.read().split())


def places(line: str, known: set[str]) -> Iterator[str]:
    """The properties that a line of the document is about: the first by its path, the others below or beside it."""
    if not line.startswith(("| `", "- `")):
        return
    words = re.findall(r"`([^`]+)`", line.split("|")[1] if line.startswith("|") else line.partition(":")[0])
    first = words[0].replace("[]", "")
    for word in words:
        name = word.replace("[]", "").replace("hooks.*", "hooks.prestart")
        for path in (name, f"{first}.{name}", f"{first.rpartition('.')[0]}.{name}"):
            if path in known:
                yield path


def test_each_property_of_the_specification_is_in_the_table() -> None:
    known = properties()
    with open(f"{TESTS}/../docs/spec-conformance.md", encoding="utf-8") as file:
        told = {path for line in file for path in places(line, known)}
    above = {path.rpartition(".")[0] for path in known}
    left = [path for path in known - above if not any(f"{path}.".startswith(f"{each}.") for each in told)]
    assert not left


def test_each_test_that_the_table_names_exists() -> None:
    with open(f"{TESTS}/../docs/spec-conformance.md", encoding="utf-8") as file:
        named = re.findall(r"`(test_\w+\.py)`: `(test_\w+)`", file.read())
    assert len(named) > 50
    for path, name in named:
        with open(f"{TESTS}/{path}", encoding="utf-8") as file:
            assert f"\ndef {name}(" in file.read(), f"{path}: {name}"
