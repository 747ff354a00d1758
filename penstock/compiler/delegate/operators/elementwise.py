"""Arithmetic of two tensors and plain functions of one."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import Node

from penstock.compiler.delegate.fixed_point import product_fits, sum_fits
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering import extremes
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import FLOATS
from penstock.compiler.delegate.operators.registry import (
    Independent,
    OutputRange,
    QuantizationRule,
    Shared,
    operator,
)
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.graph.kinds import NodeKind

aten = torch.ops.aten


def _scaled(b: GraphBuilder, argument: Any, alpha: float) -> Tensor:
    tensor = b.tensor(argument)
    if alpha == 1:
        return tensor
    if tensor.constant is not None:
        return b.constant(tensor.real() * alpha)
    return ex.affine(b, tensor, float(alpha), 0.0)


def _terms(b: GraphBuilder, node: Node) -> tuple[Tensor, Tensor]:
    """The first operand, and the other times alpha."""
    named = arguments(node)
    other = _scaled(b, named["other"], named["alpha"])
    return b.tensor(named["self"]), other


@operator(
    "add", aten.add.Tensor, aten.add.Scalar, constraints=FLOATS,
    quantization=Independent((0, 1), fits=sum_fits, adds=True),
)  # fmt: skip
def lower_add(b: GraphBuilder, node: Node) -> Tensor:
    return ex.add(b, *_terms(b, node))


@operator(
    "sub", aten.sub.Tensor, aten.sub.Scalar, constraints=FLOATS,
    quantization=Independent((0, 1), fits=sum_fits, adds=True),
)  # fmt: skip
def lower_sub(b: GraphBuilder, node: Node) -> Tensor:
    return ex.subtract(b, *_terms(b, node))


@operator("rsub", aten.rsub.Tensor, aten.rsub.Scalar, constraints=FLOATS)
def lower_rsub(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    own = _scaled(b, named["self"], named["alpha"])
    return ex.subtract(b, b.tensor(named["other"]), own)


@operator(
    "mul", aten.mul.Tensor, aten.mul.Scalar, constraints=FLOATS,
    quantization=Independent((0, 1), fits=product_fits),
)  # fmt: skip
def lower_mul(b: GraphBuilder, node: Node) -> Tensor:
    left, right = node.args[:2]
    return ex.multiply(b, b.tensor(left), b.tensor(right))


@operator("div", aten.div.Tensor, aten.div.Scalar, constraints=FLOATS)
def lower_div(b: GraphBuilder, node: Node) -> Tensor:
    left, right = b.tensor(node.args[0]), b.tensor(node.args[1])
    if right.constant is not None and right.real().numel() == 1:
        value = float(right.real().reshape(()))
        if value != 0 and math.frexp(value)[0] in (0.5, -0.5):
            # A power of two has an exact reciprocal; multiplying is quicker.
            return ex.multiply(b, left, ex.scalar(b, 1.0 / value))
    return ex.divide(b, left, right)


@operator("reciprocal", aten.reciprocal.default, constraints=FLOATS)
def lower_reciprocal(b: GraphBuilder, node: Node) -> Tensor:
    return ex.divide(b, ex.scalar(b, 1.0), b.tensor(node.args[0]))


@operator("maximum", aten.maximum.default, aten.max.other, constraints=FLOATS)
def lower_maximum(b: GraphBuilder, node: Node) -> Tensor:
    return b.binary(NodeKind.MAXIMUM, b.tensor(node.args[0]), b.tensor(node.args[1]))


@operator("minimum", aten.minimum.default, aten.min.other, constraints=FLOATS)
def lower_minimum(b: GraphBuilder, node: Node) -> Tensor:
    return b.binary(NodeKind.MINIMUM, b.tensor(node.args[0]), b.tensor(node.args[1]))


#: ATen overload -> the XNNPACK node that is the same function
UNARY: dict[str, tuple[Any, NodeKind]] = {
    "abs": (aten.abs.default, NodeKind.ABS),
    "ceil": (aten.ceil.default, NodeKind.CEILING),
    "cos": (aten.cos.default, NodeKind.COS),
    "floor": (aten.floor.default, NodeKind.FLOOR),
    "neg": (aten.neg.default, NodeKind.NEGATE),
    "sin": (aten.sin.default, NodeKind.SIN),
    "square": (aten.square.default, NodeKind.SQUARE),
}


def _register_unary(name: str, target: Any, kind: NodeKind) -> None:
    @operator(name, target, constraints=FLOATS)
    def lower(b: GraphBuilder, node: Node) -> Tensor:
        return b.unary(kind, b.tensor(node.args[0]))


for _name, (_target, _kind) in UNARY.items():
    _register_unary(_name, _target, _kind)


@operator("exp", aten.exp.default, constraints=FLOATS)
def lower_exp(b: GraphBuilder, node: Node) -> Tensor:
    return extremes.exponential(b, b.tensor(node.args[0]))


@operator("log", aten.log.default, constraints=FLOATS)
def lower_log(b: GraphBuilder, node: Node) -> Tensor:
    return extremes.logarithm(b, b.tensor(node.args[0]))


@operator("sqrt", aten.sqrt.default, constraints=FLOATS)
def lower_sqrt(b: GraphBuilder, node: Node) -> Tensor:
    return extremes.square_root(b, b.tensor(node.args[0]))


@operator("rsqrt", aten.rsqrt.default, constraints=FLOATS)
def lower_rsqrt(b: GraphBuilder, node: Node) -> Tensor:
    return reciprocal_root(b, b.tensor(node.args[0]), node.args[0])


def reciprocal_root(b: GraphBuilder, x: Tensor, source: Any) -> Tensor:
    """``1 / sqrt(x)``; of what a positive constant was added to (a variance, mostly), which is
    not zero, XNNPACK's own."""
    if isinstance(source, Node) and source.target in (aten.add.Tensor, aten.add.Scalar):
        other = source.args[1]
        if isinstance(other, (int, float)) and other > 0:
            return b.unary(NodeKind.RECIPROCAL_SQUARE_ROOT, x)
    return extremes.reciprocal_root(b, x)


