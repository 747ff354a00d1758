"""int8 convolution by Winograd's F(2x2, 3x3) and F(3x3, 3x3) with AVX2: plain C's bits."""

from __future__ import annotations

import numpy as np
import pytest
from integer_cases import Product, check_avx2, check_avx2_guarded
from native_harness import ISAS

from penstock.graph.kinds import Conv2dAttributes

pytestmark = pytest.mark.skipif("avx2" not in ISAS, reason="it is for AVX2")

#: Sides of the image: multiples of two and of three, and others; few tiles, whose outputs threads
#: share, and several chunks of them.
SIZES = ((7, 7), (8, 8), (9, 9), (14, 11), (15, 16), (28, 27), (66, 41))
CHANNELS = ((16, 16), (32, 16), (36, 100), (66, 24), (258, 61), (512, 61))


def convolution(
    batch: int, size: tuple[int, int], channels: tuple[int, int], dilation: int = 1
) -> Product:
    """A 3x3 kernel that keeps the image's size."""
    inputs, outputs = channels
    a = Conv2dAttributes((dilation,) * 4, (3, 3), (1, 1), (dilation, dilation), 1, inputs, outputs)
    return Product((batch, *size, inputs), outputs, a, sum(size) + inputs)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", CHANNELS, ids=str)
def test_convolution(channels: tuple[int, int], size: tuple[int, int], threads: int) -> None:
    check_avx2(*convolution(1, size, channels).graph(), threads)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2, 5])
def test_images_and_dilation(dilation: int, threads: int) -> None:
    for size in ((9, 15), (20, 13)):
        check_avx2(*convolution(3, size, (40, 33), dilation).graph(), threads)


def test_many_channels() -> None:
    """So many that the weights of a chunk lie in the third level of cache."""
    check_avx2(*convolution(1, (12, 12), (1030, 40)).graph(), 2)


@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("value", [-128, 127])
@pytest.mark.parametrize("side", [7, 9])
def test_extremes(side: int, weight: int, value: int) -> None:
    """The largest values there are, with signs that make the largest transforms, and by chance."""
    graph, x = convolution(1, (side, side), (64, 64)).graph()
    weights = graph.values[1].data
    assert isinstance(weights, np.ndarray)
    rng = np.random.default_rng(3)
    weights[...], x[...] = weight, value
    weights[16:32, :, 1] = -weight - 1
    weights[32:48, 1] = -weight - 1
    weights[48:] = np.where(rng.random(weights[48:].shape) < 0.5, weight, -weight - 1)
    x[:, 1::3, :, :32] = x[:, :, 1::3, :32] = -value - 1
    x[..., 32:] = np.where(rng.random(x[..., 32:].shape) < 0.5, value, -value - 1)
    check_avx2(graph, x)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_nothing_outside_is_touched(size: tuple[int, int]) -> None:
    graph, x = convolution(1, size, (34, 27)).graph()
    check_avx2_guarded(graph, x)
