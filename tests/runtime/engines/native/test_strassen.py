"""int8 products by Strassen's algorithm (``native/qs8_strassen.h``): the bits of plain ones."""

from __future__ import annotations

import numpy as np
import pytest
from integer_cases import Product, check_avx2, check_avx2_guarded
from native_harness import ISAS, answer, native
from test_dynamic import product

from penstock.graph.kinds import Conv2dAttributes

pytestmark = pytest.mark.skipif("avx2" not in ISAS, reason="it is for AVX2")

#: Rows, inputs and outputs: whole quads of rows and groups of outputs, and what does not divide;
#: several chunks of rows (of many inputs sooner), which threads share or have by themselves; and
#: what is too small to go this way, whose tiles have own products.
SIZES = (
    (132, 768, 256), (133, 776, 250), (134, 520, 508), (135, 512, 508), (129, 2048, 190),
    (197, 384, 250), (257, 512, 192), (300, 1032, 128), (521, 520, 188), (120, 6016, 192),
    (784, 176, 508), (1001, 768, 128), (48, 160, 64), (47, 160, 128), (51, 168, 190),
    (64, 768, 256), (66, 275, 61), (18, 1001, 100), (64, 256, 64), (65, 264, 64), (66, 280, 61),
    (67, 256, 124), (68, 512, 188), (63, 256, 64), (77, 2048, 190), (257, 256, 64), (521, 264, 60),
    (120, 6016, 64), (47, 160, 64), (48, 152, 64), (196, 192, 320), (784, 168, 124),
)  # fmt: skip


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_rows_quantized_at_run_time(size: tuple[int, int, int], threads: int) -> None:
    rows, inputs, outputs = size
    graph, x = product((rows, inputs), outputs, rows)
    expected = answer(native("scalar"), graph, x)
    np.testing.assert_array_equal(answer(native("avx2"), graph, x, threads), expected)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_static(size: tuple[int, int, int], threads: int) -> None:
    rows, inputs, outputs = size
    graph, x = Product((rows, inputs), outputs, None, rows).graph()
    check_avx2(graph, x, threads)


def test_convolution() -> None:
    """Of several images, with kernels of one pixel."""
    attributes = Conv2dAttributes((0,) * 4, (1, 1), (1, 1), (1, 1), 1, 640, 255)
    graph, x = Product((3, 7, 9, 640), 255, attributes, 5).graph()
    check_avx2(graph, x)


@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("value", [-128, 127])
def test_extremes(weight: int, value: int) -> None:
    """Sums of blocks of the largest values there are, of one sign and of both."""
    graph, x = Product((136, 512), 256, None, 1).graph()
    weights = graph.values[1].data
    assert isinstance(weights, np.ndarray)
    rng = np.random.default_rng(2)
    weights[...], x[...] = weight, value
    weights[128:] = np.where(rng.random(weights[128:].shape) < 0.5, weight, -weight - 1)
    x[70:] = np.where(rng.random(x[70:].shape) < 0.5, value, -value - 1)
    check_avx2(graph, x)


def test_nothing_outside_is_touched() -> None:
    for rows, inputs, outputs in SIZES[:6]:
        graph, x = Product((rows, inputs), outputs, None, rows).graph()
        check_avx2_guarded(graph, x)
