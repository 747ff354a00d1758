"""Convolutions that mostly read their own padding read less of it."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.compiler.delegate.passes import drop_padding
from penstock.graph.dtypes import DataType, PerChannel, PerTensor
from penstock.graph.graph import INVALID_VALUE_ID, XnnGraph
from penstock.graph.kinds import Conv2dAttributes, NodeKind


def convolution(
    size: tuple[int, int], kernel: tuple[int, int], dilation: tuple[int, int],
    padding: tuple[int, int, int, int], stride: tuple[int, int] = (1, 1), channels: int = 3,
    outputs: int = 4, integers: bool = False,
) -> XnnGraph:  # fmt: skip
    top, right, bottom, left = padding
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    height = (size[0] + top + bottom - reach[0]) // stride[0] + 1
    width = (size[1] + left + right - reach[1]) // stride[1] + 1
    conv = Conv2dAttributes(padding, kernel, stride, dilation, 1, channels, outputs)
    shape, clamp = (2, height, width, outputs), (-1.0, 1.0)
    sketch = GraphBuilder()
    if not integers:
        inputs = (
            sketch.input((2, *size, channels)),
            sketch.random(outputs, *kernel, channels),
            sketch.random(outputs),
        )
        return sketch.finish(sketch.apply(NodeKind.CONV_2D, inputs, shape, conv, clamp))
    scales = np.linspace(0.001, 0.002, outputs, dtype=np.float32)
    taps = np.random.default_rng(3).integers(-127, 128, (outputs, *kernel, channels))
    x = sketch.input((2, *size, channels), dtype=DataType.QINT8, quantization=PerTensor(0.05, 3))
    weight = sketch.value(taps.shape, DataType.QCINT8, PerChannel(scales, 0), taps.astype(np.int8))
    y = sketch.apply(
        NodeKind.CONV_2D, (x, weight, INVALID_VALUE_ID), shape, conv, clamp,
        dtype=DataType.QINT8, quantization=PerTensor(0.02, -2),
    )  # fmt: skip
    return sketch.finish(y)


@pytest.mark.parametrize("integers", [False, True])
def test_taps_that_only_see_padding_go(integers: bool) -> None:
    model = convolution((9, 11), (3, 3), (12, 12), (12, 12, 12, 12), integers=integers)
    (node,) = after(model, drop_padding.crop).nodes
    assert isinstance(node.attributes, Conv2dAttributes)
    assert node.attributes.kernel == (1, 1) and node.attributes.padding == (0, 0, 0, 0)


def test_taps_that_some_output_sees_stay() -> None:
    model = convolution((9, 11), (3, 3), (8, 12), (8, 12, 8, 12))
    (node,) = after(model, drop_padding.crop).nodes
    assert isinstance(node.attributes, Conv2dAttributes)
    assert node.attributes.kernel == (3, 1)


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    dilation=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    padding=st.tuples(*[st.integers(0, 12)] * 4),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_any_convolution_stays_the_same(
    size: tuple[int, int], kernel: tuple[int, int], dilation: tuple[int, int],
    padding: tuple[int, int, int, int], stride: tuple[int, int],
) -> None:  # fmt: skip
    top, right, bottom, left = padding
    if size[0] + top + bottom < dilation[0] * (kernel[0] - 1) + 1:
        return
    if size[1] + left + right < dilation[1] * (kernel[1] - 1) + 1:
        return
    model = convolution(size, kernel, dilation, padding, stride, channels=32, outputs=64)

    def both(graph: XnnGraph) -> None:
        drop_padding.crop(graph)
        drop_padding.divide(graph)

    after(model, both)


@pytest.mark.parametrize("integers", [False, True])
def test_the_middle_and_the_corners_are_computed_apart(integers: bool) -> None:
    model = convolution(
        (14, 14), (3, 3), (12, 12), (12, 12, 12, 12), channels=64, outputs=512, integers=integers
    )
    graph = after(model, drop_padding.divide)
    assert kinds(graph)[NodeKind.CONV_2D] == 9
    assert kinds(graph)[NodeKind.CONCATENATE_3] == 4


def test_little_padding_stays() -> None:
    model = convolution((14, 14), (3, 3), (1, 1), (1, 1, 1, 1), channels=64, outputs=64)
    assert kinds(after(model, drop_padding.divide)) == {NodeKind.CONV_2D: 1}


def test_weights_do_not_grow_too_much() -> None:
    """Both axes in three parts would take the weights 49 / 9 times, one axis 7 / 3 times."""
    model = convolution((28, 28), (3, 3), (12, 12), (12, 12, 12, 12), channels=128, outputs=512)
    graph = after(model, drop_padding.divide)
    before = sum(v.data.nbytes for v in model.values if isinstance(v.data, np.ndarray))
    now = sum(v.data.nbytes for v in graph.values if isinstance(v.data, np.ndarray))
    assert before < now < 3 * before


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("size", [2, 3])
def test_weights_of_small_images_are_read_once(size: int, integers: bool) -> None:
    """Of these, weights are most of what is read; each part would have its own."""
    padding = (1, 1, 1, 1)
    model = convolution((size, size), (3, 3), (1, 1), padding, channels=64, outputs=64,
                        integers=integers)  # fmt: skip
    assert kinds(after(model, drop_padding.divide)) == {NodeKind.CONV_2D: 1}
