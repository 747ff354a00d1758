"""Builds small graphs for tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock.graph.dtypes import DataType, PerTensor, Quantization
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.kinds import Attributes, NodeKind, ReshapeAttributes, TransposeAttributes


class GraphBuilder:
    """A graph in the making. Values are ids; inputs and outputs are numbered as they come."""

    def __init__(self) -> None:
        self.graph = XnnGraph()
        self._external = 0

    def value(
        self,
        shape: Sequence[int],
        dtype: DataType = DataType.FP32,
        quantization: Quantization | None = None,
        data: Any = None,
    ) -> int:
        id = len(self.graph.values)
        self.graph.values.append(Value(id, dtype, tuple(shape), quantization, data))
        return id

    def input(
        self,
        shape: Sequence[int],
        dtype: DataType = DataType.FP32,
        quantization: Quantization | None = None,
    ) -> int:
        id = self.value(shape, dtype, quantization)
        self._port(id).is_input = True
        self.graph.inputs.append(id)
        return id

    def output(
        self,
        shape: Sequence[int],
        dtype: DataType = DataType.FP32,
        quantization: Quantization | None = None,
    ) -> int:
        """A new value that is an output."""
        id = self.value(shape, dtype, quantization)
        self.finish(id)
        return id

    def finish(self, *ids: int) -> XnnGraph:
        """The graph, with these values as its (further) outputs."""
        for id in ids:
            self._port(id).is_output = True
            self.graph.outputs.append(id)
        return self.graph

    def constant(
        self,
        array: np.ndarray,
        dtype: DataType = DataType.FP32,
        quantization: Quantization | None = None,
    ) -> int:
        if dtype is DataType.FP32:
            array = np.asarray(array, np.float32, order="C")
        return self.value(array.shape, dtype, quantization, array)

    def random(self, *shape: int) -> int:
        """A constant of normal numbers, others for each value."""
        seed = len(self.graph.values)
        return self.constant(np.random.default_rng(seed).standard_normal(shape) / 4)

    def node(
        self, kind: NodeKind, inputs: Sequence[int | None], outputs: Sequence[int], **rest: Any
    ) -> None:
        """A node that computes values which are there already."""
        ids = tuple(INVALID_VALUE_ID if i is None else i for i in inputs)
        self.graph.nodes.append(Node(kind, ids, tuple(outputs), **rest))

    def apply(
        self,
        kind: NodeKind,
        inputs: Sequence[int | None],
        shape: Sequence[int],
        attributes: Attributes | None = None,
        clamp: tuple[float, float] | None = None,
        flags: int = 0,
        dtype: DataType = DataType.FP32,
        quantization: Quantization | None = None,
    ) -> int:
        """A node and the new value that it computes."""
        output = self.value(shape, dtype, quantization)
        self.node(kind, inputs, [output], attributes=attributes, clamp=clamp, flags=flags)
        return output

    def shape(self, id: int) -> tuple[int, ...]:
        return self.graph.values[id].shape

    def move(self, x: int, *steps: Sequence[int] | str) -> int:
        """A reshape for each tuple, a transpose for each string of digits."""
        for step in steps:
            if isinstance(step, str):
                perm = tuple(int(digit) for digit in step)
                moved = tuple(self.shape(x)[dim] for dim in perm)
                x = self.apply(NodeKind.STATIC_TRANSPOSE, (x,), moved, TransposeAttributes(perm))
            else:
                attributes = ReshapeAttributes(tuple(step))
                x = self.apply(NodeKind.STATIC_RESHAPE, (x,), tuple(step), attributes)
        return x

    def _port(self, id: int) -> Value:
        value = self.graph.values[id]
        value.external_id = self._external
        self._external += 1
        return value


def kinds(graph: XnnGraph) -> Counter[NodeKind]:
    return Counter(node.kind for node in graph.nodes)


def one_node(
    kind: NodeKind,
    inputs: Sequence[np.ndarray],
    output_shape: Sequence[int],
    quantization: Sequence[PerTensor] | None = None,
    **rest: Any,
) -> XnnGraph:
    """A graph of one node; ``quantization`` has the parameters of the inputs and the output."""
    types = {"float32": DataType.FP32, "float16": DataType.FP16, "int32": DataType.INT32,
             "int8": DataType.QINT8, "uint8": DataType.QUINT8}  # fmt: skip
    b = GraphBuilder()
    dtype = types[inputs[0].dtype.name]
    parameters = list(quantization or [None] * (len(inputs) + 1))  # type: ignore[list-item]
    ids = [b.input(a.shape, dtype, q) for a, q in zip(inputs, parameters[:-1], strict=True)]
    output = b.output(output_shape, dtype, parameters[-1])
    b.node(kind, ids, [output], **rest)
    return b.graph
