"""Chains of elementwise nodes between int8 values as tables; images of bytes interleaved."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from integer_cases import answer
from native_harness import ISAS, THREADS, guarded, native, xnnpack

from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import Node, Value, XnnGraph
from penstock.graph.kinds import NodeKind, TransposeAttributes
from penstock.graph.shapes import bounds
from penstock.runtime.engines.native import tables
from penstock.runtime.engines.native.lookup import chains
from penstock.runtime.engines.native.tables import Tables
from penstock.runtime.engines.planner import choose

FP32, QINT8 = DataType.FP32, DataType.QINT8


def silu(shape: tuple[int, ...], seed: int) -> XnnGraph:
    """x * sigmoid(x), as it is between int8 values."""
    draw = random.Random(seed)
    scales = [PerTensor(float(np.float32(draw.uniform(0.01, 0.1))), draw.randint(-128, 127))
              for _ in range(2)]  # fmt: skip
    values = [
        Value(0, QINT8, shape, scales[0], None, 0, True),
        Value(1, FP32, shape),
        Value(2, FP32, shape),
        Value(3, FP32, shape),
        Value(4, QINT8, shape, scales[1], None, 1, False, True),
    ]
    nodes = [
        Node(NodeKind.CONVERT, (0,), (1,)),
        Node(NodeKind.SIGMOID, (1,), (2,)),
        Node(NodeKind.MULTIPLY, (1, 2), (3,)),
        Node(NodeKind.CONVERT, (3,), (4,)),
    ]
    return XnnGraph(values, nodes, [0], [4])


def hard_sigmoid(shape: tuple[int, ...], seed: int) -> XnnGraph:
    """clamp(x + 3) / 6, with constants."""
    graph = silu(shape, seed)
    three, sixth = (np.array([number], np.float32) for number in (3, 1 / 6))
    graph.values += [Value(5, FP32, (1,), None, three), Value(6, FP32, (1,), None, sixth)]
    graph.nodes[1:3] = [
        Node(NodeKind.ADD, (1, 5), (2,), None, (0.0, 6.0)),
        Node(NodeKind.MULTIPLY, (2, 6), (3,)),
    ]
    return graph


def bytes_of(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


def test_chains() -> None:
    for seed, shape in enumerate(((1,), (3, 33), (1, 7, 9, 11), (64,), (2, 40000), (1, 1, 1, 257))):
        for make in (silu, hard_sigmoid):
            graph, x = make(shape, seed), bytes_of(shape, seed)
            assert choose(graph, [native("scalar"), xnnpack()]) == [0] * 4
            expected = answer(xnnpack(), graph, x)
            for isa in ISAS:
                for threads in (1, 2):
                    np.testing.assert_array_equal(answer(native(isa), graph, x, threads), expected)


def test_single_nodes() -> None:
    kinds = (NodeKind.SIGMOID, NodeKind.HARDSWISH, NodeKind.TANH)
    for seed, kind in enumerate(kinds):
        graph = silu((3, 70), seed)
        graph.nodes, graph.values = [Node(kind, (0,), (4,))], [graph.values[0], graph.values[4]]
        if kind is not NodeKind.HARDSWISH:  # of which XNNPACK knows the range
            zero = -128 if kind is NodeKind.SIGMOID else 0
            step = 1 / 256 if kind is NodeKind.SIGMOID else 1 / 128
            graph.values[1].quantization = PerTensor(step, zero)
        assert [chain.nodes for chain in chains(graph, bounds(graph))] == [(0,)]
        x = bytes_of((3, 70), seed)
        for isa in ISAS:
            np.testing.assert_array_equal(
                answer(native(isa), graph, x), answer(xnnpack(), graph, x)
            )


def test_two_chains_in_a_row_and_sizes_that_change() -> None:
    shape = (4, 50)
    graph = silu(shape, 3)
    more = silu(shape, 4)
    for value in more.values[1:]:
        value.id += 4
        if value.external_id is not None:
            value.external_id = 1
    for node in more.nodes:
        node.inputs = tuple(i + 4 for i in node.inputs)
        node.outputs = tuple(i + 4 for i in node.outputs)
    graph.values[4].is_output, graph.values[4].external_id = False, None
    graph.values += more.values[1:]
    graph.nodes += more.nodes
    graph.outputs = [8]
    assert [chain.nodes for chain in chains(graph, bounds(graph))] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    for isa in ISAS:
        for rows in (4, 1, 3):
            x = bytes_of((rows, 50), rows)
            np.testing.assert_array_equal(
                answer(native(isa), graph, x), answer(xnnpack(), graph, x)
            )


def side_by_side(graphs: Sequence[XnnGraph]) -> XnnGraph:
    """One graph of several with one input and one output each."""
    whole = XnnGraph()
    for number, graph in enumerate(graphs):
        step = 10 * number
        for value in graph.values:
            external = None if value.external_id is None else number
            external = len(graphs) + number if value.is_output else external
            whole.values.append(replace(value, id=value.id + step, external_id=external))
        for node in graph.nodes:
            inputs, outputs = ([i + step for i in ids] for ids in (node.inputs, node.outputs))
            whole.nodes.append(replace(node, inputs=tuple(inputs), outputs=tuple(outputs)))
        whole.inputs.append(step)
        whole.outputs.append(graph.outputs[0] + step)
    return whole


@pytest.mark.parametrize("conversions", ["right", "wrong"])
def test_chains_that_are_alike(conversions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They share their part in float32. If NumPy's conversions are not XNNPACK's, they do not."""
    graphs = [make((2, 256), seed) for seed in range(25) for make in (silu, hard_sigmoid)]
    for seed, graph in enumerate(graphs):  # some of which end in steps that halves fall between
        if seed % 3 == 0:
            graph.values[4].quantization = PerTensor(2.0 ** -(seed % 8), seed - 20)
            graph.values[0].quantization = PerTensor(2.0 ** -(seed % 5), seed - 30)
    runs: list[int] = []
    run, quantized = tables._run, tables._quantized

    def counted(*arguments: Any) -> list[np.ndarray]:
        runs.append(len(arguments[2]))
        return run(*arguments)

    monkeypatch.setattr(tables, "_run", counted)
    if conversions == "wrong":
        monkeypatch.setattr(tables, "_quantized", lambda *a: quantized(*a) ^ np.uint8(1))
    whole = side_by_side(graphs)
    found = Tables().of(whole, chains(whole, bounds(whole)))
    assert runs == ([4] if conversions == "right" else [4, 48])
    x = np.arange(256, dtype=np.uint8).view(np.int8)
    for chain, graph in zip(found, graphs, strict=True):
        expected = answer(xnnpack(), graph, np.stack([x, x]))[0]
        np.testing.assert_array_equal(chain.table.view(np.int8), expected)


