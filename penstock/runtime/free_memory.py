"""How much memory there is still to be had."""

from __future__ import annotations

from pathlib import Path

from penstock.runtime.blocks import machine_bytes

#: Where the system does not tell its memory.
_UNKNOWN = 1 << 40


def available_memory() -> int:
    """Bytes that this process can still get, as far as the system tells."""
    limits = (machine_bytes(), _meminfo(), _control_group())
    return min((n for n in limits if n is not None), default=_UNKNOWN)


def _meminfo() -> int | None:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _control_group() -> int | None:
    """What is left to the container that we may be in."""
    limit = _lines("/sys/fs/cgroup/memory.max")
    used = _lines("/sys/fs/cgroup/memory.current")
    if not limit or not used or not limit[0].strip().isdigit():
        return None
    return max(0, int(limit[0]) - int(used[0]))


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
