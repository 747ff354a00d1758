"""The processor of this machine, by name, and of arm64 what it can."""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path

#: Linux's ``AT_HWCAP`` and ``AT_HWCAP2``, and the bits in them, as on arm64.
_HWCAP, _HWCAP2 = 16, 26
_FEATURES = {
    "asimdhp": (_HWCAP, 10), "dotprod": (_HWCAP, 20), "sve": (_HWCAP, 22),
    "i8mm": (_HWCAP2, 13), "sme": (_HWCAP2, 23),
}  # fmt: skip


def processor() -> str:
    """Its model and architecture: ``AMD EPYC (x86_64)``, ``Neoverse (aarch64, dotprod, i8mm)``."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    can = ", ".join((platform.machine(), *features()))
    return f"{names[0] if names else platform.processor()} ({can})".lstrip()


def features() -> tuple[str, ...]:
    """What XNNPACK's kernels for arm64 differ in and Linux tells; nothing elsewhere."""
    if sys.platform != "linux" or platform.machine() != "aarch64":
        return ()
    ask = ctypes.CDLL(None).getauxval
    ask.argtypes, ask.restype = (ctypes.c_ulong,), ctypes.c_ulong
    return tuple(name for name, (word, bit) in _FEATURES.items() if ask(word) >> bit & 1)
