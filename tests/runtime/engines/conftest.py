"""Helpers of the graph passes' and the XNNPACK tests are imported by their plain names."""

from __future__ import annotations

import sys
from pathlib import Path

HERE, TESTS = Path(__file__).parent, Path(__file__).parents[2]
for folder in (HERE, HERE / "xnnpack", TESTS / "compiler", TESTS / "compiler" / "operators"):
    sys.path.insert(0, str(folder))
