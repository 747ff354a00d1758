"""The processor of this machine, by name."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """Its model and architecture: ``AMD EPYC (x86_64)``."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} ({platform.machine()})"
