"""Finding attention over a cache in a graph, between the transposes that bring rows by head."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from penstock.graph.graph import FLAG_TRANSPOSE_B, Node
from penstock.graph.kinds import ConcatenateAttributes, NodeKind, SliceAttributes
from penstock.runtime.engines.native import decoder, int8_chains
from penstock.runtime.engines.native.chains import Match, Pattern

#: [1, rows, heads, size] to [1, heads, rows, size], and to [1, heads, size, rows].
BY_HEAD, _AS_COLUMNS = (0, 2, 1, 3), (0, 2, 3, 1)


class Attention(NamedTuple):
    """A chain of attention, and what beside it may bring its new keys and values by head."""

    match: Match
    moves: tuple[Node | None, ...]


def attention(p: Pattern, softmax: Node) -> Attention | None:
    """softmax((query @ [old keys, new keys]) * factor + mask) @ [old values, new values]"""
    masked = p.made(softmax.inputs[0], NodeKind.ADD)
    for joined, mask in p.pairs(masked):
        join = p.made(joined, NodeKind.CONCATENATE_2)
        if join is None or masked is None or join.attributes != ConcatenateAttributes(3):
            continue
        capped = _capped(p, *join.inputs)
        cap, scores = (0.0, join.inputs) if capped is None else capped[:2]
        old = p.made(scores[0], NodeKind.BATCH_MATRIX_MULTIPLY, FLAG_TRANSPOSE_B)
        new = p.made(scores[1], NodeKind.BATCH_MATRIX_MULTIPLY)
        if old is None or new is None or old.inputs[0] != new.inputs[0]:
            return None
        columns = p.made(new.inputs[1], NodeKind.STATIC_TRANSPOSE)
        if columns is None or getattr(columns.attributes, "perm", None) != _AS_COLUMNS:
            return None
        weighted = _weighted(p, softmax, p.shapes[join.inputs[0]][-1])
        queries = _queries(p, old.inputs[0])
        after = None if weighted is None else _joined_heads(p, weighted[-1].outputs[0])
        if weighted is None or queries is None or after is None:
            return None
        query, factor, before = queries
        new_keys, (old_values, new_values) = columns.inputs[0], (q.inputs[1] for q in weighted[2:4])
        inner = [*before, old, new, columns, join, masked, softmax, *weighted, *after]
        inner += capped[2] if capped is not None else []
        old_keys, key_scales, value_scales = old.inputs[1], None, None
        small = int8_chains.widened(p, old_keys), int8_chains.widened(p, old_values)
        if small[0] is not None and small[1] is not None:
            inner += [*small[0].nodes, *small[1].nodes]
            old_keys, key_scales = small[0].rows, small[0].scales
            old_values, value_scales = small[1].rows, small[1].scales
        nodes = p.ordered(inner)
        prepared = decoder.Attention(
            query, old_keys, new_keys, old_values, new_values, mask,
            nodes[-1].outputs[0], factor, cap, key_scales, value_scales,
        )  # fmt: skip
        if not prepared.fits(p.shapes) or nodes[-1] is not after[-1] or not p.closed(nodes):
            return None
        made = partial(decoder.PreparedAttention, prepared)
        moves = (*p.readers(new_keys), p.made(new_values, NodeKind.STATIC_TRANSPOSE))
        return Attention(Match(nodes, decoder.ATTENTION, made), moves)
    return None


def _capped(p: Pattern, old: int, new: int) -> tuple[float, tuple[int, int], list[Node]] | None:
    """Where both scores are ``cap * tanh(score)``: the cap, the scores, and the nodes of that."""
    caps, scores, nodes = set(), [], []
    for value in (old, new):
        product = p.made(value, NodeKind.MULTIPLY)
        for bent, number in p.pairs(product):
            tanh, cap = p.made(bent, NodeKind.TANH), p.number(number)
            if product is not None and tanh is not None and cap is not None:
                caps.add(cap)
                scores.append(tanh.inputs[0])
                nodes += [tanh, product]
                break
    if len(scores) != 2 or len(caps) != 1 or 0.0 in caps:
        return None
    return caps.pop(), (scores[0], scores[1]), nodes


def _weighted(p: Pattern, softmax: Node, old: int) -> list[Node] | None:
    """The slices of weights, their products with values, and the sum of both."""
    slices = p.readers(softmax.outputs[0])
    if len(slices) != 2 or any(not isinstance(s.attributes, SliceAttributes) for s in slices):
        return None
    slices = sorted(slices, key=lambda node: node.attributes.offsets[-1])  # type: ignore[union-attr]
    products = [p.reader(s.outputs[0], NodeKind.BATCH_MATRIX_MULTIPLY) for s in slices]
    if any(q is None or q.inputs[0] != s.outputs[0] for q, s in zip(products, slices, strict=True)):
        return None
    first, second = (s.attributes for s in slices)
    assert isinstance(first, SliceAttributes) and isinstance(second, SliceAttributes)
    whole = p.shapes[softmax.outputs[0]]
    if any(first.offsets) or any(second.offsets[:-1]) or second.offsets[-1] != old:
        return None
    kept = [p.shapes[s.outputs[0]] for s in slices]
    if (
        [k[:-1] for k in kept] != [whole[:-1]] * 2
        or kept[0][-1] != old
        or sum(k[-1] for k in kept) != whole[-1]
    ):
        return None
    totals = [p.reader(q.outputs[0], NodeKind.ADD) for q in products if q is not None]
    if totals[0] is None or totals[0] is not totals[1]:
        return None
    return [*slices, *(q for q in products if q is not None), totals[0]]


def _by_head(
    value: int, find: Callable[[int, NodeKind], Node | None], beyond: Callable[[Node], int]
) -> tuple[list[Node], int] | None:
    """The transposition between [1, heads, tokens, size] and [1, tokens, heads, size], after a
    reshape if there is one, that ``find`` gives beside ``value``, and the value ``beyond`` it."""
    nodes = []
    reshape = find(value, NodeKind.STATIC_RESHAPE)
    if reshape is not None:
        nodes.append(reshape)
        value = beyond(reshape)
    transpose = find(value, NodeKind.STATIC_TRANSPOSE)
    if transpose is None or getattr(transpose.attributes, "perm", None) != BY_HEAD:
        return None
    return [*nodes, transpose], beyond(transpose)


def _queries(p: Pattern, value: int) -> tuple[int, float, list[Node]] | None:
    """The queries [1, tokens, heads, size] behind [1, key heads, group * tokens, size], what they
    are multiplied by, and the nodes between."""
    found = _by_head(value, p.made, lambda node: node.inputs[0])
    if found is None:
        return None
    nodes, value = found
    scaled = p.made(value, NodeKind.MULTIPLY)
    for a, b in p.pairs(scaled):
        number = p.number(b)
        if scaled is not None and number is not None:
            return a, number, [*nodes, scaled]
    return value, 1.0, nodes


def _joined_heads(p: Pattern, value: int) -> list[Node] | None:
    """From [1, key heads, group * tokens, size] to [1, tokens, heads * size]."""
    found = _by_head(value, p.reader, lambda node: node.outputs[0])
    if found is None:
        return None
    nodes, value = found
    last = p.reader(value, NodeKind.STATIC_RESHAPE)
    return nodes if last is None else [*nodes, last]
