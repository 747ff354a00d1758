"""Sums and products of int8 tensors: each instruction set has XNNPACK's bits."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_harness import ISAS, THREADS, guarded, native, xnnpack

from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import Node, Shape, Value, XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.native.binary import collapsed
from penstock.runtime.engines.protocol import Engine


def graph_of(a: Shape, b: Shape, seed: int) -> tuple[XnnGraph, list[np.ndarray]]:
    """A sum or a product; the second operand is a constant in some."""
    draw, numbers = random.Random(seed), np.random.default_rng(seed)
    kind = draw.choice((NodeKind.ADD, NodeKind.MULTIPLY))
    scales = [float(np.float32(draw.uniform(0.005, 0.5))) for _ in range(3)]
    if kind is NodeKind.MULTIPLY:
        scales[2] = scales[0] * scales[1] * draw.uniform(20, 400)
    quantization = [PerTensor(scale, draw.randint(-128, 127)) for scale in scales]
    inputs = [numbers.integers(-128, 128, shape).astype(np.int8) for shape in (a, b)]
    result = np.broadcast_shapes(a, b)
    constant = draw.random() < 0.3
    values = [
        Value(0, DataType.QINT8, a, quantization[0], None, 0, True),
        Value(1, DataType.QINT8, b, quantization[1], None, 1, True),
        Value(2, DataType.QINT8, result, quantization[2], None, 2, False, True),
    ]
    if constant:
        values[1] = Value(1, DataType.QINT8, b, quantization[1], inputs.pop())
        values[2].external_id = 1
    zero, step = quantization[2].zero_point, quantization[2].scale
    ranges = (None, (0.0, math.inf), (-step * (zero + 100), step * (90 - zero)))
    clamp = draw.choice(ranges if -90 < zero < 80 else ranges[:1])
    graph = XnnGraph(values, [Node(kind, (0, 1), (2,), None, clamp)], [0, 1][: 2 - constant], [2])
    return graph, inputs


def answer(engine: Engine, graph: XnnGraph, x: list[np.ndarray], threads: int = 1) -> np.ndarray:
    executable = engine.compile(graph, threads=THREADS[threads])
    (shape,) = executable.reshape([array.shape for array in x])
    output = np.full(shape, 77, np.int8)
    executable.run(x, [output])
    return output


def check(a: Shape, b: Shape, seed: int) -> None:
    graph, x = graph_of(a, b, seed)
    assert native("scalar").reason_against(graph, graph.nodes[0]) is None
    # XNNPACK leaves out dimensions that only the shorter of two single elements lacks.
    expected = answer(xnnpack(), graph, x).reshape(np.broadcast_shapes(a, b))
    for isa in ISAS:
        for threads in (1, 2):
            np.testing.assert_array_equal(answer(native(isa), graph, x, threads), expected)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30))
def test_broadcasting(seed: int) -> None:
    draw = random.Random(seed)
    whole = [draw.choice((1, 2, 3, 5, 17, 40)) for _ in range(draw.randint(1, 5))]
    a, b = ([size if draw.random() < 0.7 else 1 for size in whole] for _ in range(2))
    shorter = b[draw.randint(0, len(b) - 1) :]
    a, shorter = (a, shorter) if draw.random() < 0.5 else (shorter, a)
    check(tuple(a), tuple(shorter), seed)


def test_sizes() -> None:
    for count in (*range(1, 36), 63, 64, 65, 40000):
        check((count,), (count,), count)
        check((3, count), (3, 1), count)
    check((1, 56, 56, 144), (1, 1, 1, 144), 1)
    check((2, 30, 30, 24), (2, 1, 1, 24), 2)


def test_collapsed() -> None:
    assert collapsed((2, 3, 4), [(2, 3, 4), (2, 3, 4)])[-1] == (24, 1, 1)
    assert collapsed((2, 3, 4), [(2, 3, 4), (4,)])[-2:] == [(6, 4, 0), (4, 1, 1)]
    assert collapsed((2, 3, 4), [(2, 1, 4), (1, 3, 1)])[-3:] == [(2, 4, 0), (3, 0, 1), (4, 1, 0)]
    assert collapsed((1, 1), [(1, 1), (1,)]) == [(1, 0, 0)] * 6


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_outside_is_touched(isa: str) -> None:
    for count in (1, 7, 15, 16, 17, 33, 64, 65):
        graph, x = graph_of((2, count), (2, count), count)
        expected = answer(xnnpack(), graph, x)
        executable = native(isa).compile(graph, threads=THREADS[1])
        executable.reshape([array.shape for array in x])
        with guarded([*x, np.zeros_like(expected)]) as (*images, output):
            executable.run(images, [output])
            np.testing.assert_array_equal(output, expected)
