"""Steps of recurrent layers (LSTM, GRU), which a file has as a product, slices and elementwise
nodes for each element of the sequence."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence

import numpy as np

from penstock.graph.dtypes import DataType
from penstock.graph.graph import INVALID_VALUE_ID, Node
from penstock.graph.kinds import NodeKind, SliceAttributes
from penstock.runtime.engines.native.cells import (
    FAMILY,
    GRU,
    INT8,
    LSTM,
    Cell,
    Int8Weights,
    Source,
    Weights,
)
from penstock.runtime.engines.native.chains import Match, Pattern
from penstock.runtime.engines.native.costs import cell_gain
from penstock.runtime.engines.native.dynamic import examine_product, examine_quantize
from penstock.runtime.engines.native.library import Library


def cell_chains(pattern: Pattern, taken: Container[int], library: Library) -> list[Match]:
    """The chains of a graph of which no node's identity is in ``taken``."""
    layers: dict[tuple[int, ...], Weights | Int8Weights] = {}
    found = []
    for node in pattern.graph.nodes:
        if pattern.made(node.outputs[0], NodeKind.TANH):
            for match in (
                _lstm(pattern, node, layers, library),
                _gru(pattern, node, layers, library),
            ):
                if match and not any(id(n) in taken for n in match.nodes):
                    found.append(match)
    return found


def _lstm(
    p: Pattern, bent: Node, layers: dict[tuple[int, ...], Weights | Int8Weights], library: Library
) -> Match | None:
    """sigmoid(o) * tanh(c'), of which c' = sigmoid(f) * c + sigmoid(i) * tanh(g)"""
    last = p.reader(bent.outputs[0], NodeKind.MULTIPLY)
    total = p.made(bent.inputs[0], NodeKind.ADD)
    for out, other in p.pairs(last):
        if other != bent.outputs[0] or total is None:
            continue
        for kept, added in p.pairs(total):
            forget, write = p.made(kept, NodeKind.MULTIPLY), p.made(added, NodeKind.MULTIPLY)
            for f, c in p.pairs(forget):
                for i, made in p.pairs(write):
                    tanh = p.made(made, NodeKind.TANH)
                    if tanh is None or forget is None or write is None or last is None:
                        continue
                    inner = [bent, last, total, forget, write, tanh]
                    match = _lstm_of(p, inner, (i, f, out), tanh.inputs[0], c, layers, library)
                    if match is not None:
                        return match
    return None


def _lstm_of(
    p: Pattern,
    inner: list[Node],
    chosen: tuple[int, int, int],
    fourth: int,
    c: int,
    layers: dict[tuple[int, ...], Weights | Int8Weights],
    library: Library,
) -> Match | None:
    """The step whose gates i, f and o are ``chosen`` after, ``fourth`` before its function."""
    bent, last, total = inner[:3]
    output, cell = last.outputs[0], total.outputs[0]
    if len(p.shapes[output]) != 2:
        return None
    hidden, same = p.shapes[output][-1], {p.shapes[i] for i in (c, output, cell)}
    copies = [node for node in p.readers(cell) if node is not bent]
    copied = len(copies) == 1 and copies[0].kind is NodeKind.STATIC_RESHAPE
    if copied and not p.values[cell].is_output and p.position[id(copies[0])] < p.position[id(last)]:
        # A last step's, for others: the kernel may as well write there.
        total, cell, inner = copies[0], copies[0].outputs[0], [*inner, *copies]
    slices = [_slice(p, value, n * hidden, hidden) for n, value in enumerate(chosen)]
    rest = _slice(p, fourth, 3 * hidden, hidden)
    if rest is None or None in slices:
        return None
    sigmoids = {node.inputs[0] for node in slices if node is not None}
    sigmoid = p.made(sigmoids.pop(), NodeKind.SIGMOID)
    first = None if sigmoid is None else _slice(p, sigmoid.inputs[0], 0, 3 * hidden)
    if sigmoids or sigmoid is None or first is None or first.inputs != rest.inputs:
        return None
    gates = p.made(rest.inputs[0], NodeKind.ADD)
    for given, product in p.pairs(gates):
        multiplied = _product(p, product)
        if multiplied is None or gates is None or p.shapes[product][-1] != 4 * hidden:
            continue
        if p.shapes[given] != p.shapes[product]:
            continue
        state = _state(p, [multiplied])
        if state is None:
            continue
        h, rounding = state
        source, before = _source(p, given)
        parts = [*(n for n in slices if n), rest, sigmoid, first]
        ordered = p.ordered([*before, *inner, *parts, gates, multiplied, *rounding])
        if same != {p.shapes[h]} or not _ends(p, ordered, last, total, {source.value, h, c}):
            return None
        layer = _weights(p, [multiplied], None, layers)
        found = Cell(LSTM, hidden, source, h, output, c, cell, layer)
        return _match(p, ordered, found, 4, library)
    return None


