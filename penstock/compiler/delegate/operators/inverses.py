"""Inverse functions, logarithms of sums and what goes by a sign: composed, all within a few units
in the last place of float32.

The polynomials are least-maximum fits of the relative error, in the square of the argument.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import choices, extremes
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import Tensor
from penstock.compiler.delegate.operators.constraints import FLOATS, of_numbers
from penstock.compiler.delegate.operators.registry import operator
from penstock.graph.kinds import NodeKind

aten = torch.ops.aten

#: ``atan(t) = t + t * z * P(z)`` for z = t², t from 0 to 1: relative error 1.7e-8.
ATAN = (
    0.00292068867, -0.0163679137, 0.0432118376, -0.0755221232, 0.106660037, -0.142110551,
    0.199937728, -0.333331527,
)  # fmt: skip
#: ``asin(s) = s + s * z * P(z)`` for z = s², s from 0 to 1/2: relative error 3e-10.
ASIN = (0.0375652131, 0.0144025983, 0.0318176133, 0.0445157201, 0.0750051092, 0.166666599)

TINY, LARGEST = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max


def _odd(b: GraphBuilder, t: Tensor, z: Tensor, coefficients: Sequence[float]) -> Tensor:
    """``t + t * z * P(z)``, the highest power's coefficient first."""
    series = ex.affine(b, z, *coefficients[:2])
    for coefficient in coefficients[2:]:
        series = ex.affine(b, ex.multiply(b, series, z), 1.0, coefficient)
    return ex.add(b, t, ex.multiply(b, t, ex.multiply(b, z, series)))


def _absolute(b: GraphBuilder, x: Tensor) -> Tensor:
    return b.unary(NodeKind.ABS, x)


def _signum(b: GraphBuilder, x: Tensor) -> Tensor:
    """-1 or 1; of zeros, the sign that their reciprocals have."""
    reciprocal = ex.divide(b, ex.scalar(b, 1.0), x)
    near = ex.add(b, choices.sign(b, reciprocal), choices.sign(b, x))
    return b.unary(NodeKind.CLAMP, near, None, (-1.0, 1.0))


