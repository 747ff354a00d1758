"""The memory plan: where each tensor of a method lies, so that few bytes serve many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Integers: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"

ALIGNMENT = 16


@dataclass(frozen=True)
class Block:
    """A tensor's bytes and its life: from instruction ``first`` to ``last``, both included."""

    size: int
    first: int
    last: int


def plan(blocks: Sequence[Block]) -> tuple[list[int], int]:
    """An offset for each block, and the bytes needed in all.

    Greedy by size: large blocks first, each at the lowest offset where no block that lives at the
    same time is in its way (the "greedy by size" of Pisarchyk and Lee, "Efficient Memory
    Management for Deep Neural Net Inference", 2020).
    """
    count = len(blocks)
    sizes = np.array([aligned(block.size) for block in blocks], np.int64)
    first = np.array([block.first for block in blocks], np.int64)
    last = np.array([block.last for block in blocks], np.int64)
    order = np.lexsort((np.arange(count), first, -sizes))
    # The blocks in the order in which they are placed, so that those in place are a slice.
    sizes, first, last = sizes[order], first[order], last[order]
    starts = np.zeros(count, np.int64)
    for index in range(count):
        placed = slice(index)
        together = (first[placed] <= last[index]) & (first[index] <= last[placed])
        taken = np.flatnonzero(together)
        taken = taken[np.argsort(starts[taken], kind="stable")]
        starts[index] = _lowest_gap(starts[taken], starts[taken] + sizes[taken], sizes[index])
    offsets = np.zeros(count, np.int64)
    offsets[order] = starts
    return offsets.tolist(), int((starts + sizes).max(initial=0))


def _lowest_gap(starts: Integers, ends: Integers, size: np.int64) -> int:
    """The lowest offset at which ``size`` bytes are free between blocks in the order of their
    ``starts``."""
    before = np.concatenate(([0], np.maximum.accumulate(ends)))
    gaps = np.flatnonzero(starts - before[:-1] >= size)
    return int(before[gaps[0]] if gaps.size else before[-1])


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
