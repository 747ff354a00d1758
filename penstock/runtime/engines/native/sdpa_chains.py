"""Finding scaled dot-product attention in a graph, without a cache."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from penstock.graph.dtypes import DataType
from penstock.graph.graph import FLAG_TRANSPOSE_B, Node
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.native import sdpa
from penstock.runtime.engines.native.chains import Match, Pattern, matches
from penstock.runtime.engines.native.costs import attention_gain
from penstock.runtime.engines.native.family import Workshop
from penstock.runtime.engines.native.library import Library
from penstock.runtime.engines.native.sdpa import Addend, Attention, Operand

#: ``PK_F32_SDPA_ADDENDS``.
_ADDENDS = 2
_MOVES = (NodeKind.STATIC_RESHAPE, NodeKind.STATIC_TRANSPOSE)


def sdpa_chains(pattern: Pattern, taken: Container[int], library: Library) -> list[Match]:
    """The chains of a graph of which no node's identity is in ``taken``."""
    return matches(pattern, NodeKind.SOFTMAX, taken, partial(_attention, pattern, library))


def _attention(p: Pattern, library: Library, softmax: Node) -> Match | None:
    weights, moved = _moved(p, softmax.outputs[0])
    second = _product(p, weights)
    if second is None or second.inputs[0] != weights or second.inputs[1] == weights:
        return None
    if softmax.clamp is not None or softmax.flags:
        return None
    scored = _scored(p, softmax.inputs[0])
    if scored is None:
        return None
    first, factor, addends, between = scored
    scores, columns = first.outputs[0], p.shapes[first.outputs[0]][-1]
    chain = [first, *between, softmax, *moved, second]
    rows_stay = all(p.shapes[node.outputs[0]][-1] == columns for node in chain[:-1])
    if not rows_stay or p.shapes[weights] != p.shapes[scores]:
        return None
    query, keys, values, output = (
        Operand(i, i) for i in (*first.inputs, second.inputs[1], second.outputs[0])
    )
    readers = (first, first, second)
    turned = bool(first.flags), bool(second.flags)
    attention = Attention(query, keys, values, output, scores, *turned, factor, addends)
    for name, reader in zip(("query", "keys", "values"), readers, strict=True):
        attention = _wider(p, attention, name, _before(p, getattr(attention, name).value, reader))
    attention = _wider(p, attention, "output", _behind(p, second.outputs[0]))
    if attention.task(p.shapes) is None:
        return None
    moves = [attention.query, attention.keys, attention.values, attention.output]
    nodes = p.ordered([*chain, *(node for move in moves for node in move.nodes)])
    bases = [move.base for move in moves[:3]]
    fp32 = all(p.values[i].dtype is DataType.FP32 for i in (*bases, attention.output.base))
    if not fp32 or any(p.values[i].data is not None for i in bases) or not p.closed(nodes):
        return None
    if nodes[-1].outputs[0] != attention.output.base:
        return None
    shifted = sum(math.prod(p.shapes[move.base]) for move in moves if _turned(move))
    size = p.shapes[first.inputs[0]][-1]
    gain = attention_gain(p.shapes[scores], size, shifted, len(addends), library)
    return Match(nodes, sdpa.FAMILY, partial(_packed, p, attention), gain)


def _product(p: Pattern, weights: int) -> Node | None:
    """The product of matrices that alone reads ``weights``, with or without a transpose."""
    readers = p.readers(weights)
    if len(readers) != 1 or p.values[weights].is_output:
        return None
    (node,) = readers
    fits = node.clamp is None and node.flags in (0, FLAG_TRANSPOSE_B)
    return node if node.kind is NodeKind.BATCH_MATRIX_MULTIPLY and fits else None


def _packed(p: Pattern, attention: Attention, workshop: Workshop) -> sdpa.Prepared:
    """The chain with copies of the addends that are constants."""
    addends = []
    for addend in attention.addends:
        elements = p.constant(addend.value)
        if elements is not None:
            kept = workshop.packed.keep(np.array(elements, np.float32))
            addend = replace(addend, constant=kept)
        addends.append(addend)
    return sdpa.Prepared(replace(attention, addends=tuple(addends)), workshop)


