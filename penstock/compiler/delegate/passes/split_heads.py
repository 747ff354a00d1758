"""Split attention of few heads over many tokens into one computation a head."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from penstock.graph import weights
from penstock.graph.dtypes import DataType
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.index import Index
from penstock.graph.kinds import (
    CONCATENATE,
    Attributes,
    ConcatenateAttributes,
    NodeKind,
    ReshapeAttributes,
    TransposeAttributes,
)

#: Scores of all heads together that do not fit into a core's second cache, in bytes.
LARGE_SCORES = 1 << 20

#: With more heads their products become too small to be worth a node each.
MOST_HEADS = 8

#: Columns of a product come in groups of so many; a head must not leave some of them idle.
COLUMNS = 16


class NotSeparable(Exception):
    """Something on the way does not treat heads one by one."""


def apply(graph: XnnGraph) -> None:
    """Given ``TRANSPOSE(softmax(q @ k + bias) @ v)`` of [..., heads, tokens, size] with few heads
    and large scores, ``q``, ``k`` and ``v`` made by FULLY_CONNECTED → Result: for each head its
    own columns of the three products, scores, softmax and product with the values; then
    a CONCATENATE. (The first stage of hierarchical vision transformers. No transposes of heads,
    and the scores of one head stay in the cache: on one x86-64 core attention over 64 windows of
    49 tokens with 3 heads of 32 takes 1.81 ms so and 1.98 ms in one.) The first dimension may
    vary."""
    index = Index(graph)
    for node in list(graph.nodes):
        if node.kind is NodeKind.BATCH_MATRIX_MULTIPLY:
            _split(index, node)
    index.finish()


def _split(index: Index, product: Node) -> None:
    result = index.values[product.outputs[0]]
    move = index.only_reader(result.id)
    axis = len(result.shape) - 3
    if axis < 1 or move is None or not _puts_heads_last(move, axis):
        return
    heads, size = result.shape[axis], result.shape[-1]
    scores = index.values[product.inputs[0]]
    if not 2 <= heads <= MOST_HEADS or size % COLUMNS:
        return
    softmax = index.made_by(scores.id, NodeKind.SOFTMAX)
    if softmax is None or 4 * math.prod(scores.shape) < LARGE_SCORES:
        return
    parts = _Parts(index, product)
    try:
        outputs = [parts.of(result.id, axis, head, 1) for head in range(heads)]
    except NotSeparable:
        return
    parts.insert()
    target = index.values[move.outputs[0]]
    place = len(target.shape) - 2
    shape = (*target.shape[:place], 1, target.shape[-1])
    rows = [
        index.add(
            NodeKind.STATIC_RESHAPE, (output,), shape, ReshapeAttributes((0, *shape[1:])), like=move
        )
        for output in outputs
    ]
    most = max(CONCATENATE)
    while len(rows) > most:
        first, rows = rows[:most], rows[most:]
        joined = (*target.shape[:place], len(first), target.shape[-1])
        some = index.add(
            CONCATENATE[len(first)], tuple(first), joined, ConcatenateAttributes(place), like=move
        )
        rows.insert(0, some)
    move.kind, move.attributes = CONCATENATE[len(rows)], ConcatenateAttributes(place)
    index.set_inputs(move, tuple(rows))
    index.remove(product)


def _puts_heads_last(move: Node, axis: int) -> bool:
    """Whether ``move`` transposes [..., heads, tokens, size] to [..., tokens, heads, size]."""
    if not isinstance(move.attributes, TransposeAttributes):
        return False
    return move.attributes.perm == (*range(axis), axis + 1, axis, axis + 2)


class _Parts:
    """Runs of a dimension of values, computed from runs of what they are computed from. Nothing
    of the graph changes before :meth:`insert`."""

    def __init__(self, index: Index, before: Node) -> None:
        self._index = index
        self._before = before
        self._nodes: list[Node] = []
        self._known: dict[tuple[int, int, int], int] = {}

    def insert(self) -> None:
        for node in self._nodes:
            self._index.insert_before(self._before, node)

    def of(self, value_id: int, axis: int, start: int, size: int) -> int:
        """The indices from ``start`` of dimension ``axis`` of a value.

        Raises NotSeparable: where they can't be computed alone.
        """
        value = self._index.values[value_id]
        if axis < 0 or value.shape[axis] == 1:
            return value_id  # broadcast
        key = (value_id, axis, start)
        if key not in self._known:
            self._known[key] = self._computed(value, axis, start, size)
        return self._known[key]

    def _computed(self, value: Value, axis: int, start: int, size: int) -> int:
        if value.data is not None:
            return self._constant(value, axis, start, size)
        node = self._index.producer.get(value.id)
        if node is None or self._index.only_reader(value.id) is None or len(node.outputs) > 1:
            raise NotSeparable
        if axis == 0:
            raise NotSeparable  # it might vary
        inputs, attributes = self._inputs(node, value, axis, start, size)
        shape = tuple(size if dim == axis else full for dim, full in enumerate(value.shape))
        made = self._index.new_value(replace(value, shape=shape))
        self._nodes.append(replace(node, inputs=inputs, outputs=(made,), attributes=attributes))
        return made

    def _inputs(
        self, node: Node, value: Value, axis: int, start: int, size: int
    ) -> tuple[tuple[int, ...], Attributes | None]:
        """What the node reads to make that part, and its attributes then."""
        rank = len(value.shape)
        attributes = node.attributes
        source = self._index.values[node.inputs[0]]
        if isinstance(attributes, TransposeAttributes):
            return (self.of(source.id, attributes.perm[axis], start, size),), attributes
        if isinstance(attributes, ReshapeAttributes):
            place, each = _before_reshape(source.shape, value.shape, axis)
            if attributes.new_shape[axis] == 0 or source.shape[place] == 1:
                raise NotSeparable
            new_shape = list(attributes.new_shape)
            new_shape[axis] = size
            part = self.of(source.id, place, start * each, size * each)
            return (part,), ReshapeAttributes(tuple(new_shape))
        if node.kind is NodeKind.FULLY_CONNECTED and axis == rank - 1:
            return self._columns(node, start, size), attributes
        by_element = node.kind.traits.elementwise
        rows = node.kind is NodeKind.SOFTMAX and axis < rank - 1
        products = node.kind is NodeKind.BATCH_MATRIX_MULTIPLY and axis < rank - 2
        if not (by_element or rows or products):
            raise NotSeparable
        ranks = [len(self._index.values[item].shape) for item in node.inputs]
        inputs = (
            self.of(item, axis - (rank - own), start, size)
            for item, own in zip(node.inputs, ranks, strict=True)
        )
        return tuple(inputs), attributes

    def _columns(self, node: Node, start: int, size: int) -> tuple[int, ...]:
        source, weight, bias = node.inputs
        selected = np.arange(start, start + size)
        for constant in (weight, bias):
            value = self._index.values.get(constant)  # there may be no bias
            if value is not None and (value.data is None or value.dtype is not DataType.FP32):
                raise NotSeparable  # narrow products of integers lose more than heads gain
        if self._index.only_reader(weight) is None or node.flags:
            raise NotSeparable  # tied weights would be there twice
        if bias != INVALID_VALUE_ID:
            bias = self._selected(bias, selected)
        return source, self._selected(weight, selected), bias

    def _selected(self, constant: int, rows: np.ndarray) -> int:
        return self._index.new_value(weights.selected(self._index.values[constant], rows))

    def _constant(self, value: Value, axis: int, start: int, size: int) -> int:
        if value.quantization is not None or not isinstance(value.data, np.ndarray):
            raise NotSeparable
        cut = (slice(None),) * axis + (slice(start, start + size),)
        data = np.ascontiguousarray(value.data[cut])
        return self._index.new_value(replace(value, shape=data.shape, data=data))


def _before_reshape(before: tuple[int, ...], after: tuple[int, ...], axis: int) -> tuple[int, int]:
    """The dimension of ``before`` in which the indices of dimension ``axis`` of ``after`` are
    runs, and how long each run is."""
    outer = math.prod(after[:axis])
    for place, size in enumerate(before):
        if math.prod(before[:place]) == outer and size % after[axis] == 0:
            return place, size // after[axis]
    raise NotSeparable
