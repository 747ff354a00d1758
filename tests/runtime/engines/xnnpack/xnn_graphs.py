"""Small graphs for tests, and running them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock.graph.dtypes import DataType, PerTensor, Quantization
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine


class GraphBuilder:
    """Builds a graph value by value; every method returns a value id."""

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

    def input(self, shape: Sequence[int], *args: Any) -> int:
        id = self.value(shape, *args)
        self._port(id).is_input = True
        self.graph.inputs.append(id)
        return id

    def output(self, shape: Sequence[int], *args: Any) -> int:
        id = self.value(shape, *args)
        self._port(id).is_output = True
        self.graph.outputs.append(id)
        return id

    def constant(
        self,
        array: np.ndarray,
        dtype: DataType = DataType.FP32,
        quantization: Quantization | None = None,
    ) -> int:
        return self.value(array.shape, dtype, quantization, array)

    def node(
        self, kind: NodeKind, inputs: Sequence[int | None], outputs: Sequence[int], **rest: Any
    ) -> None:
        ids = tuple(INVALID_VALUE_ID if i is None else i for i in inputs)
        self.graph.nodes.append(Node(kind, ids, tuple(outputs), **rest))

    def _port(self, id: int) -> Value:
        value = self.graph.values[id]
        value.external_id = self._external
        self._external += 1
        return value


def run(
    graph: XnnGraph, *inputs: np.ndarray, threads: int = 1, engine: XnnpackEngine | None = None
) -> list[np.ndarray]:
    """Compile ``graph`` and run it once."""
    executable = (engine or XnnpackEngine()).compile(graph, threads=Threads(threads))
    shapes = executable.reshape([a.shape for a in inputs])
    values = {v.id: v for v in graph.values}
    outputs = [
        np.empty(shape, values[i].dtype.traits.array)
        for i, shape in zip(graph.outputs, shapes, strict=True)
    ]
    executable.run(inputs, outputs)
    return outputs


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


def quantize(real: np.ndarray, q: PerTensor, dtype: Any = np.int8) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.clip(np.rint(real / q.scale) + q.zero_point, info.min, info.max).astype(dtype)


def dequantize(array: np.ndarray, q: PerTensor) -> np.ndarray:
    return (array.astype(np.float64) - q.zero_point) * q.scale
