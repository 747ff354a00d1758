"""Finding a decoder's layers in a graph: attention over a cache and, around it, rotary embeddings,
norms and gated activations.

A chain is known by what it computes, whoever wrote it: nodes and constants are followed from the
end to the beginning, and the shapes have to be those of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from penstock.graph.graph import Node
from penstock.graph.kinds import (
    ConcatenateAttributes,
    NodeKind,
    SliceAttributes,
)
from penstock.runtime.engines.native import decoder, int8_chains
from penstock.runtime.engines.native.attention_chains import BY_HEAD, attention
from penstock.runtime.engines.native.chains import Match, Pattern
from penstock.runtime.engines.native.family import Workshop
from penstock.runtime.engines.native.norms import mean_of_squares, packed_norm


def decoder_chains(pattern: Pattern) -> list[Match]:
    """The chains of the decoder's layers in a graph; none where no attention over a cache is."""
    graph, found = pattern.graph, _Found()
    for node in graph.nodes:
        if node.kind is NodeKind.SOFTMAX:
            over_cache = attention(pattern, node)
            if over_cache is not None:
                found.add(over_cache.match)
                found.move(over_cache.moves)
    if found.matches:
        for node in graph.nodes:
            if node.kind is NodeKind.ADD:
                found.add(_turn(pattern, node))
        for node in graph.nodes:
            if node.kind is NodeKind.MULTIPLY:
                found.add(_norm(pattern, node) or _gate(pattern, node))
                found.add(int8_chains.widen(pattern, node))
                found.add_rows(pattern, int8_chains.scale(pattern, node))
            elif node.kind is NodeKind.CONVERT:
                found.add_rows(pattern, int8_chains.narrow(pattern, node))
            elif node.kind is NodeKind.STATIC_RESHAPE:
                found.add(int8_chains.sums(pattern, node))
        for node in graph.nodes:
            if id(node) in found.transposes:
                found.add(_heads(pattern, node))
        for node in graph.nodes:
            if node.kind is NodeKind.MULTIPLY:
                found.add(_plain_norm(pattern, node))
    return found.matches


class _Found:
    def __init__(self) -> None:
        self.matches: list[Match] = []
        #: the nodes that belong to a chain
        self.taken: dict[int, Node] = {}
        #: the transposes that bring new keys and values by head
        self.transposes: dict[int, Node] = {}

    def add(self, match: Match | None) -> None:
        if match is None or any(id(node) in self.taken for node in match.nodes):
            return
        self.matches.append(match)
        self.taken.update((id(node), node) for node in match.nodes)

    def add_rows(self, p: Pattern, match: Match | None) -> None:
        """Adds a chain that makes rows of a cache, or their scales, and a reshape before it."""
        self.add(match)
        if match is not None:
            self.move(p.readers(match.nodes[-1].outputs[0]))
            for value in match.nodes[0].inputs:
                reshape = p.made(value, NodeKind.STATIC_RESHAPE)
                if reshape is not None:
                    copy = decoder.Copy(reshape.inputs[0], value)
                    self.add(Match((reshape,), decoder.HEADS, partial(_ready, copy)))

    def move(self, nodes: Iterable[Node | None]) -> None:
        """Those of ``nodes`` that bring rows by head are to be matched too."""
        for node in nodes:
            if node is not None and getattr(node.attributes, "perm", None) == BY_HEAD:
                self.transposes[id(node)] = node


def _turn(p: Pattern, total: Node) -> Match | None:
    """x * cosine + [second half of x, first half of x] * sine"""
    if total.clamp is not None or p.values[total.outputs[0]].data is not None:
        return None
    for a, b in p.pairs(total):
        straight, crossed = p.made(a, NodeKind.MULTIPLY), p.made(b, NodeKind.MULTIPLY)
        for x, cosine in p.pairs(straight):
            for swapped, sine in p.pairs(crossed):
                halves = _swapped(p, swapped, x)
                if halves is None or straight is None or crossed is None:
                    continue
                _, rows, heads, size = p.shapes[x]
                if not p.shapes[cosine] == p.shapes[sine] == (rows, 1, size):
                    continue
                return _turned(p, x, cosine, sine, [straight, crossed, *halves, total])
    return None


def _swapped(p: Pattern, value: int, x: int) -> list[Node] | None:
    """The nodes that swap the halves of the last dimension of ``x`` [1, rows, heads, size]."""
    join = p.made(value, NodeKind.CONCATENATE_2)
    shape = p.shapes.get(x, ())
    if join is None or len(shape) != 4 or shape[0] != 1 or shape[3] % 2:
        return None
    half = shape[3] // 2
    if join.attributes != ConcatenateAttributes(3):
        return None
    slices = [p.made(i, NodeKind.STATIC_SLICE) for i in join.inputs]
    for node, offset in zip(slices, (half, 0), strict=True):
        if node is None or node.inputs != (x,) or not isinstance(node.attributes, SliceAttributes):
            return None
        if node.attributes.offsets != (0, 0, 0, offset):
            return None
        if p.shapes[node.outputs[0]] != (*shape[:3], half):
            return None
    return [join, *(node for node in slices if node is not None)]


def _turned(p: Pattern, x: int, cosine: int, sine: int, nodes: list[Node]) -> Match | None:
    heads, end = p.shapes[x][2], nodes[-1]
    x, ordered = _unshaped(p, x, nodes)
    if ordered[-1] is not end or not p.closed(ordered):
        return None
    turn = decoder.Turn(x, cosine, sine, end.outputs[0], heads)
    return Match(ordered, decoder.TURN, lambda workshop: turn)


