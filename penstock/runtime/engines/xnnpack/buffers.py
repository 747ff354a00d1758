"""Addresses of buffers, and whether XNNPACK may read a little past their ends."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np

from penstock.runtime.engines.xnnpack.bindings import EXTRA_BYTES

_PAGE = mmap.PAGESIZE
#: Alignment of the buffers that we allocate: a cache line, and the widest vector register.
ALIGNMENT = 64


def address(array: np.ndarray) -> int:
    """Where the elements of ``array`` begin."""
    try:  # 3 times faster than what follows
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):  # read-only, empty or not contiguous
        location: int = array.__array_interface__["data"][0]
        return location


def readable_past_end(start: int, size: int) -> bool:
    """Whether ``EXTRA_BYTES`` after a buffer lie in its own last page, hence can be read."""
    return (start + size) % _PAGE + EXTRA_BYTES <= _PAGE and (start + size) % _PAGE != 0


def as_bytes(data: Any) -> np.ndarray:
    """A flat view of a buffer's bytes, without a copy where its layout allows."""
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)


def padded_empty(size: int) -> np.ndarray:
    """``size`` bytes, aligned, with room for reads past the end; contents undefined."""
    room = np.empty(size + ALIGNMENT + EXTRA_BYTES, np.uint8)
    shift = -address(room) % ALIGNMENT
    return room[shift : shift + size]


def constant(data: Any, alignment: int) -> np.ndarray:
    """The bytes of a constant as XNNPACK can use them: aligned, and readable past the end.

    The buffer itself where it is both; else a copy.
    """
    view = as_bytes(data)
    start = address(view)
    if start % alignment == 0 and readable_past_end(start, view.nbytes):
        return view
    copy = padded_empty(view.nbytes)
    copy[:] = view
    return copy
