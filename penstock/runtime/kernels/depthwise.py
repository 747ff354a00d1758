"""Depthwise convolution without a loop over pixels.

For each tap of the window, the whole input (shifted by the tap) is multiplied by one weight a
channel and added up. To make the shifted input one long run of memory for each channel, rows are
laid out with their padding: then a tap is a constant offset, also across row ends. What is
computed past the end of a row is thrown away. A stride splits the input into phases (even and odd
columns for stride 2), in each of which a step is one element again. Channels are taken in blocks
that stay in the L2 cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from penstock.runtime.kernels.common import Array
from penstock.runtime.kernels.windows import Axis

#: Bytes of input phases, sums and products of one block of channels.
_BLOCK_BYTES = 768 << 10


def _two(dims: Sequence[Axis]) -> tuple[Axis, Axis]:
    """One spatial dimension as two."""
    return (dims[0], dims[1]) if len(dims) == 2 else (Axis(1, 1, 1, 1, 0, 1), dims[0])


def _width(axis: Axis) -> int:
    """The length of one phase: outputs, and how far the last tap reaches beyond."""
    return axis.out + (axis.taps - 1) * axis.dilation // axis.stride


def is_depthwise(x: Array, weight: Array, dims: Sequence[Axis], groups: int) -> bool:
    """Whether each channel is convolved by itself, in a way that :func:`depthwise` does well."""
    if weight.shape[1] != 1 or groups != x.shape[1] or len(dims) > 2 or x.size == 0:
        return False
    height, width = _two(dims)
    # Windows far beyond the input (dilation, padding) would make the phases mostly empty.
    layout = _width(height) * _width(width)
    return layout <= 4 * (height.size * width.size + height.out * width.out)


def _phases(image: Array, height: Axis, width: Axis) -> dict[tuple[int, int], Array]:
    """(C, H, W) as flat (C, rows * columns) arrays, one for each phase of the strides in use."""
    rows, columns = _width(height), _width(width)
    phases = {}
    for py in {tap * height.dilation % height.stride for tap in range(height.taps)}:
        for px in {tap * width.dilation % width.stride for tap in range(width.taps)}:
            phase = np.zeros((image.shape[0], rows, columns), image.dtype)
            down = Axis(height.size, rows, 1, height.stride, height.padding - py, 1)
            along = Axis(width.size, columns, 1, width.stride, width.padding - px, 1)
            ys, xs = down.span(0, 0, rows), along.span(0, 0, columns)
            if ys is not None and xs is not None:
                phase[:, ys[0], xs[0]] = image[:, ys[1], xs[1]]
            phases[py, px] = phase.reshape(image.shape[0], -1)
    return phases


def depthwise(
    x: Array, weight: Array, bias: Array | None, dims: Sequence[Axis], result: Array
) -> None:
    """Fill ``result`` (N, C * m, ...) with x (N, C, ...) convolved by weight (C * m, 1, ...)."""
    height, width = _two(dims)
    channels = x.shape[1]
    images = x.reshape(x.shape[0], channels, height.size, width.size)
    multiplier = weight.shape[0] // channels
    weights = weight.reshape(channels, multiplier, height.taps, width.taps)
    offsets = np.zeros(weight.shape[0], x.dtype) if bias is None else bias
    addends = offsets.reshape(channels, multiplier)
    targets = result.reshape(x.shape[0], channels, multiplier, height.out, width.out)
    columns = _width(width)
    run = (height.out - 1) * columns + width.out
    phase_count = min(height.stride, height.taps) * min(width.stride, width.taps)
    channel_bytes = (phase_count + 2) * _width(height) * columns * x.itemsize
    step = max(1, _BLOCK_BYTES // channel_bytes)
    total = np.empty((min(step, channels), height.out * columns), x.dtype)
    term = np.empty((min(step, channels), run), x.dtype)

    for image, target in zip(images, targets, strict=True):
        for start in range(0, channels, step):
            block = slice(start, min(start + step, channels))
            count = block.stop - block.start
            phases = _phases(image[block], height, width)
            grid = total[:count].reshape(count, height.out, columns)[:, :, : width.out]
            for m in range(multiplier):
                first = True
                for ky in range(height.taps):
                    dy, py = divmod(ky * height.dilation, height.stride)
                    for kx in range(width.taps):
                        dx, px = divmod(kx * width.dilation, width.stride)
                        at = dy * columns + dx
                        source = phases[py, px][:, at : at + run]
                        factor = weights[block, m, ky, kx, None]
                        if first:
                            np.multiply(source, factor, out=total[:count, :run])
                            first = False
                        else:
                            np.multiply(source, factor, out=term[:count])
                            total[:count, :run] += term[:count]
                np.add(grid, addends[block, m, None, None], out=target[block, m])
