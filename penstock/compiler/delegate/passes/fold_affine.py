"""Fold a scale and shift of the last dimension into the weights of the products that use it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from penstock.graph.dtypes import DataType
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.index import Index, moves_rows
from penstock.graph.kinds import ConcatenateAttributes, Conv2dAttributes, NodeKind


@dataclass
class Reach:
    """What a value goes through until products read it: the values on the way, the products."""

    values: set[int] = field(default_factory=set)
    products: list[Node] = field(default_factory=list)


def apply(graph: XnnGraph) -> None:
    """Given ``product(move(x * scale + shift), w, b)``, scale and shift constants along the last
    dimension (either may be missing), float weights, every reader of ``move`` such a product →
    Result ``product(move(x), w * scale, b + w @ shift)``. Movement may be any that keeps the last
    dimension whole. (The end of a layer norm before the projections of attention.)"""
    index = Index(graph)
    for node in index.walk():
        if node.kind in (NodeKind.ADD, NodeKind.SUBTRACT, NodeKind.MULTIPLY):
            _fold(index, node)
    index.finish()


def _fold(index: Index, last: Node) -> None:
    """Folds what ends with ``last``: a shift, a scale, or a scale and a shift."""
    result = index.values[last.outputs[0]]
    if result.is_output or not result.shape or result.dtype is not DataType.FP32:
        return
    if not index.readers[result.id]:
        return
    first = last
    source, constant = _operands(index, last)
    if constant is None:
        return
    scale, shift = np.ones(1, np.float32), np.zeros(1, np.float32)
    if last.kind is NodeKind.MULTIPLY:
        scale = constant
    else:
        shift = constant if last.kind is NodeKind.ADD else -constant
        before = index.made_by(source, NodeKind.MULTIPLY)
        if before is not None and index.only_reader(source) is last:
            inner, factor = _operands(index, before)
            if factor is not None:
                first, source, scale = before, inner, factor
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return
    reach = Reach()
    if not _reaches(index, result.id, reach) or not _takes(index, reach, bool(shift.any())):
        return
    for product in reach.products:
        _into(index, product, scale, shift)
    index.replace(last, source)
    if first is not last:
        index.remove(first)


def _operands(index: Index, node: Node) -> tuple[int, np.ndarray | None]:
    """The input with the output's shape, and the constant beside it as [its last dimension];
    None where there is no such constant or the output is clamped."""
    output = index.values[node.outputs[0]]
    for position in (1, 0) if node.kind is not NodeKind.SUBTRACT else (1,):
        value = index.values[node.inputs[position]]
        other = index.values[node.inputs[1 - position]]
        if value.data is None or value.dtype is not DataType.FP32 or node.clamp is not None:
            continue
        data = np.asarray(value.data)
        along = data.size in (1, output.shape[-1]) and data.shape[-1:] in ((), (data.size,))
        if along and other.shape == output.shape and other.data is None:
            return other.id, data.reshape(-1)
    return node.inputs[0], None


def _reaches(index: Index, value: int, reach: Reach) -> bool:
    """Follows ``value`` to its readers; False where something else than a product reads it."""
    reach.values.add(value)
    for node in index.readers[value]:
        if node.kind.traits.input_axis is not None:
            if value in node.inputs[1:]:
                return False
            if not any(node is product for product in reach.products):
                reach.products.append(node)
            continue
        output = index.values[node.outputs[0]]
        if output.is_output or not moves_rows(node, index.values[value], output):
            return False
        if output.id not in reach.values and not _reaches(index, output.id, reach):
            return False
    return True


def _takes(index: Index, reach: Reach, shifted: bool) -> bool:
    """Whether all products can take a scale and, if ``shifted``, a shift."""
    for value in reach.values:
        producer = index.producer[value]
        if (
            isinstance(producer.attributes, ConcatenateAttributes)
            and not set(producer.inputs) <= reach.values
        ):
            return False
    for product in reach.products:
        weight = index.values[product.inputs[1]]
        if weight.data is None or weight.dtype is not DataType.FP32 or product.flags:
            return False
        if index.only_reader(weight.id) is None:
            return False  # tied weights would be there twice
        conv = product.attributes
        if isinstance(conv, Conv2dAttributes) and (
            conv.groups != 1 or (shifted and any(conv.padding))
        ):
            return False
        bias = product.inputs[2] if len(product.inputs) > 2 else INVALID_VALUE_ID
        if bias != INVALID_VALUE_ID and (
            index.values[bias].data is None or index.values[bias].dtype is not DataType.FP32
        ):
            return False
    return bool(reach.products)


def _into(index: Index, product: Node, scale: np.ndarray, shift: np.ndarray) -> None:
    weight = index.values[product.inputs[1]]
    data = np.asarray(weight.data)
    bias = product.inputs[2] if len(product.inputs) > 2 else INVALID_VALUE_ID
    if shift.any():
        rows = data.reshape(data.shape[0], -1, data.shape[-1]).sum(axis=1, dtype=np.float64)
        added = (rows * shift).sum(axis=1)
        if bias != INVALID_VALUE_ID:
            added = added + np.asarray(index.values[bias].data).reshape(-1)
        bias = index.new_value(
            Value(0, DataType.FP32, added.shape, None, added.astype(np.float32))
        )  # fmt: skip
    if not (scale == 1).all():
        scaled = (data * scale).astype(np.float32)
        weight_id = index.new_value(replace(weight, data=scaled))
    else:
        weight_id = weight.id
    index.set_inputs(product, (product.inputs[0], weight_id, bias))
