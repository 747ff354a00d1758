"""Random tensors of all kinds, out of uniform and normal numbers of a given size.

What is drawn is new in every run: a program holds no generator and no seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

#: Up to here a random float32 of 24 bits reaches every integer of a range alike.
SMALL_RANGE = 2**16


def rand(size: Sequence[int], *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return torch.rand(size, dtype=dtype)


def randn(size: Sequence[int], *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return torch.randn(size, dtype=dtype)


def rand_like(x: Tensor, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return torch.rand(x.shape, dtype=dtype or x.dtype)


def randn_like(x: Tensor, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return torch.randn(x.shape, dtype=dtype or x.dtype)


def randint(
    high: int, size: Sequence[int], *, dtype: torch.dtype | None = torch.int64, **_: Any
) -> Tensor:
    return randint_low(0, high, size, dtype=dtype)


def randint_low(
    low: int, high: int, size: Sequence[int], *, dtype: torch.dtype | None = torch.int64, **_: Any
) -> Tensor:
    """Rounding may bring the largest number below 1 up to it: hence the bound."""
    span = high - low
    kind = torch.float32 if isinstance(span, int) and span <= SMALL_RANGE else torch.float64
    steps = torch.floor(torch.rand(size, dtype=kind) * span).clamp(max=span - 1)
    return steps.to(torch.int64).add(low).to(dtype or torch.int64)


def randint_like(x: Tensor, high: int, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return randint_low(0, high, x.shape, dtype=dtype or x.dtype)


def randint_like_low(
    x: Tensor, low: int, high: int, *, dtype: torch.dtype | None = None, **_: Any
) -> Tensor:
    return randint_low(low, high, x.shape, dtype=dtype or x.dtype)


def randperm(n: int, *, dtype: torch.dtype | None = torch.int64, **_: Any) -> Tensor:
    """The order of random numbers."""
    return torch.topk(torch.rand([n], dtype=torch.float64), n)[1].to(dtype or torch.int64)


def bernoulli(x: Tensor, **_: Any) -> Tensor:
    return (torch.rand(x.shape) < x).to(x.dtype)


def bernoulli_p(x: Tensor, p: float = 0.5, **_: Any) -> Tensor:
    return (torch.rand(x.shape) < p).to(x.dtype)


def normal(mean: Tensor, std: Tensor | float = 1.0, **_: Any) -> Tensor:
    shape = mean.shape if not isinstance(std, Tensor) else torch.broadcast_shapes(
        mean.shape, std.shape
    )  # fmt: skip
    return torch.randn(shape, dtype=mean.dtype) * std + mean


def normal_of_deviations(mean: float, std: Tensor, **_: Any) -> Tensor:
    return torch.randn(std.shape, dtype=std.dtype) * std + mean


def normal_of_size(
    mean: float, std: float, size: Sequence[int], *, dtype: torch.dtype | None = None, **_: Any
) -> Tensor:
    return torch.randn(size, dtype=dtype or torch.float32) * std + mean


def normal_functional(x: Tensor, mean: float = 0.0, std: float = 1.0, **_: Any) -> Tensor:
    return torch.randn(x.shape, dtype=x.dtype) * std + mean


def uniform(x: Tensor, low: float = 0.0, high: float = 1.0, **_: Any) -> Tensor:
    """What ``uniform_`` writes."""
    return torch.rand(x.shape, dtype=x.dtype) * (high - low) + low


def exponential(x: Tensor, rate: float = 1.0, **_: Any) -> Tensor:
    """What ``exponential_`` writes: by the inverse of the distribution."""
    drawn = torch.rand(x.shape, dtype=torch.float64)
    return (torch.log1p(-drawn) * (-1 / rate)).to(x.dtype)


def multinomial(weights: Tensor, count: int, replacement: bool = False, **_: Any) -> Tensor:
    """Without putting back: the first of waiting times whose rates are the weights. With: where
    random numbers fall into the running sum."""
    rates = weights.to(torch.float64)
    if not replacement or count == 1:
        waiting = exponential(rates)
        return torch.topk(rates / waiting, count, -1)[1]
    sums = torch.cumsum(rates, -1)
    drawn = torch.rand((*weights.shape[:-1], count), dtype=torch.float64) * sums[..., -1:]
    return (sums.unsqueeze(-2) <= drawn.unsqueeze(-1)).sum(-1)
