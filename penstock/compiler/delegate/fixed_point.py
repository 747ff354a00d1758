"""Which scales XNNPACK's fixed-point arithmetic on int8 takes.

It asserts the limits in ``src/microparams-init.c``; builds without assertions give wrong numbers
far beyond.
"""

from __future__ import annotations

from collections.abc import Sequence


def conversion_fits(source: float, result: float) -> bool:
    """Whether a conversion between two pairs of parameters takes these scales."""
    return 2.0**-8 <= source / result <= 2.0**7


def slope_fits(source: float, result: float, slope: float) -> bool:
    """Whether a leaky ReLU takes these scales."""
    ratio = source / result
    return conversion_fits(source, result) and 2.0**-8 <= abs(slope) * ratio < 2.0**7


def pool_fits(source: float, result: float, count: int) -> bool:
    """Whether an average of ``count`` values takes these scales, as a convolution."""
    return 2.0**-32 <= source / count / result < 2.0**8


def sum_fits(inputs: Sequence[float], result: float) -> bool:
    """Whether a sum or difference takes these scales of its inputs and its result."""
    return all(2.0**-10 <= scale / result < 2.0**8 for scale in inputs)


def product_fits(inputs: Sequence[float], result: float) -> bool:
    """Whether a product of two takes these scales of its inputs and its result."""
    left, right = inputs
    return 2.0**-16 <= left * right / result < 2.0**8
