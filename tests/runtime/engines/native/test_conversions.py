"""Between fp32 and int8, and other shapes of the same bytes: each instruction set has the bits of
XNNPACK's; and who gets such nodes."""

from __future__ import annotations

import random

import numpy as np
import pytest
from native_harness import ARM, ISAS, THREADS, guarded, native, xnnpack

from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import Node, Shape, Value, XnnGraph
from penstock.graph.kinds import NodeKind, ReshapeAttributes
from penstock.runtime.engines.native.engine import NativeEngine
from penstock.runtime.engines.native.library import shared_library
from penstock.runtime.engines.native.survey import Survey
from penstock.runtime.engines.native.tables import Tables
from penstock.runtime.engines.planner import choose, compile_graph
from penstock.runtime.engines.protocol import Engine

FP32, QINT8 = DataType.FP32, DataType.QINT8
#: Sizes with every tail, and such as several workers share.
SIZES = (*range(1, 36), 4095, 4096, 4097, 40000)


CONVERT, ADD, COPY = NodeKind.CONVERT, NodeKind.ADD, NodeKind.STATIC_RESHAPE
#: XNNPACK alone has it, in int8 and in float32
THEIRS = NodeKind.CLAMP


def conversion(size: int, q: PerTensor, *, to_int8: bool) -> XnnGraph:
    types: list[tuple[DataType, PerTensor | None]] = [(FP32, None), (QINT8, q)]
    values = [
        Value(i, dtype, (size,), quantization, None, i, i == 0, i == 1)
        for i, (dtype, quantization) in enumerate(types if to_int8 else types[::-1])
    ]
    return XnnGraph(values, [Node(CONVERT, (0,), (1,))], [0], [1])


def reshape(before: Shape, after: Shape, dtype: DataType) -> XnnGraph:
    q = PerTensor(0.5, 3) if dtype is QINT8 else None
    values = [
        Value(0, dtype, before, q, None, 0, True, False),
        Value(1, dtype, after, q, None, 1, False, True),
    ]
    return XnnGraph(values, [Node(COPY, (0,), (1,), ReshapeAttributes(after))], [0], [1])


def made(engine: Engine, graph: XnnGraph, x: np.ndarray, threads: int = 1) -> np.ndarray:
    """What the graph makes of ``x``, with pages around both that cannot be touched."""
    executable = engine.compile(graph, threads=THREADS[threads])
    (shape,) = executable.reshape([x.shape])
    dtype = graph.values[1].dtype.traits.array
    with guarded([x, np.zeros(shape, dtype)]) as (source, output):
        executable.run([source], [output])
        return output.copy()


@pytest.mark.parametrize("isa", ISAS)
def test_rounded_as_xnnpack_does(isa: str) -> None:
    draw = np.random.default_rng(5)
    for number, size in enumerate(SIZES):
        q = PerTensor(float(np.float32(draw.uniform(1e-3, 0.3))), int(draw.integers(-128, 128)))
        x = draw.normal(0, 60 * q.scale, size).astype(np.float32)
        x[::3] = (np.rint(x[::3] / q.scale) + 0.5) * q.scale  # between two steps
        graph = conversion(size, q, to_int8=True)
        wanted = made(xnnpack(), graph, x)
        np.testing.assert_array_equal(made(native(isa), graph, x, 1 + number % 2), wanted)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("zero_point", [-128, -3, 127])
def test_what_is_out_of_range(isa: str, zero_point: int) -> None:
    large = [np.inf, -np.inf, 3e38, -3e38, 1e10, -1e10, 128.0, -129.0, 0.0, -0.0, 1e-40]
    if not ARM:
        large.append(np.nan)
    x = np.array(large * 3, np.float32)
    graph = conversion(x.size, PerTensor(1.0, zero_point), to_int8=True)
    np.testing.assert_array_equal(made(native(isa), graph, x), made(xnnpack(), graph, x))


@pytest.mark.parametrize("isa", ISAS)
def test_widened_as_xnnpack_does(isa: str) -> None:
    draw = np.random.default_rng(6)
    for number, size in enumerate(SIZES):
        q = PerTensor(float(np.float32(draw.uniform(1e-3, 0.3))), int(draw.integers(-128, 128)))
        x = draw.integers(-128, 128, size).astype(np.int8)
        graph = conversion(size, q, to_int8=False)
        wanted = made(xnnpack(), graph, x)
        np.testing.assert_array_equal(made(native(isa), graph, x, 1 + number % 2), wanted)


