"""Reductions by index, of bags of rows and of places, as products and sums with masks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from penstock.compiler.fx.record import computed

SUM, MEAN, MAX = 0, 1, 2


def embedding_bag(
    weight: Tensor, indices: Tensor, offsets: Tensor, scale_grad_by_freq: bool = False,
    mode: int = SUM, sparse: bool = False, per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False, padding_idx: int = -1,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """A bag's sum is a product with the mask of its members."""
    places = torch.arange(indices.shape[0])
    if include_last_offset:
        starts, ends = offsets[:-1], offsets[1:]
    else:
        last = torch.full_like(offsets[:1], indices.shape[0])
        starts, ends = offsets, torch.cat([offsets[1:], last])
    members = (places >= starts[:, None]) & (places < ends[:, None])
    if padding_idx >= 0:
        members = members & (indices != padding_idx)
    rows = torch.nn.functional.embedding(indices, weight)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[:, None]
    kept = members.to(weight.dtype)
    count = kept.sum(1)
    if mode == MAX:
        best = torch.where(members[:, :, None], rows, -math.inf).amax(1)
        result = torch.where(count[:, None] > 0, best, 0.0)
    else:
        result = kept @ rows
        if mode == MEAN:
            result = result / count.clamp(min=1.0)[:, None]
    return result, places, count.to(torch.int64), count.to(torch.int64)


def _neutral(reduce: str, dtype: torch.dtype) -> float:
    """What a reduction of ``dtype`` does not feel."""
    if reduce in ("sum", "mean", "prod"):
        return 1 if reduce == "prod" else 0
    if dtype.is_floating_point:
        return -math.inf if reduce == "amax" else math.inf
    info = torch.iinfo(dtype)
    return info.min if reduce == "amax" else info.max


def scatter_reduce(
    x: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """Each place of ``dim`` looks at all entries, of which the others are neutral."""
    if x.dim() == 0:
        return scatter_reduce(
            x[None], 0, index.reshape(1), src.reshape(1), reduce, include_self=include_self
        )[0]
    if reduce == "sum" and include_self:
        return x.scatter_add(dim, index, src)
    if x.dtype is torch.bool:
        numbers = (x.to(torch.int64), dim, index, src.to(torch.int64), reduce)
        return scatter_reduce(*numbers, include_self=include_self) != 0
    dim %= x.dim()
    part = x
    for other, size in enumerate(index.shape):
        src = src.narrow(other, 0, size)
        if other != dim:
            part = part.narrow(other, 0, size)
    old, entries, places = (one.movedim(dim, -1) for one in (part, src, index))
    hit = places.unsqueeze(-2) == torch.arange(x.shape[dim])[:, None]
    neutral = torch.full((), _neutral(reduce, x.dtype), dtype=x.dtype)
    wide = torch.where(hit, entries.unsqueeze(-2), neutral)
    count = hit.sum(-1).to(x.dtype)
    if reduce in ("sum", "mean"):
        found = wide.sum(-1, dtype=x.dtype)
        found = found + old if include_self else found
        if reduce == "mean":
            down = None if x.is_floating_point() else "floor"
            members = count + 1 if include_self else count.clamp(min=1)
            found = torch.div(found, members, rounding_mode=down)
    elif reduce == "prod":
        found = wide.prod(-1, dtype=x.dtype)
        found = found * old if include_self else found
    else:
        largest = reduce == "amax"
        found = wide.amax(-1) if largest else wide.amin(-1)
        if include_self:
            found = torch.maximum(found, old) if largest else torch.minimum(found, old)
    if not include_self:
        found = torch.where(count > 0, found, old)
    return _into(x, found.movedim(-1, dim), dim)


def scatter_of(x: Tensor, dim: int, index: Tensor, src: Tensor, *, reduce: str) -> Tensor:
    """``scatter`` that adds or multiplies."""
    return scatter_reduce(x, dim, index, src, {"add": "sum", "multiply": "prod"}[reduce])


def scatter_of_number(
    x: Tensor, dim: int, index: Tensor, value: float, *, reduce: str
) -> Tensor:  # fmt: skip
    numbers = torch.full(index.shape, value, dtype=x.dtype)
    return scatter_of(x, dim, index, numbers, reduce=reduce)


def embedding_renorm(weight: Tensor, indices: Tensor, most: float, norm_type: float) -> Tensor:
    """The rows that are looked up, no longer than ``most``."""
    length = torch.linalg.vector_norm(weight, norm_type, 1, keepdim=True)
    looked_up = torch.zeros(weight.shape[0], dtype=torch.bool)
    looked_up = looked_up.index_put((indices.reshape(-1),), torch.ones((), dtype=torch.bool))
    shortened = looked_up[:, None] & (length > most)
    return torch.where(shortened, weight * (most / (length + 1e-7)), weight)


def _into(x: Tensor, part: Tensor, dim: int) -> Tensor:
    """``x`` with its first places, in all dimensions but ``dim``, taken from ``part``."""
    smaller = [d for d in range(x.dim()) if d != dim and part.shape[d] != x.shape[d]]
    if not smaller:
        return part
    outer = smaller[0]
    inside = _into(x.narrow(outer, 0, part.shape[outer]), part, dim)
    return torch.slice_scatter(x, inside, outer, 0, part.shape[outer])


def index_reduce(
    x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    shape = [-1 if d == dim % source.dim() else 1 for d in range(source.dim())]
    places = index.reshape(shape).expand(source.shape)
    return scatter_reduce(x, dim, places, source, reduce, include_self=include_self)


def as_strided_scatter(
    x: Tensor, source: Tensor, size: list[int], stride: list[int], offset: int | None = None
) -> Tensor:
    """``x``, as it lies in memory, with some places taken from ``source``."""
    if not x.is_contiguous():
        raise NotImplementedError

    def places() -> Tensor:
        sums = torch.full([1] * len(size), offset or 0)
        for dim, (count, step) in enumerate(zip(size, stride, strict=True)):
            line = torch.arange(count) * step
            sums = sums + line.reshape([-1 if d == dim else 1 for d in range(len(size))])
        return sums.reshape(-1)

    known = all(isinstance(number, int) for number in (*size, *stride, offset or 0))
    where = computed(places) if known else places()
    whole = x.reshape(-1).scatter(0, where, source.reshape(-1))
    return whole.reshape(x.shape)


def mode(x: Tensor, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The smallest of the most frequent values, and its last place."""
    if x.dim() == 0:
        return x.clone(), torch.zeros((), dtype=torch.int64)
    rows = x.movedim(dim, -1)
    counts = (rows.unsqueeze(-1) == rows.unsqueeze(-2)).sum(-1)
    values, _ = torch.sort(rows, -1)
    sorted_counts = (values.unsqueeze(-1) == rows.unsqueeze(-2)).sum(-1)
    first = torch.argmax((sorted_counts == counts.amax(-1, keepdim=True)).to(torch.int64), -1)
    value = torch.gather(values, -1, first.unsqueeze(-1))
    size = rows.shape[-1]
    place = ((rows == value) * torch.arange(1, size + 1)).amax(-1) - 1
    result = value.squeeze(-1)
    return (result.unsqueeze(dim), place.unsqueeze(dim)) if keepdim else (result, place)


def histc(x: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements fall into each of ``bins`` equal parts; the last one has both ends."""
    if min == max:
        raise NotImplementedError
    flat = x.reshape(-1)
    place = torch.floor((flat - min) * (bins / (max - min)))
    place = torch.where(flat == max, float(bins - 1), place)
    return (place[:, None] == torch.arange(bins)).sum(0).to(x.dtype)
