"""Finding what lies between float32 and int8 in a decoder: rows of caches that are rounded to int8
and back, and sums over the blocks of a row."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import INVALID_VALUE_ID, Node
from penstock.graph.kinds import NodeKind, Pool2dAttributes
from penstock.runtime.engines.native import int8_rows
from penstock.runtime.engines.native.chains import Match, Pattern

#: int8 that stand for themselves.
_PLAIN = PerTensor(1.0, 0)


class Widened(NamedTuple):
    """int8 ``rows`` times the ``scales`` of each, and the nodes that compute it."""

    rows: int
    scales: int
    nodes: tuple[Node, Node]


def widened(p: Pattern, value: int) -> Widened | None:
    """What ``value`` is, if it is rows of int8 times their scales."""
    product = p.made(value, NodeKind.MULTIPLY)
    for wide, scales in p.pairs(product):
        convert = p.made(wide, NodeKind.CONVERT)
        if convert is None or product is None or not _is_plain(p, convert.inputs[0]):
            continue
        rows = convert.inputs[0]
        if _one_each(p, rows, scales):
            return Widened(rows, scales, (convert, product))
    return None


def _is_plain(p: Pattern, value: int) -> bool:
    found = p.values[value]
    return found.dtype is DataType.QINT8 and found.quantization == _PLAIN and found.data is None


def _one_each(p: Pattern, rows: int, scales: int) -> bool:
    """Whether ``scales`` are float32, computed, one for each row of ``rows``."""
    value = p.values[scales]
    fits = p.shapes[scales] == (*p.shapes[rows][:-1], 1)
    return fits and value.dtype is DataType.FP32 and value.data is None


def widen(p: Pattern, last: Node) -> Match | None:
    """int8 rows times their scales"""
    found = None if last.clamp is not None else widened(p, last.outputs[0])
    if found is None or not p.closed(found.nodes):
        return None
    made = partial(int8_rows.Scaled, "pk_f32_widen_run", found.rows, found.scales, last.outputs[0])
    return Match(p.ordered(found.nodes), int8_rows.WIDEN, made)


def narrow(p: Pattern, last: Node) -> Match | None:
    """int8(rows / their scales)"""
    if last.clamp is not None or not _is_plain(p, last.outputs[0]):
        return None
    quotient = p.made(last.inputs[0], NodeKind.DIV)
    if quotient is None or not _one_each(p, *quotient.inputs):
        return None
    rows, scales = quotient.inputs
    if p.constant(rows) is not None or not p.closed([quotient, last]):
        return None
    made = partial(int8_rows.Scaled, "pk_f32_narrow_run", rows, scales, last.outputs[0])
    return Match((quotient, last), int8_rows.NARROW, made)


def scale(p: Pattern, last: Node) -> Match | None:
    """clamp(the greatest magnitude of each row) * a number"""
    if last.clamp is not None:
        return None
    for value, number in p.pairs(last):
        factor, between = p.number(number), _greatest(p, value)
        if factor is None or between is None:
            continue
        (bounds,) = (node.clamp for node in between if node.clamp is not None)
        x, size = between[-1].inputs[0], p.shapes[between[-1].inputs[0]][-1]
        nodes = p.ordered([*between, last])
        if p.shapes[last.outputs[0]] != (*p.shapes[x][:-1], 1) or not p.closed(nodes):
            return None
        made = partial(int8_rows.Scale, x, last.outputs[0], size, bounds, factor)
        return Match(nodes, int8_rows.SCALE, made)
    return None


def _greatest(p: Pattern, value: int) -> list[Node] | None:
    """The nodes by which ``value`` is the greatest magnitude of each row within a range, the last
    one first: an ABS, and poolings that leave one place of the row each. The range is that of one
    of them or a node of its own: the greatest of what is in a range is in it too."""
    nodes: list[Node] = []
    counts: set[int] = set()
    ranges = 0
    while True:
        node = p.maker(value)
        if node is None or node.flags:
            return None
        ranges += node.clamp is not None
        nodes.append(node)
        if node.kind is NodeKind.ABS:
            x = p.shapes[node.inputs[0]]
            rows = int(np.prod(x[:-1]))
            return nodes if counts == {rows} and ranges == 1 else None
        shape = p.shapes[node.inputs[0]]
        if node.kind is NodeKind.MAX_POOLING_2D:
            _, height, width, _ = shape
            whole = Pool2dAttributes((0, 0, 0, 0), (height, width), (1, 1), (1, 1))
            if node.attributes != whole:
                return None
            counts.add(shape[0])
        elif node.kind not in (NodeKind.STATIC_RESHAPE, NodeKind.CLAMP):
            return None
        value = node.inputs[0]


def sums(p: Pattern, last: Node) -> Match | None:
    """The sums over the blocks of a row: a product with equal numbers between two reshapes."""
    product = p.made(last.inputs[0], NodeKind.FULLY_CONNECTED)
    split = None if product is None else p.made(product.inputs[0], NodeKind.STATIC_RESHAPE)
    if product is None or split is None or product.inputs[2] != INVALID_VALUE_ID:
        return None
    weights, size = p.constant(product.inputs[1]), p.shapes[split.outputs[0]][-1]
    if weights is None or p.shapes[product.inputs[1]] != (1, size):
        return None
    x, parts = p.shapes[split.inputs[0]], p.shapes[split.outputs[0]]
    nodes = (split, product, last)
    fits = parts[:-2] == x[:-1] and p.shapes[last.outputs[0]] == parts[:-1]
    if not fits or not (weights == weights[0]).all() or not p.closed(nodes):
        return None
    made = partial(int8_rows.Sums, split.inputs[0], last.outputs[0], size, float(weights[0]))
    return Match(p.ordered(nodes), int8_rows.SUMS, made)
