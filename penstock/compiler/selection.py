"""Comparisons and choices without booleans: masks are float tensors of exact zeros and ones."""

from __future__ import annotations

from penstock.compiler import expressions as ex
from penstock.compiler.builder import GraphBuilder, Tensor
from penstock.formats.payload import NodeKind


def step(b: GraphBuilder, x: Tensor) -> Tensor:
    """1 where ``x`` is positive, else 0: the ceiling of ``x`` clamped to 0 … 1. Exact, because
    the difference of two floats is zero only if they are equal."""
    return b.unary(NodeKind.CEILING, b.unary(NodeKind.CLAMP, x, None, (0.0, 1.0)))


def complement(b: GraphBuilder, mask: Tensor) -> Tensor:
    """``not mask``."""
    return ex.subtract(b, ex.scalar(b, 1.0), mask)


def sign(b: GraphBuilder, x: Tensor) -> Tensor:
    """-1, 0 or 1."""
    return ex.subtract(b, step(b, x), step(b, b.unary(NodeKind.NEGATE, x)))
