"""The memory that engines pack weights into."""

from __future__ import annotations

import math
import threading

import numpy as np

from penstock.graph.graph import XnnGraph
from penstock.runtime.blocks import ALIGNMENT, OVERREAD, address, large

#: Weights share blocks of at least and, unless one is larger, at most this size.
_LEAST, _MOST = 1 << 20, 1 << 26


class WeightBlocks:
    """Blocks of memory that the executables of a program's engines cut their packed weights from.
    What one part of a graph needs is often less than a huge page, and small pages cost 2
    microseconds each when they are first touched: more than packing what goes into them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._block = np.empty(0, np.uint8)
        self._address = 0
        self._free = 0
        self._expected = 0

    def expect(self, graph: XnnGraph) -> None:
        """The constants of ``graph`` are to be packed, about as large as they are."""
        bits = (
            math.prod(v.shape) * (v.dtype.traits.bits or 8)
            for v in graph.values
            if v.data is not None
        )
        self._expected = sum(bits) // 8

    def reserve(self, size: int) -> tuple[int, np.ndarray]:
        """The address of ``size`` bytes, aligned, with room for reads past the end, and the block
        that they lie in."""
        with self._lock:
            start = -(-self._free // ALIGNMENT) * ALIGNMENT
            if start + size + OVERREAD > self._block.nbytes:
                need = size + OVERREAD
                self._block = large(max(need, min(self._expected, _MOST), _LEAST))
                self._address, start = address(self._block), 0
            self._free = start + size + OVERREAD
            self._expected = max(0, self._expected - size)
            return self._address + start, self._block
