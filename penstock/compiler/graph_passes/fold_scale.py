"""A multiplication by a number moves into the weights before it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from penstock.compiler.graph_passes.index import Index
from penstock.formats.payload import (
    INVALID_VALUE_ID,
    DataType,
    Node,
    NodeKind,
    PerChannel,
    PerTensor,
    Value,
    XnnGraph,
)

#: Nodes through which a factor can move.
MOVEMENT = {NodeKind.STATIC_RESHAPE, NodeKind.STATIC_TRANSPOSE, NodeKind.STATIC_SLICE}
WEIGHTED = {
    NodeKind.FULLY_CONNECTED,
    NodeKind.CONV_2D,
    NodeKind.DEPTHWISE_CONV_2D,
    NodeKind.CONV_TRANSPOSE_2D,
}


def apply(graph: XnnGraph) -> None:
    """Given ``MULTIPLY(move(product(x, w, b)), constant number)`` with nothing else reading in
    between → Result ``move(product(x, w * c, b * c))``. (The scale of attention's queries.)"""
    index = Index(graph)
    for node in list(graph.nodes):
        if node.kind is NodeKind.MULTIPLY and node.clamp is None:
            _fold(index, node)
    index.finish()


def _fold(index: Index, node: Node) -> None:
    factor, other = _number(index, node)
    output = index.values[node.outputs[0]]
    if factor is None or output.is_output:
        return
    if index.values[other].shape != output.shape:
        return
    value = other
    while True:
        producer = index.producer.get(value)
        if producer is None or index.only_reader(value) is None:
            return
        if producer.kind in WEIGHTED:
            break
        if producer.kind not in MOVEMENT:
            return
        value = producer.inputs[0]
    if producer.clamp is not None or index.values[producer.outputs[0]].dtype is not DataType.FP32:
        return
    weight = _scaled(index, producer.inputs[1], factor)
    if weight is None:
        return
    bias = producer.inputs[2]
    if bias != INVALID_VALUE_ID:
        scaled = _scaled(index, bias, factor)
        if scaled is None:
            return
        bias = scaled
    index.set_inputs(producer, (producer.inputs[0], weight, bias))
    index.remove(node)
    index.replace_uses(output.id, other)


def _number(index: Index, node: Node) -> tuple[float | None, int]:
    """The constant factor of a multiplication (positive and finite) and its other input."""
    for position in (0, 1):
        value = index.values[node.inputs[position]]
        if value.data is not None and value.dtype is DataType.FP32:
            data = np.asarray(value.data)
            if data.size == 1 and np.isfinite(data).all() and float(data.reshape(-1)[0]) > 0:
                return float(data.reshape(-1)[0]), node.inputs[1 - position]
    return None, node.inputs[0]


def _scaled(index: Index, value_id: int, factor: float) -> int | None:
    value = index.values[value_id]
    if value.data is None:
        return None
    quantization = value.quantization
    if isinstance(quantization, PerChannel):
        scales = (quantization.scales * np.float32(factor)).astype(np.float32)
        return index.new_value(replace(value, quantization=PerChannel(scales, quantization.axis)))
    if isinstance(quantization, PerTensor):
        scaled = PerTensor(quantization.scale * factor, quantization.zero_point)
        return index.new_value(replace(value, quantization=scaled))
    if value.dtype is not DataType.FP32:
        return None
    data = (np.asarray(value.data) * np.float32(factor)).astype(np.float32)
    return index.new_value(Value(0, value.dtype, value.shape, None, data))
