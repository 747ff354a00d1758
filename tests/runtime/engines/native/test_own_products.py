"""int8 products with AVX2 that have those of each pixel and channel with itself, and take them
back: beside plain C, to the bit."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_cases import Product, check_avx2, check_avx2_guarded
from native_harness import ISAS

from penstock.graph.kinds import Conv2dAttributes

pytestmark = pytest.mark.skipif("avx2" not in ISAS, reason="it is for AVX2")

#: Shape of the image, kernel, stride, dilation, padding on each side, outputs: runs of an odd
#: number of values and of pairs, taps that lie apart, lines that are and are not next to each
#: other, several images and stripes, outputs that end in the first or the second panel.
CASES = (
    ((1, 9, 11, 96), (1, 1), (1, 1), (1, 1), 0, 90),
    ((1, 5, 5, 401), (1, 1), (1, 1), (1, 1), 0, 63),
    ((2, 12, 9, 130), (1, 1), (2, 3), (1, 1), 0, 100),
    ((1, 30, 31, 5), (7, 7), (2, 2), (1, 1), 3, 200),
    ((2, 9, 10, 31), (3, 3), (2, 1), (1, 1), 1, 99),
    ((1, 14, 13, 70), (3, 3), (1, 1), (2, 5), 4, 112),
    ((1, 17, 17, 64), (1, 7), (1, 1), (1, 1), 3, 65),
    ((1, 17, 16, 64), (7, 1), (1, 1), (1, 1), 3, 131),
    ((3, 8, 8, 33), (5, 5), (1, 1), (1, 1), 2, 72),
    ((1, 3, 200, 64), (3, 1), (1, 1), (1, 1), 0, 128),
    ((1, 40, 40, 129), (3, 3), (2, 2), (1, 1), 0, 67),
)  # fmt: skip


def case(index: int) -> Product:
    """Case number ``index``."""
    shape, kernel, stride, dilation, padding, outputs = CASES[index]
    attributes = Conv2dAttributes((padding,) * 4, kernel, stride, dilation, 1, shape[3], outputs)
    return Product(shape, outputs, attributes, index)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("index", range(len(CASES)))
def test_convolutions(index: int, threads: int) -> None:
    graph, x = case(index).graph()
    check_avx2(graph, x, threads)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30))
def test_random_convolutions(seed: int) -> None:
    draw = random.Random(seed)
    kernel = draw.choice(((1, 1), (3, 3), (3, 3), (1, 5), (5, 1), (4, 4)))
    inputs, outputs = draw.choice((draw.randint(16, 140), 64, 128)), draw.randint(64, 260)
    padding = draw.randint(0, 3)
    attributes = Conv2dAttributes(
        (padding,) * 4, kernel, (draw.randint(1, 2), draw.randint(1, 2)),
        (draw.randint(1, 2), draw.randint(1, 2)), 1, inputs, outputs,
    )  # fmt: skip
    shape = (draw.randint(1, 2), draw.randint(9, 20), draw.randint(9, 20), inputs)
    graph, x = Product(shape, outputs, attributes, seed).graph()
    check_avx2(graph, x, draw.randint(1, 3))


@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("value", [-128, 127])
@pytest.mark.parametrize("kernel", [1, 3])
def test_extremes(kernel: int, weight: int, value: int) -> None:
    """The largest values there are, of one sign and of both."""
    padding = (kernel // 2,) * 4
    attributes = Conv2dAttributes(padding, (kernel, kernel), (1, 1), (1, 1), 1, 128, 96)
    graph, x = Product((1, 9, 9, 128), 96, attributes, 1).graph()
    weights = graph.values[1].data
    assert isinstance(weights, np.ndarray)
    rng = np.random.default_rng(2)
    weights[...], x[...] = weight, value
    weights[48:] = np.where(rng.random(weights[48:].shape) < 0.5, weight, -weight - 1)
    x[:, 4:] = np.where(rng.random(x[:, 4:].shape) < 0.5, value, -value - 1)
    check_avx2(graph, x)


@pytest.mark.parametrize("index", range(len(CASES)))
def test_nothing_outside_is_touched(index: int) -> None:
    graph, x = case(index).graph()
    check_avx2_guarded(graph, x)
