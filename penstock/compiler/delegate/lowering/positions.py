"""Numbers that depend on dynamic sizes: the indices of a dimension, and how many there are.

XNNPACK has no node that tells a size. But convolutions of ones count, and they know where a
dimension begins and ends.
"""

from __future__ import annotations

import math

import torch

from penstock.compiler.delegate.lowering import ends
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.expansion import zeros_along
from penstock.compiler.delegate.lowering.tensor import Tensor
from penstock.compiler.fx.layout import CHANNELS_LAST, Dim
from penstock.graph.dtypes import DataType
from penstock.graph.kinds import Conv2dAttributes, NodeKind


def positions(b: GraphBuilder, size: Dim) -> Tensor:
    """0, 1, 2 … as float32 [size]. Raises LoweringError where no tensor at hand has that size."""
    if isinstance(size, int):
        return b.constant(torch.arange(size, dtype=torch.float32))
    found = b.positions.get(size)
    if found is None:
        ones = ex.affine(b, zeros_along(b, 2, size, 4), 1.0, 1.0)
        counted = running_sum(b, ends.Picture(ones, 2, lambda picture: picture)).tensor
        found = b.reshape(ex.affine(b, counted, 1.0, -1.0), (size,))
        b.positions[size] = found
    return found


def count(b: GraphBuilder, size: Dim) -> Tensor:
    """``size`` as a float32 tensor of one element."""
    if isinstance(size, int):
        return b.constant(torch.tensor([float(size)]))
    return ex.affine(b, ends.from_end(b, positions(b, size), 0, 1), 1.0, 1.0)


def running_sum(b: GraphBuilder, source: ends.Picture) -> ends.Picture:
    """The sums of all values up to each one, along the picture's axis: those of a window first,
    then those of windows. Nothing is multiplied by zero."""
    size = source.tensor.shape[source.axis]
    most = b.dynamic.upper(size)
    window = max(1, math.isqrt(most - 1) + 1) if most > 1 else 1
    x = b.permute(source.tensor, (0, 3, 1, 2))
    for taps, step in ((window, 1), (-(-most // window), window)):
        if taps > 1:
            x = _summed(b, x, source.axis, taps, step)
    return ends.Picture(b.permute(x, (0, 2, 3, 1)), source.axis, source.restored)


def _summed(b: GraphBuilder, x: Tensor, axis: int, taps: int, step: int) -> Tensor:
    """Each value of [N, C, H, W] and the ``taps - 1`` that stand ``step``, 2 ``step`` … before."""

    def along(value: int, other: int) -> tuple[int, int]:
        return (value, other) if axis == 1 else (other, value)

    channels = x.shape[1]
    assert isinstance(channels, int)
    x = b.place(b.dense(x), CHANNELS_LAST)
    kernel = along(taps, 1)
    top, left = along((taps - 1) * step, 0)
    filters = b.raw_constant(torch.ones(1, *kernel, channels), DataType.FP32)
    weight = Tensor((channels, 1, *kernel), (1, 2, 3, 0), (channels, 1, *kernel), filters)
    attributes = Conv2dAttributes((top, 0, 0, left), kernel, (1, 1), along(step, 1), channels, 1, 1)
    output = b.result(x.shape, CHANNELS_LAST)
    kind = NodeKind.DEPTHWISE_CONV_2D if channels > 1 else NodeKind.CONV_2D
    return b.add_node(kind, [x, weight, None], output, attributes)


def column(b: GraphBuilder, line: Tensor) -> Tensor:
    """[n] as [1, 1, n, 1]."""
    return b.reshape(line, (1, 1, line.shape[0], 1))


def row(b: GraphBuilder, line: Tensor) -> Tensor:
    """[n] as [1, 1, 1, n]."""
    return b.reshape(line, (1, 1, 1, line.shape[0]))
