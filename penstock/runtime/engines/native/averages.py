"""What a value is the mean of, known by the nodes that make it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from penstock.graph.graph import FLAG_KEEP_DIMS, INVALID_VALUE_ID, Node, Shape
from penstock.graph.kinds import NodeKind, Pool2dAttributes
from penstock.runtime.engines.native.chains import Pattern

#: The most nodes that a mean is made of.
_LONGEST = 16


class Extent(Enum):
    """What became of an extent of the original's memory: still there, averaged, or averaged and
    written once for each of its elements."""

    KEPT = 0
    AVERAGED = 1
    SPREAD = 2


@dataclass
class Extents:
    """The extents of a tensor in the order of memory, outermost first, as (size, what became of
    it). Those that are not averaged make up the value at hand, which is the mean times ``factor``:
    of several sums in a row the first may be divided by the number of all."""

    items: list[tuple[int, Extent]]
    factor: float = 1.0

    def dims(self, shape: Shape, *, whole: bool = False) -> list[list[int]] | None:
        """The positions of the extents that each dimension of ``shape`` consists of; of all of
        them for the ``whole`` original. Extents are cut where dimensions end; None where the two
        do not fit."""
        self._join()
        found, place = [], 0
        for size in shape:
            rest, inside = size, []
            while rest > 1:
                while place < len(self.items) and not whole and self._averaged(place):
                    place += 1
                if place == len(self.items):
                    return None
                length, kind = self.items[place]
                if length > rest:
                    if length % rest:
                        return None
                    self.items[place : place + 1] = [(rest, kind), (length // rest, kind)]
                    length = rest
                if rest % length:
                    return None
                rest //= length
                inside.append(place)
                place += 1
            found.append(inside)
        left = range(place, len(self.items))
        return None if any(whole or not self._averaged(i) for i in left) else found

    def become(self, positions: list[int], kind: Extent) -> None:
        """Says what became of extents."""
        for i in positions:
            self.items[i] = (self.items[i][0], kind)

    def spread(self, size: int) -> bool:
        """So many of the innermost elements, averaged, are written out; whether they can be."""
        self._join()
        length, kind = self.items[-1]
        if kind is not Extent.AVERAGED or length % size:
            return False
        self.items[-1:] = [(length // size, kind)] if length > size else []
        self.items.append((size, Extent.SPREAD))
        return True

    def _join(self) -> None:
        """Neighbours of which the same became are one."""
        joined: list[tuple[int, Extent]] = []
        for size, kind in self.items:
            if joined and joined[-1][1] is kind:
                size *= joined.pop()[0]
            joined.append((size, kind))
        self.items = joined

    def _averaged(self, place: int) -> bool:
        return self.items[place][1] is Extent.AVERAGED


def average(p: Pattern, value: int, x: int) -> tuple[list[Node], Extents] | None:
    """The nodes by which ``value`` is a mean of ``x``, and of what; None where it is not."""
    nodes: list[Node] = []
    while value != x:
        node = p.maker(value)
        if node is None or len(nodes) == _LONGEST:
            return None
        pools = node.kind is NodeKind.GLOBAL_AVG_POOLING_2D
        if p.made(value, node.kind, node.flags & FLAG_KEEP_DIMS if pools else 0) is None:
            return None
        nodes.append(node)
        value = computed_input(p, node)
    nodes.reverse()
    extents = Extents([(math.prod(p.shapes[x]), Extent.KEPT)])
    if not all(_follow(p, node, extents) for node in nodes):
        return None
    return (nodes, extents) if math.isclose(extents.factor, 1.0, rel_tol=1e-5) else None


def computed_input(p: Pattern, node: Node) -> int:
    """The first input of ``node`` that is no constant in float32."""
    return next((i for i in node.inputs if p.constant(i) is None), node.inputs[0])


def _follow(p: Pattern, node: Node, extents: Extents) -> bool:
    """What a node makes of the extents; whether that is a mean, or another form of the same."""
    source, result = p.shapes[node.inputs[0]], p.shapes[node.outputs[0]]
    if node.kind is NodeKind.MULTIPLY:
        return _spread(p, node, extents)
    if node.kind is NodeKind.STATIC_RESHAPE:
        return True
    dims = extents.dims(source)
    if dims is None:
        return False
    a = node.attributes
    if node.kind is NodeKind.GLOBAL_AVG_POOLING_2D:
        extents.become(dims[1] + dims[2], Extent.AVERAGED)
        return True
    if node.kind is NodeKind.AVG_POOLING_2D:
        window = source[1], source[2]
        for kernel, over in (((1, window[1]), dims[2]), ((window[0], 1), dims[1])):
            if a == Pool2dAttributes((0, 0, 0, 0), kernel, kernel):
                extents.become(over, Extent.AVERAGED)
                return True
        return False
    if node.kind is NodeKind.FULLY_CONNECTED:
        weights, width = p.constant(node.inputs[1]), source[-1]
        if weights is None or node.inputs[2] != INVALID_VALUE_ID:
            return False
        if p.shapes[node.inputs[1]] != (1, width) or result != (*source[:-1], 1):
            return False
        extents.become(dims[-1], Extent.AVERAGED)
        extents.factor *= float(weights[0]) * width
        return bool((weights == weights[0]).all())
    return False


def _spread(p: Pattern, node: Node, extents: Extents) -> bool:
    """Whether a product with ones writes a mean of the innermost extents once for each of them."""
    result = p.shapes[node.outputs[0]]
    for value, ones in p.pairs(node):
        constant = p.constant(ones)
        if constant is None or p.constant(value) is not None or not (constant == 1).all():
            continue
        if p.shapes[value] == (*result[:-1], 1) and constant.size == result[-1]:
            return p.shapes[ones][-1:] == result[-1:] and extents.spread(result[-1])
    return False
