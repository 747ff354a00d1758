"""Which places of a row hold its largest values, as rows of zeros and a 1."""

from __future__ import annotations

from collections.abc import Callable

import torch

from penstock.compiler.delegate.lowering import choices, reductions
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.graph.kinds import NodeKind

#: A quarter of a float32 is at most this, and infinity beyond all quarters.
LARGEST_QUARTER = 1.6e38


def places_of_largest(b: GraphBuilder, x: Tensor, k: int, largest: bool) -> Tensor:
    """``x`` [..., n] → [..., k, n]: row ``r`` is 1 at the place of the ``r``-th largest value, of
    equal ones the first."""
    size = x.shape[-1]
    if not isinstance(size, int):
        raise LoweringError("it looks for places along a dynamic dimension")
    # With quarters, infinities are numbers, and so is the difference of any two.
    sign = 0.25 if largest else -0.25
    bounds = (-LARGEST_QUARTER / 2, LARGEST_QUARTER / 2)
    values = b.binary(NodeKind.MULTIPLY, x, ex.scalar(b, sign), bounds)
    by_rounds = 2 * k < size
    find: Callable[..., Tensor] = _by_rounds if by_rounds else _by_ranks
    return find(b, values, k, size)


def _by_rounds(b: GraphBuilder, values: Tensor, k: int, size: int) -> Tensor:
    """One place after the other, each without those before."""
    ahead = b.constant(torch.arange(size, 0, -1, dtype=torch.float32))
    found: list[Tensor] = []
    for number in range(k):
        most = reductions.max_over(b, values, [values.rank - 1], True)
        less = b.unary(NodeKind.CEILING, b.binary(NodeKind.SUBTRACT, most, values, (0.0, 1.0)))
        # Of the largest ones, how many places are left from each on: the first has the most.
        left = ex.subtract(b, ahead, ex.affine(b, less, float(size), 0.0))
        first = reductions.max_over(b, left, [left.rank - 1], True)
        place = choices.complement(b, b.binary(NodeKind.SUBTRACT, first, left, (0.0, 1.0)))
        found.append(b.reshape(place, (*place.shape[:-1], 1, size)))
        if number + 1 < k:
            away = ex.affine(b, place, LARGEST_QUARTER, 0.0)
            low = (-LARGEST_QUARTER / 2, float("inf"))
            values = b.binary(NodeKind.SUBTRACT, values, away, low)
            ahead = ex.subtract(b, ahead, ex.affine(b, place, 2.0 * size, 0.0))
    return found[0] if k == 1 else ex.concatenate(b, found, -2)


def _by_ranks(b: GraphBuilder, values: Tensor, k: int, size: int) -> Tensor:
    """How many values stand before each one tells its place in order."""
    lead = values.shape[:-1]
    columns, rows = (b.reshape(values, (*lead, *shape)) for shape in ((size, 1), (1, size)))
    more = b.unary(NodeKind.CEILING, b.binary(NodeKind.SUBTRACT, columns, rows, (0.0, 1.0)))
    # Of each pair, the one that comes first is before the other unless the other is more.
    later = ex.multiply(b, more, b.constant(torch.ones(size, size).tril(-1)))
    rank = values.rank
    passed = reductions.total(b, later, [rank - 1], True)
    gained = reductions.total(b, later, [rank], False)
    index = b.constant(torch.arange(size, dtype=torch.float32))
    order = ex.subtract(b, ex.add(b, index, b.reshape(passed, (*lead, size))), gained)
    order = b.reshape(order, (*lead, 1, size))
    wanted = b.constant(torch.arange(k, dtype=torch.float32).reshape(k, 1))
    apart = b.unary(NodeKind.ABS, ex.subtract(b, order, wanted))
    return choices.complement(b, b.unary(NodeKind.CLAMP, apart, None, (0.0, 1.0)))
