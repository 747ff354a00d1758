"""Fourier transforms of pairs of real tensors: by products with small matrices, which XNNPACK
computes, or by the kernel for real input, which both runtimes have.

A transform of n values is a product with a matrix of n² numbers; for n = a · b, one with matrices
of a² and b² numbers and n factors between them. Lengths that are long and have no such factors, or
are known at run time only, go to the kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penstock.compiler.fx.record import computed, constant, whole
from penstock.compiler.rewrite.complex_tensor import COMPLEX, Complex

aten = torch.ops.aten

#: Up to here one matrix is used, and up to there two, neither larger than this.
DIRECT, LONGEST, LARGEST_FACTOR = 64, 4096, 128

NONE, BY_ROOT, BY_COUNT = 0, 1, 2


def matmul(left: Tensor, right: Tensor) -> Tensor:
    result: Tensor = whole(aten.matmul.default, left, right)
    return result


# --- ATen's transforms ---------------------------------------------------------------------------


def r2c(x: Tensor, dim: Sequence[int], normalization: int, onesided: bool) -> Complex:
    *others, last = dim
    result = _real(x, last, normalization, onesided)
    return c2c(result, others, normalization, True) if others else result


def c2c(x: Complex, dim: Sequence[int], normalization: int, forward: bool) -> Complex:
    for axis in reversed(dim):
        x = _complex(x, axis, normalization, forward)
    return x


def c2r(x: Complex, dim: Sequence[int], normalization: int, size: int) -> Tensor:
    *others, last = dim
    return _to_real(c2c(x, others, normalization, False), last, normalization, size)


# --- one dimension -------------------------------------------------------------------------------


def _real(x: Tensor, dim: int, normalization: int, onesided: bool) -> Complex:
    """[…, n] → [… , n // 2 + 1], or all n."""
    size = x.shape[dim]
    factors = _factors(x, size)
    if factors is None:
        half = _by_kernel(x, dim, normalization)
        return half if onesided else _mirrored(half, dim, size)
    kept = size // 2 + 1 if onesided else size
    scale = scale_of(size, normalization)
    return _restored(_product(x.movedim(dim, -1), None, factors, kept, -1, scale), dim)


def _complex(x: Complex, dim: int, normalization: int, forward: bool) -> Complex:
    size = x.shape[dim]
    factors = _factors(x.re, size)
    sign = -1 if forward else 1
    if factors is None:
        # The transform is linear; backwards it is that of what is mirrored at the real axis.
        both = torch.stack([x.re, x.im if forward else -x.im])
        axis = dim if dim < 0 else dim + 1
        spectrum = _mirrored(_by_kernel(both, axis, normalization), axis, size)
        (a, c), (b, d) = spectrum.re.unbind(0), spectrum.im.unbind(0)
        return Complex(a - d, b + c) if forward else Complex(a - d, -(b + c))
    re, im = x.re.movedim(dim, -1), x.im.movedim(dim, -1)
    scale = scale_of(size, normalization)
    return _restored(_product(re, im, factors, size, sign, scale), dim)


def _to_real(x: Complex, dim: int, normalization: int, size: int) -> Tensor:
    """[…, size // 2 + 1], the rest being its mirror image, → […, size]."""
    half = size // 2 + 1
    x = _fitted(x, dim, half)
    factors = _factors(x.re, size)
    if factors is None:
        made: Tensor = whole(
            aten._fft_c2r.default, to_complex(x), [dim % x.dim()], normalization, size
        )
        return made
    re, im = x.re.movedim(dim, -1), x.im.movedim(dim, -1)
    scale = scale_of(size, normalization)
    if factors[0] == 1:
        result = matmul(torch.cat([re, im], -1), constant(inverse_of_half(size, scale)))
        return result.movedim(-1, dim)
    # What is mirrored adds the conjugate: twice the real part, but for the first and the middle.
    weights = np.full(half, 2.0)
    weights[0] = 1
    if size % 2 == 0:
        weights[-1] = 1
    doubled = constant(weights)
    re, im = (fit(part * doubled, -1, size) for part in (re, im))
    return _product(re, im, factors, size, 1, scale).re.movedim(-1, dim)


def scale_of(size: int, normalization: int) -> float:
    return {NONE: 1.0, BY_ROOT: 1 / math.sqrt(size), BY_COUNT: 1 / size}[normalization]


def _restored(x: Complex, dim: int) -> Complex:
    return Complex(x.re.movedim(-1, dim), x.im.movedim(-1, dim))


def _mirrored(x: Complex, dim: int, size: int) -> Complex:
    """The whole spectrum of a real signal, of which the half is given: X[n - k] = X[k]*."""
    count = (size + 1) // 2 - 1
    if isinstance(count, int) and count == 0:
        return x
    re, im = (part.narrow(dim, 1, count).flip(dim) for part in (x.re, x.im))
    return Complex(torch.cat([x.re, re], dim), torch.cat([x.im, -im], dim))


def _fitted(x: Complex, dim: int, size: int) -> Complex:
    if x.shape[dim] == size:
        return x
    return Complex(fit(x.re, dim, size), fit(x.im, dim, size))


def fit(x: Tensor, dim: int, size: int) -> Tensor:
    """Zeros behind, or the end cut off."""
    missing = size - x.shape[dim]
    if missing < 0:
        return x.narrow(dim, 0, size)
    behind = [0, 0] * (x.dim() - 1 - dim % x.dim())
    return torch.nn.functional.pad(x, [*behind, 0, missing]) if missing else x


# --- by the kernel -------------------------------------------------------------------------------


def _by_kernel(x: Tensor, dim: int, normalization: int) -> Complex:
    made = whole(aten._fft_r2c.default, x, [dim % x.dim()], normalization, True)
    stacked = whole(aten.view_as_real.default, made)
    return Complex(stacked.select(-1, 0), stacked.select(-1, 1), made, stacked)


def to_complex(x: Complex) -> Tensor:
    """A complex tensor, not a pair: of the four real numbers re, 0, 0, im the transform is, at
    frequency 1, (re - 0) + i (im - 0). No kernel makes one in a simpler way."""
    empty = any(isinstance(size, int) and size == 0 for size in x.shape)
    if x.whole is None and empty:  # PyTorch transforms nothing that is empty
        shape, dtype = tuple(x.shape), COMPLEX[x.re.dtype]
        x.whole = computed(lambda: torch.empty(shape, dtype=dtype))
    if x.whole is None:
        zero = torch.zeros_like(x.re)
        spectrum = whole(
            aten._fft_r2c.default, torch.stack([x.re, zero, zero, x.im], -1), [x.dim()], NONE, True
        )
        x.whole = whole(aten.select.int, spectrum, -1, 1)
    return x.whole


# --- by matrices ---------------------------------------------------------------------------------


def _factors(x: Tensor, size: Any) -> tuple[int, int] | None:
    """How ``size`` is split, (1, size) for not at all; ``None`` where the kernel is better."""
    if not isinstance(size, int) or x.dtype != torch.float32 or size > LONGEST:
        return None
    if size <= DIRECT:
        return 1, size
    small = next(n for n in range(math.isqrt(size), 0, -1) if size % n == 0)
    return (small, size // small) if size // small <= LARGEST_FACTOR else None


def turns_of(rows: int, columns: int, period: int, sign: int) -> np.ndarray[Any, Any]:
    """exp(sign · 2πi · jk / period) as complex numbers [rows, columns]."""
    steps = np.outer(np.arange(rows), np.arange(columns)) % period
    result: np.ndarray[Any, Any] = np.exp(sign * 2j * np.pi * steps / period)
    # Exact where the circle crosses the axes.
    return np.where(np.abs(result.real) < 1e-9, 0, result.real) + 1j * np.where(
        np.abs(result.imag) < 1e-9, 0, result.imag
    )


def _real_form(matrix: np.ndarray[Any, Any], from_pair: bool) -> np.ndarray[Any, Any]:
    """A complex matrix as it acts on rows (re, im), or (re) alone, giving rows (re, im)."""
    top = np.hstack([matrix.real, matrix.imag])
    return np.vstack([top, np.hstack([-matrix.imag, matrix.real])]) if from_pair else top


@cache
def inverse_of_half(size: int, scale: float) -> np.ndarray[Any, Any]:
    """Rows (re, im) of half a spectrum to real values."""
    half = size // 2 + 1
    turns = turns_of(half, size, size, 1) * scale
    turns[1 : (size + 1) // 2] *= 2
    return np.vstack([turns.real, -turns.imag])


def _product(
    re: Tensor, im: Tensor | None, factors: tuple[int, int], kept: int, sign: int, scale: float
) -> Complex:
    """The first ``kept`` values of the transform of the last dimension."""
    real = im is None
    small, large = factors
    size = small * large
    if small == 1:
        matrix = _real_form(turns_of(size, kept, size, sign) * scale, im is not None)
        return _halves(matmul(_beside(re, im, -1), constant(matrix)), -1)
    # n = j · large + m, k = p + small · q: over j for each m, turned by pm / n, then over m.
    lead = re.shape[:-1]
    grid = [None if part is None else part.reshape(*lead, small, large) for part in (re, im)]
    assert grid[0] is not None
    first = _real_form(turns_of(small, small, small, sign), im is not None).T
    columns = matmul(constant(np.ascontiguousarray(first)), _beside(grid[0], grid[1], -2))
    a, b = _halves(columns, -2).re, _halves(columns, -2).im
    turns = turns_of(small, large, size, sign) * scale
    cosine, sine = constant(turns.real), constant(turns.imag)
    a, b = a * cosine - b * sine, a * sine + b * cosine
    count = -(-kept // small)
    second = _real_form(turns_of(large, count, large, sign), True)
    rows = _halves(matmul(torch.cat([a, b], -1), constant(second)), -1)
    re, im = (
        part.transpose(-1, -2).reshape(*lead, small * count).narrow(-1, 0, kept)
        for part in (rows.re, rows.im)
    )
    if real and kept == size / 2 + 1:
        # The middle frequency is real: not nearly so, or its angle would have any sign.
        im = fit(im.narrow(-1, 0, kept - 1), -1, kept)
    return Complex(re, im)


def _beside(re: Tensor, im: Tensor | None, dim: int) -> Tensor:
    return re if im is None else torch.cat([re, im], dim)


def _halves(x: Tensor, dim: int) -> Complex:
    size = x.shape[dim] // 2
    return Complex(x.narrow(dim, 0, size), x.narrow(dim, size, size))
