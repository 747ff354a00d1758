"""What values of a graph may be though all inputs are ordinary numbers: not a number, or huge.

No node of XNNPACK replaces not-a-number in the same way on every machine, so what chooses between
such values stays outside.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator

import torch
from torch.fx import Node

from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.bounds import lower_bound

aten = torch.ops.aten

#: May be not a number for ordinary inputs.
SUSPECTS = {
    aten.log.default, aten.log2.default, aten.log10.default, aten.log1p.default,
    aten.sqrt.default, aten.rsqrt.default, aten.div.Tensor, aten.reciprocal.default,
    aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, aten.logit.default, aten.tan.default,
    aten.div.Tensor_mode, aten.asin.default, aten.acos.default, aten.acosh.default,
    aten.atanh.default, aten.erfinv.default, aten.special_ndtri.default, aten.digamma.default,
    aten.polygamma.default, aten.fmod.Tensor, aten.fmod.Scalar, aten.remainder.Tensor,
    aten.remainder.Scalar, aten.remainder.Scalar_Tensor, aten.xlogy.Tensor,
    aten.xlogy.Scalar_Self, aten.xlogy.Scalar_Other, aten.special_xlog1py.default,
    aten.special_xlog1py.self_scalar, aten.special_xlog1py.other_scalar,
}  # fmt: skip


def may_be_nan(node: Node) -> bool:
    """Whether a suspect stands before ``node``, element-wise operators between them at most."""
    return any(is_suspect(item) for item in _elementwise(node))


def is_suspect(node: Node) -> bool:
    """Whether ``node`` may make what is not a number of ordinary numbers."""
    if node.target in SUSPECTS and not _is_harmless(node):
        return True
    if node.target in (*SOFTMAXES, *LOG_SOFTMAXES):
        return _may_be_masked_whole(node.args[0], node.args[1])
    if node.target is aten.sub.Tensor and isinstance(node.args[1], Node):
        return _is_infinite_where_masked_whole(node.args[1])
    if torch.Tag.pointwise not in getattr(node.target, "tags", ()):
        return False
    constants = [constant for value in node.args if (constant := _constant(value)) is not None]
    if any(bool(constant.isnan().any()) for constant in constants):
        return True
    return node.target in PRODUCTS and any(bool(c.isinf().any()) for c in constants)


#: Of a row of minus infinity alone they are not a number.
SOFTMAXES = {aten.softmax.int, aten._softmax.default}
LOG_SOFTMAXES = {aten.log_softmax.int, aten._log_softmax.default}


def _is_infinite_where_masked_whole(greatest: Node) -> bool:
    """Whether it is the greatest number of each row, which may be minus infinity: what is
    subtracted from the row in a softmax that is written out."""
    if greatest.target is operator.getitem and greatest.args[1] == 0:
        (greatest,) = greatest.all_input_nodes
        if greatest.target is not aten.max.dim:
            return False
    elif greatest.target is not aten.amax.default:
        return False
    given = arguments(greatest)
    dim = given["dim"]
    if isinstance(dim, (list, tuple)) and len(dim) == 1:
        (dim,) = dim
    return _may_be_masked_whole(given["self"], dim)


def _may_be_masked_whole(scores: object, dim: object) -> bool:
    """Whether a row of ``scores`` may be minus infinity alone: that stands among the numbers of
    element-wise operators before them, or is a whole row of a constant there."""
    if not isinstance(scores, Node) or not isinstance(dim, int):
        return True
    from_end = dim if dim < 0 else dim - scores.meta["val"].dim()
    found: dict[Node, bool] = {}

    def hides(value: object) -> bool:
        constant = _constant(value)
        if constant is None:
            return isinstance(value, Node) and found.get(value, False)
        hidden = constant == -math.inf
        return bool((hidden.all(from_end) if constant.dim() >= -from_end else hidden).any())

    waiting = [scores]
    while waiting:  # no recursion: chains may be long
        node = waiting[-1]
        greatest = node.target in GREATEST
        inner = node.all_input_nodes if greatest or _is_elementwise(node) else []
        unknown = [item for item in inner if item not in found]
        waiting.extend(unknown)
        if not unknown:
            waiting.pop()
            parts = map(hides, node.args[:2] if greatest else node.args)
            found[node] = bool(inner) and (all(parts) if greatest else any(parts))
    return hides(scores)


#: The greatest of two.
GREATEST = {aten.maximum.default, aten.clamp_min.default, aten.clamp_min.Tensor}


#: Infinity times zero is not a number.
PRODUCTS = {aten.mul.Tensor, aten.mul.Scalar}


def _constant(value: object) -> torch.Tensor | None:
    """A number or constant, if it is floating-point."""
    if isinstance(value, float):
        return torch.tensor(value)
    if not isinstance(value, Node) or value.op != "get_attr":
        return None
    module = value.graph.owning_module
    constant = None if module is None else attribute(module, str(value.target))
    return constant if constant is not None and constant.is_floating_point() else None


#: May be infinite, or so large that more of it is, for ordinary inputs.
GROWS = {
    aten.exp.default, aten.exp2.default, aten.expm1.default, aten.sinh.default, aten.cosh.default,
    aten.reciprocal.default, aten.rsqrt.default, aten.log.default, aten.div.Tensor,
    aten.pow.Tensor_Tensor, aten.pow.Scalar, aten.atanh.default, aten.logit.default,
}  # fmt: skip


def may_be_infinite(node: Node) -> bool:
    """Whether something that grows beyond all numbers, or an infinite or huge constant, stands
    before ``node``, element-wise operators between them at most."""
    if node.op == "get_attr":
        return _is_huge(node, math.inf)
    return any(
        item.target in GROWS or any(_is_huge(value, math.inf) for value in item.args)
        for item in _elementwise(node)
    )


#: Beyond this, and before infinity, XNNPACK's sigmoid is not a number.
LARGEST_OF_SIGMOID = 5e26
LARGEST = float(torch.finfo(torch.float32).max)


def may_be_huge(node: object) -> bool:
    """Whether a huge number (the lowest float32, as masks have it) was put into ``node``, with
    element-wise operators behind it at most."""
    if not isinstance(node, Node):
        return False
    return any(_is_huge(value) for item in _elementwise(node) for value in (item, *item.args))


def _is_huge(value: object, most: float = LARGEST) -> bool:
    """Whether a number or constant is beyond LARGEST_OF_SIGMOID, and not beyond ``most``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return LARGEST_OF_SIGMOID < abs(value) <= most
    constant = _constant(value)
    if constant is None:
        return False
    size = constant.abs()
    return bool(((size > LARGEST_OF_SIGMOID) & (size <= most)).any())


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
        if _is_elementwise(item):
            waiting.extend(item.all_input_nodes)


