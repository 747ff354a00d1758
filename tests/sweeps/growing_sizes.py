"""Runs every sample graph at sizes that grow, shrink and alternate; prints the names of those whose
answers depend on what was run before.

A program of its own, because what it looks for may end the process:

    python growing_sizes.py [NAME …]     # names of samples; all of them without
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from copy import deepcopy

import numpy as np
from xnn_graphs import run
from xnn_samples import SAMPLES

from penstock.errors import InputError, InvalidProgramError, PenstockError
from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import Node, Shape, Value, XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine
from penstock.runtime.engines.xnnpack.executable import XnnpackExecutable
from penstock.runtime.engines.xnnpack.input_shapes import ShapeChecker

Shapes = tuple[Shape, ...]
#: Other element types than float32, with how they are quantized.
TYPES: dict[DataType, PerTensor | None] = {
    DataType.FP16: None,
    DataType.BF16: None,
    DataType.INT32: None,
    DataType.QINT8: PerTensor(0.05, -3),
    DataType.QUINT8: PerTensor(0.05, 110),
}
DTYPE_NAMES = {
    DataType.FP16: "float16",
    DataType.BF16: "bfloat16",
    DataType.INT32: "int32",
    DataType.QINT8: "int8",
    DataType.QUINT8: "uint8",
}
#: How much larger than the sample's the bound of the first dimension is.
GROWTH = 5
#: Sizes between 1 and the bound that are tried in each dimension.
STEPS = (0.0, 0.3, 0.6, 1.0)
#: Shapes that one graph is run at.
MOST = 8


def graphs() -> dict[str, XnnGraph]:
    """The samples, and those of them that XNNPACK takes in other element types too."""
    found = {name: graph for name, (graph, _) in SAMPLES.items()}
    for name, graph in list(found.items()):
        for dtype, quantization in TYPES.items():
            other = _retyped(graph, dtype, quantization)
            label = f"{name.removesuffix('_float32')}_{DTYPE_NAMES[dtype]}"
            if label not in found and name.endswith("_float32") and _runs(other):
                found[label] = other
    return found


def _retyped(graph: XnnGraph, dtype: DataType, quantization: PerTensor | None) -> XnnGraph:
    graph = deepcopy(graph)
    for value in graph.values:
        if value.dtype is DataType.FP32:
            value.dtype, value.quantization = dtype, quantization
            if value.data is not None:
                value.data = np.asarray(value.data).astype(dtype.traits.array)
    return graph


def _runs(graph: XnnGraph) -> bool:
    try:
        XnnpackEngine().compile(graph, threads=Threads(1))
    except PenstockError:
        return False
    return True


def surrounded(graph: XnnGraph) -> XnnGraph:
    """``graph`` between nodes that keep its inputs and outputs within XNNPACK's workspace, and
    beside a value that lives there all the while: whatever is written past an end, is seen."""
    graph = deepcopy(graph)
    external = 0
    first: list[Node] = []
    last: list[Node] = []

    def like(value: Value) -> Value:
        new = Value(len(graph.values), value.dtype, value.shape, value.quantization)
        graph.values.append(new)
        return new

    def port(value: Value, is_input: bool) -> int:
        nonlocal external
        value.external_id, external = external, external + 1
        value.is_input, value.is_output = is_input, not is_input
        return value.id

    inputs, outputs = list(graph.inputs), list(graph.outputs)
    graph.inputs, graph.outputs = [], []
    for inner in (graph.values[i] for i in inputs):
        inner.external_id, inner.is_input = None, False
        outer, bystander, seen = like(inner), like(inner), like(inner)
        graph.inputs.append(port(outer, is_input=True))
        first.append(Node(NodeKind.ADD, (outer.id, outer.id), (inner.id,)))
        first.append(Node(NodeKind.MAXIMUM, (outer.id, inner.id), (bystander.id,)))
        last.append(Node(NodeKind.ADD, (bystander.id, bystander.id), (seen.id,)))
        outputs.append(seen.id)
    for inner in (graph.values[i] for i in outputs):
        if not any(inner.id in node.outputs for node in last):
            inner.external_id, inner.is_output = None, False
            outer = like(inner)
            last.append(Node(NodeKind.ADD, (inner.id, inner.id), (outer.id,)))
            inner = outer
        graph.outputs.append(port(inner, is_input=False))
    graph.nodes[:] = [*first, *graph.nodes, *last]
    return graph


def widened(graph: XnnGraph) -> XnnGraph:
    """``graph`` with a larger bound of the first dimension, where its nodes can take one."""
    wide = deepcopy(graph)
    for i in wide.inputs:
        value = wide.values[i]
        if len(value.shape) > 1:
            value.shape = (value.shape[0] * GROWTH, *value.shape[1:])
    try:
        ShapeChecker(wide)
    except InvalidProgramError:
        return deepcopy(graph)
    return wide


def shapes(graph: XnnGraph) -> list[Shapes]:
    """Shapes of the inputs that the graph takes, by the number of elements: the smallest, the
    bound, and some between, with one dimension or all of them changed."""
    checker = ShapeChecker(graph)
    bounds = [graph.values[i].shape for i in graph.inputs]
    rank = max(map(len, bounds))
    found: set[Shapes] = {tuple(bounds)}
    for dims in [*([dim] for dim in range(-rank, 0)), [-rank, -2], list(range(-rank, 0))]:
        for part in STEPS:
            candidate = tuple(_scaled(shape, dims, part) for shape in bounds)
            try:
                checker.check(candidate)
            except InputError:
                continue
            found.add(candidate)
    ordered = sorted(found, key=lambda shapes: (sum(map(np.prod, shapes)), shapes))
    step = max(1, (len(ordered) - 1) / (MOST - 1))
    return [ordered[round(i * step)] for i in range(min(MOST, len(ordered)))]


def _scaled(shape: Shape, dims: Sequence[int], part: float) -> Shape:
    return tuple(
        max(1, round(size * part)) if axis - len(shape) in dims else size
        for axis, size in enumerate(shape)
    )


def order(ordered: Sequence[Shapes]) -> list[Shapes]:
    """Up, down, to and fro, and in no order."""
    fro = [shapes for pair in zip(ordered, reversed(ordered), strict=True) for shapes in pair]
    mixed = [ordered[i] for i in np.random.default_rng(0).permutation(len(ordered))]
    return [*ordered, *reversed(ordered), *fro, *mixed]


def wrong(graph: XnnGraph, threads: int) -> Iterator[str]:
    """The shapes at which a graph that was run at others gives another answer than a new one."""
    engine = XnnpackEngine()
    kept = engine.compile(graph, threads=Threads(threads))
    neighbour = engine.compile(graph, threads=Threads(threads))  # moves in the same workspace
    bound = tuple(graph.values[i].shape for i in graph.inputs)
    expected: dict[Shapes, list[np.ndarray]] = {}
    for shapes_ in order(shapes(graph)):
        inputs = [_values(graph.values[i], s) for i, s in zip(graph.inputs, shapes_, strict=True)]
        if shapes_ not in expected:
            expected[shapes_] = run(graph, *inputs, threads=threads)
        found = _outputs(kept, graph, inputs)
        if not all(map(_equal, found, expected[shapes_])):
            yield f"{threads} threads, {shapes_}"
        if len(expected) % 3 == 0 and bound in expected:
            inputs = [_values(graph.values[i], graph.values[i].shape) for i in graph.inputs]
            if not all(map(_equal, _outputs(neighbour, graph, inputs), expected[bound])):
                yield f"{threads} threads, a neighbour of {shapes_}"


def _values(value: Value, shape: Shape) -> np.ndarray:
    rng, dtype = np.random.default_rng(sum(shape)), value.dtype.traits.array
    if value.dtype in (DataType.QINT8, DataType.QUINT8):
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max + 1, shape, dtype)
    real = rng.uniform(-3, 3, shape).astype(np.float32)
    if value.dtype is DataType.BF16:
        return (real.view(np.uint32) >> 16).astype(np.uint16)
    return real.astype(dtype)


def _outputs(
    executable: XnnpackExecutable, graph: XnnGraph, inputs: list[np.ndarray]
) -> list[np.ndarray]:
    results = executable.reshape([a.shape for a in inputs])
    outputs = [
        np.empty(shape, graph.values[i].dtype.traits.array)
        for i, shape in zip(graph.outputs, results, strict=True)
    ]
    executable.run(inputs, outputs)
    return outputs


def _equal(found: np.ndarray, expected: np.ndarray) -> bool:
    return np.array_equal(found.view(np.uint8), expected.view(np.uint8))


def main(names: Sequence[str]) -> None:
    samples = graphs()
    for name in names or samples:
        wide = widened(samples[name])
        # Said before it is done: the last name is that of the sample that ended the process.
        print(name, len(shapes(wide)), flush=True)
        around = surrounded(wide)
        for graph in (wide, around) if _runs(around) else (wide,):
            for threads in (1, 2):
                for what in wrong(graph, threads):
                    print("WRONG", name, what, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
