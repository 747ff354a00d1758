"""Rows of a softmax that masks leave empty: PyTorch's attention gives zeros for them.

A softmax over minus infinity alone is not a number. So an empty row is softened (its mask becomes
zeros) and its result multiplied by zero; every other row keeps its mask and is multiplied by one,
both exactly. What the mask alone decides is computed once for all layers that read it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import Tensor
from penstock.graph.kinds import NodeKind


@dataclass(frozen=True)
class MaskedRows:
    """``mask`` is without empty rows; ``seen`` is 1 for the rows that had a place to look at and 0
    for the others, [..., rows, 1]. ``None``: all rows had one."""

    mask: Tensor
    seen: Tensor | None

    def only_seen(self, b: GraphBuilder, result: Tensor) -> Tensor:
        """``result`` [..., rows, size] with zeros in the rows that were empty."""
        return result if self.seen is None else ex.multiply(b, result, self.seen)


def without_empty_rows(
    b: GraphBuilder, mask: Tensor, key: Tensor, *, every_row_sees: bool = False
) -> MaskedRows:
    """The additive ``mask`` [..., rows, columns] of attention to ``key`` [..., columns, size],
    taken apart. ``every_row_sees``: it is known to have no empty rows."""
    if mask.constant is not None:
        empty = (mask.real() == -math.inf).all(-1, keepdim=True)
        if not bool(empty.any()):
            return MaskedRows(mask, None)
        filled = b.constant(mask.real().masked_fill(empty, 0.0))
        return MaskedRows(filled, b.constant((~empty).float()))
    if every_row_sees:
        return MaskedRows(mask, None)
    mask = replace(mask, shape=mask.stored)  # broadcasting makes up for what is not written out
    known = b.remembered.get(_key(b, mask))
    if isinstance(known, MaskedRows):
        return known
    seen = _any(b, visible(b, mask), key)
    rows = MaskedRows(b.binary(NodeKind.MAXIMUM, floor_of(b, seen), mask), seen)
    if isinstance(mask.shape[-1], int):  # else it depends on the key
        b.remembered[_key(b, mask)] = rows
    return rows


def _key(b: GraphBuilder, mask: Tensor) -> tuple[object, ...]:
    return ("masked rows", b.value_of(mask).id, mask.order, mask.stored)


def visible(b: GraphBuilder, mask: Tensor) -> Tensor:
    """0 where ``mask`` is minus infinity, else 1: a quarter of the lowest number is -8.5e37."""
    quarter = ex.multiply(b, mask, ex.scalar(b, 0.25))
    return b.binary(NodeKind.ADD, quarter, ex.scalar(b, 1e38), (0.0, 1.0))


def _any(b: GraphBuilder, shown: Tensor, key: Tensor) -> Tensor:
    """1 for the rows of ``shown`` that are not all zeros: [..., rows, 1]."""
    columns = shown.shape[-1]
    if columns == 1:
        return shown
    fixed = isinstance(columns, int)
    ones = b.full((int(columns), 1), 1.0) if fixed else _ones(b, key, shown.rank)
    return b.unary(NodeKind.CLAMP, ex.matmul(b, shown, ones), None, (0.0, 1.0))


def _ones(b: GraphBuilder, key: Tensor, rank: int) -> Tensor:
    """Numbers from 1 on, as many as ``key`` has rows, which only a run tells: [..., rows, 1]."""
    first = ex.slice_dims(b, key, [0] * key.rank, [*(1,) * (key.rank - 2), key.shape[-2], 1])
    column = b.reshape(first, (*(1,) * (rank - 2), key.shape[-2], 1))
    return b.unary(NodeKind.CLAMP, column, None, (1.0, 1.5))


def floor_of(b: GraphBuilder, seen: Tensor) -> Tensor:
    """Minus infinity for 1, zero for 0."""
    unseen = ex.subtract(b, ex.scalar(b, 1.0), seen)
    return b.unary(NodeKind.NEGATE, ex.divide(b, seen, unseen))
