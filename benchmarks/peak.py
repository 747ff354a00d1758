"""The most int8 products that a core of this machine makes in a second, measured by loops that do
nothing else (``peak.c``)."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROOT = Path(__file__).parent.parent


def int8_peak(isa: str) -> float | None:
    """Operations in a second with the instruction set ``isa`` (``avx2`` or ``avx512vnni``); None
    without a compiler."""
    sys.path.insert(0, str(_ROOT / "build_backend"))
    import native_library  # type: ignore[import-not-found]

    try:
        command = native_library.compiler()
    except native_library.NoCompilerError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        source = str(_ROOT / "benchmarks" / "peak.c")
        flags = ["-O2", "-shared", "-fPIC", source, "-o", str(library)]
        if subprocess.run([*command, *flags], capture_output=True).returncode:
            return None
        function = getattr(ctypes.CDLL(str(library)), f"peak_int8_{isa}")
        function.restype, function.argtypes = ctypes.c_size_t, [ctypes.c_size_t]
        best = 0.0
        for _ in range(20):
            start = time.thread_time()
            operations = function(200_000)
            best = max(best, operations / (time.thread_time() - start))
    return best
