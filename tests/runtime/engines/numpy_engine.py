"""A second engine, for tests: a handful of node kinds in NumPy, chosen at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from penstock.graph import weights
from penstock.graph.dtypes import DataType
from penstock.graph.graph import FLAG_TRANSPOSE_WEIGHTS, INVALID_VALUE_ID, Node, Shape, XnnGraph
from penstock.graph.kinds import (
    ConcatenateAttributes,
    NodeKind,
    ReshapeAttributes,
    SliceAttributes,
    TransposeAttributes,
)
from penstock.graph.shapes import infer
from penstock.runtime.engines.protocol import NodeTime
from penstock.runtime.engines.threads import Threads

Arrays = Sequence[np.ndarray]


def _moved(node: Node, inputs: Arrays, shape: Shape) -> np.ndarray:
    a = node.attributes
    if isinstance(a, ReshapeAttributes):
        return inputs[0].reshape(shape)
    if isinstance(a, TransposeAttributes):
        return inputs[0].transpose(a.perm)
    if isinstance(a, SliceAttributes):
        cuts = zip(a.offsets, shape, strict=True)
        return inputs[0][tuple(slice(offset, offset + size) for offset, size in cuts)]
    assert isinstance(a, ConcatenateAttributes)
    return np.concatenate(inputs, a.axis)


def _product(node: Node, inputs: Arrays, shape: Shape) -> np.ndarray:
    matrix = inputs[1] if node.flags & FLAG_TRANSPOSE_WEIGHTS else inputs[1].T
    product: np.ndarray = inputs[0] @ matrix
    return product + inputs[2] if len(inputs) > 2 else product


COMPUTE: dict[NodeKind, Callable[[Node, Arrays, Shape], np.ndarray]] = {
    NodeKind.STATIC_RESHAPE: _moved,
    NodeKind.STATIC_TRANSPOSE: _moved,
    NodeKind.STATIC_SLICE: _moved,
    NodeKind.CONCATENATE_2: _moved,
    NodeKind.CONCATENATE_3: _moved,
    NodeKind.FULLY_CONNECTED: _product,
    NodeKind.ADD: lambda node, inputs, shape: inputs[0] + inputs[1],
    NodeKind.SUBTRACT: lambda node, inputs, shape: inputs[0] - inputs[1],
    NodeKind.MULTIPLY: lambda node, inputs, shape: inputs[0] * inputs[1],
    NodeKind.ABS: lambda node, inputs, shape: np.abs(inputs[0]),
    NodeKind.SQUARE: lambda node, inputs, shape: inputs[0] * inputs[0],
    NodeKind.CLAMP: lambda node, inputs, shape: inputs[0],
}


class NumpyEngine:
    """Takes each node that it can run with the probability ``share``."""

    def __init__(self, share: float, seed: int) -> None:
        self.share = share
        self.seed = seed
        self.compiled = 0

    def reason_against(self, graph: XnnGraph, node: Node) -> str | None:
        values = {value.id: value for value in graph.values}
        types = {values[i].dtype for i in (*node.inputs, *node.outputs) if i in values}
        moves = COMPUTE.get(node.kind) is _moved
        if node.kind not in COMPUTE or not types <= (
            {DataType.FP32, DataType.QINT8} if moves else {DataType.FP32}
        ):
            return "not in NumPy"
        draw = random.Random(f"{self.seed} {node.outputs}").random()
        return None if draw < self.share else "the dice say so"

    def compile(self, graph: XnnGraph, *, threads: Threads) -> NumpyExecutable:
        self.compiled += 1
        return NumpyExecutable(graph)


class NumpyExecutable:
    def __init__(self, graph: XnnGraph) -> None:
        self.graph = graph
        self.constants = {v.id: weights.integers(v) for v in graph.values if v.data is not None}
        self.shapes: dict[int, Shape] = {}

    def reshape(self, input_shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        self.shapes = {i: array.shape for i, array in self.constants.items()}
        self.shapes.update(zip(self.graph.inputs, input_shapes, strict=True))
        infer(self.graph.nodes, self.shapes)
        return tuple(self.shapes[i] for i in self.graph.outputs)

    def run(self, inputs: Arrays, outputs: Arrays) -> None:
        known = {**self.constants, **dict(zip(self.graph.inputs, inputs, strict=True))}
        for node in self.graph.nodes:
            (output,) = node.outputs
            read = [known[i] for i in node.inputs if i != INVALID_VALUE_ID]
            result = COMPUTE[node.kind](node, read, self.shapes[output])
            known[output] = result if node.clamp is None else np.clip(result, *node.clamp)
        for array, i in zip(outputs, self.graph.outputs, strict=True):
            array[...] = known[i]

    def profile(self) -> list[NodeTime]:
        return []
