"""Functions of one number, and of two, that XNNPACK lacks: composed from those it has."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import choices, extremes, gather
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import FLOATS, of_numbers
from penstock.compiler.delegate.operators.registry import operator
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.graph.kinds import NodeKind

aten = torch.ops.aten


def _unary(b: GraphBuilder, x: Tensor, *kinds: NodeKind) -> Tensor:
    """The nodes one after the other."""
    for kind in kinds:
        x = b.unary(kind, x)
    return x


# --- exponentials and logarithms ---------------------------------------------------------------


@operator("exp2", aten.exp2.default, constraints=FLOATS)
def lower_exp2(b: GraphBuilder, node: Node) -> Tensor:
    return extremes.exponential(b, ex.affine(b, b.tensor(node.args[0]), math.log(2), 0.0))


@operator("log2", aten.log2.default, constraints=FLOATS)
def lower_log2(b: GraphBuilder, node: Node) -> Tensor:
    return ex.affine(b, extremes.logarithm(b, b.tensor(node.args[0])), 1 / math.log(2), 0.0)


@operator("log10", aten.log10.default, constraints=FLOATS)
def lower_log10(b: GraphBuilder, node: Node) -> Tensor:
    return ex.affine(b, extremes.logarithm(b, b.tensor(node.args[0])), 1 / math.log(10), 0.0)


@operator("expm1", aten.expm1.default, constraints=FLOATS)
def lower_expm1(b: GraphBuilder, node: Node) -> Tensor:
    """``tanh(x / 2) * (exp(x) + 1)``, which loses no digits near zero."""
    x = b.tensor(node.args[0])
    half = _unary(b, ex.affine(b, x, 0.5, 0.0), NodeKind.TANH)
    return ex.multiply(b, half, ex.affine(b, _unary(b, x, NodeKind.EXP), 1.0, 1.0))


@operator("log1p", aten.log1p.default, constraints=FLOATS, notes="within 2e-7")
def lower_log1p(b: GraphBuilder, node: Node) -> Tensor:
    return extremes.logarithm(b, ex.affine(b, b.tensor(node.args[0]), 1.0, 1.0))


@operator("logit", aten.logit.default, constraints=FLOATS)
def lower_logit(b: GraphBuilder, node: Node) -> Tensor:
    x, eps = b.tensor(node.args[0]), arguments(node)["eps"]
    if eps is not None:
        x = b.unary(NodeKind.CLAMP, x, None, (float(eps), 1 - float(eps)))
    rest = ex.subtract(b, ex.scalar(b, 1.0), x)
    return extremes.logarithm(b, ex.divide(b, x, rest))


# --- powers ------------------------------------------------------------------------------------


@operator("pow of a number", aten.pow.Scalar, constraints=FLOATS, notes="a positive base")
def lower_scalar_pow(b: GraphBuilder, node: Node) -> Tensor:
    base = float(arguments(node)["self"])
    if not base > 0:
        raise LoweringError(f"its base is {base}, a power is composed for positive ones")
    x = b.tensor(node.args[1])
    if base == 1.0:
        return b.expand(ex.scalar(b, 1.0), x.shape)
    return extremes.exponential(b, ex.affine(b, x, math.log(base), 0.0))


# --- hyperbolic, trigonometric, error function -------------------------------------------------


@operator("cosh", aten.cosh.default, constraints=FLOATS)
def lower_cosh(b: GraphBuilder, node: Node) -> Tensor:
    return _cosh(b, b.tensor(node.args[0]))


def _cosh(b: GraphBuilder, x: Tensor) -> Tensor:
    """From ``exp(x / 2)``, whose half square overflows where the result does and not before."""
    half = ex.affine(b, x, 0.5, 0.0)
    up, down = extremes.exponential(b, half), _unary(b, half, NodeKind.NEGATE, NodeKind.EXP)
    halves = [ex.multiply(b, ex.affine(b, one, 0.5, 0.0), one) for one in (up, down)]
    return ex.add(b, *halves)


@operator("sinh", aten.sinh.default, constraints=FLOATS)
def lower_sinh(b: GraphBuilder, node: Node) -> Tensor:
    """``tanh(x) * cosh(x)``, which loses no digits near zero."""
    x = b.tensor(node.args[0])
    return ex.multiply(b, _unary(b, x, NodeKind.TANH), _cosh(b, x))


@operator("tan", aten.tan.default, constraints=FLOATS)
def lower_tan(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    return ex.divide(b, _unary(b, x, NodeKind.SIN), _unary(b, x, NodeKind.COS))


#: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: error at most 1.5e-7.
ERF_SLOPE = 0.3275911
ERF_COEFFICIENTS = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


@operator("erf", aten.erf.default, constraints=FLOATS, notes="within 5e-7")
def lower_erf(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    size = _unary(b, x, NodeKind.ABS)
    t = ex.divide(b, ex.scalar(b, 1.0), ex.affine(b, size, ERF_SLOPE, 1.0))
    series = ex.affine(b, t, *ERF_COEFFICIENTS[:2])
    for coefficient in ERF_COEFFICIENTS[2:]:
        series = ex.affine(b, ex.multiply(b, series, t), 1.0, coefficient)
    bell = _unary(b, x, NodeKind.SQUARE, NodeKind.NEGATE, NodeKind.EXP)
    rest = ex.multiply(b, ex.multiply(b, series, t), bell)
    return ex.multiply(b, choices.sign(b, x), choices.complement(b, rest))


# --- whole numbers -----------------------------------------------------------------------------


def truncated(b: GraphBuilder, x: Tensor) -> Tensor:
    """Rounded towards zero."""
    down = _unary(b, b.unary(NodeKind.CLAMP, x, None, ex.RELU), NodeKind.FLOOR)
    up = _unary(b, b.unary(NodeKind.CLAMP, x, None, (-math.inf, 0.0)), NodeKind.CEILING)
    return ex.add(b, down, up)


@operator("trunc", aten.trunc.default, aten.fix.default, constraints=FLOATS)
def lower_trunc(b: GraphBuilder, node: Node) -> Tensor:
    return truncated(b, b.tensor(node.args[0]))


@operator("frac", aten.frac.default, constraints=FLOATS)
def lower_frac(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    return ex.subtract(b, x, truncated(b, x))


#: Added to a float32 of less than half of it, it leaves no bits for a fraction.
ROUNDER = 1.5 * 2.0**23


@operator("round", aten.round.default, constraints=FLOATS, notes="halves to even")
def lower_round(b: GraphBuilder, node: Node) -> Tensor:
    """Adding and taking off 1.5 * 2**23 rounds as float32 does; what is larger than 2**22 only
    adds what it exceeds that by."""
    x = b.tensor(node.args[0])
    limit = 2.0**22
    near = b.unary(NodeKind.CLAMP, x, None, (-limit, limit))
    rounded = ex.affine(b, ex.affine(b, near, 1.0, ROUNDER), 1.0, -ROUNDER)
    return ex.add(b, rounded, ex.subtract(b, x, near))


def _divisor(argument: Any) -> float:
    """A constant divisor by which float32 divides exactly."""
    if isinstance(argument, Node):
        raise LoweringError(
            "its divisor is computed at run time, whole quotients take a constant one"
        )
    value = float(argument)
    if value == 0 or math.frexp(value)[0] not in (0.5, -0.5):
        raise LoweringError(
            f"how its quotient by {value:g} is rounded hangs on a last bit that XNNPACK has not"
        )
    return value


@operator(
    "floor_divide", aten.floor_divide.default, aten.floor_divide.Scalar, constraints=FLOATS,
    notes="by a power of two",
)  # fmt: skip
def lower_floor_divide(b: GraphBuilder, node: Node) -> Tensor:
    return _floor_quotient(b, node)


def _floor_quotient(b: GraphBuilder, node: Node) -> Tensor:
    x, divisor = b.tensor(node.args[0]), _divisor(node.args[1])
    quotient = _unary(b, ex.affine(b, x, 1 / divisor, 0.0), NodeKind.FLOOR)
    return extremes.nan_at_infinity(b, x, quotient)


@operator(
    "div with rounding", aten.div.Tensor_mode, aten.div.Scalar_mode, constraints=FLOATS,
    notes="towards zero; down by a power of two",
)  # fmt: skip
def lower_div_mode(b: GraphBuilder, node: Node) -> Tensor:
    mode = arguments(node)["rounding_mode"]
    if mode == "floor":
        return _floor_quotient(b, node)
    quotient = ex.divide(b, b.tensor(node.args[0]), b.tensor(node.args[1]))
    return truncated(b, quotient) if mode == "trunc" else quotient


def _remainder(whole: Callable[[GraphBuilder, Tensor], Tensor]) -> Any:
    def lower(b: GraphBuilder, node: Node) -> Tensor:
        x, divisor = b.tensor(node.args[0]), _divisor(node.args[1])
        if abs(divisor) >= 1.0:
            quotient = whole(b, ex.affine(b, x, 1 / divisor, 0.0))
            return ex.subtract(b, x, ex.affine(b, quotient, divisor, 0.0))
        # What is beyond all fractions has no remainder; its quotient might overflow.
        limit = 2.0**24 * abs(divisor)
        near = b.unary(NodeKind.CLAMP, x, None, (-limit, limit))
        quotient = whole(b, ex.affine(b, near, 1 / divisor, 0.0))
        rest = ex.subtract(b, near, ex.affine(b, quotient, divisor, 0.0))
        return extremes.nan_at_infinity(b, x, rest)

    return lower


operator(
    "remainder", aten.remainder.Scalar, aten.remainder.Tensor, constraints=FLOATS,
    notes="by a power of two",
)(_remainder(lambda b, x: _unary(b, x, NodeKind.FLOOR)))  # fmt: skip
operator("fmod", aten.fmod.Scalar, aten.fmod.Tensor, constraints=FLOATS, notes="by a power of two")(
    _remainder(truncated)
)


@operator("sign", aten.sign.default, aten.sgn.default, constraints=(*FLOATS, of_numbers))
def lower_sign(b: GraphBuilder, node: Node) -> Tensor:
    return choices.sign(b, b.tensor(node.args[0]))


# --- of two and three tensors ------------------------------------------------------------------


@operator(
    "xlogy", aten.xlogy.Tensor, aten.xlogy.Scalar_Self, aten.xlogy.Scalar_Other, constraints=FLOATS
)
def lower_xlogy(b: GraphBuilder, node: Node) -> Tensor:
    """``x * log(y)``, of ``log(1)`` where ``x`` is zero."""
    x, y = (b.tensor(item) for item in node.args[:2])
    shape = layout.broadcast(x.shape, y.shape)
    if y.constant is not None and _are_ordinary(y):
        return b.expand(ex.multiply(b, x, b.constant(y.real().log())), shape)
    if x.constant is not None:
        is_zero = b.constant((x.real() == 0).to(torch.float32))
    else:
        is_zero = choices.complement(b, choices.differs(b, x))
    if node.args[0] is node.args[1]:
        y = ex.add(b, y, is_zero)
    else:
        y = choices.choose(b, is_zero, ex.scalar(b, 1.0), y)
    return ex.multiply(b, x, extremes.logarithm(b, y))


def _are_ordinary(constant: Tensor) -> bool:
    """Whether all logarithms are finite."""
    return bool(((constant.real() > 0) & constant.real().isfinite()).all())


@operator("hypot", aten.hypot.default, constraints=FLOATS)
def lower_hypot(b: GraphBuilder, node: Node) -> Tensor:
    """``large * sqrt(1 + (small / large)**2)``, whose squares neither overflow nor vanish."""
    sides = [_unary(b, b.tensor(item), NodeKind.ABS) for item in node.args[:2]]
    large = b.binary(NodeKind.MAXIMUM, sides[0], sides[1])
    small = b.binary(NodeKind.MINIMUM, sides[0], sides[1])
    most = torch.finfo(torch.float32).max
    bounds = (torch.finfo(torch.float32).tiny, most)
    ratio = ex.divide(
        b,
        b.unary(NodeKind.CLAMP, small, None, (0.0, most)),
        b.unary(NodeKind.CLAMP, large, None, bounds),
    )
    length = ex.affine(b, _unary(b, ratio, NodeKind.SQUARE), 1.0, 1.0)
    result = ex.multiply(b, large, _unary(b, length, NodeKind.SQUARE_ROOT))
    return extremes.nan_kept(b, sides[0], result)


@operator("addcmul", aten.addcmul.default, constraints=FLOATS)
def lower_addcmul(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    left = ex.affine(b, b.tensor(named["tensor1"]), float(named["value"]), 0.0)
    return ex.add(b, b.tensor(node.args[0]), ex.multiply(b, left, b.tensor(named["tensor2"])))


@operator("addcdiv", aten.addcdiv.default, constraints=FLOATS)
def lower_addcdiv(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    left = ex.affine(b, b.tensor(named["tensor1"]), float(named["value"]), 0.0)
    return ex.add(b, b.tensor(node.args[0]), ex.divide(b, left, b.tensor(named["tensor2"])))


@operator("lerp", aten.lerp.Scalar, aten.lerp.Tensor, constraints=FLOATS)
def lower_lerp(b: GraphBuilder, node: Node) -> Tensor:
    """From the nearer end, as PyTorch computes it, where it is known which one that is."""
    start, end, weight = (b.tensor(item) for item in node.args[:3])
    way = ex.subtract(b, end, start)
    if weight.constant is not None and bool((weight.real().abs() >= 0.5).all()):
        return ex.subtract(b, end, ex.multiply(b, b.constant(1.0 - weight.real()), way))
    return ex.add(b, start, ex.multiply(b, weight, way))


@operator("cross", aten.linalg_cross.default, constraints=FLOATS)
def lower_cross(b: GraphBuilder, node: Node) -> Tensor:
    """Each component from the two others, which a roll brings beside each other."""
    named = arguments(node)
    left, right = (b.tensor(item) for item in node.args[:2])
    rank = max(left.rank, right.rank)
    dim = int(named["dim"]) % rank

    def rolled(x: Tensor, shift: int) -> Tensor:
        return gather.roll(b, x, {dim - rank + x.rank: -shift})

    first = ex.multiply(b, rolled(left, 1), rolled(right, 2))
    return ex.subtract(b, first, ex.multiply(b, rolled(left, 2), rolled(right, 1)))


@operator(
    "clamp by tensors", aten.clamp.Tensor, aten.clamp_min.Tensor, aten.clamp_max.Tensor,
    constraints=FLOATS,
)  # fmt: skip
def lower_clamp_tensor(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(node.args[0])
    if named.get("min") is not None:
        x = b.binary(NodeKind.MAXIMUM, b.tensor(named["min"]), x)
    if named.get("max") is not None:
        x = b.binary(NodeKind.MINIMUM, b.tensor(named["max"]), x)
    return x
