"""int8 weights that fit in 6 bits are packed so: each instruction set has XNNPACK's bits."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_harness import (
    ARM,
    ISAS,
    THREADS,
    answer,
    check_nothing_outside_is_touched,
    native,
    xnnpack,
)
from test_dynamic import product

from penstock.graph.graph import XnnGraph

pytestmark = pytest.mark.skipif(ARM, reason="there are no kernels for 6 bits")


def narrow(
    shape: tuple[int, ...], outputs: int, wide: tuple[int, int], seed: int
) -> tuple[XnnGraph, np.ndarray]:
    """A product and an input; all channels but so many at either end have weights of 6 bits."""
    graph, x = product(shape, outputs, seed)
    filter = graph.values[2]
    before, behind = wide
    weights = np.array(filter.data, np.int8)
    middle = weights[before : outputs - behind]
    middle[...] = (-32, 31, middle >> 2)[min(seed % 5, 2)]
    filter.data = weights
    return graph, x


def kinds(graph: XnnGraph, isa: str = ISAS[-1]) -> str:
    """How the product is packed."""
    prepared = native(isa).compile(graph, threads=THREADS[1])._prepared[1]
    assert prepared is not None
    return getattr(prepared[1], "name", type(prepared[1]).__name__)


def check(graph: XnnGraph, x: np.ndarray, wanted: str) -> None:
    expected = answer(xnnpack(), graph, x)
    for isa in ISAS:
        assert kinds(graph, isa) == wanted
        for threads in (1, 2):
            found = answer(native(isa), graph, x, threads)
            np.testing.assert_array_equal(found, expected, err_msg=f"{isa}, {threads} threads")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30))
def test_products(seed: int) -> None:
    draw = random.Random(seed)
    batch = draw.choice(((draw.randint(1, 40),), (2, draw.randint(1, 20)), ()))
    inputs = draw.choice((draw.randint(1, 200), 64, 384))
    check(
        *narrow((*batch, inputs), draw.choice((draw.randint(1, 100), 64)), (0, 0), seed), "qd8_int4"
    )


@pytest.mark.parametrize(
    ("outputs", "wide"),
    [(5000, (1024, 0)), (5000, (0, 1)), (6500, (700, 900)), (4096, (0, 1024)), (2500, (1, 0))],
)
def test_some_channels(outputs: int, wide: tuple[int, int]) -> None:
    """Of one row; with more rows all have 8 bits."""
    for inputs in (33, 96):
        check(*narrow((1, inputs), outputs, wide, outputs), "SplitProduct")
    check(*narrow((2, 33), outputs, wide, outputs), "qd8_product")


def test_what_is_not_packed_so() -> None:
    """One weight that is too large, or most channels."""
    graph, _ = narrow((1, 64), 100, (0, 0), 2)
    assert kinds(graph) == "qd8_int4"
    for value in (-33, 32):
        weights = np.array(graph.values[2].data, np.int8)
        weights[99, 63] = value
        other, _ = narrow((1, 64), 100, (0, 0), 2)
        other.values[2].data = weights
        assert kinds(other) == "qd8_product"
    assert kinds(narrow((1, 64), 4096, (1500, 600), 2)[0]) == "qd8_product"
    least = float(np.finfo(np.float32).tiny)  # scales that are lost when they are divided
    small = np.full(100, 8 * least, np.float32)
    graph.values[2].quantization = replace(graph.values[2].quantization, scales=small)  # type: ignore[type-var]
    assert kinds(graph) == "qd8_product"


@pytest.mark.parametrize("isa", ISAS)
def test_every_tail(isa: str) -> None:
    for rows in range(1, 27):
        for outputs in (*range(1, 35, 3), 47, 48):
            inputs = (rows * 7 + outputs) % 75 + 1
            graph, x = narrow((rows, inputs), outputs, (0, 0), rows)
            expected = answer(native("scalar"), graph, x)
            np.testing.assert_array_equal(answer(native(isa), graph, x), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_outside_is_touched(isa: str) -> None:
    for seed in range(20):
        one = seed % 4 == 0
        outputs, wide = (2100 + seed, (seed, 0)) if one else (seed * 3 + 1, (0, 0))
        graph, x = narrow((1 if one else seed, seed * 5 % 67 + 1), outputs, wide, seed)
        check_nothing_outside_is_touched(isa, graph, x)


@pytest.mark.parametrize("isa", ISAS)
def test_largest_sums(isa: str) -> None:
    """All inputs and weights at the ends of their ranges, as many as there may be."""
    for weight in (-32, 31):
        for sign in (-1, 1):
            graph, x = product((1, 65536), 3, 1)
            graph.values[2].data = np.full((3, 65536), weight, np.int8)
            x[...] = sign
            assert kinds(graph, isa) == "qd8_int4"
            found = answer(native(isa), graph, x)
            np.testing.assert_array_equal(found, answer(xnnpack(), graph, x))
