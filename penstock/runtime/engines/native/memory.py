"""The memory of packed weights, and the constants that they are made of."""

from __future__ import annotations

import numpy as np

from penstock.graph.graph import Value
from penstock.runtime.blocks import ALIGNMENT, OVERREAD, address, large
from penstock.runtime.engines.xnnpack.buffers import constant
from penstock.runtime.mapped import drop

#: Weights share blocks of this size, unless they are larger.
_BLOCK = 1 << 20


class PackedWeights:
    """The packed weights of one executable, which keeps them."""

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._free, self._end = 0, 0
        self._sources: list[np.ndarray] = []

    def reserve(self, size: int) -> int:
        """The address of ``size`` bytes, aligned, with room for reads past the end."""
        start = -(-self._free // ALIGNMENT) * ALIGNMENT
        if start + size + OVERREAD > self._end:
            need = size + OVERREAD + ALIGNMENT
            block = large(max(need, _BLOCK))
            self._blocks.append(block)
            self._end = address(block) + block.nbytes
            start = -(-address(block) // ALIGNMENT) * ALIGNMENT
        self._free = start + size + OVERREAD
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

    def packed(self) -> None:
        """The constants asked for so far are packed: their pages of the file can go."""
        for source in self._sources:
            drop(source)
        self._sources.clear()
