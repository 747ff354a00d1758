"""Weighted windows along an axis: pooling, depthwise convolutions, or sums of shifted copies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate

import numpy as np
import torch

from penstock.compiler.delegate.lowering import axis_windows, gather
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.axis_windows import Floats, Segment, Windows
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.convolution import convolve
from penstock.compiler.delegate.operators.pooling import average_pool, channels_last
from penstock.compiler.fx import layout
from penstock.compiler.fx.layout import CHANNELS_LAST, Dim
from penstock.graph.kinds import NodeKind, Pool2dAttributes

#: All weights of an axis.
MOST_WEIGHTS = 100_000
#: The lengths of XNNPACK's depthwise kernels.
DEPTHWISE_TILES = (3, 4, 9, 25)
#: More kinds of windows, and more copies, are too many nodes.
MOST_KINDS = 400
MOST_COPIES = 64
#: So many elements side by side are enough for a depthwise convolution to be quick …
ENOUGH_CHANNELS = 16
#: … and more than these only make its weights larger.
MOST_CHANNELS = 32


@dataclass(frozen=True)
class _Reduction:
    """How a window becomes one value: ``of_rows`` for all windows of one kind, from the rows that
    they see, by a node that slides; ``of_copies`` from the first places of all windows, the second
    ones, and so on, with their weights."""

    of_rows: Callable[[GraphBuilder, Tensor, _Kind], Tensor]
    of_copies: Callable[[GraphBuilder, Sequence[Tensor], Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class _Kind:
    """Windows of one kind: their weights, how many there are and how far apart they begin."""

    weights: Floats
    count: int
    step: int


def weighted(b: GraphBuilder, x: Tensor, dim: int, windows: Windows) -> Tensor:
    """``x`` [N, C, spatial …] with the windows applied along ``dim``, a spatial one.

    Windows that come again are one depthwise convolution with strides (pooling, if all weights are
    equal) over the part of ``x`` that they see. Where there are too many kinds of them, the first
    places of all windows are selected and multiplied by their weights, the second ones, and so on.
    Either way nothing is multiplied that the window does not see.
    """
    return _along(b, x, dim, windows, _Reduction(_summed_rows, _summed_copies))


def largest(b: GraphBuilder, x: Tensor, dim: int, windows: Windows) -> Tensor:
    """The largest value of each window along ``dim``; the weights do not matter."""
    return _along(b, x, dim, windows, _Reduction(_largest_of_rows, _largest_of_copies))


def _along(b: GraphBuilder, x: Tensor, dim: int, windows: Windows, reduction: _Reduction) -> Tensor:
    """Reduces the windows along the height of a picture, as which ``x`` is seen: [what is before
    ``dim`` in memory, channels, ``dim``, the rest of what is behind it]. A convolution of few
    channels is slow, so they are whatever is innermost."""
    kinds = axis_windows.segments(windows, MOST_KINDS)
    x = _with_room_behind(b, b.dense(x), dim)
    arranged = b.permute(x, x.order)
    place = x.order.index(dim)
    front, behind = arranged.shape[:place], arranged.shape[place + 1 :]
    weights = sum(int(windows.lengths[i]) for kind in kinds or () for i in kind.windows)
    channels = _channels(_elements(behind), MOST_WEIGHTS // max(weights, 1))
    wide = _elements(behind) // channels
    flat = b.reshape(arranged, (layout.product(front), x.shape[dim], wide, channels))
    picture = b.permute(flat, (0, 3, 1, 2))
    reduced = b.permute(_reduced(b, picture, windows, kinds, reduction), (0, 2, 3, 1))
    rows = b.reshape(reduced, (*front, reduced.shape[1], *behind))
    return b.permute(rows, layout.inverse(x.order))


def _with_room_behind(b: GraphBuilder, x: Tensor, dim: int) -> Tensor:
    """``x`` in a memory order in which what is behind ``dim`` is enough for channels, the order
    that it has if may be."""
    behind = x.order[x.order.index(dim) + 1 :]
    if _elements([x.shape[d] for d in behind]) >= ENOUGH_CHANNELS:
        return x
    return b.place(x, (0, dim, *(d for d in x.order if d not in (0, dim))))


def _elements(sizes: Sequence[Dim]) -> int:
    """The product of the sizes; a dynamic one is no channel."""
    if not all(isinstance(size, int) for size in sizes):
        raise LoweringError("it resizes a tensor of which other dimensions are dynamic")
    return math.prod(size for size in sizes if isinstance(size, int))


def _channels(elements: int, most: int) -> int:
    """How many of the innermost elements are channels, a divisor of their number: enough, or as
    many as ``most`` allows, since each has weights of its own."""
    if most < ENOUGH_CHANNELS:
        return next(size for size in range(max(most, 1), 0, -1) if elements % size == 0)
    good = range(min(most, MOST_CHANNELS), ENOUGH_CHANNELS - 1, -1)
    found = next((size for size in good if elements % size == 0), elements)
    return found if found <= most else _channels(elements, ENOUGH_CHANNELS - 1)


def _reduced(
    b: GraphBuilder,
    picture: Tensor,
    windows: Windows,
    kinds: Sequence[Segment] | None,
    reduction: _Reduction,
) -> Tensor:
    copied = windows.longest <= MOST_COPIES
    if kinds is None and not copied:
        raise LoweringError(f"its {len(windows)} windows are of too many kinds, and too long")
    if kinds is not None and not (copied and _copies_are_quicker(b, picture, windows, kinds)):
        rows = [_segment(b, picture, windows, kind, reduction) for kind in kinds]
        return ex.concatenate(b, rows, 2)
    places, weights = axis_windows.taps(windows)
    copies = [gather.take(b, picture, 2, column) for column in places.T]
    factors = [b.constant(torch.from_numpy(column.copy()).view(-1, 1)) for column in weights.T]
    return reduction.of_copies(b, copies, factors)


def _copies_are_quicker(
    b: GraphBuilder, picture: Tensor, windows: Windows, kinds: Sequence[Segment]
) -> bool:
    """By microseconds on one x86-64 core: what a node costs by itself, and what it costs to go
    over the memory."""
    others = (b.dynamic.upper(size) for dim, size in enumerate(picture.shape) if dim != 2)
    elements = len(windows) * math.prod(others)
    by_kind = 1.5 * sum(kind.period for kind in kinds) + len(kinds)
    by_kind += elements * (15e-4 + 3e-4 * windows.longest)
    return windows.longest * (3.5 + 35e-4 * elements) < by_kind


def _segment(
    b: GraphBuilder, picture: Tensor, windows: Windows, segment: Segment, reduction: _Reduction
) -> Tensor:
    """The rows of one segment: those of each window of its period in turns."""
    made = []
    for index in segment.windows:
        start, size = int(windows.starts[index]), int(windows.lengths[index])
        seen = ex.cut(b, picture, 2, start, (segment.count - 1) * segment.step + size)
        kind = _Kind(windows.weights[index, :size], segment.count, segment.step)
        if size == 1 and kind.weights[0] == 1:
            made.append(gather.strided(b, seen, 2, 0, kind.count, kind.step))
        else:
            made.append(reduction.of_rows(b, seen, kind))
    if len(made) == 1:
        return made[0]
    lead, channels, count, wide = made[0].shape
    tall = [b.reshape(rows, (lead, channels, count, 1, wide)) for rows in made]
    joined = ex.concatenate(b, tall, 3)
    return b.reshape(joined, (lead, channels, segment.count * segment.period, wide))


def _summed_rows(b: GraphBuilder, seen: Tensor, kind: _Kind) -> Tensor:
    lead, channels, _, wide = seen.shape
    size, weights = len(kind.weights), kind.weights
    if size > 1 and np.allclose(weights, 1 / size, rtol=1e-6, atol=0):
        shape = (lead, channels, kind.count, wide)
        return average_pool(b, seen, (size, 1), (kind.step, 1), (0, 0), shape)
    assert isinstance(channels, int)
    terms = []
    for begin, tile in _tiles(size):
        part = weights[begin : begin + tile]
        rows = ex.cut(b, seen, 2, begin, (kind.count - 1) * kind.step + tile)
        if tile == 1:
            row = gather.strided(b, rows, 2, 0, kind.count, kind.step)
            terms.append(ex.multiply(b, row, ex.scalar(b, float(part[0]))))
            continue
        filters = torch.from_numpy(part.copy()).view(1, 1, -1, 1).repeat(channels, 1, 1, 1)
        pads = [(0, 0), (0, 0)]
        terms.append(
            convolve(b, rows, b.constant(filters), None, (kind.step, 1), pads, (1, 1), channels)
        )
    return reduce(lambda left, right: ex.add(b, left, right), terms)


def _tiles(size: int) -> list[tuple[int, int]]:
    """A window of ``size`` in as few of XNNPACK's depthwise kernels as will do, as begins and
    lengths. In a kernel that is longer than the window, zeros times whatever is beside it would be
    added to the sum, and zero times infinity is no number."""
    best: list[list[int]] = [[]]
    for whole in range(1, size + 1):
        options = [[*best[whole - tile], tile] for tile in (1, *DEPTHWISE_TILES) if tile <= whole]
        best.append(min(options, key=len))
    ends = list(accumulate(best[size]))
    return [(end - tile, tile) for end, tile in zip(ends, best[size], strict=True)]


def _summed_copies(b: GraphBuilder, copies: Sequence[Tensor], factors: Sequence[Tensor]) -> Tensor:
    terms = [ex.multiply(b, copy, factor) for copy, factor in zip(copies, factors, strict=True)]
    return reduce(lambda left, right: ex.add(b, left, right), terms)


def _largest_of_rows(b: GraphBuilder, seen: Tensor, kind: _Kind) -> Tensor:
    lead, channels, _, wide = seen.shape
    output = b.result((lead, channels, kind.count, wide), CHANNELS_LAST)
    attributes = Pool2dAttributes((0, 0, 0, 0), (len(kind.weights), 1), (kind.step, 1))
    return b.add_node(NodeKind.MAX_POOLING_2D, [channels_last(b, seen)], output, attributes)


def _largest_of_copies(
    b: GraphBuilder, copies: Sequence[Tensor], factors: Sequence[Tensor]
) -> Tensor:
    return reduce(lambda left, right: b.binary(NodeKind.MAXIMUM, left, right), copies)
