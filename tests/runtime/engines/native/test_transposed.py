"""Transposed convolutions: instruction sets beside XNNPACK, in int8 to the bit, and their tails."""

from __future__ import annotations

import math
import random

import integer_cases
import numpy as np
import pytest
from native_harness import (
    ISAS,
    THREADS,
    answer,
    guarded,
    native,
    numbers,
    product_graph,
    roomy,
    xnnpack,
)

from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import Conv2dAttributes
from penstock.runtime.engines.native.costs import transposed_gain


def window(draw: random.Random) -> tuple[tuple[int, ...], Conv2dAttributes]:
    """The shape of an input, and the attributes."""
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
    return (draw.randint(1, 3), *size, groups * inputs), attributes


def drawn(seed: int) -> tuple[XnnGraph, np.ndarray]:
    draw = random.Random(seed)
    shape, attributes = window(draw)
    outputs = attributes.groups * attributes.group_output_channels
    weights = numbers((outputs, *attributes.kernel, attributes.group_input_channels), seed + 1)
    bias = numbers((outputs,), seed + 2) if draw.random() < 0.8 else None
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


def drawn_int8(seed: int) -> tuple[XnnGraph, np.ndarray]:
    shape, attributes = window(random.Random(seed))
    outputs = attributes.groups * attributes.group_output_channels
    return integer_cases.Product(shape, outputs, attributes, seed, transposed=True).graph()


@pytest.mark.parametrize("isa", ISAS)
def test_int8_has_the_bits_of_xnnpack(isa: str) -> None:
    for seed in range(0, 600, 4):
        graph, x = drawn_int8(seed)
        assert native(isa).reason_against(graph, graph.nodes[0]) is None
        expected = integer_cases.answer(xnnpack(), graph, x)
        for threads in (1, 2, 5):
            found = integer_cases.answer(native(isa), graph, x, threads)
            np.testing.assert_array_equal(found, expected, err_msg=f"{seed}, {threads} threads")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("padding", [0, 1])
def test_int8_with_many_channels(isa: str, padding: int) -> None:
    """Where convolutions go other ways: large products, and 3x3 taps in each phase."""
    for kernel, stride in ((2, 2), (6, 2), (3, 1)):
        a = Conv2dAttributes(
            (padding,) * 4, (kernel, kernel), (stride, stride), (1, 1), 1, 256, 64
        )  # fmt: skip
        product = integer_cases.Product((2, 9, 11, 256), 64, a, kernel, transposed=True)
        graph, x = product.graph()
        expected = integer_cases.answer(xnnpack(), graph, x)
        for threads in (1, 2):
            found = integer_cases.answer(native(isa), graph, x, threads)
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("isa", ISAS)
def test_int8_touches_nothing_outside(isa: str) -> None:
    for seed in range(1000, 1080, 4):
        graph, x = drawn_int8(seed)
        expected = integer_cases.answer(native("scalar"), graph, x)
        constants = [value for value in graph.values if value.data is not None]
        with guarded([*(np.asarray(value.data) for value in constants)]) as data:
            for value, array in zip(constants, data, strict=True):
                value.data = array
            executable = native(isa).compile(graph, threads=THREADS[1])
            executable.reshape([x.shape])
            with guarded([np.full_like(expected, 77)]) as (output,):
                executable.run([roomy(x)], [output])
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
