"""fp32 sums: each instruction set beside NumPy, of one shape and broadcast."""

from __future__ import annotations

import math

import numpy as np
import pytest
from native_harness import ISAS, THREADS, guarded, native, numbers

from penstock.graph.dtypes import DataType
from penstock.graph.graph import Node, Value, XnnGraph
from penstock.graph.kinds import NodeKind

RANGE = (-0.5, 0.75)


def graph(shape: tuple[int, ...]) -> XnnGraph:
    fp32 = DataType.FP32
    values = [Value(i, fp32, shape, external_id=i, is_input=True) for i in (0, 1)]
    values.append(Value(2, fp32, shape, external_id=2, is_output=True))
    return XnnGraph(values, [Node(NodeKind.ADD, (0, 1), (2,), clamp=RANGE)], [0, 1], [2])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2])
def test_sums(isa: str, threads: int) -> None:
    for shape in (*((n,) for n in range(1, 70)), (3, 5, 7), (1, 60, 60, 21)):
        a, b = numbers(shape, 1), numbers(shape, math.prod(shape))
        a.reshape(-1)[-1] = np.nan
        executable = native(isa).compile(graph(shape), threads=THREADS[threads])
        executable.reshape([shape, shape])
        with guarded([a, b, np.zeros_like(a)]) as (left, right, output):
            executable.run([left, right], [output])
            np.testing.assert_array_equal(output, np.clip(a + b, *RANGE))


@pytest.mark.parametrize("isa", ISAS)
def test_sizes_that_turn_out_to_be_one(isa: str) -> None:
    """Both have the same bounds; at run time one of them is broadcast."""
    executable = native(isa).compile(graph((4, 3, 5)), threads=THREADS[1])
    for left, right in (
        ((4, 3, 5), (1, 3, 5)), ((1, 1, 5), (4, 3, 5)), ((4, 1, 5), (1, 3, 1)),
        ((2, 3, 5), (2, 3, 5)),
        ((0, 3, 5), (1, 3, 5)), ((1, 1, 1), (1, 1, 1)),
    ):  # fmt: skip
        a, b = numbers(left, 1), numbers(right, 2)
        (shape,) = executable.reshape([left, right])
        with guarded([a, b, np.zeros(shape, np.float32)]) as (x, y, output):
            executable.run([x, y], [output])
            np.testing.assert_array_equal(output, np.clip(a + b, *RANGE))


def pair(kind: NodeKind, left: tuple[int, ...], right: tuple[int, ...]) -> XnnGraph:
    fp32 = DataType.FP32
    shape = np.broadcast_shapes(left, right)
    values = [
        Value(0, fp32, left, external_id=0, is_input=True),
        Value(1, fp32, right, external_id=1, is_input=True),
        Value(2, fp32, shape, external_id=2, is_output=True),
    ]
    return XnnGraph(values, [Node(kind, (0, 1), (2,), clamp=RANGE)], [0, 1], [2])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", [NodeKind.ADD, NodeKind.MULTIPLY])
def test_one_that_repeats(isa: str, kind: NodeKind) -> None:
    """In each row of the other, whichever comes first; what is broadcast otherwise is XNNPACK's."""
    operation = np.add if kind is NodeKind.ADD else np.multiply
    for left, right in (
        ((1, 5, 7, 33), (1, 1, 1, 33)), ((19,), (3, 19)), ((2, 3, 17), (2, 3, 17)),
        ((1, 4, 5), (6, 4, 5)), ((1, 90, 90, 8), (8,)),
    ):  # fmt: skip
        a, b = numbers(left, 1), numbers(right, 2)
        for threads in (1, 2):
            executable = native(isa).compile(pair(kind, left, right), threads=THREADS[threads])
            (shape,) = executable.reshape([left, right])
            with guarded([a, b, np.zeros(shape, np.float32)]) as (x, y, output):
                executable.run([x, y], [output])
                np.testing.assert_array_equal(output, np.clip(operation(a, b), *RANGE))
    graph = pair(kind, (2, 3, 4), (2, 1, 4))
    assert "broadcast" in str(native(isa).reason_against(graph, graph.nodes[0]))


@pytest.mark.parametrize("isa", ISAS)
def test_a_number_and_a_tensor(isa: str) -> None:
    """As gates have them; whose rows are short is XNNPACK's."""
    for shape in ((1, 1, 1, 33), (3, 5, 8), (2, 7)):
        for number, order in ((3.0, (0, 1)), (np.nan, (1, 0))):
            made = pair(NodeKind.MULTIPLY, shape, (1,))
            made.values[1] = Value(1, DataType.FP32, (1,), data=np.array([number], np.float32))
            made.values[2].external_id, made.inputs = 1, [0]
            made.nodes[0].inputs = order
            engine, x = native(isa), numbers(shape, 1)
            reason = engine.reason_against(made, made.nodes[0])
            assert (reason is not None) == (shape[-1] < 8)
            if reason:
                continue
            executable = engine.compile(made, threads=THREADS[2])
            executable.reshape([shape])
            with guarded([x, np.zeros_like(x)]) as (source, output):
                executable.run([source], [output])
                np.testing.assert_array_equal(output, np.clip(x * np.float32(number), *RANGE))
