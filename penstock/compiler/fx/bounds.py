"""What values of a graph are at least, whatever the inputs are."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators
from torch.fx import GraphModule, Node

from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.marks import PLACES_OF_LARGEST

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

#: Gives the lower bound of an argument.
Bound: TypeAlias = "Callable[[Any], float]"

#: So many operators are looked through, one before the other.
DEEPEST = 24
UNKNOWN = -math.inf

#: Never negative.
_NOT_NEGATIVE = {
    aten.abs.default, aten.square.default, aten.exp.default, aten.exp2.default, aten.relu.default,
    aten.sigmoid.default, aten.hardsigmoid.default, aten.softmax.int, aten._softmax.default,
    aten.softplus.default, aten.norm.Scalar, aten.norm.ScalarOpt_dim, aten.cosh.default,
    aten.linalg_vector_norm.default, aten.eq.Scalar, aten.eq.Tensor, aten.ne.Scalar, aten.ne.Tensor,
    aten.gt.Tensor, aten.lt.Scalar, aten.lt.Tensor, aten.ge.Tensor, aten.le.Scalar, aten.le.Tensor,
    aten.logical_not.default, aten.logical_or.default, PLACES_OF_LARGEST,
}  # fmt: skip
#: What they give is among what they read.
_SELECTIONS = {
    aten.view.default, aten.reshape.default, aten.permute.default, aten.transpose.int,
    aten.t.default, aten.expand.default, aten.expand_as.default, aten.unsqueeze.default,
    aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.flatten.using_ints,
    aten.slice.Tensor, aten.select.int, aten.narrow.default, aten.clone.default,
    aten.contiguous.default, aten.detach.default, aten.repeat.default, aten.amax.default,
    aten.amin.default, aten.mean.default, aten.mean.dim, aten.to.dtype, aten._to_copy.default,
    aten.unflatten.int, aten.movedim.int, aten.flip.default, aten.gather.default,
    aten.take_along_dim.default, aten.index_select.default, aten.index.Tensor,
}  # fmt: skip
#: Of their results, the first is among what they read.
_ORDERED = {aten.topk.default, aten.sort.default, aten.sort.stable, aten.max.dim, aten.min.dim}
_SUMS = {aten.sum.default, aten.sum.dim_IntList, aten.cumsum.default}


def lower_bound(value: Any) -> float:
    """No element of ``value`` (a node, or a number) is less than this, not-a-number aside; minus
    infinity where nothing is known."""
    return _lower_bound(value, DEEPEST, {})


def _lower_bound(value: Any, depth: int, known: dict[tuple[Node, int], float]) -> float:
    """``known`` has what was found before: many ways may lead to one node."""
    if isinstance(value, (int, float)):
        return UNKNOWN if math.isnan(value) else float(value)
    if not isinstance(value, Node) or depth == 0:
        return UNKNOWN
    key = (value, depth)
    if key not in known:
        known[key] = _of_node(value, lambda item: _lower_bound(item, depth - 1, known))
    return known[key]


def _of_node(node: Node, bound: Bound) -> float:
    if node.op == "get_attr":
        return _least_of_constant(node)
    if node.op != "call_function":
        return UNKNOWN
    if node.target in _NOT_NEGATIVE:
        return 0.0
    if node.target in _SELECTIONS:
        return bound(node.args[0])
    if node.target is operator.getitem:
        source = node.args[0]
        ordered = isinstance(source, Node) and source.target in _ORDERED and node.args[1] == 0
        return bound(source.args[0]) if ordered else UNKNOWN  # type: ignore[union-attr]
    if node.target in _SUMS and (share := _share_of_largest(node)):
        return share
    if node.target in _SUMS:
        return 0.0 if bound(node.args[0]) >= 0 else UNKNOWN
    rule = _RULES.get(node.target)
    return UNKNOWN if rule is None else rule(node, bound)


def _share_of_largest(node: Node) -> float:
    """Of the sum of a softmax's largest values: one of ``n`` is an ``n``-th at least (half of that,
    for rounding); 0 of other sums."""
    values, dims = node.args[0], arguments(node).get("dim")
    found = _largest(values) if isinstance(values, Node) and values.args else None
    if found is None or found[0].target is not aten.softmax.int:
        return 0.0
    chances, along = found
    rank = chances.meta["val"].dim()
    size = chances.meta["val"].shape[along]
    summed = dims is not None and [dim % rank for dim in dims] == [along % rank]
    along_too: Any = chances.args[1]
    if not summed or along_too % rank != along % rank or not isinstance(size, int):
        return 0.0
    return 0.5 / size


def _largest(values: Node) -> tuple[Node, int] | None:
    """Of what, and along which dimension, these are the largest: ``topk``'s, or what is picked by
    the places of the largest."""
    source: Any = values.args[0]
    if source.target is aten.topk.default and values.args[1] == 0:
        given = arguments(source)
        return (given["self"], given["dim"]) if given["largest"] else None
    if values.target is not aten.sum.dim_IntList or source.target is not aten.mul.Tensor:
        return None
    places, line = source.args
    if not isinstance(places, Node) or places.target is not PLACES_OF_LARGEST:
        return None
    while isinstance(line, Node) and line.target in (aten.unsqueeze.default, aten.movedim.int):
        line = line.args[0]
    found, _, dim, largest = places.args
    return (found, dim) if largest and line is found else None  # type: ignore[return-value]


def _least_of_constant(node: Node) -> float:
    module = node.graph.owning_module
    if not isinstance(module, GraphModule):
        return UNKNOWN
    held = attribute(module, str(node.target))
    if held.numel() == 0 or held.is_complex():
        return UNKNOWN
    least = float(held.detach().min())
    return UNKNOWN if math.isnan(least) else least


def _sum(node: Node, bound: Bound) -> float:
    alpha = arguments(node)["alpha"]
    if not isinstance(alpha, (int, float)) or alpha < 0:
        return UNKNOWN
    return bound(node.args[0]) + alpha * bound(node.args[1]) if alpha else bound(node.args[0])


def _difference(node: Node, bound: Bound) -> float:
    other, alpha = node.args[1], arguments(node)["alpha"]
    if isinstance(other, (int, float)) and isinstance(alpha, (int, float)):
        return bound(node.args[0]) - alpha * other
    return UNKNOWN


def _product(node: Node, bound: Bound) -> float:
    if node.args[0] is node.args[1]:
        return 0.0
    left, right = bound(node.args[0]), bound(node.args[1])
    if left >= 0 and right >= 0:
        return 0.0 if 0.0 in (left, right) else left * right
    return UNKNOWN


def _quotient(node: Node, bound: Bound) -> float:
    above, below = bound(node.args[0]), node.args[1]
    if isinstance(below, (int, float)):
        return above / below if below > 0 else UNKNOWN
    return 0.0 if above >= 0 and bound(below) >= 0 else UNKNOWN


def _power(node: Node, bound: Bound) -> float:
    exponent = node.args[1]
    if not isinstance(exponent, (int, float)):
        return 0.0 if bound(node.args[0]) >= 0 else UNKNOWN
    least = bound(node.args[0])
    if least > 0 and exponent > 0:
        return float(min(least, 1.0) ** exponent)
    return 0.0 if least >= 0 or exponent % 2 == 0 else UNKNOWN


def _root(node: Node, bound: Bound) -> float:
    least = bound(node.args[0])
    return math.sqrt(least) if 0 < least < math.inf else 0.0


def _clamp(node: Node, bound: Bound) -> float:
    named = arguments(node)
    low, high = named.get("min"), named.get("max")
    least = max(bound(node.args[0]), UNKNOWN if low is None else bound(low))
    return least if high is None else min(least, bound(high))


def _greater(node: Node, bound: Bound) -> float:
    return max(bound(node.args[0]), bound(node.args[1]))


def _lesser(node: Node, bound: Bound) -> float:
    return min(bound(node.args[0]), bound(node.args[1]))


def _choice(node: Node, bound: Bound) -> float:
    return min(bound(node.args[1]), bound(node.args[2]))


def _filled(node: Node, bound: Bound) -> float:
    return min(bound(node.args[0]), bound(node.args[2]))


def _comparison(node: Node, bound: Bound) -> float:
    """1 where it is true of every integer; not-a-number is neither less nor more."""
    value, other = node.args
    if not isinstance(value, Node) or value.meta["val"].is_floating_point():
        return 0.0
    if not isinstance(other, (int, float)):
        return 0.0
    least = bound(value)
    return float(least >= other if node.target is aten.ge.Scalar else least > other)


def _conjunction(node: Node, bound: Bound) -> float:
    if node.meta["val"].dtype != torch.bool:
        return UNKNOWN
    return float(all(bound(item) >= 1 for item in node.args))


def _range(node: Node, bound: Bound) -> float:
    """Of positive steps the first one."""
    named = arguments(node)
    start, step = named.get("start", 0), named.get("step", 1)
    ascending = isinstance(step, (int, float)) and step > 0
    return float(start) if ascending and isinstance(start, (int, float)) else UNKNOWN


def _joined(node: Node, bound: Bound) -> float:
    parts = node.args[0]
    return min(map(bound, parts)) if isinstance(parts, (list, tuple)) and parts else UNKNOWN


def _dequantized(node: Node, bound: Bound) -> float:
    """Zero is a value of each quantization, and none that is more comes to less."""
    source = node.args[0]
    if not isinstance(source, Node) or source.target is not quantized.quantize_per_tensor.default:
        return UNKNOWN
    return 0.0 if bound(source.args[0]) >= 0 else UNKNOWN


_RULES: dict[Any, Callable[[Node, Bound], float]] = {
    aten.add.Tensor: _sum, aten.add.Scalar: _sum,
    aten.sub.Tensor: _difference, aten.sub.Scalar: _difference,
    aten.mul.Tensor: _product, aten.mul.Scalar: _product,
    aten.div.Tensor: _quotient, aten.div.Scalar: _quotient,
    aten.pow.Tensor_Scalar: _power, aten.pow.Tensor_Tensor: _power,
    aten.sqrt.default: _root, aten.clamp.default: _clamp, aten.clamp.Tensor: _clamp,
    aten.clamp_min.default: _clamp, aten.clamp_min.Tensor: _clamp,
    aten.maximum.default: _greater, aten.max.other: _greater,
    aten.minimum.default: _lesser, aten.min.other: _lesser,
    aten.where.self: _choice, aten.where.ScalarOther: _choice, aten.where.ScalarSelf: _choice,
    aten.where.Scalar: _choice, aten.masked_fill.Scalar: _filled, aten.masked_fill.Tensor: _filled,
    aten.ge.Scalar: _comparison, aten.gt.Scalar: _comparison,
    aten.logical_and.default: _conjunction, aten.bitwise_and.Tensor: _conjunction,
    aten.__and__.Tensor: _conjunction, aten.arange.default: _range, aten.arange.start: _range,
    aten.arange.start_step: _range,
    aten.cat.default: _joined, aten.stack.default: _joined,
    quantized.dequantize_per_tensor.default: _dequantized,
}  # fmt: skip
