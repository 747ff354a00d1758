"""Builds small XNNPACK graphs, applies one pass, and checks that the answer stays the same."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from penstock.graph import clean_up
from penstock.graph.dtypes import DataType, Quantization
from penstock.graph.graph import Node, Value, XnnGraph
from penstock.graph.kinds import Attributes, NodeKind, ReshapeAttributes, TransposeAttributes
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine

TYPES = {DataType.FP32: np.float32, DataType.QINT8: np.int8}


class Sketch:
    """A graph in the making; values are ids."""

    def __init__(self) -> None:
        self.graph = XnnGraph()

    def value(
        self,
        shape: Sequence[int],
        dtype: DataType = DataType.FP32,
        quantization: Quantization | None = None,
        data: np.ndarray | None = None,
    ) -> int:
        self.graph.values.append(
            Value(len(self.graph.values), dtype, tuple(shape), quantization, data)
        )
        return self.graph.values[-1].id

    def constant(self, data: np.ndarray) -> int:
        return self.value(data.shape, data=np.ascontiguousarray(data, np.float32))

    def random(self, *shape: int) -> int:
        seed = len(self.graph.values)
        return self.constant(np.random.default_rng(seed).standard_normal(shape) / 4)

    def input(
        self,
        *shape: int,
        dtype: DataType = DataType.FP32,
        quantization: Quantization | None = None,
    ) -> int:
        id = self.value(shape, dtype, quantization)
        self.graph.values[id].is_input = True
        self.graph.inputs.append(id)
        return id

    def node(
        self,
        kind: NodeKind,
        inputs: Sequence[int],
        shape: Sequence[int],
        attributes: Attributes | None = None,
        clamp: tuple[float, float] | None = None,
        flags: int = 0,
        dtype: DataType = DataType.FP32,
        quantization: Quantization | None = None,
    ) -> int:
        output = self.value(shape, dtype, quantization)
        self.graph.nodes.append(Node(kind, tuple(inputs), (output,), attributes, clamp, flags))
        return output

    def shape(self, id: int) -> tuple[int, ...]:
        return self.graph.values[id].shape

    def move(self, x: int, *steps: Sequence[int] | str) -> int:
        """A reshape for each tuple, a transpose for each string of digits."""
        for step in steps:
            if isinstance(step, str):
                perm = tuple(int(digit) for digit in step)
                moved = tuple(self.shape(x)[dim] for dim in perm)
                x = self.node(NodeKind.STATIC_TRANSPOSE, (x,), moved, TransposeAttributes(perm))
            else:
                attributes = ReshapeAttributes(tuple(step))
                x = self.node(NodeKind.STATIC_RESHAPE, (x,), tuple(step), attributes)
        return x

    def output(self, *ids: int) -> XnnGraph:
        for id in ids:
            self.graph.values[id].is_output = True
            self.graph.outputs.append(id)
        for position, id in enumerate([*self.graph.inputs, *self.graph.outputs]):
            self.graph.values[id].external_id = position
        return self.graph


def kinds(graph: XnnGraph) -> Counter[NodeKind]:
    return Counter(node.kind for node in graph.nodes)


def run(graph: XnnGraph) -> list[np.ndarray]:
    """The graph's outputs on random inputs."""
    generator = np.random.default_rng(0)
    inputs = []
    for id in graph.inputs:
        value = graph.values[id]
        if value.dtype is DataType.FP32:
            inputs.append(generator.standard_normal(value.shape).astype(np.float32))
        else:
            inputs.append(generator.integers(-128, 128, value.shape).astype(np.int8))
    executable = XnnpackEngine().compile(graph, threads=Threads(1))
    shapes = executable.reshape([array.shape for array in inputs])
    types = [TYPES[graph.values[id].dtype] for id in graph.outputs]
    outputs = [np.empty(shape, dtype) for shape, dtype in zip(shapes, types, strict=True)]
    executable.run(inputs, outputs)
    return outputs


def after(graph: XnnGraph, apply: Callable[[XnnGraph], None], tolerance: float = 1e-5) -> XnnGraph:
    """The graph after ``apply``, whose answer must be the same to ``tolerance`` of its range
    (integers: the same)."""
    graph = clean_up.renumbered(graph)
    expected = run(graph)
    changed = copy.copy(graph)
    changed.values = [replace(value) for value in graph.values]
    changed.nodes = [replace(node) for node in graph.nodes]
    apply(changed)
    clean_up.remove_dead(changed)
    changed = clean_up.renumbered(changed)
    for before, now in zip(expected, run(changed), strict=True):
        if before.dtype == np.int8:
            np.testing.assert_array_equal(now, before)
        else:
            np.testing.assert_allclose(
                now, before, rtol=0, atol=tolerance * float(np.abs(before).max())
            )
    return changed