def _scored(p: Pattern, value: int) -> tuple[Node, float, tuple[Addend, ...], list[Node]] | None:
    """The product that ``value`` comes from, the factor and the addends on the way, and the nodes
    of that."""
    nodes: list[Node] = []
    addends: list[Addend] = []
    while True:
        value, moved = _moved_from(p, value)
        nodes += moved
        added = p.made(value, NodeKind.ADD)
        if added is None:
            break
        a, b = added.inputs
        a, b = (a, b) if p.shapes[a] == p.shapes[value] and _comes_from_product(p, a) else (b, a)
        fits = p.values[b].dtype is DataType.FP32 and p.shapes[a] == p.shapes[value] and a != b
        if len(addends) == _ADDENDS or not fits:
            return None
        addends.append(Addend(b, value))
        nodes.append(added)
        value = a
    factor = 1.0
    scaled = p.made(value, NodeKind.MULTIPLY)
    for product, number in p.pairs(scaled):
        found = p.number(number)
        if scaled is not None and found is not None and p.shapes[product] == p.shapes[value]:
            factor, value = found, product
            nodes.append(scaled)
            break
    for flags in (0, FLAG_TRANSPOSE_B):
        first = p.made(value, NodeKind.BATCH_MATRIX_MULTIPLY, flags)
        if first is not None:
            # Sums are rounded in the order in which they are made.
            return first, factor, tuple(reversed(addends)), nodes
    return None


def _comes_from_product(p: Pattern, value: int) -> bool:
    """Whether ``value`` is made of a product of matrices, through what may lie between."""
    while True:
        maker = p.maker(value)
        if maker is None:
            return False
        if maker.kind is NodeKind.BATCH_MATRIX_MULTIPLY:
            return True
        if maker.kind not in (NodeKind.ADD, NodeKind.MULTIPLY, NodeKind.STATIC_RESHAPE):
            return False
        value = maker.inputs[0]


def _moved(p: Pattern, value: int) -> tuple[int, list[Node]]:
    """What reshapes make of ``value``, and these nodes."""
    nodes: list[Node] = []
    while (node := p.reader(value, NodeKind.STATIC_RESHAPE)) is not None:
        nodes.append(node)
        value = node.outputs[0]
    return value, nodes


def _moved_from(p: Pattern, value: int) -> tuple[int, list[Node]]:
    """What reshapes make ``value`` of, and these nodes."""
    nodes: list[Node] = []
    while (node := p.made(value, NodeKind.STATIC_RESHAPE)) is not None:
        nodes.append(node)
        value = node.inputs[0]
    return value, nodes


def _before(p: Pattern, value: int, reader: Node) -> list[Operand]:
    """``value`` as what reshapes and transposes, which nothing but ``reader`` has the results of,
    make of others; those with fewest nodes first."""
    found = [Operand(value, value)]
    nodes: list[Node] = []
    base = value
    while True:
        move = next((m for kind in _MOVES if (m := p.made(base, kind))), None)
        alone = list(p.readers(base)) == [reader] and not p.values[base].is_output
        if move is None or not alone:
            return found
        nodes.insert(0, move)
        base, reader = move.inputs[0], move
        found.append(Operand(value, base, tuple(nodes)))


def _behind(p: Pattern, value: int) -> list[Operand]:
    """``value`` as that of which reshapes and transposes make others."""
    found = [Operand(value, value)]
    nodes: list[Node] = []
    base = value
    while (move := next((m for kind in _MOVES if (m := p.reader(base, kind))), None)) is not None:
        nodes.append(move)
        base = move.outputs[0]
        found.append(Operand(value, base, tuple(nodes)))
    return found


def _wider(p: Pattern, attention: Attention, name: str, choices: Sequence[Operand]) -> Attention:
    """``attention`` with the longest of ``choices`` for an operand with which it can be run and
    that leaves out a transpose."""
    for choice in (c for c in reversed(choices) if _turned(c)):
        wider: Attention = replace(attention, **{name: choice})  # type: ignore[arg-type]
        if wider.task(p.shapes) is not None:
            return wider
    return attention


def _turned(operand: Operand) -> bool:
    return any(node.kind is NodeKind.STATIC_TRANSPOSE for node in operand.nodes)
