"""Buffers that XNNPACK may read a little past the ends of."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from penstock.runtime.blocks import OVERREAD, address, empty

_PAGE = mmap.PAGESIZE


def readable_past_end(start: int, size: int) -> bool:
    """Whether ``OVERREAD`` bytes after a buffer lie in its own last page, hence can be read."""
    return (start + size) % _PAGE + OVERREAD <= _PAGE and (start + size) % _PAGE != 0


def as_array(data: Any) -> np.ndarray:
    """A flat view of a buffer's bytes, without a copy where its layout allows."""
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)


def constant(data: Any, alignment: int) -> np.ndarray:
    """The bytes of a constant as XNNPACK can use them: aligned, and readable past the end.

    The buffer itself where it is both; else a copy.
    """
    return placed_constant(data, alignment)[0]


def placed_constant(data: Any, alignment: int) -> tuple[np.ndarray, int]:
    """As :func:`constant`, with the address: to find that out takes microseconds."""
    view = as_array(data)
    start = address(view)
    if start % alignment == 0 and readable_past_end(start, view.nbytes):
        return view, start
    copy = empty(view.nbytes)
    copy[:] = view
    return copy, address(copy)
