"""Space to depth along the width ahead of strided convolutions of few channels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from penstock.graph.dtypes import DataType
from penstock.graph.graph import Node, Value, XnnGraph
from penstock.graph.index import Index
from penstock.graph.kinds import Conv2dAttributes, NodeKind, ReshapeAttributes

#: XNNPACK's int8 kernels read so many channels of a tap at once, zeros where there are fewer.
INT8_CHANNELS = 8
#: With more channels there is nothing to gain.
MOST_CHANNELS = 16


@dataclass(frozen=True)
class Merged:
    """The width of the kernel in merged columns, the empty taps in front, the padding."""

    kernel: int
    shift: int
    left: int
    right: int


def apply(graph: XnnGraph) -> None:
    """Given ``CONV_2D(x [N, H, W, C])`` with a stride of s columns, W a multiple of s → Result
    ``CONV_2D(RESHAPE(x, [N, H, W / s, s * C]))`` with a stride of one column and a kernel of
    fewer, deeper taps; those before the first and behind the last column are zero.

    XNNPACK's kernels work through a convolution tap by tap. Where a tap has three channels most
    of it is overhead, and on int8 padding. The reshape moves no data.
    """
    index = Index(graph)
    for node in list(graph.nodes):
        if node.kind is NodeKind.CONV_2D:
            _merge(index, node)
    index.finish()


def _merge(index: Index, node: Node) -> None:
    conv = node.attributes
    assert isinstance(conv, Conv2dAttributes)
    source = _source(index, node)
    weight = index.values[node.inputs[1]]
    if source is None or weight.data is None or conv.groups != 1 or conv.dilation[1] != 1:
        return
    if weight.dtype not in (DataType.FP32, DataType.QINT8, DataType.QCINT8):
        return
    batch, height, width, channels = source.shape
    step = conv.stride[1]
    if step == 1 or width % step:
        return
    merged = _plan(conv, width // step, index.values[node.outputs[0]].shape[2])
    if merged is None or not _pays(conv, channels, merged, weight.dtype is DataType.FP32):
        return
    shape = (batch, height, width // step, step * channels)
    # A batch that varies from run to run stays free.
    reshape = ReshapeAttributes((0, *shape[1:]))
    wide = index.add(NodeKind.STATIC_RESHAPE, (source.id,), shape, reshape, like=node, of=source.id)
    taps = index.new_value(_taps(weight, merged, step))
    old = index.producer.get(node.inputs[0])
    index.set_inputs(node, (_converted(index, node, wide), taps, node.inputs[2]))
    if old is not None and index.values[old.outputs[0]].dtype is DataType.QDINT8:
        index.remove(old)
    top, _, bottom, _ = conv.padding
    node.attributes = replace(
        conv,
        padding=(top, merged.right, bottom, merged.left),
        kernel=(conv.kernel[0], merged.kernel),
        stride=(conv.stride[0], 1),
        group_input_channels=step * channels,
    )


def _source(index: Index, node: Node) -> Value | None:
    """What the convolution reads, before it is quantized at run time; None if that is shared."""
    value = index.values[node.inputs[0]]
    if value.dtype is not DataType.QDINT8:
        return value
    convert = index.producer.get(value.id)
    if convert is None or index.only_reader(value.id) is None:
        return None
    return index.values[convert.inputs[0]]


def _converted(index: Index, node: Node, wide: int) -> int:
    """``wide``, quantized at run time if the convolution reads that."""
    value = index.values[node.inputs[0]]
    if value.dtype is not DataType.QDINT8:
        return wide
    convert = index.producer[value.id]
    return index.add_copy(convert, (wide,), index.values[wide].shape, None, before=node)


def _plan(conv: Conv2dAttributes, columns: int, outputs: int) -> Merged | None:
    step = conv.stride[1]
    left = -(-conv.padding[3] // step)
    shift = step * left - conv.padding[3]
    kernel = -(-(shift + conv.kernel[1]) // step)
    right = outputs - 1 + kernel - left - columns
    return Merged(kernel, shift, left, right) if right >= 0 else None


def _pays(conv: Conv2dAttributes, channels: int, merged: Merged, floating: bool) -> bool:
    """Whether a row of the kernel becomes cheaper. In floating point, where the kernels take any
    number of channels: whether it stays as long, in fewer taps."""
    if channels > MOST_CHANNELS:
        return False
    step, before = conv.stride[1], conv.kernel[1]
    if floating:
        return merged.kernel * step == before

    def read(depth: int) -> int:
        return -(-depth // INT8_CHANNELS) * INT8_CHANNELS

    return merged.kernel * read(channels * step) < before * read(channels)


def _taps(weight: Value, merged: Merged, step: int) -> Value:
    """[O, kh, kw, C] → [O, kh, merged kernel, step * C]."""
    data = np.asarray(weight.data)
    outputs, rows, columns, channels = weight.shape
    wide = np.zeros((outputs, rows, merged.kernel * step, channels), data.dtype)
    wide[:, :, merged.shift : merged.shift + columns] = data
    shape = (outputs, rows, merged.kernel, step * channels)
    return replace(weight, shape=shape, data=wide.reshape(shape))
