"""Stable sorting out of ``topk``, which the stock runtime has and which is not stable there."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sort(x: Tensor, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    """Stable, as eager's is on CPUs. Where the values alone are read, that is one ``topk``."""
    return _sorted(x, dim, descending)


def sort_stable(
    x: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    values, places = _sorted(x, dim, descending)
    if stable and x.is_floating_point() and x.dim():
        values = torch.gather(x, dim, places)  # -0 and 0 are a tie too
    return values, places


def _sorted(x: Tensor, dim: int, descending: bool) -> tuple[Tensor, Tensor]:
    """All elements in order are the top ``size``. Their places, once each run of equal values is
    numbered, make keys that are all different: sorting those puts the places of a run in order."""
    if x.dtype == torch.bool:
        values, places = _sorted(x.to(torch.uint8), dim, descending)
        return values.to(torch.bool), places
    size = x.shape[dim] if x.dim() else 1
    if isinstance(size, int) and size < 2:
        return x.clone(), torch.zeros_like(x, dtype=torch.int64)
    values, places = torch.topk(x, size, dim, largest=descending)
    before = torch.roll(values, 1, dim)  # whether the first run is number 0 or 1 does not matter
    begins = before != values
    if x.is_floating_point():
        begins = begins & ~(torch.isnan(before) & torch.isnan(values))
    run = torch.cumsum(begins, dim, dtype=torch.int64) * size
    keys, _ = torch.topk(places + run, size, dim, largest=False)
    return values, keys - run


def kth(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The ``k``-th smallest is the last of the ``k`` smallest."""
    if x.dim() == 0:
        return x.clone(), torch.zeros((), dtype=torch.int64)
    values, places = torch.topk(x, k, dim, largest=False)
    last = [pair.narrow(dim, k - 1, 1) for pair in (values, places)]
    value, place = last if keepdim else (pair.squeeze(dim) for pair in last)
    return value, place


def median_dim(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Not-a-number, at its first place, where there is one."""
    value, place = kth(x, (x.shape[dim] + 1) // 2 if x.dim() else 1, dim, keepdim)
    if not x.is_floating_point() or x.dim() == 0:
        return value, place
    missing = torch.isnan(x)
    some, first = missing.any(dim, keepdim), missing.to(torch.int32).argmax(dim, keepdim)
    return torch.where(some, math.nan, value).to(x.dtype), torch.where(some, first, place)


def median(x: Tensor) -> Tensor:
    return median_dim(x.reshape(-1), 0)[0]
