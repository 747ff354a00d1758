"""Depthwise convolutions with large kernels become sums."""

from __future__ import annotations

import pytest
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after

from penstock.compiler.delegate.passes import split_depthwise
from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import Conv2dAttributes, NodeKind


def depthwise(
    kernel: tuple[int, int],
    padding: tuple[int, int, int, int],
    *,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    size: tuple[int, int] = (11, 14),
    clamp: tuple[float, float] | None = None,
) -> XnnGraph:
    channels = 5
    sketch = GraphBuilder()
    x = sketch.input((2, *size, channels))
    weight, bias = sketch.random(1, *kernel, channels), sketch.random(channels)
    top, right, bottom, left = padding
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    height = (size[0] + top + bottom - reach[0]) // stride[0] + 1
    width = (size[1] + left + right - reach[1]) // stride[1] + 1
    conv = Conv2dAttributes(padding, kernel, stride, dilation, channels, 1, 1)
    shape = (2, height, width, channels)
    y = sketch.apply(NodeKind.DEPTHWISE_CONV_2D, (x, weight, bias), shape, conv, clamp)
    return sketch.finish(y)


@pytest.mark.parametrize(
    ("kernel", "padding", "parts"),
    [
        ((7, 7), (3, 3, 3, 3), 3),
        ((9, 9), (4, 4, 4, 4), 4),
        ((1, 31), (0, 15, 0, 15), 2),
        ((11, 3), (5, 1, 5, 1), 2),
        ((6, 6), (3, 2, 2, 3), 2),  # the uneven padding of "same"
    ],
)
def test_large_kernels_become_sums(
    kernel: tuple[int, int], padding: tuple[int, int, int, int], parts: int
) -> None:
    graph = after(depthwise(kernel, padding), split_depthwise.apply)
    assert kinds(graph) == {NodeKind.DEPTHWISE_CONV_2D: parts, NodeKind.ADD: parts - 1}


@pytest.mark.parametrize("stride", [(2, 1), (3, 2)])
@pytest.mark.parametrize("dilation", [(1, 1), (1, 2)])
def test_strides_dilation_and_ranges(stride: tuple[int, int], dilation: tuple[int, int]) -> None:
    padding = (3, 3 * dilation[1], 3, 3 * dilation[1])
    model = depthwise((7, 7), padding, stride=stride, dilation=dilation, clamp=(0.0, 0.5))
    graph = after(model, split_depthwise.apply)
    assert kinds(graph)[NodeKind.DEPTHWISE_CONV_2D] == 3
    assert [node.clamp for node in graph.nodes if node.clamp] == [(0.0, 0.5)]


def test_small_kernels_and_those_without_padding_stay() -> None:
    for kernel, padding in (((5, 5), (2, 2, 2, 2)), ((7, 7), (0, 0, 0, 0))):
        graph = after(depthwise(kernel, padding), split_depthwise.apply)
        assert kinds(graph) == {NodeKind.DEPTHWISE_CONV_2D: 1}


def test_integers_stay() -> None:
    sketch = GraphBuilder()
    steps = PerTensor(0.1, 0)
    x = sketch.input((1, 9, 9, 4), dtype=DataType.QINT8, quantization=steps)
    weight = sketch.random(1, 7, 7, 4)
    conv = Conv2dAttributes((3, 3, 3, 3), (7, 7), (1, 1), (1, 1), 4, 1, 1)
    y = sketch.apply(
        NodeKind.DEPTHWISE_CONV_2D, (x, weight, sketch.random(4)), (1, 9, 9, 4), conv,
        dtype=DataType.QINT8, quantization=steps,
    )  # fmt: skip
    graph = sketch.finish(y)
    split_depthwise.apply(graph)
    assert kinds(graph) == {NodeKind.DEPTHWISE_CONV_2D: 1}