#: Element-wise operators that torch does not tag so.
UNTAGGED = {
    aten.where.Scalar, aten.where.ScalarOther, aten.where.ScalarSelf, aten.masked_fill.Tensor,
}  # fmt: skip


def _is_elementwise(node: Node) -> bool:
    """Views are."""
    if node.target in UNTAGGED:
        return True
    tags = getattr(node.target, "tags", ())
    return torch.Tag.pointwise in tags or torch.Tag.core in tags and _is_view(node)


#: Below this is no float32 that keeps all its digits, and what is above may not become zero.
SMALLEST = float(torch.finfo(torch.float32).tiny)

#: A number for each number that is not negative.
OF_NOT_NEGATIVE = {
    aten.log.default, aten.log2.default, aten.log10.default, aten.log1p.default,
    aten.sqrt.default, aten.rsqrt.default, aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor,
}  # fmt: skip
QUOTIENTS = {
    aten.div.Tensor, aten.div.Tensor_mode, aten.fmod.Tensor, aten.fmod.Scalar,
    aten.remainder.Tensor, aten.remainder.Scalar, aten.remainder.Scalar_Tensor,
}  # fmt: skip
#: Products with a logarithm of the second.
LOGARITHMIC = {aten.xlogy.Tensor, aten.xlogy.Scalar_Self, aten.xlogy.Scalar_Other}


def _is_harmless(node: Node) -> bool:
    """A quotient by a number, by constants other than zero or by what is known to be positive, a
    whole power, a root or logarithm of what is known not to be negative."""
    if node.target in OF_NOT_NEGATIVE and lower_bound(node.args[0]) >= 0:
        return True
    if node.target is aten.reciprocal.default:
        return lower_bound(node.args[0]) >= SMALLEST
    if node.target in LOGARITHMIC:
        return lower_bound(node.args[1]) >= 0
    if node.target in QUOTIENTS and lower_bound(node.args[1]) >= SMALLEST:
        return True
    other = node.args[1] if len(node.args) > 1 else None
    if isinstance(other, Node) and other.op == "get_attr" and node.target in QUOTIENTS:
        module = node.graph.owning_module
        return module is not None and bool(attribute(module, str(other.target)).all())
    if not isinstance(other, (int, float)):
        return False
    if node.target in QUOTIENTS:
        return other != 0
    return "pow" in str(node.target) and other >= 0 and other == int(other)


def _is_view(node: Node) -> bool:
    returns = node.target._schema.returns  # type: ignore[union-attr]
    return bool(returns) and returns[0].alias_info is not None
