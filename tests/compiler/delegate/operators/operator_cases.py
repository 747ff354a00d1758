"""One small program or more for every operator entry."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penstock.compiler.fx.marks import ATTENTION_OF_PARTS, PLACES_OF_LARGEST

GENERATOR = torch.Generator().manual_seed(7)
torch.manual_seed(7)  # for the weights of modules


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR)


def positive(*shape: int) -> Tensor:
    return torch.rand(shape, generator=GENERATOR) * 3 + 0.05


def fractions(*shape: int) -> Tensor:
    return torch.rand(shape, generator=GENERATOR) * 0.96 + 0.02


@dataclass(frozen=True)
class Case:
    """``function(*inputs)`` must be one delegate and go through the entry ``entry``."""

    entry: str
    function: nn.Module | Callable[..., Any]
    inputs: tuple[Tensor, ...]
    tolerance: float = 1e-4


CASES: list[Case] = []


def case(
    entry: str,
    function: nn.Module | Callable[..., Any],
    *inputs: Tensor,
    tolerance: float = 1e-4,
) -> None:
    CASES.append(Case(entry, function, inputs, tolerance))


def every_shape(make: Callable[..., Tensor]) -> tuple[Tensor, ...]:
    return (make(), make(7), make(3, 5), make(2, 3, 4, 5), make(2, 1, 3, 2, 2))


def elementwise(
    entry: str, function: Callable[[Tensor], Tensor], make: Callable[..., Tensor] = numbers
) -> None:
    """Over shapes of all ranks, and over a tensor that lies in memory in another order."""

    def all_of_them(*inputs: Tensor) -> list[Tensor]:
        moved = function(inputs[3].permute(0, 2, 3, 1)) + 1
        return [*(function(x) for x in inputs), moved]

    case(entry, all_of_them, *every_shape(make))


def edge_values(*shape: int) -> Tensor:
    """Numbers among which are zero, halves, whole, large and tiny ones."""
    special = torch.tensor([0.0, 0.5, -0.5, 1.0, -1.0, 1.5, 2.5, -2.5, 3e6, -3e6, 40.0, -40.0])
    result = numbers(*shape) * 4
    flat = result.view(-1)
    count = min(flat.numel(), special.numel())
    flat[:count] = special[:count]
    return result


# --- activations -------------------------------------------------------------------------------

for _entry, _module in {
    "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(), "leaky_relu": nn.LeakyReLU(0.2), "rrelu": nn.RReLU().eval(),
    "elu": nn.ELU(0.7), "celu": nn.CELU(1.7), "selu": nn.SELU(), "gelu": nn.GELU(),
    "silu": nn.SiLU(), "mish": nn.Mish(), "softplus": nn.Softplus(), "softshrink": nn.Softshrink(),
    "log_sigmoid": nn.LogSigmoid(), "hardshrink": nn.Hardshrink(), "clamp": nn.ReLU6(),
    "threshold": nn.Threshold(0.3, -7.0),
}.items():  # fmt: skip
    elementwise(_entry, _module)
    elementwise(_entry, _module, lambda *shape: numbers(*shape) * 30)
elementwise("gelu", nn.GELU(approximate="tanh"))
elementwise("softplus", nn.Softplus(beta=2.5, threshold=30))
elementwise("threshold", nn.Threshold(0.1, 0.1))
elementwise("leaky_relu", nn.LeakyReLU(-0.3))
elementwise("clamp", lambda x: F.hardtanh(x, -0.3, 0.7).clamp(max=0.5).clamp_min(-0.2).relu())
elementwise("elu", lambda x: torch.ops.aten.elu.default(x, 0.5, 1.3, 0.8))
case("prelu", nn.PReLU(), numbers(2, 3, 4, 5))
case("prelu", nn.PReLU(3), numbers(2, 3, 4, 5))
case("prelu", nn.PReLU(3), numbers(2, 3))
case(
    "prelu", nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Conv2d(4, 2, 1)), numbers(1, 3, 6, 5)
)
case("glu", nn.GLU(1), numbers(2, 6, 5))
case("glu", nn.GLU(), numbers(2, 6))

# --- arithmetic --------------------------------------------------------------------------------

X, Y = numbers(2, 3, 4), numbers(3, 1)
case("add", lambda x, y: (x + y, x.add(y, alpha=2.5), y + 3, x + x), X, Y)
case("sub", lambda x, y: (x - y, y - x, x.sub(y, alpha=-1.5), x - 2), X, Y)
case("rsub", lambda x: 3 - x, X)
case("mul", lambda x, y: (x * y, x * 0.3, x * x), X, Y)
case("div", lambda x, y: (x / y, x / 4, x / 3), X, positive(3, 1))
case("reciprocal", torch.reciprocal, positive(2, 3))
case("maximum", lambda x, y: (torch.maximum(x, y), torch.max(x, y)), X, Y)
case("minimum", lambda x, y: (torch.minimum(x, y), torch.min(y, x)), X, Y)
case("clamp", lambda x: (torch.clamp(x, 0.5, -0.5), torch.relu(x + 1).clamp(2, 1)), X)
case("clamp by tensors", lambda x, y: (torch.clamp(x, y, y + 1), torch.clamp(x, max=y)), X, Y)
case("hypot", torch.hypot, X, Y)
case("xlogy", lambda x, y: torch.xlogy(x, y), X.round(), Y.abs() + 0.1)
case("xlogy", lambda x: torch.xlogy(x, x), torch.relu(X))
case("xlogy", lambda x: (torch.xlogy(x, 2.5), torch.xlogy(x, 0.0), torch.xlogy(x, -2.0)), X.round())
case("xlogy", lambda y: (torch.xlogy(0.0, y), torch.xlogy(-2.0, y)), Y)
case("addcmul", lambda x, y: torch.addcmul(x, x, y, value=0.3), X, Y)
case("addcdiv", lambda x, y: torch.addcdiv(x, x, y.abs() + 1, value=-2.0), X, Y)
case("cdist", lambda x, y: (torch.cdist(x, y), torch.cdist(x, y, p=1)), X, numbers(2, 5, 4))
case("lerp", lambda x, y: (torch.lerp(x, y, 0.3), torch.lerp(x, x + 1, y)), X, Y)
case("cross", lambda x, y: torch.linalg.cross(x, y), numbers(2, 3, 4, 3), numbers(1, 1, 4, 3))
case("cross", lambda x: torch.linalg.cross(x, x * x, dim=1), numbers(2, 3, 4))
for _entry in ("abs", "neg", "square", "sin", "cos"):
    elementwise(_entry, getattr(torch, _entry))
for _entry in ("floor", "ceil", "trunc", "round", "frac", "sign"):
    elementwise(_entry, getattr(torch, _entry), edge_values)
for _entry in ("log", "sqrt", "rsqrt", "log2", "log10", "log1p"):
    elementwise(_entry, getattr(torch, _entry), positive)
for _entry in ("exp", "exp2", "expm1", "sinh", "cosh", "erf"):
    elementwise(_entry, getattr(torch, _entry))
elementwise("erf", torch.erf, lambda *shape: numbers(*shape) * 0.01)
for _entry in ("atan", "asinh", "sinc"):
    elementwise(_entry, getattr(torch, _entry), edge_values)
for _entry in ("asin", "acos", "atanh"):
    elementwise(_entry, getattr(torch, _entry), lambda *shape: fractions(*shape) * 1.96 - 0.98)
elementwise("acosh", lambda x: torch.acosh(x + 1), positive)
for _entry in ("atan2", "logaddexp", "logaddexp2", "heaviside", "copysign"):
    case(_entry, getattr(torch, _entry), X, Y)
    case(_entry, getattr(torch, _entry), edge_values(13), edge_values(4, 13).flip(1))
case("copysign", lambda x: torch.copysign(x, -2.0), X)
elementwise("expm1", torch.expm1, lambda *shape: numbers(*shape) * 1e-5)
elementwise("tan", torch.tan, lambda *shape: fractions(*shape) * 2.4 - 1.2)
elementwise("logit", torch.logit, fractions)
elementwise("logit", lambda x: torch.logit(x, 1e-3), lambda *shape: fractions(*shape).round())
elementwise("remainder", lambda x: torch.remainder(x, 2.0), edge_values)
elementwise("remainder", lambda x: x % -0.5)
elementwise("fmod", lambda x: torch.fmod(x, 0.5), lambda *shape: numbers(*shape) * 9)
elementwise("floor_divide", lambda x: x // 0.25)
elementwise("div with rounding", lambda x: torch.div(x, 0.3, rounding_mode="trunc"))
elementwise("div with rounding", lambda x: torch.div(x, 0.5, rounding_mode="floor"))
for _exponent in (2, 3, 7, 1, 0, -1, -2):
    elementwise("pow", lambda x, n=_exponent: (x.abs() + 0.1) * x**n)  # type: ignore[misc]
for _exponent in (0.5, -0.5, 1.5, 2.2, 0.3, -1.7, 2.5):
    elementwise("pow", lambda x, n=_exponent: x**n, positive)  # type: ignore[misc]
case("pow", lambda x: torch.tensor([2.0, 3.0, 0.5]) ** x, numbers(4, 3))
case("pow", lambda x: x ** torch.tensor([2.5, 0.3, -0.7]), positive(4, 3))
CUBE = nn.Parameter(torch.tensor([3.0]))
case("pow", lambda x: x.clamp(min=1e-6) ** CUBE, numbers(4, 3))
elementwise("pow of a number", lambda x: 1.7**x)

# --- comparisons -------------------------------------------------------------------------------

A, B = numbers(2, 3, 4), numbers(2, 3, 4)
A[0, 0], B[0, 0] = 0.5, 0.5
A[1, 1, 1] = -math.inf
for _entry, _compare in {
    "gt": torch.gt, "lt": torch.lt, "ge": torch.ge, "le": torch.le, "eq": torch.eq, "ne": torch.ne,
}.items():  # fmt: skip
    case(_entry, lambda x, y, f=_compare: torch.where(f(x, y), x, y), A, B)  # type: ignore[misc]
    case(_entry, lambda x, y, f=_compare: torch.where(f(x, 0.5), 1.0, y), A, B)  # type: ignore[misc]
case("and", lambda x, y: torch.where((x > 0) & (y > 0), x, -1.0), A, B)
case("or", lambda x, y: torch.where(torch.logical_or(x > 0, y > 0), x, y), A, B)
case("xor", lambda x, y: ((x > 0) ^ (y > 0)).float(), A, B)
for _entry, _tell in {
    "isinf": torch.isinf, "isposinf": torch.isposinf, "isneginf": torch.isneginf,
}.items():  # fmt: skip
    case(_entry, lambda x, f=_tell: torch.where(f(x), 2.0, x), numbers(2, 3))  # type: ignore[misc]
    case(_entry, lambda x, f=_tell: f(x.relu() ** -0.5).float(), numbers(2, 3))  # type: ignore[misc]
case("not", lambda x, y: torch.where(~(x > y), 2.0, y), A, B)
case("mask to numbers", lambda x: (x > 0).float() * 3, A)
case("where", lambda x: torch.where(x > 0, -math.inf, x), B)
case("where", lambda x: torch.where(x > 0, x, math.inf), B)
MASK = torch.tensor([True, False, True, True])
case("where", lambda x, y: (torch.where(MASK, x, y), torch.where(MASK, x, 3.0)), A, B)
case("where", lambda x: torch.where(MASK, -math.inf, x).softmax(-1), B)
case("masked_fill", lambda x: torch.ops.aten.masked_fill.Tensor(x, x > 0, torch.tensor(9.0)), B)

# --- places ------------------------------------------------------------------------------------

TIED = torch.tensor(
    [[2.0, -1.0, 2.0, 0.0, -1.0, 1.0], [0.0] * 6, [math.inf, 1.0, math.inf, 2.0, 3.0, -math.inf]]
)
for _k, _dim, _largest in [
    (1, -1, True),
    (2, 1, False),
    (5, 1, True),
    (6, -1, False),
    (2, 0, True),
]:
    case(
        "places_of_largest",
        lambda x, k=_k, d=_dim, f=_largest: PLACES_OF_LARGEST(x, k, d, f),  # type: ignore[misc]
        TIED,
    )
case("places_of_largest", lambda x: PLACES_OF_LARGEST(x, 2, 1, True), numbers(2, 7, 3, 2))
HIDDEN = torch.full((2, 9), -math.inf).index_fill(1, torch.tensor([4]), 1.0)
case("places_of_largest", lambda x: PLACES_OF_LARGEST(x, 3, 1, True), HIDDEN)

# --- products ----------------------------------------------------------------------------------

case("linear", nn.Linear(5, 7), numbers(2, 3, 5))
case("linear", nn.Linear(5, 7, bias=False), numbers(5))
case("linear", lambda x: F.linear(x, torch.arange(5.0)), numbers(2, 3, 5))
case("linear", lambda x: F.linear(x, torch.arange(5.0)), numbers(5))
case("linear", lambda x, y: F.linear(x, y), numbers(2, 5), numbers(5))
case("linear", lambda x, y: F.linear(x, y), numbers(2, 5), numbers(3, 5))
case("addmm", torch.addmm, numbers(4), numbers(3, 5), numbers(5, 4))
case("linear", lambda x: torch.addmm(torch.ones(4), x, torch.ones(5, 4)), numbers(3, 5))
case("matmul", torch.matmul, numbers(2, 3, 4), numbers(4, 5))
case("matmul", torch.matmul, numbers(3, 1, 4, 5), numbers(2, 5, 3))
case("matmul", lambda x, y: (x @ y, y @ x[0], x[0] @ y), numbers(4, 4), numbers(4))
case("matmul", lambda x: x @ x.transpose(-1, -2), numbers(2, 3, 4))
case("matmul", lambda x: torch.einsum("bchw,bcxy->bhwxy", x, x), numbers(1, 3, 2, 4))
for equation, *shapes in (  # more labels than XNNPACK's tensors have dimensions
    ("bildsk,biokl->bolsd", (2, 3, 5, 1, 4, 3), (2, 3, 6, 3, 5)),
    ("abcdef, ghabc -> ghdef", (2, 3, 4, 5, 2, 3), (2, 3, 2, 3, 4)),
    ("abcdef,xyz->xa", (2, 3, 4, 5, 2, 3), (3, 4, 2)),
    ("abcdef,bcdefg", (2, 1, 2, 2, 2, 3), (1, 2, 2, 2, 3, 4)),
    ("...abst,...asd->...abtd", (2, 3, 2, 2, 4, 5), (2, 3, 2, 4, 3)),
    ("a...bst,a...sdw->...btd", (2, 3, 2, 4, 5), (2, 1, 4, 3, 3)),
    ("...abst,csd", (1, 2, 2, 4, 5), (3, 4, 2)),
    ("blhn,bshn,bhls,bshp,cdq->blhp", *[(2, 4, 2, 5)] * 2, (2, 2, 4, 4), (2, 4, 2, 6), (2, 1, 3)),
    ("ab,cde,fgh,bcfh->adeg", (2, 3), (2, 3, 4), (3, 2, 5), (3, 2, 3, 5)),
):
    case("matmul", partial(torch.einsum, equation), *[numbers(*shape) for shape in shapes])
case("baddbmm", lambda x, y, z: torch.baddbmm(x, y, z, beta=0.5, alpha=2.0),
     numbers(2, 3, 4), numbers(2, 3, 5), numbers(2, 5, 4))  # fmt: skip
case("scaled_dot_product_attention", lambda x: F.scaled_dot_product_attention(x, x, x),
     numbers(2, 2, 5, 4))  # fmt: skip
case(
    "scaled_dot_product_attention",
    lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    numbers(1, 2, 5, 4),
)
SEEN = torch.tensor([[True, False, True, True, False], [False] * 5]).repeat(3, 1)[:5]
case(
    "scaled_dot_product_attention",
    lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=SEEN),
    numbers(1, 2, 5, 4),
)
case(
    "scaled_dot_product_attention",
    lambda x, m: F.scaled_dot_product_attention(x, x, x, attn_mask=m).transpose(1, 2),
    numbers(2, 2, 5, 4),
    torch.zeros(2, 1, 5, 5).masked_fill(~SEEN, -math.inf),
)
BOTH = torch.zeros(2, 1, 3, 7).masked_fill(torch.rand(2, 1, 3, 7) < 0.3, -math.inf)
BOTH[0, 0, 1] = -math.inf
case(
    "attention_of_parts",
    lambda q, k, n: ATTENTION_OF_PARTS(q, [k, n, k + 1, n * 2], BOTH, 0.4),
    numbers(2, 4, 3, 8), numbers(2, 2, 5, 8), numbers(2, 2, 2, 8),
)  # fmt: skip
case(
    "attention_of_parts",
    lambda q, k, n, m: ATTENTION_OF_PARTS(q, [k, n, k + 1, n * 2], m, 0.4),
    numbers(1, 2, 1, 8), numbers(1, 2, 5, 8), numbers(1, 2, 2, 8), numbers(1, 7),
)  # fmt: skip
EMPTY = torch.where(torch.tensor([[1.0], [0.0], [1.0]]) > 0, numbers(3, 4), -math.inf)
case("safe_softmax", lambda x: torch.ops.aten._safe_softmax(x, -1), EMPTY)
case("safe_softmax", lambda x: torch.ops.aten._safe_softmax(x, 0), EMPTY.T.contiguous())
case("softmax", lambda x: (x.softmax(-1), x.softmax(1), x.softmax(0)), numbers(2, 3, 4))
case("softmax", lambda x: (x.softmax(0), (x + 1).softmax(-1)), torch.tensor(2.0))
case("safe_softmax", lambda x: torch.ops.aten._safe_softmax(x, 0), torch.tensor(2.0))
case("log_softmax", lambda x: (x.log_softmax(-1), x.log_softmax(1)), numbers(2, 3, 4) * 60)
case("log_softmax", lambda x: x.log_softmax(-1), numbers(3, 1000))

# --- images ------------------------------------------------------------------------------------

IMAGES = numbers(2, 4, 7, 6)
case("convolution", nn.Conv2d(4, 6, 3, 2, 1), IMAGES)
case("convolution", nn.Conv2d(4, 8, (3, 2), padding="same", groups=4, dilation=2), IMAGES)
case("convolution", nn.Conv1d(4, 6, 3, groups=2, padding=1), numbers(2, 4, 9))
case("convolution", nn.Conv2d(4, 6, 3), IMAGES[0])
case("transposed convolution", nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), IMAGES)
case("transposed convolution", nn.ConvTranspose1d(4, 6, 4, 3), numbers(2, 4, 9))
WEIGHT, TURNED = numbers(6, 2, 3, 3), numbers(4, 3, 3, 3)
case(
    "general convolution",
    lambda x: torch.convolution(x, WEIGHT, None, [1, 2], [1, 0], [1, 1], False, [0, 0], 2),
    IMAGES,
)
case(
    "general convolution",
    lambda x: torch.convolution(x, TURNED, None, [2, 2], [1, 1], [1, 1], True, [1, 0], 1),
    IMAGES,
)
case("max_pool", lambda x: (F.max_pool2d(x, 3, 2, 1), F.max_pool2d(x, 2, ceil_mode=True)), IMAGES)
case("max_pool", nn.MaxPool1d(3, 2, 1, 2), numbers(2, 4, 11))
case("max_pool with indices", lambda x: torch.ops.aten.max_pool2d_with_indices(x, 2)[0], IMAGES)
case(
    "avg_pool", lambda x: (F.avg_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 3, 1, 1, False, False)), IMAGES
)
case("avg_pool", lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), IMAGES)
case("avg_pool", lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), IMAGES)
case("avg_pool", lambda x: F.avg_pool2d(x, 2, 2, 1, True, divisor_override=3), IMAGES)
case("avg_pool", nn.AvgPool1d(3, 2, 1), numbers(4, 9))
case(
    "adaptive_avg_pool",
    lambda x: [F.adaptive_avg_pool2d(x, s) for s in ((1, 1), (7, 3), (3, 4))],
    IMAGES,
)
case("adaptive_avg_pool", nn.AdaptiveAvgPool1d(4), numbers(2, 3, 10))
case(
    "adaptive_max_pool",
    lambda x: [F.adaptive_max_pool2d(x, s) for s in ((1, 1), (7, 3), (3, 4))],
    IMAGES,
)
case("adaptive_max_pool", nn.AdaptiveMaxPool1d(4), numbers(2, 3, 10))
