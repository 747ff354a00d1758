"""Legalize products whose activations are quantized at run time (dynamic quantization)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from penstock.graph.dtypes import DataType, PerChannel, PerTensor, PerToken
from penstock.graph.graph import Node, Value, XnnGraph
from penstock.graph.index import Index
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.graph.weights import narrowed

INTEGERS = (DataType.QINT8, DataType.QCINT8, DataType.QBINT4)


def apply(graph: XnnGraph) -> None:
    """Given float → CONVERT to QDINT8 → CONVERT to float → moves → product with int8 weights
    → Result: moves → CONVERT to QDINT8 → product; one conversion for all products of a kind
    that read a value.
    Conversions that reach no such product vanish."""
    index = Index(graph)
    wanted = _lift(index)
    if not wanted:
        return
    converted: dict[tuple[int, int], int] = {}
    for node in index.walk():
        dims = node.kind.traits.per_token_dims
        if dims is None:
            continue
        given = weight = index.values[node.inputs[1]]
        if weight.dtype not in INTEGERS:
            continue
        if not _reaches(index, node.inputs[0], wanted):
            continue
        weight = _per_channel(weight)
        if _is_pointwise(node):
            weight, dims = _as_fully_connected(node, weight), 1
        key = (node.inputs[0], dims)
        if key not in converted:
            converted[key] = _convert_before(index, node, *key)
        if node.kind is NodeKind.FULLY_CONNECTED:
            weight = narrowed(weight)
        filters = weight.id if weight is given else index.new_value(weight)
        index.set_inputs(node, (converted[key], filters, *node.inputs[2:]))
    index.finish()


def _lift(index: Index) -> set[int]:
    """Removes the pairs of conversions; returns the floats that were to be quantized."""
    wanted: set[int] = set()
    for back in index.walk():
        if back.kind is not NodeKind.CONVERT:
            continue
        middle = index.values[back.inputs[0]]
        if middle.dtype is not DataType.QDINT8:
            continue
        origin = index.producer[middle.id].inputs[0]
        if index.values[back.outputs[0]].is_output:  # what reads it is not in the graph
            back.kind = NodeKind.COPY
            index.set_inputs(back, (origin,))
        else:
            index.replace(back, origin)
        wanted.add(origin)
    for node in index.walk():
        unread = not index.readers[node.outputs[0]]
        if unread and index.values[node.outputs[0]].dtype is DataType.QDINT8:
            index.remove(node)
    return wanted


def _reaches(index: Index, value: int, wanted: set[int]) -> bool:
    """Whether ``value`` is one of ``wanted``, or moved from one."""
    while value not in wanted:
        producer = index.producer.get(value)
        if producer is None or not producer.kind.traits.selects:
            return False
        value = producer.inputs[0]
    return True


def _is_pointwise(node: Node) -> bool:
    """Whether a convolution is a product of each pixel by itself. XNNPACK makes a fully-connected
    node of it and quantizes each pixel by itself, which changes its input for other readers."""
    conv = node.attributes
    return (
        isinstance(conv, Conv2dAttributes)
        and node.kind is NodeKind.CONV_2D
        and conv.kernel == conv.stride == (1, 1)
        and not any(conv.padding)
        and conv.groups == 1
    )


def _as_fully_connected(node: Node, filter: Value) -> Value:
    """Makes ``node`` say so itself; returns its filter ``[O, 1, 1, I]`` as ``[O, I]``."""
    node.kind, node.attributes = NodeKind.FULLY_CONNECTED, None
    outputs, _, _, inputs = filter.shape
    assert isinstance(filter.data, np.ndarray)
    return replace(filter, id=0, shape=(outputs, inputs), data=filter.data.reshape(outputs, inputs))


def _convert_before(index: Index, node: Node, source: int, dims: int) -> int:
    shape = index.values[source].shape
    result = index.new_value(Value(0, DataType.QDINT8, shape, PerToken(dims)))
    convert = Node(NodeKind.CONVERT, (source,), (result,), debug_handle=node.debug_handle)
    index.insert_before(node, convert)
    return result


def _per_channel(weight: Value) -> Value:
    """XNNPACK wants a scale for each output channel, even where all are the same."""
    if not isinstance(weight.quantization, PerTensor):
        return weight
    scales = np.full(weight.shape[0], weight.quantization.scale, np.float32)
    return Value(0, DataType.QCINT8, weight.shape, PerChannel(scales, 0), weight.data)
