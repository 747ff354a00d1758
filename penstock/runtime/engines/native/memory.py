"""The memory of packed weights, and the constants that they are made of."""

from __future__ import annotations

import numpy as np

from penstock.graph.graph import Value
from penstock.runtime.blocks import address
from penstock.runtime.engines.weight_blocks import WeightBlocks
from penstock.runtime.engines.xnnpack.buffers import placed_constant
from penstock.runtime.mapped import drop, drop_between

#: So many bytes of constants may stay in memory although they are packed: giving pages of the file
#: back costs more than packing a small constant.
_LATE = 1 << 18


class PackedWeights:
    """The packed weights of one executable, which keeps them."""

    def __init__(self, blocks: WeightBlocks) -> None:
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
        return self._placed(value)[0]

    def source_at(self, value: Value) -> int:
        """The address of what :meth:`source` gives."""
        return self._placed(value)[1]

    def _placed(self, value: Value) -> tuple[np.ndarray, int]:
        found = placed_constant(value.data, value.dtype.traits.alignment)
        self._sources.append(found[0])
        return found

    def drop(self, source: np.ndarray) -> None:
        """A part of a constant is packed: its pages of the file can go."""
        drop(source)

    def packed(self, *, all: bool = False) -> None:
        """The constants asked for so far are packed: their pages of the file can go, once they are
        many or with ``all``."""
        if all or sum(source.nbytes for source in self._sources) >= _LATE:
            drop_between(self._sources)
            self._sources.clear()
