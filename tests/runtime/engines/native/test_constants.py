"""Nodes that read a constant where others read what is computed: learned queries, states that begin
with zeros."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from integer_cases import Product
from native_harness import (
    ARM,
    ISAS,
    THREADS,
    answer,
    native,
    numbers,
    product_graph,
    row_product_graph,
)
from native_harness import xnnpack as xnnpack_engine

from penstock.graph.dtypes import DataType, PerChannel
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import Conv2dAttributes
from penstock.runtime.engines.protocol import Engine

_PADDED = Conv2dAttributes((1, 1, 1, 1), (3, 3), (1, 1), (1, 1), 1, 5, 9)
_DEPTHWISE = Conv2dAttributes((1, 1, 1, 1), (3, 3), (1, 1), (1, 1), 5, 1, 1)


def of_a_constant(graph: XnnGraph, x: np.ndarray) -> XnnGraph:
    """``graph`` with ``x`` for its only input."""
    (source,) = graph.inputs
    values = [
        replace(v, data=x, is_input=False, external_id=None) if v.id == source
        else replace(v, external_id=0) if v.is_output else v
        for v in graph.values
    ]  # fmt: skip
    return XnnGraph(values, graph.nodes, [], graph.outputs)


def made(engine: Engine, graph: XnnGraph, dtype: Any) -> np.ndarray:
    """What a graph without inputs makes."""
    executable = engine.compile(graph, threads=THREADS[1])
    (shape,) = executable.reshape([])
    output = np.zeros(shape, dtype)
    executable.run([], [output])
    return output


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("shape", "weights", "attributes"),
    [
        ((1, 8), (12, 8), None),
        ((1, 6, 7, 5), (9, 3, 3, 5), _PADDED),
        ((1, 6, 7, 5), (1, 3, 3, 5), _DEPTHWISE),
    ],
)
def test_products(
    isa: str, shape: tuple[int, ...], weights: tuple[int, ...], attributes: Conv2dAttributes | None
) -> None:
    bias = numbers((weights[3 if attributes is _DEPTHWISE else 0],), 1)
    graph, x = product_graph(shape, numbers(weights, 2), bias, attributes), numbers(shape, 3)
    expected = answer(xnnpack_engine(), graph, x)
    found = made(native(isa), of_a_constant(graph, x), np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("attributes", [None, _PADDED])
def test_integers(isa: str, attributes: Conv2dAttributes | None) -> None:
    shape = (3, 8) if attributes is None else (1, 6, 7, 5)
    graph, x = Product(shape, 9, attributes, 4).graph()
    constant = of_a_constant(graph, x)
    expected = made(xnnpack_engine(), constant, np.int8)
    assert len(np.unique(expected)) > 5
    np.testing.assert_array_equal(made(native(isa), constant, np.int8), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_rows_quantized_at_run_time(isa: str) -> None:
    weights = np.random.default_rng(0).integers(-127, 128, (9, 16)).astype(np.int8)
    scales = PerChannel(np.full(9, 0.01, np.float32), 0)
    filter = (DataType.QCINT8, scales, weights)
    graph = row_product_graph((3, 16), filter, numbers((9,), 1), random.Random(0), None)
    x = numbers((3, 16), 5)
    found = made(native(isa), of_a_constant(graph, x), np.float32)
    # On ARM XNNPACK scales to fp32 in another order.
    np.testing.assert_allclose(found, answer(xnnpack_engine(), graph, x), rtol=1e-5 if ARM else 0)
