"""Products of rows that are quantized at run time: each instruction set has XNNPACK's bits."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_harness import (
    ARM,
    ISAS,
    answer,
    check_bits,
    guarded,
    native,
    row_product_graph,
    xnnpack,
)

from penstock.graph.dtypes import DataType, PerChannel
from penstock.graph.graph import Node, Value, XnnGraph
from penstock.runtime.engines.native.engine import NativeEngine
from penstock.runtime.engines.native.isa import Isa
from penstock.runtime.engines.native.library import open_library, shared_library
from penstock.runtime.engines.planner import choose, compile_graph
from penstock.runtime.engines.threads import Threads


def product(shape: tuple[int, ...], outputs: int, seed: int) -> tuple[XnnGraph, np.ndarray]:
    """A graph that quantizes its input and multiplies it, and an input, some of whose rows are of
    one sign, of one number or all zeros."""
    draw, numbers = random.Random(seed), np.random.default_rng(seed)
    weights = numbers.integers(-128, 128, (outputs, shape[-1])).astype(np.int8)
    scales = numbers.uniform(0.001, 0.02, outputs).astype(np.float32)
    bias = numbers.standard_normal(outputs).astype(np.float32)
    x = (numbers.standard_normal(shape) * draw.choice((1e-3, 1, 100))).astype(np.float32)
    rows = x.reshape(-1, shape[-1])
    for row in range(0, len(rows), 3):
        rows[row] = draw.choice((np.abs(rows[row]), -np.abs(rows[row]), 0 * rows[row], 5.5))
    clamp = draw.choice((None, (0.0, math.inf), (-3.0, 2.5)))
    filter = (DataType.QCINT8, PerChannel(scales, 0), weights)
    return row_product_graph(shape, filter, bias, draw, clamp), x


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 30))
def test_products(seed: int) -> None:
    draw = random.Random(seed)
    batch = draw.choice(((draw.randint(1, 40),), (2, draw.randint(1, 20)), ()))
    shape = (*batch, draw.choice((draw.randint(1, 200), 64, 384)))
    check_bits(*product(shape, draw.choice((draw.randint(1, 100), 64)), seed))


def test_large() -> None:
    check_bits(*product((1, 1536), 700, 1))
    check_bits(*product((197, 768), 333, 2))
    check_bits(*product((3, 6000), 40, 3))
    check_bits(*product((2, 33), 8205, 4))  # packed part by part


@pytest.mark.parametrize("isa", ISAS)
def test_every_tail(isa: str) -> None:
    for rows in range(1, 27):
        for outputs in (*range(1, 35, 3), 47, 63, 64, 65):
            graph, x = product((rows, (rows * 7 + outputs) % 37 + 1), outputs, rows)
            expected = answer(native("scalar"), graph, x)
            np.testing.assert_array_equal(answer(native(isa), graph, x), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_outside_is_touched(isa: str) -> None:
    for seed in range(30):
        graph, x = product((seed % 7 + 1, seed * 5 % 67 + 1), seed * 3 + 1, seed)
        data = [value.data for value in graph.values if value.data is not None]
        expected = answer(native("scalar"), graph, x)
        with guarded([x, *(np.asarray(array) for array in data)]) as (image, *constants):
            for value, constant in zip(graph.values[2:], constants, strict=False):
                value.data = constant
            with guarded([np.full_like(expected, np.nan)]) as (output,):
                output[...] = answer(native(isa), graph, image)
                np.testing.assert_array_equal(output, expected)


@pytest.mark.skipif("avx2" not in ISAS, reason="needs AVX2")
def test_what_auto_chooses() -> None:
    """The quantization goes with the product, whatever is chosen for itself."""
    graph, x = product((5, 40), 24, 7)
    path = shared_library().path
    found = open_library(path, "avx2")
    avxvnni = replace(found, isa=found.isa | Isa.AVXVNNI)
    avx512vnni = replace(avxvnni, isa=avxvnni.isa | Isa.AVX512 | Isa.AVX512VNNI)
    scalar = open_library(path, "scalar")
    for library, engine in ((found, 0), (avxvnni, 0), (avx512vnni, 1), (scalar, 1)):
        assert choose(graph, [NativeEngine(library=library), xnnpack()])[1] == engine
    executable = compile_graph(
        graph, [NativeEngine(library=open_library(path, "avx2")), xnnpack()], threads=Threads(1)
    )
    executable.reshape([x.shape])
    output = np.empty((5, 24), np.float32)
    executable.run([x], [output])
    np.testing.assert_array_equal(output, answer(xnnpack(), graph, x))


def test_readers_of_both_engines() -> None:
    """What is quantized is made anew in each part that reads it."""
    graph, x = product((5, 40), 24, 7)
    first = graph.nodes[1]
    graph.values.append(Value(5, DataType.FP32, (5, 24), None, None, 2, False, True))
    graph.nodes.append(Node(first.kind, first.inputs, (5,), None, (-1.0, 1.0)))
    graph.outputs.append(5)

    class OnlyFirst:
        def __init__(self) -> None:
            self._engine = native(ISAS[-1])
            self.composed = self._engine.composed
            self.compile = self._engine.compile

        def reason_against(self, graph: XnnGraph, node: Node) -> str | None:
            return "it is for the other" if node.outputs == (5,) else None

    executable = compile_graph(graph, [OnlyFirst(), xnnpack()], threads=Threads(1))
    executable.reshape([x.shape])
    outputs = [np.empty((5, 24), np.float32) for _ in range(2)]
    executable.run([x], outputs)
    whole = xnnpack().compile(graph, threads=Threads(1))
    whole.reshape([x.shape])
    expected = [np.empty((5, 24), np.float32) for _ in range(2)]
    whole.run([x], expected)
    if ARM:  # as in `check`
        np.testing.assert_allclose(outputs[0], expected[0], rtol=1e-5, atol=1e-5)
        expected[0] = outputs[0]
    np.testing.assert_array_equal(outputs[0], expected[0])
    np.testing.assert_array_equal(outputs[1], expected[1])
