"""fp32 transposed convolutions: each instruction set beside XNNPACK, and their tails."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from native_harness import ISAS, THREADS, answer, guarded, native, numbers, product_graph, xnnpack

from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import Conv2dAttributes
from penstock.runtime.engines.native.costs import transposed_gain


def drawn(seed: int) -> tuple[XnnGraph, np.ndarray]:
    draw = random.Random(seed)
    groups = draw.choice((1, 1, 1, 2, 3))
    inputs, outputs = draw.randint(1, 40), draw.randint(1, 70)
    stride = (draw.randint(1, 4), draw.randint(1, 4))
    kernel = tuple(s + draw.choice((0, 0, 1, 2, s, 5)) for s in stride)
    adjustment = tuple(draw.randint(0, s - 1) for s in stride)
    size = [draw.randint(1, 15), draw.randint(1, 30)]
    padding = []
    for n, k, s, a in zip(size, kernel, stride, adjustment, strict=True):
        most = s * (n - 1) + a + k - 1  # at least a pixel is left
        before = draw.randint(0, min(most, k + 1))
        padding.append((before, draw.randint(0, min(most - before, k + 1))))
    if draw.random() < 0.4:  # columns alone
        kernel = (kernel[0], stride[1])
        padding[1], adjustment = (0, 0), (adjustment[0], 0)
    (top, bottom), (left, right) = padding
    attributes = Conv2dAttributes(
        (top, right, bottom, left), (kernel[0], kernel[1]), stride, (1, 1), groups, inputs,
        outputs, (adjustment[0], adjustment[1]),
    )  # fmt: skip
    shape = (draw.randint(1, 3), *size, groups * inputs)
    weights = numbers((groups * outputs, *kernel, inputs), seed + 1)
    bias = numbers((groups * outputs,), seed + 2) if draw.random() < 0.8 else None
    clamp = draw.choice((None, (0.0, math.inf), (-0.5, 0.75)))
    graph = product_graph(shape, weights, bias, attributes, clamp, transposed=True)
    return graph, numbers(shape, seed + 3)


@pytest.mark.parametrize("isa", ISAS)
def test_beside_xnnpack(isa: str) -> None:
    for seed in range(0, 400, 4):
        graph, x = drawn(seed)
        expected = answer(xnnpack(), graph, x)
        for threads in (1, 2):
            found = answer(native(isa), graph, x, threads)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=5e-5, err_msg=str(seed))


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_outside_is_touched(isa: str) -> None:
    for seed in range(1000, 1080, 4):
        graph, x = drawn(seed)
        expected = answer(native(isa), graph, x)
        constants = [value for value in graph.values if value.data is not None]
        with guarded([x, *(np.asarray(value.data) for value in constants)]) as (image, *data):
            for value, array in zip(constants, data, strict=True):
                value.data = array
            executable = native(isa).compile(graph, threads=THREADS[1])
            executable.reshape([x.shape])
            with guarded([np.full_like(expected, np.nan)]) as (output,):
                executable.run([image], [output])
                np.testing.assert_array_equal(output, expected)


def test_what_is_left_to_xnnpack() -> None:
    for kernel, stride, dilation in (
        ((1, 3), (2, 1), (1, 1)), ((3, 3), (1, 1), (1, 2)), ((1, 2000), (1, 1500), (1, 1)),
    ):  # fmt: skip
        attributes = Conv2dAttributes((0, 0, 0, 0), kernel, stride, dilation, 1, 4, 5)
        graph = product_graph(
            (1, 3, 6, 4), numbers((5, *kernel, 4), 0), None, attributes, transposed=True
        )
        assert native(ISAS[0]).reason_against(graph, graph.nodes[0])


@pytest.mark.skipif("avx2" not in ISAS, reason="costs are those of x86")
@pytest.mark.parametrize(
    ("size", "stride", "ours"), [(32, 2, True), (32, 1, False), (2, 2, False), (1, 1, True)]
)
def test_what_pays(size: int, stride: int, ours: bool) -> None:
    """Strides, and padding that XNNPACK multiplies with; not a few pixels."""
    kernel, channels = (7 if size == 1 else stride + 2, 8 if size == 2 else 64)
    edge = 0 if size == 1 else 1
    attributes = Conv2dAttributes(
        (edge, edge, edge, edge), (kernel, kernel), (stride, stride), (1, 1), 1, channels, channels
    )
    weights = np.zeros((channels, kernel, kernel, channels), np.float32)
    graph = product_graph((1, size, size, channels), weights, None, attributes, transposed=True)
    gain = transposed_gain(
        graph.nodes[0], {value.id: value for value in graph.values}, native(ISAS[-1]).library
    )
    assert gain is not None and (gain > 0) == ours
