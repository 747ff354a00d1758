"""Activations: ``torch.nn``'s, as an XNNPACK node each or composed from a few."""

from __future__ import annotations

import math

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import choices, ends
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import FLOATS, constant
from penstock.compiler.delegate.operators.registry import FixedOutput, Independent, operator
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.finiteness import may_be_huge
from penstock.graph.kinds import EluAttributes, LeakyReluAttributes, NodeKind

aten = torch.ops.aten

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805
#: exp(-12) is 6e-6: from there on softplus and the identity are the same to five digits.
LEAST_SOFTPLUS_THRESHOLD = 12.0


@operator(
    "sigmoid", aten.sigmoid.default, constraints=FLOATS,
    quantization=FixedOutput(1 / 256, -128),
)  # fmt: skip
def lower_sigmoid(b: GraphBuilder, node: Node) -> Tensor:
    return _sigmoid(b, b.tensor(node.args[0]), node.args[0])


def _sigmoid(b: GraphBuilder, x: Tensor, source: object) -> Tensor:
    """Of ``x``, which is ``source``; bounded where a mask may have put the lowest number in."""
    if may_be_huge(source):
        x = b.unary(NodeKind.CLAMP, x, None, (-100.0, 100.0))
    return b.unary(NodeKind.SIGMOID, x)


@operator("tanh", aten.tanh.default, constraints=FLOATS, quantization=FixedOutput(1 / 128, 0))
def lower_tanh(b: GraphBuilder, node: Node) -> Tensor:
    return b.unary(NodeKind.TANH, b.tensor(node.args[0]))


@operator("hardswish", aten.hardswish.default, constraints=FLOATS, quantization=Independent())
def lower_hardswish(b: GraphBuilder, node: Node) -> Tensor:
    return b.unary(NodeKind.HARDSWISH, b.tensor(node.args[0]))


@operator(
    "hardsigmoid", aten.hardsigmoid.default, constraints=FLOATS,
    notes="relu6(x + 3) / 6",
)  # fmt: skip
def lower_hardsigmoid(b: GraphBuilder, node: Node) -> Tensor:
    shifted = b.binary(NodeKind.ADD, b.tensor(node.args[0]), ex.scalar(b, 3.0), (0.0, 6.0))
    return ex.multiply(b, shifted, ex.scalar(b, 1 / 6))


@operator("leaky_relu", aten.leaky_relu.default, constraints=FLOATS, quantization=Independent())
def lower_leaky_relu(b: GraphBuilder, node: Node) -> Tensor:
    return leaky_relu(b, b.tensor(node.args[0]), float(arguments(node)["negative_slope"]))


def leaky_relu(b: GraphBuilder, x: Tensor, slope: float) -> Tensor:
    return b.unary(NodeKind.LEAKY_RELU, x, LeakyReluAttributes(slope))


def _not_training(node: Node) -> str | None:
    """In evaluation mode."""
    return "it draws random slopes (training mode)" if arguments(node)["training"] else None