def test_no_chains() -> None:
    """What is read elsewhere, of other sizes, by constants of many elements or alone."""
    seen = silu((3, 5), 1)
    seen.values[3].is_output, seen.values[3].external_id = True, 2
    seen.outputs.append(3)
    wider = silu((3, 5), 1)
    wider.values[1] = Value(1, FP32, (3, 5))
    wider.values += [Value(5, FP32, (2, 3, 5), None, np.ones((2, 3, 5), np.float32))]
    wider.nodes[2] = Node(NodeKind.MULTIPLY, (2, 5), (3,))
    many = hard_sigmoid((3, 5), 1)
    many.values[5] = Value(5, FP32, (5,), None, np.arange(5, dtype=np.float32))
    two = silu((3, 5), 1)
    two.values.append(Value(5, QINT8, (3, 5), PerTensor(0.1, 0), None, 2, True))
    two.inputs.append(5)
    two.values.append(Value(6, FP32, (3, 5)))
    two.nodes[1:2] = [Node(NodeKind.CONVERT, (5,), (6,)), Node(NodeKind.SIGMOID, (6,), (2,))]
    single = XnnGraph(
        [Value(0, QINT8, (3,), PerTensor(0.1, 0), None, 0, True),
         Value(1, QINT8, (3,), PerTensor(0.1, 0), None, 1, False, True)],
        [Node(NodeKind.CLAMP, (0,), (1,), None, (0.0, 1.0))], [0], [1],
    )  # fmt: skip
    for graph in (seen, wider, many, two, single):
        assert chains(graph, bounds(graph)) == []


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_outside_is_touched(isa: str) -> None:
    for count in (1, 15, 31, 32, 33, 63, 64, 65, 100):
        graph, x = silu((count,), count), bytes_of((count,), count)
        expected = answer(xnnpack(), graph, x)
        executable = native(isa).compile(graph, threads=THREADS[1])
        executable.reshape([x.shape])
        with guarded([x, np.zeros_like(x)]) as (image, output):
            executable.run([image], [output])
            np.testing.assert_array_equal(output, expected)
        image_graph = interleave((1, 3, 1, count))
        x = bytes_of((1, 3, 1, count), count)
        executable = native(isa).compile(image_graph, threads=THREADS[1])
        executable.reshape([x.shape])
        with guarded([x, np.zeros((1, 1, count, 3), np.int8)]) as (image, output):
            executable.run([image], [output])
            np.testing.assert_array_equal(output, x.transpose(0, 2, 3, 1))


def interleave(shape: tuple[int, ...]) -> XnnGraph:
    batch, planes, height, width = shape
    scale = PerTensor(0.1, 3)
    values = [
        Value(0, QINT8, shape, scale, None, 0, True),
        Value(1, QINT8, (batch, height, width, planes), scale, None, 1, False, True),
    ]
    node = Node(NodeKind.STATIC_TRANSPOSE, (0,), (1,), TransposeAttributes((0, 2, 3, 1)))
    return XnnGraph(values, [node], [0], [1])


@pytest.mark.parametrize("isa", ISAS)
def test_interleaved(isa: str) -> None:
    for shape in ((1, 3, 224, 224), (2, 3, 5, 7), (3, 4, 3, 3), (1, 1, 2, 9), (2, 5, 130, 130)):
        x = bytes_of(shape, math.prod(shape))
        for threads in (1, 2):
            found = answer(native(isa), interleave(shape), x, threads)
            np.testing.assert_array_equal(found, x.transpose(0, 2, 3, 1))
