"""How Sphinx makes the site of these pages: `make docs`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.dirname(os.path.abspath(__file__))]

project, author = "cycontainer", "the cycontainer project"
release = version = import_module("cycontainer.version").VERSION

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
smartquotes = False
html_theme = "furo"
html_title = f"cycontainer {release}"
html_copy_source = False
pygments_style, pygments_dark_style = "default", "monokai"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # they stand in the signature of the stub or the source, and the text says what is meant
autodoc_preserve_defaults = True
napoleon_custom_sections = [("Source", "returns_style")]
default_role = "code"  # docstrings set names in single backquotes
linkcheck_anchors = False


def _plain(text: str) -> str:
    """A docstring's line for reStructuredText: what has a meaning there stands for itself here, but for backquotes."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts
    )


def _with_examples(lines: list[str]) -> Iterator[str]:
    """The lines, with what is indented below a sentence as a block of Python; below a section's name it is its text."""
    above, inside = "", False
    language = "text" if any("├" in line for line in lines) else "python"
    for line in lines:
        if line.startswith("    ") and not inside and not re.fullmatch(r"\w+:", above):
            yield from (f".. code-block:: {language}", "")
            inside = True
        elif line and not line.startswith("    "):
            inside, above = False, line
        yield line if inside else _plain(line)


def take_as_written(app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:
    lines[:] = list(_with_examples(lines))


def insert_verbs(app: Sphinx, page: str, source: list[str]) -> None:
    """The command's verbs, of their tables, where their page has a place for them."""
    if page == "reference/command":
        source[0] = source[0].replace("<!-- verbs -->\n", import_module("verbs_page").page())


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", take_as_written, priority=400)  # before napoleon's
    app.connect("source-read", insert_verbs)
