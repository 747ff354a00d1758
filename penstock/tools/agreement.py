"""How near two answers are: signal-to-noise ratio and differences of arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def sqnr(reference: Any, values: Any) -> float:
    """Power of ``reference`` over the power of its difference from ``values``, in decibels.

    Both are arrays of one shape. Infinite where they are equal; minus infinity where the
    reference is zero and the values are not, or where the values are not finite and the
    reference is."""
    reference, values = _float64(reference), _float64(values)
    with np.errstate(all="ignore"):
        noise = float(np.square(difference(reference, values)).sum())
        return decibels(float(np.square(finite(reference)).sum()), noise)


def decibels(signal: float, noise: float) -> float:
    """The ratio of two powers: infinite without noise, minus infinity without a signal or where the
    noise is not finite."""
    if noise == 0.0:
        return math.inf
    if not math.isfinite(noise) or signal == 0.0:
        return -math.inf
    return 10.0 * math.log10(signal / noise)


def largest_difference(reference: Any, values: Any) -> float:
    """The largest absolute difference of any element; 0 for arrays without elements, NaN where one
    of them has a NaN."""
    with np.errstate(all="ignore"):
        found = np.abs(difference(_float64(reference), _float64(values)))
        return float(found.max(initial=0.0))


def worst_sqnr(
    reference: Iterable[Sequence[np.ndarray]], values: Iterable[Sequence[np.ndarray]]
) -> float:
    """The lowest :func:`sqnr` of any floating-point output on any sample.

    Each sample is a list of outputs. An integer output counts only where it differs: as minus
    infinity."""
    worst = float("inf")
    for expected, got in zip(reference, values, strict=True):
        for one, other in zip(expected, got, strict=True):
            if one.shape != other.shape:
                raise ValueError(f"an output has shape {other.shape} and not {one.shape}")
            if one.dtype.kind in "biu":
                found = float("inf") if np.array_equal(one, other) else float("-inf")
            else:
                found = sqnr(one, other)
            worst = min(worst, found)
    return worst


def finite(reference: np.ndarray) -> np.ndarray:
    """``reference`` with zeros for infinities, which would be all of its power."""
    return np.where(np.isfinite(reference), reference, 0.0)


def difference(reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``reference - values``, float64; infinities at the same places, of masks, are the same."""
    return np.where(reference == values, 0.0, reference - values)


def _float64(values: Any) -> np.ndarray:
    return np.asarray(values, np.float64)
