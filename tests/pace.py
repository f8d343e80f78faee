"""How much longer things may take here than on a real machine: an emulated one says so."""

from __future__ import annotations

import os

SLOWER = float(os.environ.get("CYCONTAINER_TEST_SLOWER", "1"))
