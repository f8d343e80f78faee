"""docs/spec-conformance.md names tests that there are."""

from __future__ import annotations

import os
import re

TESTS = os.path.dirname(os.path.abspath(__file__))


def test_each_test_that_the_table_names_exists() -> None:
    with open(f"{TESTS}/../docs/spec-conformance.md", encoding="utf-8") as file:
        named = re.findall(r"`(test_\w+\.py)`: `(test_\w+)`", file.read())
    assert len(named) > 50
    for path, name in named:
        with open(f"{TESTS}/{path}", encoding="utf-8") as file:
            assert f"\ndef {name}(" in file.read(), f"{path}: {name}"
