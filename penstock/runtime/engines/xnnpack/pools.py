"""Thread pools out of XNNPACK's library.

Where the library exports ``pthreadpool``'s functions (Linux), they are taken. The one for macOS
hides them and exports the C++ class around them, ``executorch::extension::threadpool::ThreadPool``;
there the pool is read out of an object of that class.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from ctypes import c_size_t, c_uint32, c_void_p
from dataclasses import dataclass

_CONSTRUCTOR = "_ZN10executorch9extension10threadpool10ThreadPoolC1Em"
#: Where a ThreadPool of the pinned wheels has the pool, what ends it, and the number of its
#: threads, in words; a mutex lies before them. As its constructor writes them.
_WORDS = {"darwin": (8, 9, 10), "linux": (6, 5, 7)}
#: More words than it has.
_SIZE = 32


@dataclass(frozen=True)
class Pools:
    """How pools are made and ended: ``create(threads)`` returns a ``pthreadpool_t``, 0 where the
    system refuses; ``parallelize_1d`` is that function's address, 0 where it cannot be had."""

    create: Callable[[int], int]
    destroy: Callable[[int], None]
    parallelize_1d: int


def pools(library: ctypes.CDLL) -> Pools:
    """Those of ``library``. Raises AttributeError where it has none."""
    try:
        return exported(library)
    except AttributeError:
        return wrapped(library)


def exported(library: ctypes.CDLL) -> Pools:
    """By ``pthreadpool``'s own functions."""
    create, destroy = library.pthreadpool_create, library.pthreadpool_destroy
    parallelize = library.pthreadpool_parallelize_1d
    create.argtypes, create.restype = (c_size_t,), c_void_p
    destroy.argtypes, destroy.restype = (c_void_p,), None
    parallelize.argtypes = (c_void_p, c_void_p, c_void_p, c_size_t, c_uint32)
    parallelize.restype = None
    address = ctypes.cast(parallelize, c_void_p).value
    return Pools(lambda count: create(count) or 0, destroy, address or 0)


def wrapped(library: ctypes.CDLL) -> Pools:
    """By the class ``ThreadPool``."""
    construct = getattr(library, _CONSTRUCTOR)
    construct.argtypes, construct.restype = (c_void_p, c_size_t), None
    if sys.platform not in _WORDS:
        raise AttributeError(f"a ThreadPool of {sys.platform} is not known")
    at_pool, at_end, at_count = _WORDS[sys.platform]
    ends: dict[int, int] = {}

    def create(count: int) -> int:
        words = (c_size_t * _SIZE)()
        construct(ctypes.addressof(words), count)
        if words[at_count] != count:
            return 0
        ends[words[at_pool]] = words[at_end]
        return words[at_pool]

    def destroy(handle: int) -> None:
        ctypes.CFUNCTYPE(None, c_void_p)(ends.pop(handle))(handle)

    return Pools(create, destroy, 0)
