"""Convolutions of images quantized at run time: each instruction set has XNNPACK's bits."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_cases import convolution
from native_harness import ISAS, answer, check_bits, guarded, native, xnnpack

from penstock.graph.dtypes import DataType, PerChannel, PerToken
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.graph.shapes import infer
from penstock.runtime.engines.planner import choose, compile_graph
from penstock.runtime.engines.protocol import Engine
from penstock.runtime.engines.threads import Threads


def graph_of(
    shape: tuple[int, ...], a: Conv2dAttributes, seed: int, flags: int = 0
) -> tuple[XnnGraph, np.ndarray]:
    """A graph that quantizes its images and convolves them, and images, one in three of which is of
    one sign, of one number or all zeros."""
    draw, numbers = random.Random(seed), np.random.default_rng(seed)
    outputs = a.groups * a.group_output_channels
    filter = (outputs, *a.kernel, a.group_input_channels)
    weights = numbers.integers(-128, 128, filter).astype(np.int8)
    scales = numbers.uniform(0.001, 0.02, outputs).astype(np.float32)
    bias = numbers.standard_normal(outputs).astype(np.float32)
    x = (numbers.standard_normal(shape) * draw.choice((1e-3, 1, 100))).astype(np.float32)
    for image in range(draw.randint(0, 2), len(x), 3):
        x[image] = draw.choice((np.abs(x[image]), -np.abs(x[image]), 0 * x[image], 5.5))
    values = [
        Value(0, DataType.FP32, shape, None, None, 0, True),
        Value(1, DataType.QDINT8, shape, PerToken(3)),
        Value(2, DataType.QCINT8, filter, PerChannel(scales, 0), weights),
        Value(3, DataType.FP32, bias.shape, None, bias),
    ]
    inputs = (1, 2, 3 if draw.random() < 0.8 else INVALID_VALUE_ID)
    clamp = draw.choice((None, (0.0, math.inf), (-3.0, 2.5)))
    nodes = [
        Node(NodeKind.CONVERT, (0,), (1,)),
        Node(NodeKind.CONV_2D, inputs, (4,), a, clamp, flags),
    ]
    shapes = {value.id: value.shape for value in values}
    infer(nodes, shapes)
    values.append(Value(4, DataType.FP32, shapes[4], None, None, 1, False, True))
    return XnnGraph(values, nodes, [0], [4]), x


def layer(seed: int) -> tuple[XnnGraph, np.ndarray]:
    """A random layer; half have no padding, so that windows lie inside of the image."""
    drawn = convolution(seed)
    a = drawn.attributes
    assert a is not None
    pointwise = a.kernel == a.stride == (1, 1) and a.groups == 1
    if seed % 2 or drawn.flags or pointwise:
        return graph_of(
            drawn.shape, replace(a, stride=(2, 1)) if pointwise else a, seed, drawn.flags
        )
    batch, height, width, channels = drawn.shape
    top, right, bottom, left = a.padding
    shape = (batch, height + top + bottom, width + left + right, channels)
    return graph_of(shape, replace(a, padding=(0, 0, 0, 0)), seed)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30))
def test_convolutions(seed: int) -> None:
    check_bits(*layer(seed))


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding", "outputs"),
    [
        ((1, 224, 224, 3), (16, 16), (16, 16), (0, 0, 0, 0), 192),  # patches
        ((2, 56, 56, 96), (2, 2), (2, 2), (0, 0, 0, 0), 70),
        ((1, 1, 400, 80), (1, 3), (1, 1), (0, 1, 0, 1), 96),  # a signal's
        ((3, 30, 31, 64), (3, 3), (1, 1), (1, 1, 1, 1), 33),
        ((1, 19, 23, 130), (1, 1), (2, 3), (0, 0, 0, 0), 65),
        ((1, 40, 40, 16), (5, 5), (1, 1), (8, 8, 8, 8), 16),
    ],
)
def test_layers(
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    outputs: int,
) -> None:
    a = Conv2dAttributes(padding, kernel, stride, (1, 1), 1, shape[-1], outputs)
    check_bits(*graph_of(shape, a, outputs))


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_outside_is_touched(isa: str) -> None:
    for seed in range(60):
        graph, x = layer(seed)
        data = [value.data for value in graph.values if value.data is not None]
        expected = answer(native("scalar"), graph, x)
        with guarded([x, *(np.asarray(array) for array in data)]) as (image, *constants):
            for value, constant in zip(graph.values[2:], constants, strict=False):
                value.data = constant
            with guarded([np.full_like(expected, np.nan)]) as (output,):
                output[...] = answer(native(isa), graph, image)
                np.testing.assert_array_equal(output, expected)


def test_pixels_stay_with_xnnpack() -> None:
    """Which makes a convolution of single pixels a fully-connected product: each pixel is a row."""
    pixels = Conv2dAttributes((0, 0, 0, 0), (1, 1), (1, 1), (1, 1), 1, 16, 8)
    graph, x = graph_of((1, 4, 5, 16), pixels, 3)
    engines: list[Engine] = [native("scalar"), xnnpack()]
    assert choose(graph, engines)[1] == 1
    executable = compile_graph(graph, engines, threads=Threads(1))
    executable.reshape([x.shape])
    output = np.empty((1, 4, 5, 8), np.float32)
    executable.run([x], [output])
    np.testing.assert_array_equal(output, answer(xnnpack(), graph, x))
