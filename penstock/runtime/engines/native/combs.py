"""Sums of depthwise convolutions that are one: XNNPACK has kernels of 25 taps at most, so our
compiler splits larger filters into combs, each with every n-th tap
(:mod:`penstock.compiler.delegate.passes.split_depthwise`). Our kernels run the whole filter."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from penstock.graph.dtypes import DataType
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.runtime.blocks import address
from penstock.runtime.engines.native import costs, depthwise
from penstock.runtime.engines.native.chains import Match, Pattern
from penstock.runtime.engines.native.family import Workshop
from penstock.runtime.engines.native.isa import VECTORS
from penstock.runtime.engines.native.library import Library

_TERMS = frozenset({NodeKind.ADD, NodeKind.DEPTHWISE_CONV_2D})
#: The compiler makes 64 parts at most.
_MOST_TERMS = 127


def is_comb(node: Node) -> bool:
    """Whether ``node`` may be a part of a larger filter."""
    a = node.attributes
    return (
        node.kind is NodeKind.DEPTHWISE_CONV_2D
        and isinstance(a, Conv2dAttributes)
        and max(a.dilation) > 1
    )


def comb_chains(pattern: Pattern, taken: Container[int], library: Library) -> list[Match]:
    """The chains of a graph of which no node's identity is in ``taken``."""
    if not library.has(VECTORS):
        return []
    found: list[Match] = []
    inside: set[int] = set()
    for node in reversed(pattern.graph.nodes):  # the whole sum first
        if node.kind is NodeKind.ADD and id(node) not in inside and id(node) not in taken:
            match = _sum(pattern, node, library)
            if match and not any(id(n) in taken for n in match.nodes):
                found.append(match)
                inside.update(map(id, match.nodes))
    return found


@dataclass(frozen=True)
class _Whole:
    """The filter that combs make up. ``places`` has for each comb where its taps belong."""

    attributes: Conv2dAttributes
    places: tuple[tuple[slice, slice], ...]


def _sum(p: Pattern, root: Node, library: Library) -> Match | None:
    """comb(x) + comb(x) + ..."""
    terms = _terms(p, root)
    combs = [node for node in terms if node.kind is NodeKind.DEPTHWISE_CONV_2D]
    adds = [node for node in terms if node.kind is NodeKind.ADD]
    nodes = p.ordered(terms)
    if not combs or len(combs) != len(adds) + 1 or not p.closed(nodes) or nodes[-1] is not root:
        return None
    x, output = combs[0].inputs[0], root.outputs[0]
    used = [x, output, *(i for node in combs for i in node.inputs[1:] if i != INVALID_VALUE_ID)]
    if any(p.values[i].dtype is not DataType.FP32 for i in used):
        return None
    if any(p.values[i].data is None for i in used[2:]) or p.values[x].data is not None:
        return None
    made = {p.shapes[node.outputs[0]] for node in terms}
    whole = _whole(combs)
    if whole is None or len(made) > 1:
        return None
    gain = costs.combs_gain(
        [_attributes(node) for node in combs], whole.attributes, made.pop(), library
    )
    merged = replace(combs[0], outputs=(output,), attributes=whole.attributes, clamp=root.clamp)
    return Match(nodes, _FAMILY, partial(_packed, p, combs, whole, merged), gain)


def _terms(p: Pattern, root: Node) -> list[Node]:
    """``root`` and what it adds up, down to depthwise convolutions; nothing if that is not of the
    form of a chain."""
    found: dict[int, Node] = {}
    waiting = [] if root.flags else [root]
    while waiting:
        node = waiting.pop()
        if id(node) in found or len(found) == _MOST_TERMS:
            return []
        found[id(node)] = node
        for i in node.inputs if node.kind is NodeKind.ADD else ():
            maker = p.maker(i)
            if maker is None or maker.clamp is not None or maker.flags or maker.kind not in _TERMS:
                return []
            waiting.append(maker)
    return list(found.values())


def _attributes(node: Node) -> Conv2dAttributes:
    assert isinstance(node.attributes, Conv2dAttributes)
    return node.attributes


def _whole(combs: Sequence[Node]) -> _Whole | None:
    """The filter of which each tap is one comb's."""
    if len({node.inputs[0] for node in combs}) > 1:
        return None
    attributes = [_attributes(node) for node in combs]
    first = attributes[0]
    same = (first.stride, first.groups, first.group_input_channels, first.group_output_channels)
    if first.group_input_channels != 1 or first.group_output_channels != 1:
        return None
    if any(
        (a.stride, a.groups, a.group_input_channels, a.group_output_channels) != same
        for a in attributes
    ):
        return None
    # Where the taps lie beside an output's own place, and how they are numbered.
    rows = [_taps(a, 0, a.padding[0]) for a in attributes]
    columns = [_taps(a, 1, a.padding[3]) for a in attributes]
    down, across = _all(rows), _all(columns)
    if down.start > 0 or across.start > 0:
        return None
    places = tuple(
        (_numbers(r, down), _numbers(c, across)) for r, c in zip(rows, columns, strict=True)
    )
    taps = sum(len(r) * len(c) for r, c in zip(rows, columns, strict=True))
    if len(down) * len(across) != taps:
        return None
    times = np.zeros((len(down), len(across)), int)
    for place in places:
        times[place] += 1
    if (times != 1).any():
        return None
    padding = (
        -down.start, max(a.padding[1] for a in attributes),
        max(a.padding[2] for a in attributes), -across.start,
    )  # fmt: skip
    whole = replace(first, padding=padding, kernel=times.shape, dilation=(down.step, across.step))
    return _Whole(whole, places)


def _all(axis: Sequence[range]) -> range:
    """The taps of all combs along an axis."""
    first, last = min(taps[0] for taps in axis), max(taps[-1] for taps in axis)
    step = math.gcd(*(taps.step for taps in axis), *(taps[0] - first for taps in axis))
    return range(first, last + 1, step)


def _numbers(taps: range, among: range) -> slice:
    first, step = (taps[0] - among.start) // among.step, taps.step // among.step
    return slice(first, first + step * (len(taps) - 1) + 1, step)


def _taps(a: Conv2dAttributes, axis: int, before: int) -> range:
    step = a.dilation[axis]
    return range(-before, a.kernel[axis] * step - before, step)


def _packed(
    p: Pattern, combs: Sequence[Node], whole: _Whole, merged: Node, workshop: Workshop
) -> depthwise.Depthwise:
    """Packs the taps of all combs as those of one filter."""
    channels = whole.attributes.groups
    weights = np.empty((*whole.attributes.kernel, channels), np.float32)
    bias = np.zeros(channels, np.float32)
    for node, place in zip(combs, whole.places, strict=True):
        kernel = _attributes(node).kernel
        weights[place] = _constant(p.values, node.inputs[1], workshop).reshape(*kernel, channels)
        if node.inputs[2] != INVALID_VALUE_ID:
            bias += _constant(p.values, node.inputs[2], workshop)
    return depthwise.packed(merged, address(weights), address(bias), workshop)


def _constant(values: Mapping[int, Value], i: int, workshop: Workshop) -> np.ndarray:
    return workshop.constant(values[i]).view(np.float32)


#: Chains are prepared as a whole; what they gain decides.
_FAMILY = replace(depthwise.FAMILY, kinds=frozenset(), slower=lambda *_: None)
