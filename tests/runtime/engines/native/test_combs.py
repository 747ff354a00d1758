"""Large depthwise filters that a file has in parts run as one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from native_harness import ISAS, THREADS, native, numbers

from penstock.compiler.delegate.passes import split_depthwise
from penstock.graph.dtypes import DataType
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.graph.shapes import infer
from penstock.runtime.engines.planner import choose
from penstock.runtime.engines.protocol import Engine

FP32 = DataType.FP32
VECTOR_ISAS = [isa for isa in ISAS if isa != "scalar"]


def depthwise(
    kernel: tuple[int, int] = (7, 7),
    *,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (3, 3, 3, 3),
    channels: int = 20,
    clamp: tuple[float, float] | None = None,
    bias: bool = True,
) -> XnnGraph:
    """One depthwise convolution of two images."""
    values = [
        Value(0, FP32, (2, 17, 15, channels), external_id=0, is_input=True),
        Value(1, FP32, (1, *kernel, channels), None, numbers((1, *kernel, channels), 1)),
        Value(2, FP32, (channels,), None, numbers((channels,), 2)),
    ]
    a = Conv2dAttributes(padding, kernel, stride, dilation, channels, 1, 1)
    inputs = (0, 1, 2 if bias else INVALID_VALUE_ID)
    node = Node(NodeKind.DEPTHWISE_CONV_2D, inputs, (3,), a, clamp)
    shapes = {value.id: value.shape for value in values}
    infer([node], shapes)
    values.append(Value(3, FP32, shapes[3], external_id=1, is_output=True))
    return XnnGraph(values, [node], [0], [3])


def split(graph: XnnGraph) -> XnnGraph:
    """What the compiler makes of it."""
    parts = XnnGraph(
        list(graph.values), [replace(node) for node in graph.nodes], [*graph.inputs],
        [*graph.outputs],
    )  # fmt: skip
    split_depthwise.apply(parts)
    assert len(parts.nodes) > 2
    return parts


def answers(engine: Engine, graph: XnnGraph, x: np.ndarray, threads: int = 1) -> list[np.ndarray]:
    executable = engine.compile(graph, threads=THREADS[threads])
    outputs = [np.empty(shape, np.float32) for shape in executable.reshape([x.shape])]
    executable.run([x], outputs)
    return outputs


def units(graph: XnnGraph, isa: str) -> list[list[int]]:
    engine = native(isa)
    choose(graph, [engine, engine])
    return [list(unit) for unit in engine.units(graph)]


@pytest.mark.parametrize("isa", VECTOR_ISAS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"bias": False}, {"clamp": (0.0, 6.0)}, {"padding": (4, 3, 3, 5)}, {"kernel": (7, 5)},
        {"kernel": (6, 7)}, {"channels": 64}, {"channels": 3},
        {"kernel": (9, 3), "padding": (4,) * 4}, {"kernel": (11, 9), "padding": (5,) * 4},
        {"dilation": (2, 2), "padding": (6,) * 4}, {"stride": (2, 2)}, {"stride": (1, 3)},
        {"dilation": (1, 2), "padding": (3, 6, 3, 6)},
    ],
    ids=str,
)  # fmt: skip
def test_the_whole_filter(isa: str, threads: int, options: dict[str, object]) -> None:
    whole = depthwise(**options)  # type: ignore[arg-type]
    parts = split(whole)
    x = numbers((2, 17, 15, whole.values[0].shape[-1]), 3)
    (expected,) = answers(native("scalar"), whole, x)
    (found,) = answers(native(isa), parts, x, threads)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)
    assert units(parts, isa) == [[*range(len(parts.nodes))]]


@pytest.mark.parametrize("isa", VECTOR_ISAS)
def test_what_is_no_whole_filter(isa: str) -> None:
    """A part that something else reads, a clamped one, a filter with a hole, one taken twice."""
    x = numbers((2, 17, 15, 20), 3)
    read = split(depthwise())
    value = read.values[[v.id for v in read.values].index(read.nodes[0].outputs[0])]
    value.is_output, value.external_id = True, 2
    read.outputs.append(value.id)
    holed = split(depthwise())
    last = next(n for n in reversed(holed.nodes) if n.kind is NodeKind.DEPTHWISE_CONV_2D)
    holed.nodes.remove(last)
    total = holed.nodes.pop()
    before = next(n for n in holed.nodes if n.outputs[0] in total.inputs)
    before.outputs = total.outputs
    clamped = split(depthwise())
    clamped.nodes[0].clamp = (0.0, 1.0)
    twice = split(depthwise())
    a, b = (n for n in twice.nodes[:3] if n.kind is NodeKind.DEPTHWISE_CONV_2D)
    b.inputs, b.attributes = a.inputs, a.attributes
    for graph in (read, holed, clamped, twice):
        assert units(graph, isa) == []
        expected = answers(native("scalar"), graph, x)
        for a, b in zip(answers(native(isa), graph, x), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("isa", VECTOR_ISAS)
def test_a_sum_goes_on(isa: str) -> None:
    """What is added to the filter's outputs stays a node of its own."""
    graph = split(depthwise())
    whole = len(graph.nodes)
    shape = graph.values[-1].shape
    output = next(v for v in graph.values if v.id == 3)
    output.is_output, output.external_id = False, Value(0, FP32, ()).external_id
    graph.values.append(Value(90, FP32, shape, external_id=1, is_output=True))
    graph.nodes.append(Node(NodeKind.ADD, (0, 3), (90,)))
    graph.outputs[:] = [90]
    assert units(graph, isa) == [list(range(whole))]
    x = numbers((2, 17, 15, 20), 3)
    expected = answers(native("scalar"), graph, x)[0]
    np.testing.assert_allclose(answers(native(isa), graph, x)[0], expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("isa", VECTOR_ISAS)
def test_sums_of_a_value_with_itself(isa: str) -> None:
    """Looked through once for each node, however often what they add is read."""
    graph = depthwise(dilation=(2, 2), padding=(6, 6, 6, 6))
    shape, last = graph.values[-1].shape, 3
    output = next(v for v in graph.values if v.id == 3)
    output.is_output, output.external_id = False, Value(0, FP32, ()).external_id
    for i in range(4, 64):
        graph.values.append(Value(i, FP32, shape))
        graph.nodes.append(Node(NodeKind.ADD, (last, last), (i,)))
        last = i
    graph.values[-1] = Value(last, FP32, shape, external_id=1, is_output=True)
    graph.outputs[:] = [last]
    assert units(graph, isa) == []
