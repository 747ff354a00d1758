"""Ranks that numbers raise, kept where XNNPACK makes tables of elementwise nodes."""

from __future__ import annotations

import math

import numpy as np

from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import FLAG_KEEP_DIMS, INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.index import Index
from penstock.graph.kinds import NodeKind, SliceAttributes


def apply(graph: XnnGraph) -> None:
    """Given ``BINARY(x [M, N], number [1, 1, 1])`` in a run of elementwise nodes between two int8
    values → Result: ``BINARY(ADD(x, zero [1, 1, 1]), number)``, the zero made of an element of
    the int8 value that ``x`` comes from, which is finite where ``x`` (a logarithm) may not be.

    XNNPACK turns such a run into one table of 256 bytes, whose output has the dimensions of its
    input: those that the number adds are lost. A zero that is no constant ends the run.
    """
    index = Index(graph)
    for node in index.walk():
        source = _raised(index, node)
        origin = None if source is None else _origin(index, source)
        if source is not None and origin is not None and _to_int8(index, node.outputs[0]):
            _raise_before(index, node, source, origin)
    index.finish()


def _is_pure(node: Node) -> bool:
    return node.kind.traits.elementwise or node.kind is NodeKind.CONVERT


def _raised(index: Index, node: Node) -> int | None:
    """What ``node`` computes with a number of more dimensions than it has."""
    if not node.kind.traits.elementwise or len(node.inputs) != 2:
        return None
    for source, number in (node.inputs, node.inputs[::-1]):
        constant, value = index.values[number], index.values[source]
        if constant.data is None or value.data is not None or math.prod(constant.shape) != 1:
            continue
        if len(constant.shape) > len(value.shape):
            return source
    return None


def _origin(index: Index, value: int) -> int | None:
    """``value`` if it is int8, or the int8 value that elementwise nodes make it of."""
    waiting, seen = [value], set[int]()
    while waiting:
        item = waiting.pop()
        if item in seen or item == INVALID_VALUE_ID:
            continue
        seen.add(item)
        if index.values[item].dtype is DataType.QINT8 and index.values[item].data is None:
            return item
        node = index.producer.get(item)
        if node is not None and _is_pure(node):
            waiting.extend(node.inputs)
    return None


def _to_int8(index: Index, value: int) -> bool:
    """Whether ``value`` is int8, or elementwise nodes that alone read it come to what is."""
    while index.values[value].dtype is not DataType.QINT8:
        reader = index.only_reader(value)
        if reader is None or not _is_pure(reader):
            return False
        value = reader.outputs[0]
    return True


def _raise_before(index: Index, node: Node, source: int, origin: int) -> None:
    (number,) = (value for value in node.inputs if value != source)
    value, rank = index.values[source], len(index.values[number].shape)
    small = (1,) * len(index.values[origin].shape)
    zero = index.add(
        NodeKind.STATIC_SLICE, (origin,), small,
        SliceAttributes((0,) * len(small), small), like=node, of=origin,
    )  # fmt: skip
    index.producer[zero].flags = FLAG_KEEP_DIMS
    if value.dtype is not index.values[origin].dtype:
        zero = index.add(NodeKind.CONVERT, (zero,), small, like=node, of=source)
    zeros = index.new_value(_zero(value, (1,) * rank))
    zero = index.add(NodeKind.MULTIPLY, (zero, zeros), (1,) * rank, like=node, of=source)
    if _adds_zero(index, node, number):
        index.set_inputs(node, (source, zero))
        return
    shape = (1,) * (rank - len(value.shape)) + value.shape
    whole = index.add(NodeKind.ADD, (source, zero), shape, like=node, of=source)
    index.set_inputs(node, tuple(whole if item == source else item for item in node.inputs))


def _zero(like: Value, shape: tuple[int, ...]) -> Value:
    """A constant zero of the type of ``like``. Of int8 with a scale of one: so is then that of the
    product with it."""
    if like.dtype is DataType.QINT8:
        return Value(0, like.dtype, shape, PerTensor(1.0, 0), np.zeros(shape, np.int8))
    return Value(0, like.dtype, shape, None, np.zeros(shape, np.float32))


def _adds_zero(index: Index, node: Node, number: int) -> bool:
    value = index.values[number]
    if node.kind is not NodeKind.ADD or node.clamp is not None or value.dtype is not DataType.FP32:
        return False
    return not np.frombuffer(np.asarray(value.data).tobytes(), np.float32).any()
