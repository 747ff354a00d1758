"""Growing by whole factors along dynamic dimensions: transposed convolutions.

A stride puts values apart, and a kernel of ones fills what lies between them. The filters are unit
matrices of a group of channels: finite values come out exactly; an infinity makes the other
channels of its group NaN at its place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from penstock.compiler.delegate.lowering import ends
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.fx import layout
from penstock.compiler.fx.layout import CHANNELS_LAST
from penstock.graph.dtypes import DataType
from penstock.graph.kinds import Conv2dAttributes, NodeKind, Pool2dAttributes

#: Kernels of more taps than this along an axis are not worth a convolution.
MOST_TIMES = 16
#: Channels that go together in a group, at most, and at least if they are more. (One by one they
#: take twenty times as long; all together a product grows with their square.)
MOST_CHANNELS = 32
FEWEST = 8


def spread(
    b: GraphBuilder,
    images: Tensor,
    kernel: torch.Tensor,
    stride: tuple[int, int],
    crop: tuple[int, int] = (0, 0),
    extra: tuple[int, int] = (0, 0),
) -> Tensor:
    """A transposed convolution of [N, C, H, W] with one ``kernel`` [kh, kw] for all channels.
    ``crop`` is taken off both ends, ``extra`` put behind."""
    channels = images.shape[1]
    if not isinstance(channels, int):
        raise LoweringError("it grows a tensor of a dynamic number of channels")
    width = group_of(channels)
    if width < min(channels, FEWEST):
        filled = -channels % MOST_CHANNELS
        wide = ex.pad_constant(b, images, [0] * 4, [0, filled, 0, 0], 0.0)
        return ex.cut(b, spread(b, wide, kernel, stride, crop, extra), 1, 0, channels)
    taps = torch.einsum("oi,hw->ohwi", torch.eye(width), kernel)
    return transposed(b, images, taps.repeat(channels // width, 1, 1, 1), stride, crop, extra)


def group_of(channels: int) -> int:
    """How many channels go together: the most that divide ``channels``."""
    return next(n for n in range(min(channels, MOST_CHANNELS), 0, -1) if channels % n == 0)


def transposed(
    b: GraphBuilder,
    images: Tensor,
    filters: torch.Tensor,
    stride: tuple[int, int],
    crop: tuple[int, int] = (0, 0),
    extra: tuple[int, int] = (0, 0),
) -> Tensor:
    """A transposed convolution of [N, C, H, W] by ``filters`` [out, kh, kw, in of a group]."""
    images = b.place(b.dense(images), CHANNELS_LAST)
    outputs, height, width, group_in = filters.shape
    channels = images.shape[1]
    assert isinstance(channels, int)
    groups = channels // group_in
    shape = (channels, outputs // groups, height, width)
    filter_tensor = Tensor(shape, (1, 2, 3, 0), shape, b.raw_constant(filters, DataType.FP32))
    spatial = [
        layout.canonical((size - 1) * s + k + e - 2 * c)
        for size, s, k, e, c in zip(
            images.shape[2:], stride, (height, width), extra, crop, strict=True
        )
    ]
    output = b.result((images.shape[0], outputs, *spatial), CHANNELS_LAST)
    attributes = Conv2dAttributes(
        padding=(crop[0], crop[1], crop[0], crop[1]),
        kernel=(height, width),
        stride=stride,
        dilation=(1, 1),
        groups=groups,
        group_input_channels=group_in,
        group_output_channels=outputs // groups,
        adjustment=extra,
    )
    inputs = [images, filter_tensor, None]
    return b.add_node(NodeKind.CONV_TRANSPOSE_2D, inputs, output, attributes)


def from_channels(b: GraphBuilder, images: Tensor, factors: tuple[int, int]) -> Tensor:
    """[N, C * fh * fw, H, W] → [N, C, H * fh, W * fw], as ``pixel_shuffle`` does it."""
    _check(factors)
    places = factors[0] * factors[1]
    total = images.shape[1]
    if not isinstance(total, int):
        raise LoweringError("it grows a tensor of a dynamic number of channels")
    channels = total // places
    width = group_of(channels)
    filters = torch.zeros(width, *factors, width, places)
    for place in range(places):
        filters[:, place // factors[1], place % factors[1], :, place] = torch.eye(width)
    filters = filters.reshape(width, *factors, width * places)
    return transposed(b, images, filters.repeat(channels // width, 1, 1, 1), factors)


def from_blocks(b: GraphBuilder, images: Tensor, factors: tuple[int, int]) -> Tensor:
    """[N, fh * fw * C, H, W] → [N, C, H * fh, W * fw]: all channels of a place stand together."""
    _check(factors)
    places = factors[0] * factors[1]
    total = images.shape[1]
    assert isinstance(total, int)
    channels = total // places
    grown = []
    for start in range(0, channels, MOST_CHANNELS):
        width = min(MOST_CHANNELS, channels - start)
        blocks = [ex.cut(b, images, 1, place * channels + start, width) for place in range(places)]
        filters = torch.zeros(width, *factors, places, width)
        for place in range(places):
            filters[:, place // factors[1], place % factors[1], place] = torch.eye(width)
        filters = filters.reshape(width, *factors, places * width)
        whole = images if width == channels else ex.concatenate(b, blocks, 1)
        grown.append(transposed(b, whole, filters, factors))
    return ex.concatenate(b, grown, 1)


def repeated(b: GraphBuilder, images: Tensor, times: tuple[int, int]) -> Tensor:
    """Each row and column of [N, C, H, W] so many times, one after the other."""
    _check(times)
    return images if times == (1, 1) else spread(b, images, torch.ones(times), times)


def blended(b: GraphBuilder, images: Tensor, times: tuple[int, int]) -> Tensor:
    """[N, C, H, W] enlarged so many times by linear interpolation (``align_corners=False``): the
    edges once more around it, every value repeated, and the result smoothed."""
    _check(times)
    if times == (1, 1):
        return images
    rows, columns = (_smoother(count) for count in times)
    # What is smoothed reaches half the kernel beyond the edges.
    crop = [0 if count == 1 else (count + 1) // 2 for count in times]
    edged = _edged(b, images, times)
    wide = spread(b, edged, torch.ones(times), times, (crop[0], crop[1]))
    return _smoothed(b, wide, torch.outer(rows, columns))


def _smoother(times: int) -> torch.Tensor:
    """What makes linear interpolation of values that have been repeated so many times."""
    if times % 2:
        return torch.full((times,), 1.0 / times)
    taps = torch.full((times + 1,), 1.0 / times)
    taps[0] = taps[-1] = 0.5 / times
    return taps


def _smoothed(b: GraphBuilder, images: Tensor, kernel: torch.Tensor) -> Tensor:
    """Each channel of [N, C, H, W] convolved with ``kernel`` [kh, kw], without padding."""
    channels, (height, width) = images.shape[1], kernel.shape
    assert isinstance(channels, int)
    shape = (channels, 1, height, width)
    taps = kernel.unsqueeze(-1).expand(1, height, width, channels)
    weight = Tensor(shape, (1, 2, 3, 0), shape, b.raw_constant(taps, DataType.FP32))
    rows, columns = (
        size - taken + 1 for size, taken in zip(images.shape[2:], kernel.shape, strict=True)
    )
    output = b.result((images.shape[0], channels, rows, columns), CHANNELS_LAST)
    attributes = Conv2dAttributes((0, 0, 0, 0), (height, width), (1, 1), (1, 1), channels, 1, 1)
    kind = NodeKind.DEPTHWISE_CONV_2D if channels > 1 else NodeKind.CONV_2D
    return b.add_node(kind, [images, weight, None], output, attributes)


def _check(times: Sequence[int]) -> None:
    if max(times) > MOST_TIMES:
        raise LoweringError(f"it grows a dynamic size {max(times)} times, at most {MOST_TIMES}")


def _edged(b: GraphBuilder, images: Tensor, times: tuple[int, int]) -> Tensor:
    """[N, C, H, W] with its edges once more around it, along the axes that grow."""
    images = b.place(b.dense(images), CHANNELS_LAST)
    rows, columns = (int(count > 1) for count in times)
    height, width = images.shape[2:]
    value = b.value_of(images)
    shape = (*images.shape[:2], height + 2 * rows, width + 2 * columns)
    output = b.result(shape, CHANNELS_LAST, value.dtype, value.quantization)
    attributes = Pool2dAttributes((rows, columns, rows, columns), (1, 1))
    return b.add_node(NodeKind.MAX_POOLING_2D, [images], output, attributes)


def repeat_each(b: GraphBuilder, x: Tensor, dim: int, times: int) -> Tensor:
    """Every index of ``dim`` ``times`` times, one after the other."""
    source = ends.picture(b, x, dim, static_channels=True)
    images = b.permute(source.tensor, (0, 3, 1, 2))
    grown = repeated(b, images, (times, 1) if source.axis == 1 else (1, times))
    return source.restored(b.permute(grown, (0, 2, 3, 1)))
