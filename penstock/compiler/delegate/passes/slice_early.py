"""Hoist slices above the operators that produce what they slice, so that less is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from penstock.graph.dtypes import DataType, PerToken
from penstock.graph.graph import Node, Value, XnnGraph
from penstock.graph.index import Index
from penstock.graph.kinds import NodeKind, ReshapeAttributes, SliceAttributes, TransposeAttributes

#: For each dimension the part that is wanted, as offset and size; None: all of it.
Part: TypeAlias = "tuple[tuple[int, int] | None, ...]"


def apply(graph: XnnGraph) -> None:
    """Given STATIC_SLICE(operator(x)), all readers of the operator being that slice → Result
    ``operator(STATIC_SLICE(x))``, for operators that compute what the slice keeps from a slice of
    their inputs: element by element, row by row, or moving. (The last layer of an encoder of which
    only the first token is read.) Sizes must be fixed; the first dimension may vary."""
    index = Index(graph)
    for node in reversed(list(graph.nodes)):
        if node.kind is not NodeKind.STATIC_SLICE and len(node.outputs) == 1:
            _hoist(index, node)
    index.finish()


def _hoist(index: Index, node: Node) -> None:
    output = index.values[node.outputs[0]]
    slices = index.readers[output.id]
    if output.is_output or not slices or any(n.kind is not NodeKind.STATIC_SLICE for n in slices):
        return
    first = slices[0]
    if any(other.attributes != first.attributes for other in slices):
        return
    if sum(index.values[n.outputs[0]].is_output for n in slices) > 1:
        return
    first = next((n for n in slices if index.values[n.outputs[0]].is_output), first)
    part = _part_of(first, output)
    inputs = _wanted(index, node, part)
    if inputs is None:
        return
    index.set_output(node, first.outputs[0])
    for other in list(slices):
        if other is not first:
            index.replace_uses(other.outputs[0], first.outputs[0])
        index.remove(other)
    if isinstance(node.attributes, ReshapeAttributes):
        node.attributes = ReshapeAttributes(_cut_shape(node.attributes.new_shape, part))
    index.set_inputs(
        node,
        tuple(
            value if wanted is None else _sliced(index, node, value, wanted)
            for value, wanted in zip(node.inputs, inputs, strict=True)
        ),
    )


def _part_of(node: Node, source: Value) -> Part:
    cut = node.attributes
    assert isinstance(cut, SliceAttributes)
    return tuple(
        None if size == 0 or (offset, size) == (0, whole) else (offset, size)
        for offset, size, whole in zip(cut.offsets, cut.sizes, source.shape, strict=True)
    )


def _cut_shape(shape: Sequence[int], part: Part) -> tuple[int, ...]:
    return tuple(
        size if piece is None else piece[1] for size, piece in zip(shape, part, strict=True)
    )


def _sliced(index: Index, node: Node, source_id: int, part: Part) -> int:
    """``part`` of a value, by a slice before ``node`` or, of a constant, now."""
    source = index.values[source_id]
    value = replace(source, shape=_cut_shape(source.shape, part))
    if source.data is not None:
        ranges = tuple(slice(p[0], p[0] + p[1]) if p else slice(None) for p in part)
        value.data = np.ascontiguousarray(np.asarray(source.data)[ranges])
        return index.new_value(value)
    cut = SliceAttributes(
        tuple(p[0] if p else 0 for p in part), tuple(p[1] if p else 0 for p in part)
    )
    return index.add(NodeKind.STATIC_SLICE, (source_id,), value.shape, cut, like=node, of=source_id)


# --- what a part of the output needs -------------------------------------------------------------


def _wanted(index: Index, node: Node, part: Part) -> list[Part | None] | None:
    """For each input the part that ``part`` of the output needs (None: all of it); None where
    the operator is not of a kind that can be sliced."""
    shapes = [index.values[value].shape if value in index.values else () for value in node.inputs]
    output = index.values[node.outputs[0]]
    if node.kind.traits.elementwise:
        return [_aligned(shape, part) for shape in shapes]
    if node.kind is NodeKind.CONVERT:
        source = index.values[node.inputs[0]]
        if source.dtype is DataType.QDINT8 and index.only_reader(source.id) is None:
            return None
        together = max(_row_dims(source), _row_dims(output))
        return [part] if not any(part[len(part) - together :]) else None
    if node.kind is NodeKind.SOFTMAX:
        return [part] if part[-1] is None else None
    if any(index.values[v].dtype is DataType.QDINT8 for v in node.inputs if v in index.values):
        return None  # XNNPACK has no slices of those
    if node.kind is NodeKind.FULLY_CONNECTED:
        return [part, None, None] if part[-1] is None else None
    if node.kind is NodeKind.BATCH_MATRIX_MULTIPLY:
        if part[-1] is not None or len(shapes[0]) != len(part):
            return None
        return [_aligned(shapes[0], part), _aligned(shapes[1], (*part[:-2], None, None))]
    if isinstance(node.attributes, TransposeAttributes):
        moved: list[tuple[int, int] | None] = [None] * len(part)
        for place, dim in enumerate(node.attributes.perm):
            moved[dim] = part[place]
        return [tuple(moved)]
    if isinstance(node.attributes, ReshapeAttributes):
        before = _before_reshape(shapes[0], output.shape, part)
        return None if before is None else [before]
    return None


def _row_dims(value: Value) -> int:
    """How many innermost dimensions share the parameters of a quantization at run time."""
    return value.quantization.nonbatch_dims if isinstance(value.quantization, PerToken) else 0


def _aligned(shape: tuple[int, ...], part: Part) -> Part | None:
    """``part`` of a broadcast result for an input of ``shape``."""
    own = part[len(part) - len(shape) :]
    result = tuple(None if size == 1 else piece for size, piece in zip(shape, own, strict=True))
    return result if any(result) else None


def _before_reshape(source: tuple[int, ...], target: tuple[int, ...], part: Part) -> Part | None:
    """The part of a reshape's input: every dimension that is cut must be one there too."""
    found: list[tuple[int, int] | None] = [None] * len(source)
    for place, piece in enumerate(part):
        if piece is None:
            continue
        before = math.prod(target[:place])
        dims = [
            dim
            for dim, size in enumerate(source)
            if size == target[place] and math.prod(source[:dim]) == before
        ]
        if not dims:
            return None
        found[dims[-1]] = piece
    return tuple(found)
