"""Steps of recurrent layers (LSTM, GRU), which a file has as a product, slices and elementwise
nodes for each element of the sequence."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from ctypes import POINTER, Structure, byref, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from functools import partial

import numpy as np

from penstock.errors import InputError
from penstock.graph.dtypes import DataType
from penstock.graph.graph import INVALID_VALUE_ID, Node, Shape
from penstock.graph.kinds import NodeKind, SliceAttributes
from penstock.runtime.engines.native.chains import Match, Pattern
from penstock.runtime.engines.native.costs import cell_gain
from penstock.runtime.engines.native.decoder import family_of_chains
from penstock.runtime.engines.native.family import Step, Workshop
from penstock.runtime.engines.native.library import Library
from penstock.runtime.engines.native.memory import PackedWeights

#: ``PK_F32_CELL_CHANNELS``.
CHANNELS = 32
#: ``enum pk_f32_cell_form``.
LSTM, GRU = 0, 1


class CTask(Structure):
    """``struct pk_f32_cell_task``."""

    _fields_ = [
        ("isa", c_uint32),
        ("form", c_uint32),
        ("rows", c_size_t),
        ("hidden", c_size_t),
        ("input_offset", c_size_t),
        ("input_stride", c_size_t),
        ("weights", c_void_p),
        ("bias", c_void_p),
        ("input", c_void_p),
        ("h", c_void_p),
        ("c", c_void_p),
        ("cell", c_void_p),
        ("output", c_void_p),
        ("scratch", c_void_p),
    ]


FAMILY = family_of_chains("f32_cell", {"pk_f32_cell_scratch_size": (c_size_t, (POINTER(CTask),))})


def in_panels(weights: np.ndarray) -> np.ndarray:
    """Weights [outputs, hidden] as the kernel reads them: [panels, hidden, CHANNELS]."""
    outputs, hidden = weights.shape
    panels = -(-outputs // CHANNELS)
    filled = np.zeros((panels * CHANNELS, hidden), np.float32)
    filled[:outputs] = weights
    return np.ascontiguousarray(filled.reshape(panels, CHANNELS, hidden).transpose(0, 2, 1))


@dataclass(eq=False)
class _Weights:
    """The constants that all steps of a layer multiply with: [outputs, hidden] of each product, and
    the bias of a GRU's last."""

    products: tuple[np.ndarray, ...]
    bias: np.ndarray | None
    #: where they lie for the executable that was made last
    _packed: tuple[PackedWeights, int, int | None] | None = None

    def packed(self, workshop: Workshop) -> tuple[int, int | None]:
        """The addresses of the weights in panels and of the bias."""
        if self._packed is None or self._packed[0] is not workshop.packed:
            weights = in_panels(np.concatenate(self.products))
            bias = None if self.bias is None else workshop.packed.keep(np.array(self.bias))
            self._packed = workshop.packed, workshop.packed.keep(weights), bias
        return self._packed[1:]


@dataclass(frozen=True)
class Source:
    """Where a step's input [rows, gates] lies: in ``value``, or of a sequence there the element
    ``index`` along ``axis`` (0 or 1)."""

    value: int
    axis: int | None = None
    index: int = 0

    def place(self, shape: Shape) -> tuple[int, int, int]:
        """How many rows there are; the first one's offset and their distance, in elements."""
        gates = shape[-1]
        if self.axis is None:
            return shape[0], 0, gates
        if self.axis == 0:
            return shape[1], self.index * shape[1] * gates, gates
        return shape[0], self.index * gates, shape[1] * gates


