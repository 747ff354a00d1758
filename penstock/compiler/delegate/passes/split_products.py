"""Split a product whose users are all slices into a product for each slice."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from penstock.graph import weights
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.index import Index
from penstock.graph.kinds import NodeKind, ReshapeAttributes, SliceAttributes


def apply(graph: XnnGraph) -> None:
    """Given a FULLY_CONNECTED [..., n] (perhaps reshaped to [..., a, b, …] with a * b * … = n)
    that is read by STATIC_SLICE nodes only, each cutting only those last dimensions → Result: a
    FULLY_CONNECTED with the selected rows of the weight for each slice. (The packed projection of
    queries, keys and values; the gates of a recurrent cell.) Taken only if the slices together
    are no larger than the whole, so the arithmetic stays the same and the copies go.
    """
    index = Index(graph)
    for node in index.walk():
        if node.kind is NodeKind.FULLY_CONNECTED:
            _split(index, node)
    index.finish()


def _split(index: Index, node: Node) -> None:
    output = index.values[node.outputs[0]]
    channels = output.shape[-1]
    lead = len(output.shape) - 1
    source, reshape = output, None
    only = index.only_reader(output.id)
    if only is not None and only.kind is NodeKind.STATIC_RESHAPE:
        reshape = only
        source = index.values[only.outputs[0]]
        if not _splits_last(output.shape, source.shape):
            return
        lead = _lead(source.shape, channels)
    slices = index.readers[source.id]
    if source.is_output or output.is_output or len(slices) < 2:
        return
    if any(reader.kind is not NodeKind.STATIC_SLICE for reader in slices):
        return
    grid = np.arange(channels).reshape(source.shape[lead:])
    selections = []
    for reader in slices:
        cut = reader.attributes
        assert isinstance(cut, SliceAttributes)
        whole = zip(cut.offsets[:lead], cut.sizes[:lead], source.shape[:lead], strict=True)
        if any(offset or size not in (0, full) for offset, size, full in whole):
            return
        ranges = tuple(
            slice(offset, offset + size if size else None)
            for offset, size in zip(cut.offsets[lead:], cut.sizes[lead:], strict=True)
        )
        selections.append(grid[ranges].reshape(-1))
    if sum(len(selection) for selection in selections) > channels:
        return
    for reader, selection in zip(list(slices), selections, strict=True):
        _part(index, node, output, reader, selection)
    if reshape is not None:
        index.remove(reshape)
    index.remove(node)


def _splits_last(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether a reshape leaves the leading dimensions' elements together and splits the last."""
    lead = _lead(after, before[-1])
    return lead >= 0 and math.prod(after[:lead]) == math.prod(before[:-1])


def _lead(shape: tuple[int, ...], channels: int) -> int:
    """How many dimensions stand before those whose product is ``channels``; -1 if none do."""
    product = 1
    for position in range(len(shape) - 1, -1, -1):
        product *= shape[position]
        if product == channels:
            return position
        if product > channels:
            break
    return -1


def _part(index: Index, node: Node, output: Value, reader: Node, rows: np.ndarray) -> None:
    """Replaces the slice ``reader`` by the product of ``rows``."""
    weight = index.new_value(weights.selected(index.values[node.inputs[1]], rows))
    bias = node.inputs[2]
    if bias != INVALID_VALUE_ID:
        bias = index.new_value(weights.selected(index.values[bias], rows))
    shape = (*output.shape[:-1], len(rows))
    target = index.values[reader.outputs[0]]
    product = replace(node, inputs=(node.inputs[0], weight, bias), outputs=(target.id,))
    if shape == target.shape:
        index.insert_after(node, product)
        index.remove(reader)
        return
    part = index.new_value(replace(output, shape=shape))
    product.outputs = (part,)
    index.insert_after(node, product)
    dynamic_aware = ReshapeAttributes(_same_zeros(reader, target.shape))
    index.set_inputs(reader, (part,))
    reader.kind, reader.attributes = NodeKind.STATIC_RESHAPE, dynamic_aware


def _same_zeros(reader: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The target shape with 0 for the dimension that the slice left dynamic."""
    cut = reader.attributes
    assert isinstance(cut, SliceAttributes)
    return tuple(0 if size == 0 else full for size, full in zip(cut.sizes, shape, strict=True))
