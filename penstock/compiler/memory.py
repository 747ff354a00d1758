"""The memory plan: where each tensor of a method lies, so that few bytes serve many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    offsets = [0] * len(blocks)
    placed: list[int] = []
    total = 0
    for index in sorted(range(len(blocks)), key=lambda i: (-blocks[i].size, blocks[i].first, i)):
        block = blocks[index]
        size = aligned(block.size)
        busy = sorted(
            (offsets[other], offsets[other] + aligned(blocks[other].size))
            for other in placed
            if blocks[other].first <= block.last and block.first <= blocks[other].last
        )
        offset = 0
        for start, end in busy:
            if offset + size <= start:
                break
            offset = max(offset, end)
        offsets[index] = offset
        total = max(total, offset + size)
        placed.append(index)
    return offsets, total


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
