"""The operator cases and the harnesses of other folders are imported by their plain names."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent
FOLDERS = ("sweeps", "compiler", "compiler/operators", "compiler/emit")
for folder in (TESTS / name for name in FOLDERS):
    sys.path.insert(0, str(folder))
