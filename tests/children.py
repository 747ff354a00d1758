"""Processes of their own, for what may end a process or must begin in a fresh one."""

from __future__ import annotations

import os
import sys


def environment(**more: str) -> dict[str, str]:
    """Ours, so that a child finds the modules that this process finds; with ``more``."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **more}