@dataclass(frozen=True)
class Cell:
    """A step of which ``h`` is the state before it, and of an LSTM ``c``; ``cell`` is the new c."""

    form: int
    hidden: int
    source: Source
    h: int
    output: int
    weights: int
    bias: int | None
    c: int
    cell: int
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        rows, offset, stride = self.source.place(shapes[self.source.value])
        gates = (4 if self.form == LSTM else 3) * self.hidden
        states = [self.h, self.output, *((self.c, self.cell) if self.form == LSTM else ())]
        fits = shapes[self.source.value][-1] >= gates
        if not fits or any(math.prod(shapes[i]) != rows * self.hidden for i in states):
            raise InputError("the shapes of a call do not fit each other in a recurrent layer")
        isa = int(self.workshop.library.isa)
        task = CTask(isa, self.form, rows, self.hidden, offset, stride, self.weights, self.bias)
        fields = [(self.source.value, "input"), (self.h, "h"), (self.output, "output")]
        if self.form == LSTM:
            fields += [(self.c, "c"), (self.cell, "cell")]
        scratch: int = self.workshop.library.functions.pk_f32_cell_scratch_size(byref(task))
        return Step("pk_f32_cell_run", task, tuple(fields), scratch)


def cell_chains(pattern: Pattern, taken: Container[int], library: Library) -> list[Match]:
    """The chains of a graph of which no node's identity is in ``taken``."""
    layers: dict[tuple[int, ...], _Weights] = {}
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
    p: Pattern, bent: Node, layers: dict[tuple[int, ...], _Weights], library: Library
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
    layers: dict[tuple[int, ...], _Weights],
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
        h, weights = multiplied.inputs[:2]
        source, before = _source(p, given)
        parts = [*(n for n in slices if n), rest, sigmoid, first]
        ordered = p.ordered([*before, *inner, *parts, gates, multiplied])
        if same != {p.shapes[h]} or not _ends(p, ordered, last, total, {source.value, h, c}):
            return None
        layer = layers.setdefault((weights,), _Weights((_matrix(p, weights),), None))
        pack = partial(_packed, LSTM, hidden, source, h, output, layer, c, cell)
        return Match(ordered, FAMILY, pack, cell_gain(p.shapes[output], 4, library))
    return None


def _gru(
    p: Pattern, bent: Node, layers: dict[tuple[int, ...], _Weights], library: Library
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
    layers: dict[tuple[int, ...], _Weights],
    library: Library,
) -> Match | None:
    last = nodes[3]
    output = last.outputs[0]
    hidden = p.shapes[output][-1]
    for given, product in p.pairs(gates):
        start, multiplied = _slice(p, given, 0, 2 * hidden), _product(p, product)
        if start is None or multiplied is None or start.inputs != rest.inputs:
            continue
        if multiplied.inputs[0] != h or other.inputs[0] != h:
            continue
        sizes = [p.shapes[node.inputs[1]] for node in (multiplied, other)]
        if sizes != [(2 * hidden, hidden), (hidden, hidden)]:
            continue
        source, before = _source(p, start.inputs[0])
        ordered = p.ordered([*before, *nodes, start, multiplied])
        if p.shapes[h] != p.shapes[output]:
            continue
        if not _ends(p, ordered, last, None, {source.value, h}):
            continue
        names = (multiplied.inputs[1], other.inputs[1], other.inputs[2])
        bias = None if names[2] == INVALID_VALUE_ID else p.constant(names[2])
        if bias is None:
            bias = np.zeros(hidden, np.float32)
        matrices = (_matrix(p, names[0]), _matrix(p, names[1]))
        layer = layers.setdefault(names, _Weights(matrices, bias))
        pack = partial(_packed, GRU, hidden, source, h, output, layer, h, output)
        return Match(ordered, FAMILY, pack, cell_gain(p.shapes[output], 3, library))
    return None


def _packed(
    form: int, hidden: int, source: Source, h: int, output: int, layer: _Weights, c: int,
    cell: int, workshop: Workshop,
) -> Cell:  # fmt: skip
    weights, bias = layer.packed(workshop)
    return Cell(form, hidden, source, h, output, weights, bias, c, cell, workshop)


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
    return None if p.constant(node.inputs[1]) is None else node


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