#: Whole exponents up to here are products; beyond, rounding errors have piled up either way.
LARGEST_PRODUCT_EXPONENT = 64


@operator(
    "pow", aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, constraints=FLOATS,
    notes="a constant exponent, or a constant positive base",
)  # fmt: skip
def lower_pow(b: GraphBuilder, node: Node) -> Tensor:
    x, exponent = b.tensor(node.args[0]), b.tensor(node.args[1])
    if exponent.constant is not None:
        values = exponent.real()
        if values.numel() == 1:
            if float(values) == -0.5:
                result = reciprocal_root(b, x, node.args[0])
            else:
                result = power(b, x, float(values))
            return b.expand(result, layout.broadcast(x.shape, exponent.shape))
        if not bool((values == values.round()).any()):
            return _exponential(b, x, exponent)
        raise LoweringError("some of its exponents are whole, others not")
    if x.constant is not None and bool((x.real() > 0).all()):
        return _exponential(b, x, exponent)
    raise LoweringError("its exponent is computed at run time")


def _exponential(b: GraphBuilder, base: Tensor, exponent: Tensor) -> Tensor:
    """``exp(exponent * log(base))``: not a number where the base is negative, as it should."""
    logarithm = extremes.logarithm(b, base)
    return extremes.exponential(b, ex.multiply(b, exponent, logarithm))


def power(b: GraphBuilder, x: Tensor, exponent: float) -> Tensor:
    """``x ** exponent``: products for whole exponents, roots for halves, else by logarithms."""
    if exponent == 0.0:
        return b.expand(ex.scalar(b, 1.0), x.shape)
    if exponent < 0:
        if exponent == -0.5:
            return extremes.reciprocal_root(b, x)
        return ex.divide(b, ex.scalar(b, 1.0), power(b, x, -exponent))
    whole = int(exponent)
    if exponent == whole:
        if whole > LARGEST_PRODUCT_EXPONENT:
            raise LoweringError(f"its exponent is {exponent}, which XNNPACK has no power for")
        return integer_power(b, x, whole)
    if exponent - whole == 0.5 and whole < 8:
        root = extremes.square_root(b, x)
        return root if whole == 0 else ex.multiply(b, integer_power(b, x, whole), root)
    return _exponential(b, x, ex.scalar(b, exponent))


def integer_power(b: GraphBuilder, x: Tensor, exponent: int) -> Tensor:
    """``x ** exponent`` by repeated squaring."""
    result: Tensor | None = None
    while True:
        if exponent & 1:
            result = x if result is None else ex.multiply(b, result, x)
        exponent >>= 1
        if not exponent:
            assert result is not None
            return result
        x = b.unary(NodeKind.SQUARE, x)


def _beyond_zero(node: Node) -> QuantizationRule | None:
    """Own output of a range without zero."""
    low, high = clamp_range(node)
    return None if low <= 0.0 <= high else OutputRange()


@operator(
    "clamp",
    aten.clamp.default,
    aten.hardtanh.default,
    aten.relu.default,
    aten.relu6.default,
    aten.clamp_min.default,
    aten.clamp_max.default,
    constraints=FLOATS,
    quantization=Shared(),
    special_rule=_beyond_zero,
    is_clamp=True,
)
def lower_clamp(b: GraphBuilder, node: Node) -> Tensor:
    return b.unary(NodeKind.CLAMP, b.tensor(node.args[0]), None, clamp_range(node))


def clamp_range(node: Node) -> tuple[float, float]:
    """The (min, max) of a node that the ``clamp`` entry answers to. Where min is above max, all
    are max."""
    named = arguments(node)
    if node.target in (aten.relu.default,):
        return (0.0, math.inf)
    if node.target is aten.relu6.default:
        return (0.0, 6.0)
    low = named.get("min", named.get("min_val"))
    high = named.get("max", named.get("max_val"))
    upper = math.inf if high is None else float(high)
    return (-math.inf if low is None else min(float(low), upper), upper)
