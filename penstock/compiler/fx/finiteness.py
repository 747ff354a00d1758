"""What values of a graph may be though all inputs are ordinary numbers: not a number, or huge.

No node of XNNPACK replaces not-a-number in the same way on every machine, so what chooses between
such values stays outside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch.fx import Node

from penstock.compiler.fx.attributes import attribute

aten = torch.ops.aten

#: May be not a number for ordinary inputs.
SUSPECTS = {
    aten.log.default, aten.log2.default, aten.log10.default, aten.log1p.default,
    aten.sqrt.default, aten.rsqrt.default, aten.div.Tensor, aten.reciprocal.default,
    aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, aten.logit.default, aten.tan.default,
    aten.div.Tensor_mode, aten.asin.default, aten.acos.default, aten.acosh.default,
    aten.atanh.default,
}  # fmt: skip


def may_be_nan(node: Node) -> bool:
    """Whether a suspect stands before ``node``, element-wise operators between them at most."""
    return any(item.target in SUSPECTS and not _is_harmless(item) for item in _elementwise(node))


#: Beyond this, and before infinity, XNNPACK's sigmoid is not a number.
LARGEST_OF_SIGMOID = 5e26


def may_be_huge(node: object) -> bool:
    """Whether a huge number (the lowest float32, as masks have it) was put into ``node``, with
    element-wise operators behind it at most."""
    if not isinstance(node, Node):
        return False
    return any(_is_huge(value) for item in _elementwise(node) for value in (item, *item.args))


def _is_huge(value: object) -> bool:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return LARGEST_OF_SIGMOID < abs(value) < math.inf
    if not isinstance(value, Node) or value.op != "get_attr":
        return False
    module = value.graph.owning_module
    if module is None:
        return False
    constant = attribute(module, str(value.target))
    size = constant.abs() if constant.is_floating_point() else torch.zeros(1)
    return bool(((size > LARGEST_OF_SIGMOID) & (size < math.inf)).any())


def _elementwise(node: Node) -> Iterator[Node]:
    """``node`` and what stands before it, as far as operators are element-wise or views."""
    seen: set[Node] = set()
    waiting = [node]
    while waiting:
        item = waiting.pop()
        if item in seen or item.op != "call_function":
            continue
        seen.add(item)
        yield item
        tags = getattr(item.target, "tags", ())
        if torch.Tag.pointwise in tags or torch.Tag.core in tags and _is_view(item):
            waiting.extend(item.all_input_nodes)


def _is_harmless(node: Node) -> bool:
    """A quotient by a number or by constants other than zero, a whole power."""
    other = node.args[1] if len(node.args) > 1 else None
    if isinstance(other, Node) and other.op == "get_attr" and "div" in str(node.target):
        module = node.graph.owning_module
        return module is not None and bool(attribute(module, str(other.target)).all())
    if not isinstance(other, (int, float)):
        return False
    return other != 0 if "div" in str(node.target) else other >= 0 and other == int(other)


def _is_view(node: Node) -> bool:
    returns = node.target._schema.returns  # type: ignore[union-attr]
    return bool(returns) and returns[0].alias_info is not None
