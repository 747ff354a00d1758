"""Keep rows of a softmax that are masked as a whole from being not-a-number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators.comparison import NOT
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.edit import get_attribute
from penstock.compiler.fx.finiteness import SOFTMAXES

aten = torch.ops.aten

LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class _Fill:
    """``x`` with ``value``, argument ``place`` of the node, where ``mask`` is ``if_set``."""

    x: object
    mask: object
    if_set: bool
    value: float | Node
    place: int


def apply(module: GraphModule) -> int:
    """Given ``masked_fill(softmax(masked_fill(x, mask, -inf)), mask, value)``, or the same by
    ``where`` → Result: the lowest number instead of minus infinity. Rows that are masked as a whole
    are not a number in between otherwise, which is chosen outside XNNPACK."""
    return sum(_soften(module, node) for node in list(module.graph.nodes))


def _soften(module: GraphModule, node: Node) -> bool:
    outer = _fill(node)
    softmax = outer.x if outer else None
    if outer is None or not isinstance(softmax, Node) or softmax.target not in SOFTMAXES:
        return False
    scores = softmax.args[0]
    inner = _fill(scores) if isinstance(scores, Node) else None
    if inner is None or not isinstance(scores, Node):
        return False
    if len(softmax.users) != 1 or len(scores.users) != 1 or inner.if_set is not outer.if_set:
        return False
    if not _is_minus_infinity(module, inner.value) or inner.mask is not outer.mask:
        return False
    lowest: float | Node = LOWEST
    if isinstance(inner.value, Node):
        number = torch.full_like(attribute(module, str(inner.value.target)), LOWEST)
        lowest = get_attribute(module, scores, number, "_lowest")
    scores.update_arg(inner.place, lowest)
    return True


def _fill(node: Node) -> _Fill | None:
    if node.target in (aten.masked_fill.Scalar, aten.masked_fill.Tensor):
        x, mask, value = (arguments(node)[name] for name in ("self", "mask", "value"))
        return _Fill(x, *_without_not(mask, True), value, 2)
    if node.target in (aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf):
        mask, left, right = node.args
        for place, value, x in ((1, left, right), (2, right, left)):
            if isinstance(value, float) or isinstance(value, Node) and value.op == "get_attr":
                return _Fill(x, *_without_not(mask, place == 1), value, place)
    return None


def _without_not(mask: object, if_set: bool) -> tuple[object, bool]:
    while isinstance(mask, Node) and mask.target in NOT:
        mask, if_set = mask.args[0], not if_set
    return mask, if_set


def _is_minus_infinity(module: GraphModule, value: float | Node) -> bool:
    if isinstance(value, Node):
        if value.op != "get_attr":
            return False
        return bool((attribute(module, str(value.target)) == -math.inf).all())
    return value == -math.inf