def _gru(
    p: Pattern, bent: Node, layers: dict[tuple[int, ...], Weights | Int8Weights], library: Library
) -> Match | None:
    """n + sigmoid(z) * (h - n), of which n = tanh(input_n + sigmoid(r) * (h @ weights + bias))"""
    n = bent.outputs[0]
    readers = (p.made(r.outputs[0], NodeKind.SUBTRACT) for r in p.readers(n))
    difference = next(filter(None, readers), None)
    if difference is None or difference.inputs[1] != n or len(p.shapes[n]) != 2:
        return None
    h, hidden = difference.inputs[0], p.shapes[n][-1]
    moved = p.reader(difference.outputs[0], NodeKind.MULTIPLY)
    last = None if moved is None else p.reader(moved.outputs[0], NodeKind.ADD)
    before, total = _found(p, moved, difference.outputs[0]), p.made(bent.inputs[0], NodeKind.ADD)
    if last is None or moved is None or before is None or total is None or n not in last.inputs:
        return None
    update = _slice(p, before, hidden, hidden)
    for given, gated in p.pairs(total):
        reset = p.made(gated, NodeKind.MULTIPLY)
        for r, second in p.pairs(reset):
            nodes = [bent, difference, moved, last, total]
            rest, other = _slice(p, given, 2 * hidden, hidden), _product(p, second, bias=True)
            first = _slice(p, r, 0, hidden)
            if None in (rest, other, first, update) or reset is None or rest is None:
                continue
            assert first is not None and update is not None and other is not None
            sigmoid = p.made(first.inputs[0], NodeKind.SIGMOID)
            gates = None if sigmoid is None else p.made(sigmoid.inputs[0], NodeKind.ADD)
            if first.inputs != update.inputs or sigmoid is None or gates is None:
                continue
            nodes += [reset, rest, other, first, update, sigmoid, gates]
            match = _gru_of(p, nodes, gates, rest, other, h, layers, library)
            if match is not None:
                return match
    return None


def _gru_of(
    p: Pattern,
    nodes: list[Node],
    gates: Node,
    rest: Node,
    other: Node,
    h: int,
    layers: dict[tuple[int, ...], Weights | Int8Weights],
    library: Library,
) -> Match | None:
    last = nodes[3]
    output = last.outputs[0]
    hidden = p.shapes[output][-1]
    for given, product in p.pairs(gates):
        start, multiplied = _slice(p, given, 0, 2 * hidden), _product(p, product)
        if start is None or multiplied is None or start.inputs != rest.inputs:
            continue
        state = _state(p, [multiplied, other])
        if state is None or state[0] != h:
            continue
        sizes = [p.shapes[node.inputs[1]] for node in (multiplied, other)]
        if sizes != [(2 * hidden, hidden), (hidden, hidden)]:
            continue
        source, before = _source(p, start.inputs[0])
        ordered = p.ordered([*before, *nodes, start, multiplied, *state[1]])
        if p.shapes[h] != p.shapes[output]:
            continue
        if not _ends(p, ordered, last, None, {source.value, h}):
            continue
        bias = np.zeros(hidden, np.float32)
        if other.inputs[2] != INVALID_VALUE_ID:
            known = p.constant(other.inputs[2])
            assert known is not None
            bias = known
        layer = _weights(p, [multiplied, other], bias, layers)
        found = Cell(GRU, hidden, source, h, output, h, output, layer)
        return _match(p, ordered, found, 3, library)
    return None


def _match(
    p: Pattern, ordered: tuple[Node, ...], cell: Cell, gates: int, library: Library
) -> Match:
    if isinstance(cell.weights, Int8Weights):
        return Match(ordered, INT8, cell.prepared)  # beside int8 rules decide, not gains
    gain = cell_gain(p.shapes[cell.output], gates, library)
    return Match(ordered, FAMILY, cell.prepared, gain)


