"""Elements by their place among all, or by whether they are numbers or not zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from penstock.compiler.rewrite import sorting


def nanmedian_dim(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The middle of those that are numbers: sorted, the others stand at the end."""
    if x.dim() == 0:
        return x.clone(), torch.zeros((), dtype=torch.int64)
    values, places = sorting.sort(x, dim)
    count = (~torch.isnan(values)).sum(dim, keepdim=True)
    middle = torch.div(count - 1, 2, rounding_mode="floor").clamp(min=0)
    value, place = (torch.gather(one, dim, middle) for one in (values, places))
    return (value, place) if keepdim else (value.squeeze(dim), place.squeeze(dim))


def nanmedian(x: Tensor) -> Tensor:
    return nanmedian_dim(x.reshape(-1), 0)[0]


def take(x: Tensor, index: Tensor) -> Tensor:
    """Out of the flattened tensor."""
    taken: Tensor = torch.ops.aten.index.Tensor(x.reshape(-1), [index])
    return taken


def put(x: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """Into the flattened tensor."""
    flat = torch.index_put(x.reshape(-1), [index.reshape(-1)], source.reshape(-1), accumulate)
    return flat.reshape(x.shape)


def nonzero_static(x: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """The first ``size`` places at which ``x`` is not zero: each goes to the row that the number of
    those before it says, all others to one row more."""
    shown = (x != 0).reshape(-1)
    row = torch.cumsum(shown, 0, dtype=torch.int64) - 1
    row = torch.where(shown & (row < size), row, size)
    columns = []
    place = torch.arange(x.numel())
    for axis, extent in enumerate(x.shape):
        behind = math.prod(x.shape[axis + 1 :])
        along = torch.div(place, behind, rounding_mode="floor") % extent
        filled = torch.full((size + 1,), fill_value, dtype=torch.int64)
        columns.append(filled.scatter(0, row, along)[:size])
    return torch.stack(columns, 1) if columns else torch.empty((size, 0), dtype=torch.int64)


def angle(x: Tensor) -> Tensor:
    """Of real numbers: 0, or pi of those below."""
    turned = torch.where(x < 0, math.pi, 0.0).to(x.dtype)
    return torch.where(torch.isnan(x), x, turned)
