"""Special functions out of elementary ones, as exact as float32 allows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """By Horner's rule, the highest power's coefficient first."""
    result = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * x + coefficient
    return result


#: M. Giles, "Approximating the erfinv function" (2010), single precision: in w - 2.5 for w < 5,
#: in sqrt(w) - 3 beyond, where w = -log(1 - x²).
ERFINV_CENTRE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
ERFINV_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip


def erfinv(x: Tensor) -> Tensor:
    """Infinite at -1 and 1, not a number outside."""
    w = -torch.log((1 - x) * (1 + x))
    centre = _polynomial(w.clamp(max=5.0) - 2.5, ERFINV_CENTRE)
    tail = _polynomial(w.clamp(5.0, 100.0).sqrt() - 3, ERFINV_TAIL)
    inside = x * torch.where(w < 5, centre, tail)
    return torch.where(x.abs() == 1, x * math.inf, torch.where(torch.isnan(w), w, inside))


def ndtri(p: Tensor) -> Tensor:
    """The quantile of the normal distribution."""
    return erfinv(2 * p - 1) * math.sqrt(2)


#: C. Lanczos, "A precision approximation of the gamma function" (1964), for g = 7.
LANCZOS = (
    676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
    12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
)  # fmt: skip


def lgamma(x: Tensor) -> Tensor:
    """The logarithm of the gamma function's absolute value, by reflection below 1/2."""
    mirrored = x < 0.5
    y = torch.where(mirrored, 1 - x, x) - 1
    series = torch.full_like(y, 0.99999999999980993)
    for place, coefficient in enumerate(LANCZOS, 1):
        series = series + coefficient / (y + place)
    t = y + 7.5
    result = 0.5 * math.log(2 * math.pi) + (y + 0.5) * torch.log(t) - t + torch.log(series)
    sine = torch.sin(math.pi * (x - torch.floor(x)))
    reflected = math.log(math.pi) - torch.log(sine.abs()) - result
    result = torch.where((x == 1) | (x == 2), 0.0, result)
    return torch.where(torch.isinf(x), math.inf, torch.where(mirrored, reflected, result))


def digamma(x: Tensor) -> Tensor:
    """By recurrence to above 6, there by the asymptotic series; by reflection below 0."""
    mirrored = x < 0
    y = torch.where(mirrored, 1 - x, x)
    shift = torch.zeros_like(y)
    for _ in range(6):
        small = y < 6
        shift = shift - torch.where(small, 1 / y, 0.0)
        y = torch.where(small, y + 1, y)
    inverse = 1 / (y * y)
    series = inverse * (1 / 12 - inverse * (1 / 120 - inverse * (1 / 252 - inverse / 240)))
    result = torch.log(y) - 0.5 / y - series + shift
    part = x - torch.round(x)
    reflected = result - math.pi / torch.tan(math.pi * part)
    return torch.where(mirrored, torch.where(part == 0, math.nan, reflected), result)


#: M. Abramowitz, I. Stegun, "Handbook of Mathematical Functions", 9.8.1 to 9.8.4.
BESSEL_0 = (0.0045813, 0.0360768, 0.2659732, 1.2067492, 3.0899424, 3.5156229, 1.0)
BESSEL_0_TAIL = (
    0.00392377, -0.01647633, 0.02635537, -0.02057706, 0.00916281, -0.00157565, 0.00225319,
    0.01328592, 0.39894228,
)  # fmt: skip
BESSEL_1 = (0.00032411, 0.00301532, 0.02658733, 0.15084934, 0.51498869, 0.87890594, 0.5)
BESSEL_1_TAIL = (
    -0.00420059, 0.01787654, -0.02895312, 0.02282967, -0.01031555, 0.00163801, -0.00362018,
    -0.03988024, 0.39894228,
)  # fmt: skip
BESSEL_BORDER = 3.75


def _bessel(x: Tensor, near: Sequence[float], far: Sequence[float], order: int) -> Tensor:
    """The modified Bessel function times exp(-|x|)."""
    size = x.abs()
    small = _polynomial((size.clamp(max=BESSEL_BORDER) / BESSEL_BORDER) ** 2, near)
    small = small * torch.exp(-size) * (size if order else 1)
    beyond = size.clamp(min=BESSEL_BORDER)
    large = _polynomial(BESSEL_BORDER / beyond, far) / torch.sqrt(beyond)
    result = torch.where(size < BESSEL_BORDER, small, large)
    return torch.where(x < 0, -result, result) if order else result


def i0e(x: Tensor) -> Tensor:
    return _bessel(x, BESSEL_0, BESSEL_0_TAIL, 0)


def i1e(x: Tensor) -> Tensor:
    return _bessel(x, BESSEL_1, BESSEL_1_TAIL, 1)


def i0(x: Tensor) -> Tensor:
    return i0e(x) * torch.exp(x.abs())


def i1(x: Tensor) -> Tensor:
    return i1e(x) * torch.exp(x.abs())


#: W. Press et al., "Numerical Recipes", erfcc: the logarithm of erfc(x) exp(x²) / t in
#: t = 1 / (1 + x / 2), with a relative error of 1.2e-7 for any x >= 0.
ERFC = (
    0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418,
    0.37409196, 1.00002368, -1.26551223,
)  # fmt: skip


def _scaled_erfc(size: Tensor) -> Tensor:
    """erfc(x) exp(x²) for x >= 0."""
    t = 1 / (1 + 0.5 * size)
    return t * torch.exp(_polynomial(t, ERFC))


def erfc(x: Tensor) -> Tensor:
    """1 - erf(x) where that loses no digits: the tail is small, and not zero."""
    size = x.abs()
    tail = torch.exp(-size * size) * _scaled_erfc(size)
    return torch.where(x > 0.5, tail, 1 - torch.erf(x))


def erfcx(x: Tensor) -> Tensor:
    """erfc(x) exp(x²)"""
    scaled = _scaled_erfc(x.abs())
    return torch.where(x < 0, 2 * torch.exp(x * x) - scaled, scaled)


def log_ndtr(x: Tensor) -> Tensor:
    """The logarithm of the normal distribution function, which itself vanishes far below zero."""
    z = x * math.sqrt(0.5)
    below = torch.log(0.5 * _scaled_erfc(z.abs())) - z * z
    return torch.where(x < -1, below, torch.log1p(-0.5 * erfc(z)))
