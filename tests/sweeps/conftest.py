"""The operator cases and the harnesses of other folders are imported by their plain names."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent
for folder in (TESTS / "sweeps", TESTS / "compiler", TESTS / "compiler" / "operators"):
    sys.path.insert(0, str(folder))
