"""What this machine can do: a small roofline, measured once and kept in the user's cache folder."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penstock.errors import BackendUnavailableError, InputError
from penstock.files import write_file
from penstock.runtime.engines.native import library as native
from penstock.runtime.engines.native.isa import Isa
from penstock.runtime.engines.processor import processor

#: Functions of our own kernels that do multiply-adds on registers alone, the best first.
_FP32 = ((Isa.AVX512, "pk_peak_avx512"), (Isa.AVX2, "pk_peak_avx2"))
_INT8 = (
    (Isa.AVX512VNNI, "pk_peak_int8_avx512vnni"),
    (Isa.AVXVNNI, "pk_peak_int8_avxvnni"),
    (Isa.AVX512, "pk_peak_int8_avx512"),
    (Isa.AVX2, "pk_peak_int8_avx2"),
)
_ROUNDS, _SLICES = 1 << 17, 24
#: Sizes where the caches are not known.
_L2 = 1 << 20
_LARGE = 96 << 20


@dataclass(frozen=True)
class Peaks:
    """What a processor does at most with so many threads: operations a second in ``fp32`` and
    ``int8`` (a multiply-add is two), None where our own kernels have no way to find out; bytes a
    second, read and written, from and to ``memory`` and the ``cache`` of ``cache_bytes``. ``busy``:
    other work went on while it was measured, so it may be more than this."""

    processor: str
    threads: int
    fp32: float | None
    int8: float | None
    memory: float
    cache: float
    cache_bytes: int
    busy: bool = False

    def bandwidth(self, size: float) -> float:
        """Bytes a second that ``size`` bytes can be moved at: they are in the cache if they fit."""
        return self.cache if size <= self.cache_bytes else self.memory

    def least_seconds(self, operations: float, size: float, *, int8: bool) -> float:
        """How long that many operations on that many bytes take at least: the roofline."""
        peak = self.int8 if int8 else self.fp32
        return max(operations / peak if peak else 0.0, size / self.bandwidth(size))


def peaks(threads: int, *, anew: bool = False) -> Peaks:
    """What this machine does with ``threads`` threads: as it was measured once, or measured now
    (about a second), if that was never done, or while the machine was busy, or ``anew`` asks for
    it.

    Raises InputError if ``PENSTOCK_ISA`` names no instruction set of this machine.
    """
    library = _library()
    isa = library.isa.names[-1] if library is not None else "unknown"
    key = f"{processor()}, {isa}, {threads} threads"
    kept = _kept()
    if not anew:
        with suppress(TypeError, KeyError):
            known = Peaks(**kept[key])
            if not known.busy or is_busy():
                return known
    found = measured(threads)
    _keep({**kept, key: asdict(found)})
    return found


def measured(threads: int) -> Peaks:
    """What this machine does, measured now. Times of arithmetic are those that the threads were
    running for, so that other work on the machine disturbs little; of memory, the best of many."""
    library = _library()
    caches = library.caches() if library is not None else None
    l2 = (caches.l2 if caches is not None else 0) or _L2
    l3 = (caches.l3 if caches is not None else 0) or 0
    return Peaks(
        processor(),
        threads,
        operations(_FP32, threads),
        operations(_INT8, threads),
        _memory_bandwidth(threads, max(_LARGE, 3 * l3)),
        threads * _cache_bandwidth(l2),
        threads * l2,
        is_busy(),
    )


def is_busy() -> bool:
    """Whether other work waits for this machine's processors."""
    try:
        return os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1)
    except (OSError, AttributeError):  # Windows has no load average
        return False


def fp32_peak() -> float:
    """Operations of fp32 a second that one core does on registers alone; 0 where our own kernels
    cannot tell."""
    return operations(_FP32, 1) or 0.0


def operations(choices: tuple[tuple[Isa, str], ...], threads: int) -> float | None:
    """Operations a second of the first of ``choices`` that this machine has, on that many threads
    at once."""
    library = _library()
    name = next((n for isa, n in choices if library is not None and isa in library.isa), None)
    if library is None or name is None:
        return None
    function = getattr(library.functions, name)
    number = ctypes.c_int32 if "int8" in name else ctypes.c_float
    function.argtypes = (ctypes.c_size_t, ctypes.POINTER(number))
    function.restype = ctypes.c_size_t
    together = threading.Barrier(threads)

    def best() -> float:
        found = 0.0
        together.wait()
        for _ in range(_SLICES):
            factor = number(1)
            start = time.thread_time()
            each = function(_ROUNDS, ctypes.byref(factor))
            found = max(found, each * _ROUNDS / (time.thread_time() - start))
        return found

    return sum(_on_each(threads, best))


def _on_each(threads: int, work: Callable[[], float]) -> list[float]:
    with ThreadPoolExecutor(threads) as pool:
        return [future.result() for future in [pool.submit(work) for _ in range(threads)]]


def _memory_bandwidth(threads: int, size: int) -> float:
    """Bytes a second that threads read and write together, that copy ``size`` bytes in all."""
    share = size // threads // 2
    together = threading.Barrier(threads)

    def usual() -> float:
        source, to = np.ones(share, np.uint8), np.zeros(share, np.uint8)
        together.wait()
        found = []
        for _ in range(12):
            start = time.thread_time()
            np.copyto(to, source)
            found.append(2 * share / (time.thread_time() - start))
        # The best of one thread may be of a moment when the others had nothing to do.
        return max(found) if threads == 1 else float(np.median(found))

    return sum(_on_each(threads, usual))


def _cache_bandwidth(size: int) -> float:
    """Bytes a second that copies within a cache of ``size`` bytes read and write on one core."""
    share = size // 4
    source, to = np.ones(share, np.uint8), np.zeros(share, np.uint8)
    best = 0.0
    for _ in range(20):
        start = time.thread_time()
        for _ in range(50):
            np.copyto(to, source)
        best = max(best, 50 * 2 * share / max(time.thread_time() - start, 1e-9))
    return best


def _library() -> native.Library | None:
    try:
        return native.shared_library()
    except BackendUnavailableError:
        return None


def cache_folder() -> Path:
    """Where Penstock keeps what it found out about this machine."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "penstock"


def _kept() -> dict[str, Any]:
    try:
        found = json.loads((cache_folder() / "machine.json").read_text())
    except (OSError, ValueError, RuntimeError):  # RuntimeError: there is no home folder
        return {}
    return found if isinstance(found, dict) else {}


def _keep(found: dict[str, Any]) -> None:
    """Writes the measurements; where that cannot be done they are measured again next time."""
    with suppress(OSError, RuntimeError, InputError):
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(found, indent=2).encode()
        write_file(folder / "machine.json", lambda file: file.write(text))