def _state(p: Pattern, products: Sequence[Node]) -> tuple[int, list[Node]] | None:
    """What ``products`` multiply with their weights, and of int8 weights what quantizes it."""
    (source, *others) = {node.inputs[0] for node in products}
    dtypes = {p.values[node.inputs[1]].dtype for node in products}
    if others or len(dtypes) != 1:
        return None
    if p.values[source].dtype is DataType.FP32:
        return source, []
    convert = p.maker(source)
    if convert is None or convert.kind is not NodeKind.CONVERT:
        return None
    if isinstance(examine_quantize(convert, p.values), str):
        return None
    return convert.inputs[0], [convert]


def _weights(
    p: Pattern,
    products: Sequence[Node],
    bias: np.ndarray | None,
    layers: dict[tuple[int, ...], Weights | Int8Weights],
) -> Weights | Int8Weights:
    """The constants of ``products``, the same for all steps that have them."""
    names = tuple(i for node in products for i in node.inputs[1:])
    if names not in layers:
        values = [p.values[node.inputs[1]] for node in products]
        layers[names] = (
            Weights(tuple(_matrix(p, value.id) for value in values), bias)
            if values[0].dtype is DataType.FP32
            else Int8Weights(tuple(values), bias)
        )
    return layers[names]


def _found(p: Pattern, node: Node | None, value: int) -> int | None:
    """The other one of two inputs."""
    return next((a for a, b in p.pairs(node) if b == value), None)


def _slice(p: Pattern, value: int, offset: int, size: int) -> Node | None:
    """The slice of the last dimension that makes ``value`` [rows, size]."""
    node = p.made(value, NodeKind.STATIC_SLICE)
    if node is None or not isinstance(node.attributes, SliceAttributes):
        return None
    shape = p.shapes[node.inputs[0]]
    fits = len(shape) == 2 and p.shapes[value] == (shape[0], size)
    return node if fits and tuple(node.attributes.offsets) == (0, offset) else None


def _product(p: Pattern, value: int, bias: bool = False) -> Node | None:
    """The product of rows with constant weights that makes ``value``."""
    node = p.made(value, NodeKind.FULLY_CONNECTED)
    if node is None or (not bias and node.inputs[2] != INVALID_VALUE_ID):
        return None
    if node.inputs[2] != INVALID_VALUE_ID and p.constant(node.inputs[2]) is None:
        return None
    if p.constant(node.inputs[1]) is None and isinstance(examine_product(node, p.values), str):
        return None
    return node


def _matrix(p: Pattern, value: int) -> np.ndarray:
    elements = p.constant(value)
    assert elements is not None
    return elements.reshape(p.shapes[value])


def _source(p: Pattern, value: int) -> tuple[Source, list[Node]]:
    """Where ``value`` [rows, gates] lies, and the nodes that would only copy it from there."""
    reshape = p.made(value, NodeKind.STATIC_RESHAPE)
    part = None if reshape is None else p.made(reshape.inputs[0], NodeKind.STATIC_SLICE)
    if part is None or reshape is None or not isinstance(part.attributes, SliceAttributes):
        return Source(value), []
    whole, shape = p.shapes[part.inputs[0]], p.shapes[part.outputs[0]]
    rows, gates = p.shapes[value]
    offsets = tuple(part.attributes.offsets)
    copied = p.closed([part, reshape]) and p.values[part.inputs[0]].dtype is DataType.FP32
    for axis in (0, 1) if copied and len(whole) == 3 else ():
        one, index = list(whole), offsets[axis]
        one[axis] = 1
        at_index = tuple(index if i == axis else 0 for i in range(3))
        if shape == tuple(one) and offsets == at_index and rows * gates == math.prod(one):
            return Source(part.inputs[0], axis, index), [part, reshape]
    return Source(value), []


def _ends(
    p: Pattern, nodes: Sequence[Node], last: Node, cell: Node | None, given: set[int]
) -> bool:
    """Whether ``last`` is the last node, and what the others make is read by them alone; what
    ``cell`` makes also behind the last. The values ``given`` must come from outside: the kernel
    reads them, and writes nothing but its results."""
    if nodes[-1] is not last or any(i in given for node in nodes for i in node.outputs):
        return False
    inside, end = {id(node) for node in nodes}, p.position[id(last)]
    for node in nodes[:-1]:
        for value in node.outputs:
            outside = [r for r in p.readers(value) if id(r) not in inside]
            if node is cell:
                if any(p.position[id(reader)] < end for reader in outside):
                    return False
            elif outside or p.values[value].is_output:
                return False
    return True
