"""Norms over the last dimension, which a file has as means, differences, squares and products."""

from __future__ import annotations

from collections.abc import Container
from functools import partial

import numpy as np

from penstock.graph.graph import INVALID_VALUE_ID, Node
from penstock.graph.kinds import NodeKind, Pool2dAttributes
from penstock.runtime.engines.native import decoder
from penstock.runtime.engines.native.chains import Match, Pattern, matches
from penstock.runtime.engines.native.costs import norm_gain
from penstock.runtime.engines.native.family import Workshop


def layer_norm_chains(pattern: Pattern, taken: Container[int]) -> list[Match]:
    """The layer norms of a graph of which no node's identity is in ``taken``."""
    find = partial(_layer_norm, pattern)
    return matches(pattern, NodeKind.RECIPROCAL_SQUARE_ROOT, taken, find)


def _layer_norm(p: Pattern, inverse: Node) -> Match | None:
    """(x - mean(x)) / sqrt(mean((x - mean(x)) ** 2) + epsilon) * weight + bias; the weight and the
    bias may be missing."""
    root, shifted = inverse.outputs[0], p.made(inverse.inputs[0], NodeKind.ADD)
    last = p.reader(root, NodeKind.MULTIPLY)
    for centred, other in p.pairs(last):
        difference = p.made(centred, NodeKind.SUBTRACT)
        if other != root or difference is None or p.made(root, inverse.kind) is None:
            continue
        x, mean = difference.inputs
        first = mean_of(p, mean)
        for variance, small in p.pairs(shifted):
            epsilon, squares = p.number(small), mean_of_squares(p, variance, centred)
            if epsilon is None or squares is None or first is None or first[0] != x:
                continue
            assert last is not None and shifted is not None
            nodes = [*first[1], difference, *squares, shifted, inverse, last]
            return _match(p, x, epsilon, nodes)
    return None


def _match(p: Pattern, x: int, epsilon: float, nodes: list[Node]) -> Match | None:
    """The chain that ends with ``nodes``, or with a product or a sum behind them."""
    shape = p.shapes[x]
    factors = {NodeKind.MULTIPLY: np.ones(shape[-1:], np.float32)}
    factors[NodeKind.ADD] = np.zeros(shape[-1:], np.float32)
    for kind in factors:
        reader = p.reader(nodes[-1].outputs[0], kind)
        for made, other in p.pairs(reader):
            constant = p.constant(other)
            if made == nodes[-1].outputs[0] and constant is not None and reader is not None:
                if constant.shape == p.shapes[other][-1:] == shape[-1:]:
                    factors[kind] = constant
                    nodes = [*nodes, reader]
                break
    last = nodes[-1]
    if not p.closed(p.ordered(nodes)) or p.ordered(nodes)[-1] is not last:
        return None
    output = last.outputs[0]
    if p.shapes[output] != shape or p.values[x].data is not None:
        return None
    weight, bias = factors.values()
    pack = partial(packed_norm, x, output, epsilon, weight, bias)
    return Match(p.ordered(nodes), decoder.NORM, pack, norm_gain(shape))


def packed_norm(
    x: int, output: int, epsilon: float, weight: np.ndarray, bias: np.ndarray | None,
    workshop: Workshop,
) -> decoder.Norm:  # fmt: skip
    """A norm with copies of its weight and, of a layer norm, its bias."""
    kept = [
        None if array is None else workshop.packed.keep(np.array(array, np.float32))
        for array in (weight, bias)
    ]
    assert kept[0] is not None
    return decoder.Norm(x, output, epsilon, weight.size, kept[0], kept[1], workshop)


def mean_of_squares(p: Pattern, value: int, x: int) -> list[Node] | None:
    """The nodes by which ``value`` is the mean of x ** 2 over the last dimension."""
    found = mean_of(p, value)
    square = None if found is None else p.made(found[0], NodeKind.SQUARE)
    if found is None or square is None or square.inputs[0] != x:
        return None
    return [*found[1], square]


def mean_of(p: Pattern, value: int) -> tuple[int, list[Node]] | None:
    """What ``value`` is the mean of over the last dimension, and the nodes of that: a product with
    constants, of what it is of or of what pooling left of it."""
    nodes, made = [], p.shapes[value]
    last = p.made(value, NodeKind.STATIC_RESHAPE)
    if last is not None:
        nodes.append(last)
        value = last.inputs[0]
    product = p.made(value, NodeKind.FULLY_CONNECTED)
    if product is None or product.inputs[2] != INVALID_VALUE_ID:
        return None
    nodes.append(product)
    value = product.inputs[0]
    weights, width = p.constant(product.inputs[1]), p.shapes[value][-1]
    if weights is None or p.shapes[product.inputs[1]] != (1, width):
        return None
    if not np.allclose(weights, 1 / width, rtol=1e-6, atol=0):
        return None
    pool = p.made(value, NodeKind.AVG_POOLING_2D)
    if pool is not None:
        split = p.made(pool.inputs[0], NodeKind.STATIC_RESHAPE)
        if split is None or p.shapes[split.outputs[0]][-1] != width:
            return None
        count = p.shapes[split.outputs[0]][-2]
        if pool.attributes != Pool2dAttributes((0, 0, 0, 0), (1, count), (1, count)):
            return None
        nodes += [pool, split]
        value, width = split.inputs[0], width * count
    if p.shapes[value][-1] != width or made != (*p.shapes[value][:-1], 1):
        return None
    return value, nodes