def _select(b: GraphBuilder, mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """``yes`` where ``mask`` is 1, else ``no``, of which what is not chosen must be finite."""
    return ex.add(b, ex.multiply(b, mask, yes), ex.multiply(b, choices.complement(b, mask), no))


# --- trigonometric -----------------------------------------------------------------------------


@operator("atan", aten.atan.default, constraints=FLOATS, notes="within 2e-7")
def lower_atan(b: GraphBuilder, node: Node) -> Tensor:
    """Beyond 1 from the reciprocal: ``pi / 2 - atan(1 / x)``."""
    x = b.tensor(node.args[0])
    size = _absolute(b, x)
    large = choices.step(b, ex.affine(b, size, 1.0, -1.0))
    within = b.unary(NodeKind.CLAMP, size, None, (0.0, 1.0))
    beyond = b.unary(NodeKind.CLAMP, size, None, (1.0, math.inf))
    t = ex.divide(b, within, beyond)
    angle = _odd(b, t, b.unary(NodeKind.SQUARE, t), ATAN)
    turned = ex.subtract(b, ex.scalar(b, math.pi / 2), angle)
    return ex.multiply(b, choices.sign(b, x), _select(b, large, turned, angle))


@operator("atan2", aten.atan2.default, constraints=FLOATS, notes="within 4e-7")
def lower_atan2(b: GraphBuilder, node: Node) -> Tensor:
    """The angle to the nearer axis, turned into its octant."""
    y, x = (b.tensor(item) for item in node.args[:2])
    rise, run = _absolute(b, y), _absolute(b, x)
    steep = choices.step(b, choices.difference(b, rise, run))
    small = b.binary(NodeKind.MINIMUM, rise, run)
    large = b.binary(NodeKind.MAXIMUM, rise, run)
    t = ex.divide(
        b,
        b.unary(NodeKind.CLAMP, small, None, (0.0, LARGEST)),
        b.unary(NodeKind.CLAMP, large, None, (TINY, LARGEST)),
    )
    angle = _odd(b, t, b.unary(NodeKind.SQUARE, t), ATAN)
    angle = _select(b, steep, ex.affine(b, angle, -1.0, math.pi / 2), angle)
    backwards = choices.step(b, b.unary(NodeKind.NEGATE, _signum(b, x)))
    angle = _select(b, backwards, ex.affine(b, angle, -1.0, math.pi), angle)
    result = ex.multiply(b, _signum(b, y), angle)
    return extremes.nan_kept(b, y, extremes.nan_kept(b, x, result))


def _arc(b: GraphBuilder, x: Tensor) -> tuple[Tensor, Tensor]:
    """(where ``|x|`` is more than 1/2, the arc sine of ``|x|`` or else of ``sqrt((1 - |x|) / 2)``).
    Not a number beyond 1."""
    size = _absolute(b, x)
    rest = ex.affine(b, size, -0.5, 0.5)
    root = extremes.square_root(b, rest)
    s = b.binary(NodeKind.MINIMUM, root, size)
    arc = _odd(b, s, b.unary(NodeKind.SQUARE, s), ASIN)
    return choices.step(b, ex.affine(b, size, 1.0, -0.5)), extremes.nan_kept(b, root, arc)


@operator("asin", aten.asin.default, constraints=FLOATS, notes="within 4e-7")
def lower_asin(b: GraphBuilder, node: Node) -> Tensor:
    """Beyond 1/2 by the half angle: ``pi / 2 - 2 * asin(sqrt((1 - x) / 2))``."""
    x = b.tensor(node.args[0])
    large, arc = _arc(b, x)
    angle = _select(b, large, ex.affine(b, arc, -2.0, math.pi / 2), arc)
    return ex.multiply(b, choices.sign(b, x), angle)


@operator("acos", aten.acos.default, constraints=FLOATS, notes="within 4e-7")
def lower_acos(b: GraphBuilder, node: Node) -> Tensor:
    """Of ``|x|``, and what that is short of pi for negative numbers."""
    x = b.tensor(node.args[0])
    large, arc = _arc(b, x)
    angle = _select(b, large, ex.affine(b, arc, 2.0, 0.0), ex.affine(b, arc, -1.0, math.pi / 2))
    negative = choices.step(b, b.unary(NodeKind.NEGATE, x))
    return _select(b, negative, ex.affine(b, angle, -1.0, math.pi), angle)


# --- hyperbolic --------------------------------------------------------------------------------


#: ``atanh(t) = t + t * z * P(z)`` for z = t²: the series.
ATANH = (1 / 13, 1 / 11, 1 / 9, 1 / 7, 1 / 5, 1 / 3)


def _log1p(b: GraphBuilder, u: Tensor) -> Tensor:
    """``log(1 + u)`` for u from 0 on. The logarithm is exact to a part of 1; up to 1/2 it is
    ``2 * atanh(u / (2 + u))``, which loses no digits near zero."""
    border = 0.5
    small = b.unary(NodeKind.CLAMP, u, None, (0.0, border))
    t = ex.divide(b, small, ex.affine(b, small, 1.0, 2.0))
    near = ex.affine(b, _odd(b, t, b.unary(NodeKind.SQUARE, t), ATANH), 2.0, 0.0)
    far = b.unary(NodeKind.CLAMP, ex.affine(b, u, 1.0, 1.0), None, (1 + border, math.inf))
    large = choices.step(b, ex.affine(b, u, 1.0, -border))
    return _select(b, large, extremes.logarithm(b, far), near)


#: Beyond it, 1 is nothing beside a square.
FAR = 1e15


def _far(b: GraphBuilder, x: Tensor) -> tuple[Tensor, Tensor]:
    """(``x`` up to FAR, the logarithm of how often ``x`` is that)."""
    near = b.unary(NodeKind.CLAMP, x, None, (-math.inf, FAR))
    times = b.unary(NodeKind.CLAMP, ex.affine(b, x, 1 / FAR, 0.0), None, (1.0, math.inf))
    return near, extremes.logarithm(b, times)


@operator("asinh", aten.asinh.default, constraints=FLOATS, notes="within 1e-6 of the result")
def lower_asinh(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    size, beyond = _far(b, _absolute(b, x))
    square = b.unary(NodeKind.SQUARE, size)
    root = extremes.square_root(b, ex.affine(b, square, 1.0, 1.0))
    more = ex.divide(b, square, ex.affine(b, root, 1.0, 1.0))
    result = ex.add(b, _log1p(b, ex.add(b, size, more)), beyond)
    return ex.multiply(b, choices.sign(b, x), result)


@operator("acosh", aten.acosh.default, constraints=FLOATS, notes="within 1e-6 of the result")
def lower_acosh(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    near, beyond = _far(b, x)
    above = ex.affine(b, near, 1.0, -1.0)
    root = extremes.square_root(b, ex.multiply(b, above, ex.affine(b, above, 1.0, 2.0)))
    # Below 1 the product has a root again.
    valid = extremes.square_root(b, above)
    result = ex.add(b, _log1p(b, ex.add(b, above, root)), beyond)
    return extremes.nan_kept(b, valid, result)


@operator("atanh", aten.atanh.default, constraints=FLOATS, notes="within 1e-6 of the result")
def lower_atanh(b: GraphBuilder, node: Node) -> Tensor:
    """By its series up to 1/4, beyond as half the logarithm of ``(1 + x) / (1 - x)``."""
    x = b.tensor(node.args[0])
    size, border = _absolute(b, x), 0.25
    small = b.unary(NodeKind.CLAMP, size, None, (0.0, border))
    near = _odd(b, small, b.unary(NodeKind.SQUARE, small), ATANH)
    rest = b.unary(NodeKind.CLAMP, size, None, (border, math.inf))
    ratio = ex.divide(b, ex.affine(b, rest, 1.0, 1.0), ex.affine(b, rest, -1.0, 1.0))
    far = ex.affine(b, extremes.logarithm(b, ratio), 0.5, 0.0)
    large = choices.step(b, ex.affine(b, size, 1.0, -border))
    return ex.multiply(b, choices.sign(b, x), _select(b, large, far, near))


# --- logarithms of sums ------------------------------------------------------------------------


def _log_add(b: GraphBuilder, node: Node, base: float) -> Tensor:
    """``max(x, y) + log(1 + exp(-|x - y|))``; equal infinities are no distance apart."""
    sides = [b.tensor(item) for item in node.args[:2]]
    larger = b.binary(NodeKind.MAXIMUM, sides[0], sides[1])
    left, right = (b.unary(NodeKind.CLAMP, side, None, (-1e38, 1e38)) for side in sides)
    apart = _absolute(b, ex.subtract(b, left, right))
    small = extremes.exponential(b, ex.affine(b, apart, -math.log(base), 0.0))
    rest = extremes.logarithm(b, ex.affine(b, small, 1.0, 1.0))
    return ex.add(b, larger, ex.affine(b, rest, 1 / math.log(base), 0.0))


@operator(
    "logaddexp", aten.logaddexp.default, constraints=FLOATS, notes="within 3e-7 of the operands"
)
def lower_logaddexp(b: GraphBuilder, node: Node) -> Tensor:
    return _log_add(b, node, math.e)


@operator(
    "logaddexp2", aten.logaddexp2.default, constraints=FLOATS, notes="within 3e-7 of the operands"
)
def lower_logaddexp2(b: GraphBuilder, node: Node) -> Tensor:
    return _log_add(b, node, 2.0)


# --- others ------------------------------------------------------------------------------------


@operator("copysign", aten.copysign.Tensor, aten.copysign.Scalar, constraints=FLOATS)
def lower_copysign(b: GraphBuilder, node: Node) -> Tensor:
    size, sign = _absolute(b, b.tensor(node.args[0])), node.args[1]
    if isinstance(sign, Node):
        return ex.multiply(b, size, _signum(b, b.tensor(sign)))
    assert isinstance(sign, (int, float))
    return ex.multiply(b, size, ex.scalar(b, math.copysign(1.0, sign)))


@operator("sinc", aten.sinc.default, constraints=FLOATS)
def lower_sinc(b: GraphBuilder, node: Node) -> Tensor:
    angle = ex.affine(b, b.tensor(node.args[0]), math.pi, 0.0)
    zero = choices.complement(b, choices.differs(b, angle))
    sine = b.unary(NodeKind.SIN, angle)
    return ex.divide(b, ex.add(b, sine, zero), ex.add(b, angle, zero))


@operator("heaviside", aten.heaviside.default, constraints=(*FLOATS, of_numbers))
def lower_heaviside(b: GraphBuilder, node: Node) -> Tensor:
    x, at_zero = (b.tensor(item) for item in node.args[:2])
    return choices.choose(b, choices.differs(b, x), choices.step(b, x), at_zero)
