"""Processes of their own, for what may end a process or must begin in a fresh one."""

from __future__ import annotations

import os
import signal
import sys


def environment(**more: str) -> dict[str, str]:
    """Ours, so that a child finds the modules that this process finds; with ``more``."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **more}


def interruptible() -> None:
    """For ``preexec_fn``: the child hears SIGINT also where this process was started in the
    background of a script, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
