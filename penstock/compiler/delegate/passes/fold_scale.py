"""Fold a multiplication by constants into the weights of the producer."""

from __future__ import annotations

import numpy as np

from penstock.graph import weights
from penstock.graph.dtypes import DataType
from penstock.graph.graph import INVALID_VALUE_ID, Node, XnnGraph
from penstock.graph.index import Index, moves_rows
from penstock.graph.kinds import NodeKind


def apply(graph: XnnGraph) -> None:
    """Given ``MULTIPLY(move(product(x, w, b)), c)`` with nothing else reading in between, ``c`` a
    constant number, or a vector along the last dimension and movement that keeps that → Result
    ``move(product(x, w * c, b * c))``. (The scale of attention's queries; a layer scale.)"""
    index = Index(graph)
    for node in list(graph.nodes):
        if node.kind is NodeKind.MULTIPLY and node.clamp is None:
            _fold(index, node)
    index.finish()


def _fold(index: Index, node: Node) -> None:
    factor, other = _factor(index, node)
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
        if producer.kind.traits.weighted:
            break
        source = producer.inputs[0]
        if not producer.kind.traits.selects or (
            factor.size > 1 and not moves_rows(producer, index.values[source], index.values[value])
        ):
            return
        value = source
    if producer.clamp is not None or index.values[producer.outputs[0]].dtype is not DataType.FP32:
        return
    if producer.flags and factor.size > 1:
        return
    weight = _scaled(index, producer.inputs[1], factor, producer.kind.traits.output_axis or 0)
    if weight is None:
        return
    bias = producer.inputs[2]
    if bias != INVALID_VALUE_ID:
        scaled = _scaled(index, bias, factor, 0)
        if scaled is None:
            return
        bias = scaled
    index.set_inputs(producer, (producer.inputs[0], weight, bias))
    index.replace(node, other)


def _factor(index: Index, node: Node) -> tuple[np.ndarray | None, int]:
    """The constant factor of a multiplication (finite), as [1] or [last dimension], and the
    other input."""
    last = index.values[node.outputs[0]].shape[-1:]
    for position in (0, 1):
        value = index.values[node.inputs[position]]
        if value.data is not None and value.dtype is DataType.FP32:
            data = np.asarray(value.data)
            flat = data.reshape(-1)
            along = data.size == 1 or data.shape[-1:] == (data.size,) == last
            if along and np.isfinite(flat).all():
                return flat, node.inputs[1 - position]
    return None, node.inputs[0]


def _scaled(index: Index, value_id: int, factor: np.ndarray, axis: int) -> int | None:
    """A weight or bias times ``factor`` along ``axis``; None where its format cannot hold that, or
    tied weights would be there twice."""
    value = index.values[value_id]
    tied = value.quantization is None and len(index.readers[value_id]) > 1
    if value.data is None or tied:
        return None
    product = weights.scaled(value, factor, axis)
    return None if product is None else index.new_value(product)
