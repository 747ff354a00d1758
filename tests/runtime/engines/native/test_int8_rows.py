"""Between float32 and int8, at every instruction set of this machine: rows rounded to int8 and
back, sums of blocks, products with int8 weights."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from native_harness import ISAS, answer, guarded, native, numbers, xnnpack
from test_decoder import library, run

from penstock.graph.dtypes import DataType, PerChannel
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.runtime.blocks import address
from penstock.runtime.engines.native import int8_rows
from penstock.runtime.engines.native.engine import NativeEngine
from penstock.runtime.engines.planner import choose

SIZES = [1, 3, 15, 16, 31, 64, 100]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_to_int8_and_back(isa: str, size: int, threads: int) -> None:
    x = numbers((7, size), size) * np.float32(10) ** np.arange(-3, 4, dtype=np.float32)[:, None]
    x[2] = 0
    low, factor = np.float32(1e-9), np.float32(1 / 127)
    scales = np.maximum(np.abs(x).max(-1), low) * factor
    small = np.rint(x / scales[:, None]).astype(np.int8)
    made = [np.zeros_like(scales), np.zeros_like(small), np.zeros_like(x)]
    with guarded([x, *made]) as (given, found_scales, found_small, found_x):
        kind = int(library(isa).isa)
        task = int8_rows.CScale(
            kind, low, math.inf, factor, 7, size, address(given), address(found_scales)
        )
        run(isa, "pk_f32_scale_run", task, threads)
        np.testing.assert_array_equal(found_scales, scales)
        places = [address(array) for array in (given, found_scales, found_small)]
        run(isa, "pk_f32_narrow_run", int8_rows.CScaled(kind, 7, size, *places), threads)
        np.testing.assert_array_equal(found_small, small)
        places = [address(array) for array in (found_small, found_scales, found_x)]
        run(isa, "pk_f32_widen_run", int8_rows.CScaled(kind, 7, size, *places), threads)
        np.testing.assert_array_equal(found_x, small * scales[:, None])


@pytest.mark.parametrize("isa", ISAS)
def test_halves_go_to_even_and_bounds_hold(isa: str) -> None:
    x = np.array([[0.5, 1.5, -0.5, -2.5, 200, -200, 126.5, 127.4]], np.float32)
    with guarded([x, np.ones(1, np.float32), np.zeros(x.shape, np.int8)]) as arrays:
        task = int8_rows.CScaled(int(library(isa).isa), 1, 8, *map(address, arrays))
        run(isa, "pk_f32_narrow_run", task)
        assert arrays[2].tolist() == [[0, 2, 0, -2, 127, -128, 126, 127]]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", SIZES)
def test_sums_of_blocks(isa: str, size: int) -> None:
    x = numbers((11, size), size)
    with guarded([x, np.zeros(11, np.float32)]) as (given, found):
        task = int8_rows.CSums(int(library(isa).isa), 0.5, 11, size, address(given), address(found))
        run(isa, "pk_f32_block_sums_run", task, 2)
        wanted = x.astype(np.float64).sum(-1) * 0.5
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def product(rows: int, inputs: int, outputs: int, seed: int) -> tuple[XnnGraph, np.ndarray]:
    """A graph that multiplies float32 with int8 weights, and an input."""
    draw, drawn = random.Random(seed), np.random.default_rng(seed)
    scales = drawn.uniform(0.001, 0.02, outputs).astype(np.float32)
    weights = drawn.integers(-128, 128, (outputs, inputs)).astype(np.int8)
    values = [
        Value(0, DataType.FP32, (rows, inputs), external_id=0, is_input=True),
        Value(1, DataType.QCINT8, (outputs, inputs), PerChannel(scales, 0), weights),
        Value(3, DataType.FP32, (rows, outputs), external_id=1, is_output=True),
    ]
    clamp = draw.choice((None, (0.0, math.inf), (-1.0, 0.5)))
    node = Node(NodeKind.FULLY_CONNECTED, (0, 1, INVALID_VALUE_ID), (3,), clamp=clamp)
    return XnnGraph(values, [node], [0], [3]), numbers((rows, inputs), seed + 1)


@pytest.mark.parametrize("seed", range(40))
def test_products(seed: int) -> None:
    draw = random.Random(seed)
    rows = draw.choice((1, draw.randint(2, 30)))
    graph, x = product(rows, draw.randint(1, 60), draw.choice((1, 16, draw.randint(2, 70))), seed)
    assert choose(graph, [native("scalar"), xnnpack()]) == [0]
    expected = answer(xnnpack(), graph, x)
    for isa in ISAS:
        for threads in (1, 2):
            found = answer(native(isa), graph, x, threads)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_bias_is_left_to_xnnpack() -> None:
    """Which multiplies it by the scales."""
    graph, x = product(2, 8, 20, 1)
    graph.values.append(Value(2, DataType.FP32, (20,), data=np.ones(20, np.float32)))
    graph.nodes[0].inputs = (0, 1, 2)
    assert choose(graph, [native("scalar"), xnnpack()]) == [1]


def test_other_models_leave_such_products_to_xnnpack() -> None:
    graph, _ = product(3, 8, 20, 1)
    assert choose(graph, [NativeEngine(), xnnpack()]) == [1]
