"""When a convolution in fp32 is worth Winograd's F(2x2, 3x3); ``native/f32_winograd.h`` says what
that is."""

from __future__ import annotations

from penstock.graph.graph import Shape
from penstock.graph.kinds import Conv2dAttributes

#: Products of a tile, and what else it costs in products: for each input and output channel the
#: transforms, and once for all tiles of a chunk the transform of each weight.
_PRODUCTS, _INPUT, _OUTPUT, _WEIGHT = 16, 60, 130, 80
#: So much less must it cost than 9 products of each output.
_GAIN = 1.15
#: Tiles are kept transformed for all input channels.
_MOST_CHANNELS = 4096


def pays(a: Conv2dAttributes, read: Shape, written: Shape) -> bool:
    """Whether a convolution between images of these shapes is faster by F(2x2, 3x3).

    The costs are those of ``benchmarks/kernels.py`` and of sweeps over sizes and channels: it loses
    with few channels, whose transforms cost more than products save, and with few tiles, for which
    all weights are transformed. Tiles reach over the edge where sizes are odd.
    """
    if (a.kernel, a.stride, a.groups) != ((3, 3), (1, 1), 1):
        return False
    return read[3] <= _MOST_CHANNELS and speedup(a, read, written) > _GAIN


def speedup(a: Conv2dAttributes, read: Shape, written: Shape) -> float:
    """How many times as fast a 3x3 convolution between images of these shapes is that way."""
    inputs, outputs = read[3], written[3]
    tiles, pixels = written[0], written[0]
    for size, dilation in zip(written[1:3], a.dilation, strict=True):
        tiles *= -(-size // (2 * dilation)) * dilation
        pixels *= size
    cost = tiles * (_PRODUCTS + _INPUT / outputs + _OUTPUT / inputs) + _WEIGHT
    return 9 * pixels / cost
