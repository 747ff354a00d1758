"""A value that is not the reference itself but stands for it: :class:`Form`.

Passes move factors, scales and offsets into the weights that follow, and take the mean of a
residual stream out of those before. Such a value is compared in the form that both sides have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from penstock.tools.agreement import sqnr

#: A value that is farther from the reference than this, in dB, may hold a multiple of it. It does
#: where that makes so much of a difference.
FAR = 20.0
#: The means of a centred value are this part of the other's, in power, or less; and without them
#: the two are nearer by so many dB.
CENTRED, NEARER = 0.01, 3.0
#: Values that are nearer, in dB, are the reference itself.
SAME = 90.0
#: Means over fewer numbers say little; and a line is fitted to so many points at least, and is
#: taken where it is nearer by so many dB.
FEWEST, POINTS, FITTED = 8, 16, 10.0


class Form(Protocol):
    """How a value stands for its reference."""

    def of(self, reference: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both so that they can be compared."""

    def note(self, shape: tuple[int, ...]) -> str:
        """In words, for a reference of this shape."""


@dataclass(frozen=True)
class Multiple:
    """The values are ``factor`` times the reference."""

    factor: float

    def of(self, reference: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return reference * np.float64(self.factor), values

    def note(self, shape: tuple[int, ...]) -> str:
        return f"holds {self.factor:.4g} times the reference"


@dataclass(frozen=True)
class Centred:
    """One of the two has no mean over ``axis``."""

    axis: int

    def of(self, reference: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = (array.astype(np.float64) for array in (reference, values))
        return x - x.mean(self.axis, keepdims=True), y - y.mean(self.axis, keepdims=True)

    def note(self, shape: tuple[int, ...]) -> str:
        return f"compared less the mean over {shape[self.axis]}"


@dataclass(frozen=True)
class Affine:
    """The values are the reference with a scale and an offset for each position along an axis, of
    shapes that broadcast to it."""

    scale: np.ndarray
    offset: np.ndarray

    def of(self, reference: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return reference * self.scale + self.offset, values

    def note(self, shape: tuple[int, ...]) -> str:
        return f"holds the reference with another scale and offset for each of {self.scale.size}"


def form_of(reference: np.ndarray, values: np.ndarray) -> Form | None:
    """In which form ``values`` hold ``reference``, of the same layout; None where they seem to be
    the reference itself, or nothing that is known."""
    if not np.isfinite(reference).all() or not np.isfinite(values).all():
        return None
    ratio = sqnr(reference, values)
    if ratio >= SAME:
        return None
    x, y = reference.astype(np.float64), values.astype(np.float64)
    for axis, size in enumerate(x.shape):
        if size >= FEWEST and _centred(x, y, axis, ratio):
            return Centred(axis)
    if ratio < FAR and (multiple := _multiple(x, y, ratio)):
        return multiple
    fits = [_affine(x, y, n) for n, size in enumerate(x.shape) if _few(size, x.size)]
    nearest = max(fits, key=lambda fit: fit[0], default=None)
    return nearest[1] if nearest is not None and nearest[0] > ratio + FITTED else None


def _centred(x: np.ndarray, y: np.ndarray, axis: int, ratio: float) -> bool:
    less, more = sorted(float(np.square(v.mean(axis)).sum()) for v in (x, y))
    return less < CENTRED * more and sqnr(*Centred(axis).of(x, y)) > ratio + NEARER


def _multiple(x: np.ndarray, y: np.ndarray, ratio: float) -> Multiple | None:
    power = float(np.square(x).sum())
    factor = float((x * y).sum()) / power if power else 0.0
    return Multiple(factor) if factor and sqnr(x * factor, y) > ratio + FAR else None


def _few(size: int, elements: int) -> bool:
    """Whether there are enough points for a line at each position of an axis."""
    return FEWEST <= size <= elements // POINTS


def _affine(x: np.ndarray, y: np.ndarray, axis: int) -> tuple[float, Affine]:
    """The best line at each position of an axis, and how near that is."""
    others = tuple(n for n in range(x.ndim) if n != axis)
    x_mean, y_mean = x.mean(others, keepdims=True), y.mean(others, keepdims=True)
    power = np.square(x - x_mean).sum(others, keepdims=True)
    product = ((x - x_mean) * (y - y_mean)).sum(others, keepdims=True)
    scale = np.divide(product, power, out=np.zeros_like(power), where=power > 0)
    fit = Affine(scale, y_mean - scale * x_mean)
    return sqnr(*fit.of(x, y)), fit
