"""Norms over the last dimension, which a file has as means, differences, squares and products."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from ctypes import Structure, c_float, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from penstock.errors import InputError
from penstock.graph.graph import INVALID_VALUE_ID, Node, Shape
from penstock.graph.kinds import NodeKind, Pool2dAttributes
from penstock.runtime.engines.native import decoder
from penstock.runtime.engines.native.chains import Match, Pattern, matches
from penstock.runtime.engines.native.costs import norm_gain
from penstock.runtime.engines.native.family import Step, Workshop


class CMean(Structure):
    """``struct pk_f32_row_mean``."""

    _fields_ = [("parts", c_size_t), ("width", c_size_t), ("column", c_float)]


class CTask(Structure):
    """``struct pk_f32_layer_norm_task``."""

    _fields_ = [
        ("isa", c_uint32),
        ("epsilon", c_float),
        ("rows", c_size_t),
        ("channels", c_size_t),
        ("mean", CMean),
        ("variance", CMean),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("input", c_void_p),
        ("output", c_void_p),
    ]


FAMILY = decoder.family_of_chains("f32_layer_norm")
#: ``PK_F32_LAYER_NORM_WIDTH``.
_WIDEST = 512


class Mean(NamedTuple):
    """How XNNPACK computes the mean of a row: ``parts`` pieces of ``width`` are pooled, and what
    that leaves is multiplied by ``column`` and added up."""

    parts: int
    width: int
    column: float


@dataclass(frozen=True)
class ExactNorm:
    """A layer norm of ``x`` over the last dimension, with XNNPACK's bits: its mean and that of the
    squares. ``weight`` and ``bias`` are addresses of copies, if there are any."""

    x: int
    output: int
    epsilon: float
    means: tuple[Mean, Mean]
    weight: int | None
    bias: int | None
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        *rows, channels = shapes[self.x]
        fits = all(mean.parts * mean.width == channels for mean in self.means)
        if not fits or shapes[self.output] != shapes[self.x]:
            raise InputError("the shapes of a call do not fit each other in a layer norm")
        isa, means = int(self.workshop.library.isa), (CMean(*mean) for mean in self.means)
        count = math.prod(rows)
        task = CTask(isa, self.epsilon, count, channels, *means, self.weight, self.bias)
        return Step("pk_f32_layer_norm_run", task, ((self.x, "input"), (self.output, "output")))


def layer_norm_chains(pattern: Pattern, taken: Container[int], exact: bool = False) -> list[Match]:
    """The layer norms of a graph of which no node's identity is in ``taken``. ``exact``: those that
    can have XNNPACK's bits, with these; the others sum up faster."""
    find = partial(_layer_norm, pattern, exact)
    return matches(pattern, NodeKind.RECIPROCAL_SQUARE_ROOT, taken, find)


def _layer_norm(p: Pattern, exact: bool, inverse: Node) -> Match | None:
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
            if not exact:
                return _match(p, x, epsilon, nodes, None)
            forms = _form(p, first[1]), _form(p, squares)
            if forms[0] is not None and forms[1] is not None:
                return _match(p, x, epsilon, nodes, (forms[0], forms[1]))
            return None
    return None


def _form(p: Pattern, nodes: Sequence[Node]) -> Mean | None:
    """How the nodes of a mean compute it, if our kernel can do the same."""
    (product,) = (node for node in nodes if node.kind is NodeKind.FULLY_CONNECTED)
    weights = p.constant(product.inputs[1])
    assert weights is not None
    if weights.size > _WIDEST or (weights != weights[0]).any():
        return None
    pools = [node for node in nodes if node.kind is NodeKind.AVG_POOLING_2D]
    parts = p.shapes[pools[0].inputs[0]][-2] if pools else 1
    return Mean(parts, weights.size, float(weights[0]))


def _match(
    p: Pattern, x: int, epsilon: float, nodes: list[Node], exact: tuple[Mean, Mean] | None
) -> Match | None:
    """The chain that ends with ``nodes``, or with a product or a sum behind them."""
    shape = p.shapes[x]
    factors: dict[NodeKind, np.ndarray | None] = {NodeKind.MULTIPLY: None, NodeKind.ADD: None}
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
    gain = norm_gain(shape)
    if exact is not None:
        pack = partial(_packed_exactly, x, output, epsilon, exact, weight, bias)
        return Match(p.ordered(nodes), FAMILY, pack, gain)
    weight = np.ones(shape[-1:], np.float32) if weight is None else weight
    bias = np.zeros(shape[-1:], np.float32) if bias is None else bias
    fast = partial(packed_norm, x, output, epsilon, weight, bias)
    return Match(p.ordered(nodes), decoder.NORM, fast, gain)


def _packed_exactly(
    x: int, output: int, epsilon: float, means: tuple[Mean, Mean],
    weight: np.ndarray | None, bias: np.ndarray | None, workshop: Workshop,
) -> ExactNorm:  # fmt: skip
    kept = _kept(weight, workshop), _kept(bias, workshop)
    return ExactNorm(x, output, epsilon, means, *kept, workshop)


def _kept(array: np.ndarray | None, workshop: Workshop) -> int | None:
    """The address of a copy."""
    return None if array is None else workshop.packed.keep(np.array(array, np.float32))


def packed_norm(
    x: int, output: int, epsilon: float, weight: np.ndarray, bias: np.ndarray | None,
    workshop: Workshop,
) -> decoder.Norm:  # fmt: skip
    """A norm with copies of its weight and, of a layer norm, its bias."""
    kept = _kept(weight, workshop)
    assert kept is not None
    return decoder.Norm(x, output, epsilon, weight.size, kept, _kept(bias, workshop), workshop)


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