def _unshaped(p: Pattern, x: int, nodes: Sequence[Node]) -> tuple[int, tuple[Node, ...]]:
    """What ``x`` was before a reshape for ``nodes`` alone, and the nodes with it."""
    source = p.made(x, NodeKind.STATIC_RESHAPE)
    if source is None or not p.closed([source, *nodes]):
        return x, p.ordered(nodes)
    return source.inputs[0], p.ordered([source, *nodes])


def _heads(p: Pattern, transpose: Node) -> Match | None:
    """A transpose to rows by head, of what a product made as [1, rows, heads * size]."""
    nodes, source = [transpose], transpose.inputs[0]
    reshape = p.made(source, NodeKind.STATIC_RESHAPE)
    if reshape is not None and len(p.readers(source)) == 1 and not p.values[source].is_output:
        nodes.insert(0, reshape)
        source = reshape.inputs[0]
    dtype = p.values[transpose.outputs[0]].dtype.traits.array
    assert dtype is not None  # what has none is not moved
    heads = decoder.Heads(source, transpose.outputs[0], dtype.itemsize)
    return Match(tuple(nodes), decoder.HEADS, lambda workshop: heads)


def _norm(p: Pattern, last: Node) -> Match | None:
    """x / sqrt(mean(x ** 2) + epsilon) * weight"""
    if last.clamp is not None:
        return None
    for scaled, weight in p.pairs(last):
        elements, scale = p.constant(weight), p.made(scaled, NodeKind.MULTIPLY)
        if elements is not None and scale is not None:
            found = _normalized(p, scale)
            if found is not None and (elements.size,) == p.shapes[found[0]][-1:]:
                return _norm_match(p, last, elements, *found)
    return None


def _plain_norm(p: Pattern, last: Node) -> Match | None:
    """x / sqrt(mean(x ** 2) + epsilon): the weight went into the products behind it."""
    found = None if last.clamp is not None else _normalized(p, last)
    if found is None:
        return None
    ones = np.ones(p.shapes[found[0]][-1], np.float32)
    return _norm_match(p, last, ones, *found)


def _norm_match(
    p: Pattern, last: Node, weight: np.ndarray, x: int, epsilon: float, between: list[Node]
) -> Match | None:
    nodes = p.ordered([*between, last])
    if not p.closed(nodes) or p.shapes[last.outputs[0]] != p.shapes[x]:
        return None
    x, nodes = _unshaped(p, x, nodes)
    made = partial(packed_norm, x, last.outputs[0], epsilon, weight, None)
    return Match(nodes, decoder.NORM, made)


def _normalized(p: Pattern, scale: Node) -> tuple[int, float, list[Node]] | None:
    """What ``scale`` divides by the root of its mean square and epsilon, and the nodes of that."""
    for x, root in p.pairs(scale):
        inverse = p.made(root, NodeKind.RECIPROCAL_SQUARE_ROOT)
        shifted = None if inverse is None else p.made(inverse.inputs[0], NodeKind.ADD)
        for mean, small in p.pairs(shifted):
            epsilon = p.number(small)
            if epsilon is None or p.shapes[root] != (*p.shapes[x][:-1], 1):
                continue
            between = mean_of_squares(p, mean, x)
            if between is not None and inverse is not None and shifted is not None:
                return x, epsilon, [*between, shifted, inverse, scale]
    return None


def _gate(p: Pattern, last: Node) -> Match | None:
    """a * sigmoid(a) * b, or GELU by tanh: a * sigmoid(a * (cubic * a ** 2 + linear)) * b"""
    if last.clamp is not None:
        return None
    for weighted, b in p.pairs(last):
        product = p.made(weighted, NodeKind.MULTIPLY)
        for a, chosen in p.pairs(product):
            sigmoid = p.made(chosen, NodeKind.SIGMOID)
            inner = None if sigmoid is None else _bent(p, sigmoid.inputs[0], a)
            if sigmoid is None or inner is None or product is None:
                continue
            cubic, linear, bends = inner
            shapes: Sequence[object] = [p.shapes[i] for i in (a, b, last.outputs[0])]
            nodes = p.ordered([*bends, sigmoid, product, last])
            if p.constant(b) is None and shapes == [shapes[0]] * 3 and p.closed(nodes):
                made = partial(decoder.Gate, a, b, last.outputs[0], cubic, linear)
                return Match(nodes, decoder.GATE, made)
    return None


def _bent(p: Pattern, value: int, a: int) -> tuple[float, float, list[Node]] | None:
    """(cubic, linear) where ``value`` is ``a * (cubic * a ** 2 + linear)``, and the nodes of that;
    none where it is ``a`` itself."""
    if value == a:
        return 0.0, 1.0, []
    product = p.made(value, NodeKind.MULTIPLY)
    for x, inner in p.pairs(product):
        total = p.made(inner, NodeKind.ADD) if x == a else None
        for scaled, linear in p.pairs(total):
            cubed = p.made(scaled, NodeKind.MULTIPLY)
            for squared, cubic in p.pairs(cubed):
                square = p.made(squared, NodeKind.SQUARE)
                numbers = p.number(cubic), p.number(linear)
                if square is None or square.inputs[0] != a or None in numbers:
                    continue
                nodes = [n for n in (square, cubed, total, product) if n is not None]
                return numbers[0] or 0.0, numbers[1] or 0.0, nodes
    return None


def _ready(prepared: decoder.Copy, workshop: Workshop) -> decoder.Copy:
    """What has nothing to pack."""
    return prepared
