"""What figures were measured on, and whether anyone else uses it."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path

from penstock.runtime.engines.processor import processor

#: Instruction sets that the speed of a model depends on, by their names in /proc/cpuinfo.
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm", "sve")


def describe(packages: Iterable[str] = ()) -> dict[str, str]:
    """Date, processor, system, and the versions of those ``packages`` that are installed."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": f"{processor()}, {cpus()} cores for this process",
        "features": ", ".join(_features()) or "none of note",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(_versions(packages)) or "none",
    }


def cpus() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def busy() -> str | None:
    """A line that says so if other work keeps the machine busy now."""
    if not hasattr(os, "getloadavg"):
        return None
    load, count = os.getloadavg()[0], os.cpu_count() or 1
    if load < 0.5 * count:
        return None
    return (
        f"the machine is busy: a load of {load:.1f} on {count} processors in the last minute; "
        "trust the ratios, not the times"
    )


def _features() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    found = [line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))]
    present = set(found[0].split()) if found else set()
    return [feature for feature in _FEATURES if feature in present]


def _versions(packages: Iterable[str]) -> list[str]:
    found = []
    for name in packages:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
