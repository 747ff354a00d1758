"""Comparisons and choices without booleans: masks are float tensors of exact zeros and ones."""

from __future__ import annotations

import math

import torch

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.fx import layout
from penstock.compiler.fx.layout import Shape
from penstock.graph.kinds import NodeKind


def step(b: GraphBuilder, x: Tensor) -> Tensor:
    """1 where ``x`` is positive, else 0: the ceiling of ``x`` clamped to 0 … 1. Exact, because
    the difference of two floats is zero only if they are equal."""
    return b.unary(NodeKind.CEILING, b.unary(NodeKind.CLAMP, x, None, (0.0, 1.0)))


def difference(b: GraphBuilder, left: Tensor, right: Tensor) -> Tensor:
    """Positive, zero or negative as ``left`` is more than, equal to or less than ``right``. Where
    both may be infinite, halves are compared, with a number for infinity beyond all halves."""
    if any(side.constant is not None and _all_finite(side) for side in (left, right)):
        return ex.subtract(b, left, right)
    return ex.subtract(b, _finite_half(b, left), _finite_half(b, right))


def _all_finite(constant: Tensor) -> bool:
    return bool(constant.real().isfinite().all())


def _finite_half(b: GraphBuilder, x: Tensor) -> Tensor:
    limit = 2e38
    if x.constant is not None:
        return b.constant((x.real() * 0.5).clamp(-limit, limit))
    return b.binary(NodeKind.MULTIPLY, x, ex.scalar(b, 0.5), (-limit, limit))


def complement(b: GraphBuilder, mask: Tensor) -> Tensor:
    """``not mask``."""
    return ex.subtract(b, ex.scalar(b, 1.0), mask)


def sign(b: GraphBuilder, x: Tensor) -> Tensor:
    """-1, 0 or 1."""
    return ex.subtract(b, step(b, x), step(b, b.unary(NodeKind.NEGATE, x)))


def differs(b: GraphBuilder, x: Tensor) -> Tensor:
    """1 where ``x`` is not zero, else 0."""
    return step(b, b.unary(NodeKind.ABS, x))


def choose(
    b: GraphBuilder,
    mask: Tensor,
    yes: Tensor,
    no: Tensor,
    finite: tuple[bool, bool] = (False, False),
) -> Tensor:
    """``yes`` where ``mask`` is 1, ``no`` where it is 0, infinities included. ``finite`` says
    whether each of them is finite wherever it is not chosen; what is not a number where it is
    chosen stays so then."""
    if mask.constant is not None:
        return _choose_by_constant(b, mask, yes, no)
    sides = ((mask, yes), (complement(b, mask), no))
    terms = [
        ex.multiply(b, *side) if only_finite else _term(b, *side)
        for side, only_finite in zip(sides, finite, strict=True)
    ]
    kept = [term for term in terms if term is not None]
    if not kept:
        return ex.multiply(b, mask, ex.scalar(b, 0.0))
    return kept[0] if len(kept) == 1 else ex.add(b, kept[0], kept[1])


def _term(b: GraphBuilder, mask: Tensor, value: Tensor) -> Tensor | None:
    """``value`` where ``mask`` is 1, else 0; ``None`` if that is 0 everywhere.

    What is computed at run time is kept between bounds of infinity, or of zero: 1 / 0 and 0 / 1.
    A constant infinity is the logarithm of a mask of zeros.
    """
    if value.constant is None:
        upper = ex.divide(b, mask, complement(b, mask))
        return ex.bounded(b, value, b.unary(NodeKind.NEGATE, upper), upper)
    real = value.real()
    if not bool(real.any()):
        return None
    if bool(real.isfinite().all()):
        return ex.multiply(b, mask, value)
    if bool((real == -math.inf).all()):
        return b.unary(NodeKind.LOG, complement(b, mask))
    if bool((real == math.inf).all()):
        return b.unary(NodeKind.NEGATE, b.unary(NodeKind.LOG, complement(b, mask)))
    raise LoweringError("it chooses from constants of which some are infinite and others not")


def _choose_by_constant(b: GraphBuilder, mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Between bounds of infinity an element stays, equal bounds put themselves in its place."""
    chosen = b.full_constant(mask) > 0
    if yes.constant is not None and no.constant is not None:
        values = torch.where(chosen, b.full_constant(yes), b.full_constant(no))
        return b.constant_of(values, layout.broadcast(mask.shape, yes.shape, no.shape))
    if yes.constant is not None:
        chosen, yes, no = ~chosen, no, yes
    if no.constant is not None:
        shape = layout.broadcast(mask.shape, no.shape)
        return _replaced(b, yes, chosen, b.full_constant(no), shape)
    zero = torch.tensor(0.0)
    return ex.add(
        b,
        _replaced(b, yes, chosen, zero, mask.shape),
        _replaced(b, no, ~chosen, zero, mask.shape),
    )


def _replaced(
    b: GraphBuilder, x: Tensor, keep: torch.Tensor, value: torch.Tensor, shape: Shape
) -> Tensor:
    """``x`` where ``keep`` is set, else ``value``; both together have the ``shape``."""
    low = torch.where(keep, torch.tensor(-math.inf), value)
    high = torch.where(keep, torch.tensor(math.inf), value)
    lower, upper = b.constant_of(low, shape), b.constant_of(high, shape)
    if bool((low == -math.inf).all()):
        return b.binary(NodeKind.MINIMUM, upper, x)
    if bool((high == math.inf).all()):
        return b.binary(NodeKind.MAXIMUM, lower, x)
    return ex.bounded(b, x, lower, upper)
