"""What the figures were measured on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path


def describe() -> dict[str, str]:
    return {
        "date": datetime.date.today().isoformat(),
        "processor": f"{_model()}, {len(os.sched_getaffinity(0))} cores for this process",
        "features": ", ".join(_features()) or "none of note",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(
            f"{name} {importlib.metadata.version(name)}" for name in ("executorch", "torch")
        ),
    }


def _model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _features() -> list[str]:
    known = ("avx2", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm", "sve")
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("flags", "Features")):
            present = set(line.split())
            return [feature for feature in known if feature in present]
    return []