@operator(
    "rrelu", aten.rrelu.default, constraints=(*FLOATS, _not_training), quantization=Independent(),
    notes="a leaky ReLU with the mean slope",
)  # fmt: skip
def lower_rrelu(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    slope = (float(named["lower"]) + float(named["upper"])) / 2
    return leaky_relu(b, b.tensor(node.args[0]), slope)


@operator(
    "prelu", aten.prelu.default, constraints=(*FLOATS, constant("weight")),
    notes="one slope, or one for each channel (dimension 1)",
)  # fmt: skip
def lower_prelu(b: GraphBuilder, node: Node) -> Tensor:
    x, weight = b.tensor(node.args[0]), b.tensor(node.args[1])
    trailing = max(0, x.rank - 2) if x.rank > 1 else 0
    slopes = b.reshape(weight, (*weight.shape, *(1,) * trailing))
    return b.binary(NodeKind.PRELU, x, slopes)


def elu(b: GraphBuilder, x: Tensor, alpha: float) -> Tensor:
    """``x`` where it is positive, else ``alpha * (exp(x) - 1)``; ``alpha`` is positive."""
    return b.unary(NodeKind.ELU, x, EluAttributes(alpha))


def _positive(*names: str):  # type: ignore[no-untyped-def]
    def check(node: Node) -> str | None:
        named = arguments(node)
        for name in names:
            if not float(named[name]) > 0:
                return f"its {name} is {named[name]}, XNNPACK's must be positive"
        return None

    return check


@operator(
    "elu", aten.elu.default, constraints=(*FLOATS, _positive("alpha", "input_scale")),
    quantization=Independent(),
)  # fmt: skip
def lower_elu(b: GraphBuilder, node: Node) -> Tensor:
    """``scale * (x, or alpha * (exp(x * s) - 1))`` is ``scale / s * elu(x * s, alpha * s)``."""
    named = arguments(node)
    alpha, scale, input_scale = (float(named[k]) for k in ("alpha", "scale", "input_scale"))
    x = ex.affine(b, b.tensor(node.args[0]), input_scale, 0.0)
    return ex.affine(b, elu(b, x, alpha * input_scale), scale / input_scale, 0.0)


@operator(
    "celu", aten.celu.default, constraints=(*FLOATS, _positive("alpha")),
    quantization=Independent(),
)  # fmt: skip
def lower_celu(b: GraphBuilder, node: Node) -> Tensor:
    alpha = float(arguments(node)["alpha"])
    x = ex.affine(b, b.tensor(node.args[0]), 1.0 / alpha, 0.0)
    return ex.affine(b, elu(b, x, 1.0), alpha, 0.0)


@operator("selu", aten.selu.default, constraints=FLOATS, quantization=Independent())
def lower_selu(b: GraphBuilder, node: Node) -> Tensor:
    return ex.affine(b, elu(b, b.tensor(node.args[0]), SELU_ALPHA), SELU_SCALE, 0.0)


@operator(
    "gelu", aten.gelu.default, constraints=FLOATS, quantization=Independent(),
    notes="XNNPACK's own is the one with erf; the approximation by tanh is composed",
)  # fmt: skip
def lower_gelu(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    if arguments(node)["approximate"] == "none":
        return b.unary(NodeKind.GELU, x)
    # x / 2 * (1 + tanh(u)) is x * sigmoid(2 * u) with u = sqrt(2 / pi) * (x + 0.044715 * x^3).
    slope = 2 * math.sqrt(2 / math.pi)
    inner = ex.affine(b, b.unary(NodeKind.SQUARE, x), slope * 0.044715, slope)
    return ex.multiply(b, x, b.unary(NodeKind.SIGMOID, ex.multiply(b, x, inner)))


@operator("silu", aten.silu.default, constraints=FLOATS, notes="x * sigmoid(x)")
def lower_silu(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    return ex.multiply(b, x, _sigmoid(b, x, node.args[0]))


@operator("mish", aten.mish.default, constraints=FLOATS)
def lower_mish(b: GraphBuilder, node: Node) -> Tensor:
    """``tanh(log(1 + e))`` is ``n / (n + 2)`` with ``n = e * (e + 2)``, ``e = exp(x)``; beyond
    x = 20 it is 1 in float32, so ``e`` is kept from overflowing there."""
    x = b.tensor(node.args[0])
    e = b.unary(NodeKind.EXP, b.unary(NodeKind.CLAMP, x, None, (-math.inf, 20.0)))
    n = ex.multiply(b, e, ex.affine(b, e, 1.0, 2.0))
    return ex.multiply(b, x, ex.divide(b, n, ex.affine(b, n, 1.0, 2.0)))


def _log_sigmoid_of_size(b: GraphBuilder, x: Tensor) -> Tensor:
    """``log(sigmoid(|x|))``, which is 0 long before the bound: XNNPACK's sigmoid has an end."""
    size = b.unary(NodeKind.CLAMP, b.unary(NodeKind.ABS, x), None, (0.0, 100.0))
    return b.unary(NodeKind.LOG, b.unary(NodeKind.SIGMOID, size))


def softplus(b: GraphBuilder, x: Tensor, beta: float = 1.0) -> Tensor:
    """``log(1 + exp(beta * x)) / beta`` as ``relu(x) - log(sigmoid(|beta * x|)) / beta``, which
    overflows nowhere."""
    rest = _log_sigmoid_of_size(b, ex.affine(b, x, beta, 0.0))
    rest = ex.affine(b, rest, 1.0 / beta, 0.0)
    return ex.subtract(b, b.unary(NodeKind.CLAMP, x, None, ex.RELU), rest)


@operator("softplus", aten.softplus.default, constraints=(*FLOATS, _positive("beta")))
def lower_softplus(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    beta, threshold = float(named["beta"]), float(named["threshold"])
    if threshold < LEAST_SOFTPLUS_THRESHOLD:
        raise LoweringError(f"its threshold of {threshold} is a step, not rounding")
    return softplus(b, b.tensor(node.args[0]), beta)


@operator("log_sigmoid", aten.log_sigmoid.default, constraints=FLOATS)
def lower_log_sigmoid(b: GraphBuilder, node: Node) -> Tensor:
    """``log(sigmoid(x))`` as ``min(x, 0) + log(sigmoid(|x|))``, which underflows nowhere."""
    x = b.tensor(node.args[0])
    low = b.unary(NodeKind.CLAMP, x, None, (-math.inf, 0.0))
    return ex.add(b, low, _log_sigmoid_of_size(b, x))


@operator("softshrink", aten.softshrink.default, constraints=FLOATS)
def lower_softshrink(b: GraphBuilder, node: Node) -> Tensor:
    x, width = b.tensor(node.args[0]), float(arguments(node)["lambd"])
    if width == 0.0:
        return x
    return ex.subtract(b, x, b.unary(NodeKind.CLAMP, x, None, (-width, width)))


@operator("hardshrink", aten.hardshrink.default, constraints=FLOATS)
def lower_hardshrink(b: GraphBuilder, node: Node) -> Tensor:
    x, width = b.tensor(node.args[0]), float(arguments(node)["lambd"])
    return ex.multiply(b, x, choices.step(b, ex.affine(b, b.unary(NodeKind.ABS, x), 1.0, -width)))


@operator("threshold", aten.threshold.default, constraints=FLOATS)
def lower_threshold(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    threshold, value = float(named["threshold"]), float(named["value"])
    x = b.unary(NodeKind.CLAMP, b.tensor(node.args[0]), None, (threshold, math.inf))
    if value == threshold:
        return x
    above = choices.step(b, ex.affine(b, x, 1.0, -threshold))
    return ex.add(b, ex.multiply(b, x, above), ex.affine(b, above, -value, value))


@operator("glu", aten.glu.default, constraints=FLOATS)
def lower_glu(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    dim = int(arguments(node)["dim"]) % x.rank
    half = layout.shape_of(node.meta["val"])[dim]
    left, right = (ends.part(b, x, dim, start, half) for start in (0, half))
    return ex.multiply(b, left, _sigmoid(b, right, node.args[0]))
