"""Products of rows that are quantized at run time with int4 weights: each instruction set has
XNNPACK's bits."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_harness import (
    ARM,
    ISAS,
    answer,
    check_nothing_outside_is_touched,
    native,
    row_product_graph,
    xnnpack,
)

from penstock.graph.dtypes import Blockwise, DataType, PerChannel, Quantization
from penstock.graph.graph import XnnGraph
from penstock.graph.weights import float_to_bfloat16, real
from penstock.runtime.engines.native.engine import NativeEngine
from penstock.runtime.engines.native.isa import Isa
from penstock.runtime.engines.native.library import open_library, shared_library
from penstock.runtime.engines.planner import choose

#: Whether XNNPACK has kernels for VNNI here.
VNNI = "avx512vnni" in ISAS


def product(
    shape: tuple[int, ...], outputs: int, block: int, seed: int
) -> tuple[XnnGraph, np.ndarray]:
    """A graph that quantizes its input and multiplies it with weights in blocks (0: with scales of
    channels), and an input, some of whose rows are of one sign, of one number or all zeros."""
    draw, numbers = random.Random(seed), np.random.default_rng(seed)
    weights = numbers.integers(0, 256, (outputs, shape[-1] // 2)).astype(np.uint8)
    if seed % 5 == 0:
        weights[...] = draw.choice((0x00, 0x0F, 0xFF))
    quantization: Quantization
    if block:
        scales = numbers.uniform(0.001, 0.02, outputs * shape[-1] // block).astype(np.float32)
        dtype, quantization = DataType.QBINT4, Blockwise(float_to_bfloat16(scales), 0, block)
    else:
        scales = numbers.uniform(0.001, 0.02, outputs).astype(np.float32)
        dtype, quantization = DataType.QCINT4, PerChannel(scales, 0)
    bias = numbers.standard_normal(outputs).astype(np.float32)
    x = (numbers.standard_normal(shape) * draw.choice((1e-3, 1, 100))).astype(np.float32)
    rows = x.reshape(-1, shape[-1])
    for row in range(0, len(rows), 3):
        rows[row] = draw.choice((np.abs(rows[row]), -np.abs(rows[row]), 0 * rows[row], 5.5))
    clamp = draw.choice((None, (0.0, math.inf), (-3.0, 2.5)))
    return row_product_graph(shape, (dtype, quantization, weights), bias, draw, clamp), x


def check(graph: XnnGraph, x: np.ndarray) -> None:
    """All instruction sets have the bits of XNNPACK's kernels for VNNI; its others add what blocks
    contribute in four sums."""
    assert choose(graph, [native("scalar"), xnnpack()]) == [0, 0]
    expected = answer(native("scalar"), graph, x)
    theirs = answer(xnnpack(), graph, x)
    if ARM:
        # Scales are applied in another order there, and KleidiAI's kernels take some values at the
        # middle between two integers for the other one: allowed are two in a row.
        steps = 2 * np.ptp(np.append(x, 0)) / 255 * np.abs(real(graph.values[2])).max()
        blocks = graph.values[2].dtype is DataType.QBINT4
        limit = steps + (bound(graph, x) if blocks else 1e-6 * np.abs(theirs).max())
        np.testing.assert_allclose(expected, theirs, rtol=0, atol=limit)
    elif graph.values[2].dtype is DataType.QCINT4 or VNNI:
        np.testing.assert_array_equal(expected, theirs)
    else:
        np.testing.assert_allclose(expected, theirs, rtol=0, atol=bound(graph, x))
    for isa in ISAS:
        for threads in (1, 2):
            found = answer(native(isa), graph, x, threads)
            np.testing.assert_array_equal(found, expected, err_msg=f"{isa}, {threads} threads")


def bound(graph: XnnGraph, x: np.ndarray) -> float:
    """How far apart two orders of adding up the blocks of a row can be: each rounds twice for each
    block and thrice at the end, to half a unit of at most the sum of all magnitudes."""
    size = np.abs(real(graph.values[2])).sum(axis=1).max()
    ranges = np.maximum(x.max(-1), 0) - np.minimum(x.min(-1), 0)
    scale = np.where(ranges == 0, 1, ranges / 255).max()  # a row of zeros has the scale 1
    quantization = graph.values[2].quantization
    assert isinstance(quantization, Blockwise)
    roundings = 2 * (2 * x.shape[-1] // quantization.block_size + 3)
    return float(2**-24 * roundings * (255 * size * scale + 5))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 30))
def test_products(seed: int) -> None:
    draw = random.Random(seed)
    batch = draw.choice(((draw.randint(1, 20),), (2, draw.randint(1, 10)), ()))
    block = draw.choice((0, 32, 32, 64, 96, 128, 256))
    inputs = block * draw.randint(1, 6) if block else 2 * draw.choice((draw.randint(1, 150), 64))
    check(*product((*batch, inputs), draw.choice((draw.randint(1, 100), 64)), block, seed))


@pytest.mark.skipif(not VNNI, reason="XNNPACK has no other order here")
def test_the_other_order() -> None:
    """What XNNPACK gives where it does not see VNNI is within the bound."""
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, env={
            **os.environ, "PENSTOCK_ISA": "avx2",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[4]), *sys.path]),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "others: 0" not in done.stdout


def other_order() -> None:
    from benchmarks.kernels import hide_from_xnnpack

    hide_from_xnnpack(Isa.AVX2)
    others = 0
    for seed in range(40):
        block = (0, 32, 128)[seed % 3]
        graph, x = product((seed % 9 + 1, 256 * (seed % 3 + 1)), 1 + 5 * seed, block, seed)
        theirs, ours = answer(xnnpack(), graph, x), answer(native("avx2"), graph, x)
        if not block:
            np.testing.assert_array_equal(ours, theirs)
            continue
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound(graph, x))
        others += not np.array_equal(ours, theirs)
    print(f"others: {others}")


@pytest.mark.parametrize("block", [0, 32, 128])
def test_large(block: int) -> None:
    check(*product((1, 1536), 700, block, 1))
    check(*product((200, 768), 133, block, 2))
    check(*product((3, 6144), 40, block, 3))
    check(*product((2, 256), 8205, block, 4))  # packed part by part


@pytest.mark.parametrize("isa", ISAS)
def test_every_tail(isa: str) -> None:
    for rows in range(1, 27):
        for outputs in (*range(1, 35, 3), 47, 48):
            block = (0, 32, 64)[(rows + outputs) % 3]
            inputs = block * (outputs % 3 + 1) or 2 * ((rows * 7 + outputs) % 37 + 1)
            graph, x = product((rows, inputs), outputs, block, rows)
            expected = answer(native("scalar"), graph, x)
            np.testing.assert_array_equal(answer(native(isa), graph, x), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_outside_is_touched(isa: str) -> None:
    for seed in range(40):
        block = (0, 32, 64)[seed % 3]
        inputs = block * (seed % 4 + 1) or 2 * (seed * 5 % 67 + 1)
        graph, x = product((seed % 15 + 1, inputs), seed * 3 + 1, block, seed)
        check_nothing_outside_is_touched(isa, graph, x)


def test_what_is_not_ours() -> None:
    """Scales that are lost when they are divided by 16, and rows whose sums may overflow."""
    least = float(np.finfo(np.float32).tiny)
    for scale, ours in ((16 * least, True), (8 * least, False)):
        for block in (0, 32):
            graph, _ = product((1, 64), 1, block, 1)
            small = np.full(2 if block else 1, scale, np.float32)
            scales = float_to_bfloat16(small) if block else small
            graph.values[2].quantization = replace(graph.values[2].quantization, scales=scales)  # type: ignore[type-var]
            assert choose(graph, [native("scalar"), xnnpack()])[1] == (not ours)
    for inputs, ours in ((65536, True), (65568, False)):
        graph, _ = product((1, inputs), 1, 32, 1)
        assert choose(graph, [native("scalar"), xnnpack()])[1] == (not ours)


@pytest.mark.parametrize("isa", ISAS)
def test_largest_sums(isa: str) -> None:
    """All inputs and weights at the ends of their ranges, as many as there may be."""
    for weight in (0x00, 0xFF):
        for sign in (-1, 1):
            graph, x = product((1, 65536), 3, 0, 1)
            graph.values[2].data = np.full((3, 32768), weight, np.uint8)
            x[...] = sign
            found = answer(native(isa), graph, x)
            np.testing.assert_array_equal(found, answer(native("scalar"), graph, x))


@pytest.mark.skipif("avx2" not in ISAS, reason="needs AVX2")
def test_what_auto_chooses() -> None:
    path = shared_library().path
    for block in (0, 32):
        graph, _ = product((5, 64), 24, block, 7)
        for isa, ours in (("scalar", False), ("avx2", True), ("avx512vnni", block == 32)):
            if isa in ISAS:
                native = NativeEngine(library=open_library(path, isa))
                assert choose(graph, [native, xnnpack()])[1] == (not ours), (block, isa)


if __name__ == "__main__":
    other_order()
