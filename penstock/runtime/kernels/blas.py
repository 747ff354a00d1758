"""Matrix products on as many BLAS threads as they are worth.

OpenBLAS, which NumPy's wheels carry, splits every product of more than about a hundred thousand
multiplications over all CPUs, and its threads wait for each other in a busy loop. On a machine that
has other work to do, or in a container that is given fewer CPUs than it sees, products of a
millisecond then take many times as long. So a product that one core finishes soon is kept on one.
OpenBLAS is told through its C interface; with another BLAS nothing is done.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from penstock.runtime.kernels.common import Array

#: Multiplications and additions that one core does in about two milliseconds.
_SMALL = 200e6

#: Prefix and suffix of OpenBLAS's functions in NumPy's wheels, now and before, and elsewhere.
_NAMES = (("scipy_openblas", "64_"), ("openblas", "64_"), ("scipy_openblas", ""), ("openblas", ""))


class _OpenBlas(NamedTuple):
    get_threads: Callable[[], int]
    set_threads: Callable[[int], None]


@cache
def _openblas() -> _OpenBlas | None:
    """The OpenBLAS inside NumPy's wheel, which is loaded already; None if there is none."""
    package = Path(np.__file__).parent
    folders = (package.parent / "numpy.libs", package / ".dylibs")
    for path in sorted(path for folder in folders for path in folder.glob("*openblas*")):
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for prefix, suffix in _NAMES:
            get = getattr(library, f"{prefix}_get_num_threads{suffix}", None)
            put = getattr(library, f"{prefix}_set_num_threads{suffix}", None)
            if get is not None and put is not None:
                get.restype, put.argtypes, put.restype = ctypes.c_int, [ctypes.c_int], None
                return _OpenBlas(get, put)
    return None


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """``np.matmul``, on one thread if it is small; see the module."""
    blas = _openblas() if a.dtype.kind == "f" else None
    work = 2.0 * a.size * b.shape[-1] if b.ndim else 0.0
    # Read once: where another Python thread is in here too, nobody restores its 1.
    threads = blas.get_threads() if blas is not None and work <= _SMALL else 1
    if blas is None or threads == 1:
        return np.asarray(np.matmul(a, b, out=out))
    blas.set_threads(1)
    try:
        return np.asarray(np.matmul(a, b, out=out))
    finally:
        blas.set_threads(threads)
