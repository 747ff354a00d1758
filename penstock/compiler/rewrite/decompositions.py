"""Decompositions that PyTorch lacks: into operators that have kernels.

Each function takes what its operator takes and computes the same out of others; it is traced, so
only its calls matter. PyTorch's own table ends in places at ``prims``, which say themselves how
ATen computes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def sort(x: Tensor, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    """All elements in order are the top ``size``."""
    if x.dim() == 0:
        return x.clone(), torch.zeros_like(x, dtype=torch.int64)
    values, places = torch.topk(x, x.shape[dim], dim, largest=descending)
    return values, places


def sort_stable(
    x: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    return sort(x, dim, descending)


def kth(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The ``k``-th smallest is the last of the ``k`` smallest."""
    values, places = torch.topk(x, k, dim, largest=False)
    last = [pair.narrow(dim, k - 1, 1) for pair in (values, places)]
    value, place = last if keepdim else (pair.squeeze(dim) for pair in last)
    return value, place


def median_dim(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return kth(x, (x.shape[dim] + 1) // 2, dim, keepdim)


def median(x: Tensor) -> Tensor:
    return kth(x.reshape(-1), (x.numel() + 1) // 2, 0)[0]


def adaptive_max_pool2d(x: Tensor, output_size: list[int]) -> tuple[Tensor, Tensor]:
    """Row ``i`` of ``n`` sees the rows from floor(i · h / n) to ceil((i + 1) · h / n)."""
    height, width = x.shape[-2:]
    rows, columns = output_size
    if height % rows == 0 and width % columns == 0:
        window = [height // rows, width // columns]
        values, places = aten.max_pool2d_with_indices.default(x, window)
        return values, places
    found: list[list[Tensor]] = [[], []]
    for top, bottom in _windows(height, rows):
        for left, right in _windows(width, columns):
            window_of = x[..., top:bottom, left:right].flatten(-2)
            value, place = torch.max(window_of, -1)
            size = right - left
            row, column = torch.div(place, size, rounding_mode="floor") + top, place % size + left
            found[0].append(value)
            found[1].append(row * width + column)
    values, places = (torch.stack(one, -1).unflatten(-1, (rows, columns)) for one in found)
    return values, places


def _windows(size: int, count: int) -> list[tuple[int, int]]:
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def cumprod(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """One factor after the other; dimensions are short where people use this."""
    x = x if dtype is None else x.to(dtype)
    parts = list(x.unbind(dim))
    for index in range(1, len(parts)):
        parts[index] = parts[index - 1] * parts[index]
    return torch.stack(parts, dim)


def running_extreme(x: Tensor, dim: int, largest: bool) -> tuple[Tensor, Tensor]:
    """cummax and cummin, ties going to the later place."""
    parts = list(x.unbind(dim))
    places = [torch.zeros_like(parts[0], dtype=torch.int64)]
    for index in range(1, len(parts)):
        before, now = parts[index - 1], parts[index]
        newer = now >= before if largest else now <= before
        parts[index] = torch.where(newer, now, before)
        places.append(torch.where(newer, torch.full_like(places[0], index), places[-1]))
    return torch.stack(parts, dim), torch.stack(places, dim)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.sort.default: sort,
    aten.sort.stable: sort_stable,
    aten.kthvalue.default: kth,
    aten.median.default: median,
    aten.median.dim: median_dim,
    aten.adaptive_max_pool2d.default: adaptive_max_pool2d,
    aten.cumprod.default: cumprod,
    aten.cummax.default: lambda x, dim: running_extreme(x, dim, True),
    aten.cummin.default: lambda x, dim: running_extreme(x, dim, False),
}


def of_prims() -> dict[Any, Callable[..., Any]]:
    """What ATen computes for each operator of ``torch.ops.prims``."""
    import torch._prims

    result: dict[Any, Callable[..., Any]] = {}
    for name in torch._prims.__all__:
        target = getattr(getattr(torch.ops.prims, name, None), "default", None)
        function = getattr(target, "impl_aten", None)
        if target is not None and function is not None:
            result[target] = function
    return result
