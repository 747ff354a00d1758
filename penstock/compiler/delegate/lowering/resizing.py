"""Resizing of dynamic sizes. XNNPACK's own resizing writes a constant size, so whole factors are
transposed convolutions here, and all others products with matrices that are made at run time."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering import spread
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.positions import column, count, positions, row
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.fx import layout
from penstock.compiler.fx.layout import Dim
from penstock.graph.kinds import NodeKind


def whole_factors(old: Sequence[Dim], new: Sequence[Dim]) -> tuple[int, ...] | None:
    """By how much each of the sizes grows, if by whole factors."""
    factors = [_factor(before, after) for before, after in zip(old, new, strict=True)]
    return None if None in factors else tuple(factor for factor in factors if factor is not None)


def _factor(old: Dim, new: Dim) -> int | None:
    return next((n for n in range(1, spread.MOST_TIMES + 1) if layout.same(new, n * old)), None)


def whole_steps(old: Sequence[Dim], new: Sequence[Dim]) -> tuple[int, ...] | None:
    """By how much each of the sizes shrinks, if to every second, third … value."""
    steps = [
        next((n for n in range(1, 17) if layout.same(layout.floor_divide(before, n), after)), 0)
        for before, after in zip(old, new, strict=True)
    ]
    return tuple(steps) if all(steps) else None


def repeated(b: GraphBuilder, x: Tensor, factors: Sequence[int]) -> Tensor:
    """[N, C, ...spatial] with each index so many times: nearest neighbours of whole factors."""
    if x.rank == 4:
        return spread.repeated(b, x, (factors[0], factors[1]))
    for axis, times in enumerate(factors):
        if times > 1:
            x = spread.repeat_each(b, x, axis + 2, times)
    return x


def linear(
    b: GraphBuilder,
    x: Tensor,
    new: Sequence[Dim],
    scales: Sequence[float | None],
    align_corners: bool,
) -> Tensor:
    """[N, C, H, W] or [N, C, L] resized to the spatial sizes ``new`` by linear interpolation."""
    old = x.shape[2:]
    if all(size == 1 for size in old):
        return b.expand(x, (*x.shape[:2], *new))
    if x.rank == 3:
        wide = b.reshape(x, (*x.shape[:2], 1, x.shape[2]))
        wide = linear(b, wide, [1, *new], [None, *scales], align_corners)
        return b.reshape(wide, (*x.shape[:2], *new))
    factors = whole_factors(old, new)
    if factors is not None and not align_corners and _are(scales, factors):
        return spread.blended(b, x, (factors[0], factors[1]))
    for axis in (2, 3):
        size, target = x.shape[axis], new[axis - 2]
        if not layout.same(size, target) or scales[axis - 2] not in (None, 1.0):
            weights = _weights(b, size, target, scales[axis - 2], align_corners)
            x = _along(b, x, axis, weights)
    return x


def _are(scales: Sequence[float | None], factors: Sequence[int]) -> bool:
    return all(s is None or s == factor for s, factor in zip(scales, factors, strict=True))


def _weights(
    b: GraphBuilder, old: Dim, new: Dim, scale: float | None, align_corners: bool
) -> Tensor:
    """[1, 1, new, old]: how much of each old value is in each new one."""
    targets, sources = column(b, positions(b, new)), row(b, positions(b, old))
    last = ex.affine(b, count(b, old), 1.0, -1.0)
    if align_corners:
        steps = b.binary(
            NodeKind.MAXIMUM, ex.affine(b, count(b, new), 1.0, -1.0), ex.scalar(b, 1.0)
        )
        places = ex.multiply(b, targets, _cell(b, ex.divide(b, last, steps)))
    else:
        if scale is None:
            step = _cell(b, ex.divide(b, count(b, old), count(b, new)))
        else:
            step = ex.scalar(b, 1.0 / scale)
        places = ex.multiply(b, ex.affine(b, targets, 1.0, 0.5), step)
        places = b.binary(NodeKind.MAXIMUM, ex.affine(b, places, 1.0, -0.5), ex.scalar(b, 0.0))
    places = b.binary(NodeKind.MINIMUM, places, _cell(b, last))
    distances = b.unary(NodeKind.ABS, ex.subtract(b, places, sources))
    nearness = ex.subtract(b, ex.scalar(b, 1.0), distances)
    return b.binary(NodeKind.MAXIMUM, nearness, ex.scalar(b, 0.0))


def _cell(b: GraphBuilder, number: Tensor) -> Tensor:
    """[1] as [1, 1, 1, 1]."""
    return b.reshape(number, (1, 1, 1, 1))


def _along(b: GraphBuilder, x: Tensor, axis: int, weights: Tensor) -> Tensor:
    if axis == 2:
        return ex.matmul(b, weights, x)
    return ex.matmul(b, x, b.permute(weights, (0, 1, 3, 2)))


def refuse(old: Sequence[Dim], new: Sequence[Dim]) -> LoweringError:
    """The reason where nothing else is left."""
    sizes = [str(tuple(str(dim) for dim in dims)) for dims in (old, new)]
    return LoweringError(
        f"it resizes {sizes[0]} to {sizes[1]}: XNNPACK has that for whole factors only"
    )