@pytest.mark.parametrize("dtype", [QINT8, FP32])
@pytest.mark.parametrize("isa", ISAS)
def test_other_shapes_of_the_same_bytes(isa: str, dtype: DataType) -> None:
    for before, after in (((2, 3, 5), (30,)), ((7,), (1, 7)), ((64, 65), (65, 8, 8))):
        x = np.random.default_rng(7).integers(-128, 128, before).astype(dtype.traits.array)
        graph = reshape(before, after, dtype)
        found = made(native(isa), graph, x)
        np.testing.assert_array_equal(found, x.reshape(after))
        np.testing.assert_array_equal(found, made(xnnpack(), graph, x))


def chain(kinds: list[NodeKind]) -> XnnGraph:
    """Nodes in a row, from float32; a CONVERT is to the other type."""
    shape, q, dtype = (1, 4, 4, 8), PerTensor(0.25, 1), FP32
    graph = XnnGraph([Value(0, FP32, shape, None, None, 0, True, False)], [], [0], [len(kinds)])
    for i, kind in enumerate(kinds):
        if kind is CONVERT:
            dtype = QINT8 if dtype is FP32 else FP32
        attributes = ReshapeAttributes(shape) if kind is COPY else None
        clamp = (-1.0, 1.0) if kind is THEIRS else None
        inputs, last = (i, i) if kind is ADD else (i,), i + 1 == len(kinds)
        graph.nodes.append(Node(kind, inputs, (i + 1,), attributes, clamp))
        quantization, external = (None if dtype is FP32 else q), (1 if last else None)
        graph.values.append(Value(i + 1, dtype, shape, quantization, None, external, False, last))
    return graph


@pytest.mark.skipif(ARM, reason="these nodes are XNNPACK's there")
@pytest.mark.skipif(len(ISAS) < 2, reason="no vectors here")
@pytest.mark.parametrize(
    ("kinds", "engines"),
    [
        ([CONVERT, ADD, COPY, ADD, CONVERT], [0, 0, 0, 0, 0]),
        ([CONVERT, COPY, ADD, CONVERT], [0, 0, 0, 0]),
        ([CONVERT, THEIRS, COPY, THEIRS, CONVERT], [1, 1, 1, 1, 1]),
        ([CONVERT, ADD, COPY, THEIRS, CONVERT], [0, 0, 1, 1, 1]),
    ],
)
def test_they_go_where_their_neighbours_go(kinds: list[NodeKind], engines: list[int]) -> None:
    graph = chain(kinds)
    assert choose(graph, (NativeEngine(), xnnpack())) == engines
    x = np.random.default_rng(8).standard_normal(graph.values[0].shape, np.float32)
    outputs = []
    for each in ((NativeEngine(), xnnpack()), (xnnpack(),)):
        executable = compile_graph(graph, each, threads=THREADS[1])
        (shape,) = executable.reshape([x.shape])
        outputs.append(np.zeros(shape, np.float32))
        executable.run([x], [outputs[-1]])
    np.testing.assert_array_equal(outputs[0], outputs[1])


@pytest.mark.skipif(len(ISAS) < 2, reason="no vectors here")
def test_by_neighbours_as_in_the_assignment_of_all() -> None:
    """Where no neighbour of a node has a choice, what is decided from them is what the least cut
    of the whole graph says."""
    draw, decided = random.Random(3), 0
    for _ in range(60):
        kinds, dtype = [CONVERT], QINT8
        while len(kinds) < 12 or dtype is QINT8:
            kind = draw.choice([CONVERT, ADD, THEIRS, COPY])
            if kind is CONVERT:
                dtype = QINT8 if dtype is FP32 else FP32
            kinds.append(kind)
        graph = chain(kinds)
        survey, whole = (Survey(graph, Tables(), shared_library()) for _ in range(2))
        for node in graph.nodes:
            gain = None if survey.unable(node) else survey._alone(node)
            ours = survey._by_neighbours(node, gain) if isinstance(gain, float) else None
            if ours is not None:
                decided += 1
                assert ours == (id(node) in whole._ours)
    assert decided > 20
