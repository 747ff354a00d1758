"""Convolutions of few channels with a stride take several columns as one."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after

from penstock.compiler.delegate.passes import merge_columns
from penstock.graph.dtypes import DataType, PerChannel, PerTensor, PerToken
from penstock.graph.graph import INVALID_VALUE_ID, XnnGraph
from penstock.graph.kinds import Conv2dAttributes, NodeKind


def convolution(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int],
    size: tuple[int, int] = (12, 12), channels: int = 3, kind: DataType = DataType.FP32,
) -> XnnGraph:  # fmt: skip
    outputs = 6
    top, right, bottom, left = padding
    height = (size[0] + top + bottom - kernel[0]) // stride[0] + 1
    width = (size[1] + left + right - kernel[1]) // stride[1] + 1
    sketch = GraphBuilder()
    conv = Conv2dAttributes(padding, kernel, stride, (1, 1), 1, channels, outputs)
    shape, filter_shape = (1, height, width, outputs), (outputs, *kernel, channels)
    if kind is DataType.FP32:
        x = sketch.input((1, *size, channels))
        inputs = (x, sketch.random(*filter_shape), sketch.random(outputs))
        return sketch.finish(sketch.apply(NodeKind.CONV_2D, inputs, shape, conv))
    scales = np.linspace(0.01, 0.02, outputs, dtype=np.float32)
    taps = np.random.default_rng(3).integers(-127, 128, filter_shape).astype(np.int8)
    weight = sketch.value(filter_shape, DataType.QCINT8, PerChannel(scales, 0), taps)
    if kind is DataType.QINT8:
        x = sketch.input((1, *size, channels), dtype=kind, quantization=PerTensor(0.05, 3))
        y = sketch.apply(
            NodeKind.CONV_2D, (x, weight, INVALID_VALUE_ID), shape, conv,
            dtype=kind, quantization=PerTensor(0.5, -2),
        )  # fmt: skip
        return sketch.finish(y)
    x = sketch.input((1, *size, channels))
    q = sketch.apply(
        NodeKind.CONVERT, (x,), (1, *size, channels),
        dtype=DataType.QDINT8, quantization=PerToken(3),
    )  # fmt: skip
    return sketch.finish(
        sketch.apply(NodeKind.CONV_2D, (q, weight, sketch.random(outputs)), shape, conv)
    )


@pytest.mark.parametrize("kind", [DataType.QINT8, DataType.QDINT8])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((7, 7), (2, 2), (3, 3, 3, 3)),
        ((3, 3), (2, 2), (1, 1, 1, 1)),
        ((3, 3), (2, 2), (0, 0, 0, 0)),
        ((4, 4), (4, 4), (0, 0, 0, 0)),
        ((2, 7), (1, 3), (0, 2, 1, 2)),
    ],
)
def test_strided_convolutions_of_few_channels(
    kind: DataType, kernel: tuple[int, int], stride: tuple[int, int],
    padding: tuple[int, int, int, int],
) -> None:  # fmt: skip
    graph = after(convolution(kernel, stride, padding, kind=kind), merge_columns.apply)
    assert kinds(graph)[NodeKind.STATIC_RESHAPE] == 1
    (conv,) = (node.attributes for node in graph.nodes if node.kind is NodeKind.CONV_2D)
    assert isinstance(conv, Conv2dAttributes)
    assert conv.stride == (stride[0], 1)
    assert conv.group_input_channels == 3 * stride[1]


def test_patches_in_floating_point() -> None:
    graph = after(convolution((4, 4), (4, 4), (0, 0, 0, 0)), merge_columns.apply)
    assert kinds(graph)[NodeKind.STATIC_RESHAPE] == 1


@pytest.mark.parametrize(
    "graph",
    [
        convolution((7, 7), (2, 2), (3, 3, 3, 3)),  # more products, no fewer zeros
        convolution((3, 3), (2, 2), (1, 1, 1, 1), size=(12, 13), kind=DataType.QINT8),
        convolution((3, 3), (1, 1), (1, 1, 1, 1), kind=DataType.QINT8),
        convolution((3, 3), (2, 2), (1, 1, 1, 1), channels=32, kind=DataType.QINT8),
    ],
)
def test_all_others_stay(graph: XnnGraph) -> None:
    assert NodeKind.STATIC_RESHAPE not in kinds(after(graph, merge_columns.apply))
