"""The memory of packed weights, and the constants that they are made of."""

from __future__ import annotations

import threading

import numpy as np

from penstock.graph.graph import Value
from penstock.runtime.blocks import ALIGNMENT, OVERREAD, address, large
from penstock.runtime.engines.xnnpack.buffers import constant
from penstock.runtime.mapped import drop

#: Weights share blocks of at least and, unless one is larger, at most this size.
_LEAST, _MOST = 1 << 20, 1 << 26


class Blocks:
    """Blocks of memory that the executables of an engine cut their packed weights from: the end of
    one and the beginning of the next often lie in one huge page."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._block = np.empty(0, np.uint8)
        self._free = 0
        #: bytes of weights that are to be expected
        self.expected = 0

    def reserve(self, size: int) -> tuple[int, np.ndarray]:
        """The address of ``size`` bytes, aligned, with room for reads past the end, and the block
        that they lie in."""
        with self._lock:
            start = -(-self._free // ALIGNMENT) * ALIGNMENT
            if start + size + OVERREAD > self._block.nbytes:
                need = size + OVERREAD
                self._block = large(max(need, min(self.expected, _MOST), _LEAST))
                start = 0
            self._free = start + size + OVERREAD
            self.expected = max(0, self.expected - size)
            return address(self._block) + start, self._block


class PackedWeights:
    """The packed weights of one executable, which keeps them."""

    def __init__(self, blocks: Blocks) -> None:
        self._from = blocks
        self._blocks: list[np.ndarray] = []
        self._sources: list[np.ndarray] = []

    def reserve(self, size: int) -> int:
        """The address of ``size`` bytes, aligned, with room for reads past the end."""
        start, block = self._from.reserve(size)
        if not any(block is known for known in self._blocks[-1:]):
            self._blocks.append(block)
        return start

    def keep(self, array: np.ndarray) -> int:
        """The address of ``array``, which stays as long as the weights do."""
        self._blocks.append(array)
        return address(array)

    def source(self, value: Value) -> np.ndarray:
        """The bytes of a constant, until :meth:`packed` is called."""
        assert value.data is not None
        found = constant(value.data, value.dtype.traits.alignment)
        self._sources.append(found)
        return found

    def drop(self, source: np.ndarray) -> None:
        """A part of a constant is packed: its pages of the file can go."""
        drop(source)

    def packed(self) -> None:
        """The constants asked for so far are packed: their pages of the file can go."""
        for source in self._sources:
            drop(source)
        self._sources.clear()
