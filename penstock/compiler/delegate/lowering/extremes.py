"""Functions that XNNPACK's own nodes get wrong at zero, at infinity or for not-a-number.

Its square root is a product with a reciprocal square root, which is not a number for zero and
loses all digits beyond 2**126; its exponential gives 0 for not-a-number on some machines, its
logarithm 88 for not-a-number and for infinity on those without AVX-512.
"""

from __future__ import annotations

import math

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import Tensor
from penstock.graph.kinds import NodeKind

#: The largest number of float32.
LARGEST = (2 - 2.0**-23) * 2.0**127
#: The largest number whose square root XNNPACK finds.
LARGEST_ROOT = 2.0**126


def square_root(b: GraphBuilder, x: Tensor) -> Tensor:
    """``sqrt(x)``, from 4.7e-38 to infinity: twice the root of a quarter, and what infinity is
    more than the largest number. (Minus a zero, which leaves the sign of zero.)"""
    quarter = b.binary(NodeKind.MULTIPLY, x, ex.scalar(b, 0.25), (-math.inf, LARGEST_ROOT))
    root = ex.multiply(b, b.unary(NodeKind.SQUARE_ROOT, quarter), ex.scalar(b, 2.0))
    rest = b.binary(NodeKind.SUBTRACT, ex.scalar(b, LARGEST), x, (-math.inf, 0.0))
    return ex.subtract(b, root, rest)


def reciprocal_root(b: GraphBuilder, x: Tensor) -> Tensor:
    """``1 / sqrt(x)``, infinite at zero."""
    return ex.divide(b, ex.scalar(b, 1.0), square_root(b, x))


def exponential(b: GraphBuilder, x: Tensor) -> Tensor:
    """``exp(x)``, not-a-number kept: what is added is lost in any result, except for that."""
    kept = b.unary(NodeKind.CLAMP, x, None, (0.0, 1e-30))
    return ex.add(b, b.unary(NodeKind.EXP, x), kept)


def logarithm(b: GraphBuilder, x: Tensor) -> Tensor:
    """``log(x)``, infinity and not-a-number kept: what they are more than the largest number is
    added, which is 0 for all others."""
    rest = b.binary(NodeKind.SUBTRACT, x, ex.scalar(b, LARGEST), (0.0, math.inf))
    return ex.add(b, b.unary(NodeKind.LOG, x), rest)


def nan_kept(b: GraphBuilder, x: Tensor, result: Tensor) -> Tensor:
    """``result``, and not-a-number where ``x`` is not a number."""
    nothing = ex.multiply(b, b.unary(NodeKind.CLAMP, x, None, (0.0, 1.0)), ex.scalar(b, 0.0))
    return ex.add(b, result, nothing)


def nan_at_infinity(b: GraphBuilder, x: Tensor, result: Tensor) -> Tensor:
    """``result``, and not-a-number where ``x`` is infinite."""
    return ex.add(b, result, ex.subtract(b, x, x))
