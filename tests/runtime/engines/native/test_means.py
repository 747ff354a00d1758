"""Means over int8 images: each instruction set has XNNPACK's bits."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_harness import ISAS, THREADS, guarded, native, roomy, xnnpack

from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import FLAG_KEEP_DIMS, Node, Shape, Value, XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.native.engine import NativeEngine
from penstock.runtime.engines.protocol import Engine


def graph_of(x: Shape, seed: int) -> tuple[XnnGraph, np.ndarray]:
    """A mean; in some the values lie close to the zero point, or scales make many ties."""
    draw, numbers = random.Random(seed), np.random.default_rng(seed)
    scales = [float(np.float32(10 ** draw.uniform(-3, 0))) for _ in range(2)]
    if draw.random() < 0.4:
        scales = [1.0, draw.choice((0.25, 0.5, 1.0, 2.0))]
    zero, result_zero = draw.randint(-128, 127), draw.randint(-128, 127)
    near = draw.random() < 0.5
    low, high = (zero - 6, zero + 7) if near else (-128, 128)
    image = numbers.integers(low, high, x).clip(-128, 127).astype(np.int8)
    keep = draw.random() < 0.7
    shape = (*x[:-3], 1, 1, x[-1]) if keep else (*x[:-3], x[-1])
    values = [
        Value(0, DataType.QINT8, x, PerTensor(scales[0], zero), None, 0, True),
        Value(1, DataType.QINT8, shape, PerTensor(scales[1], result_zero), None, 1, False, True),
    ]
    flags = FLAG_KEEP_DIMS if keep else 0
    node = Node(NodeKind.GLOBAL_AVG_POOLING_2D, (0,), (1,), flags=flags)
    return XnnGraph(values, [node], [0], [1]), image


def answer(engine: Engine, graph: XnnGraph, x: np.ndarray, threads: int = 1) -> np.ndarray:
    executable = engine.compile(graph, threads=THREADS[threads])
    (shape,) = executable.reshape([x.shape])
    output = np.full(shape, 77, np.int8)
    executable.run([roomy(x)], [output])
    return output


def check(x: Shape, seed: int) -> None:
    graph, image = graph_of(x, seed)
    assert native("scalar").reason_against(graph, graph.nodes[0]) is None
    expected = answer(xnnpack(), graph, image)
    for isa in ISAS:
        for threads in (1, 2):
            np.testing.assert_array_equal(answer(native(isa), graph, image, threads), expected)


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 1 << 30))
def test_sizes_and_scales(seed: int) -> None:
    draw = random.Random(seed)
    height, width = draw.choice(((1, 1), (2, 3), (7, 7), (14, 14), (9, 1), (16, 17), (33, 31)))
    check((draw.randint(1, 2), height, width, draw.randint(1, 200)), seed)


def test_tails() -> None:
    for channels in (*range(1, 34), 63, 64, 65, 127, 129):
        check((1, 5, 5, channels), channels)
    check((3, 7, 7, 960), 1)
    check((1, 112, 112, 64), 2)  # more than the threads' least, and sums beyond int16
    check((1, 300, 300, 3), 3)
    check((5, 40, 7), 4)  # no images but one


def test_extremes() -> None:
    for value in (-128, 127):
        for pixels in (255, 256, 257, 1000):
            graph, image = graph_of((1, 1, pixels, 70), pixels)
            image[...] = value
            expected = answer(xnnpack(), graph, image)
            for isa in ISAS:
                np.testing.assert_array_equal(answer(native(isa), graph, image), expected)


def test_what_goes_to_xnnpack() -> None:
    graph, _ = graph_of((1, 4, 4, 8), 0)
    graph.values[1].quantization = PerTensor(1e-7, 0)
    graph.values[0].quantization = PerTensor(1.0, 0)
    assert "far apart" in str(native("scalar").reason_against(graph, graph.nodes[0]))
    graph, _ = graph_of((1, 400, 400, 1), 0)
    assert "pixels" in str(native("scalar").reason_against(graph, graph.nodes[0]))


@pytest.mark.skipif("avx2" not in ISAS, reason="rules are those of x86")
@pytest.mark.parametrize(
    ("shape", "ours"),
    [((900, 1, 32, 1), False), ((900, 1, 32, 12), True), ((1, 30, 30, 3), True)],
)
def test_many_images_of_few_channels_are_left(shape: Shape, ours: bool) -> None:
    graph, _ = graph_of(shape, 0)
    engine = NativeEngine(library=native("avx2").library)
    assert (engine.reason_against(graph, graph.nodes[0]) is None) == ours


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_outside_is_touched(isa: str) -> None:
    for channels in (1, 7, 8, 15, 16, 17, 33, 64, 65):
        graph, image = graph_of((1, 3, 3, channels), channels)
        expected = answer(xnnpack(), graph, image)
        executable = native(isa).compile(graph, threads=THREADS[1])
        executable.reshape([image.shape])
        with guarded([image, np.zeros_like(expected)]) as (x, output):
            executable.run([x], [output])
            np.testing.assert_array_equal(output, expected)
