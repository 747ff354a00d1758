"""Running products, extremes and logarithms of sums along a dimension, out of other operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: What stands at a place, one tensor or several.
State = tuple[Tensor, ...]


def cumprod(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    x = x if dtype is None else x.to(dtype)
    if dtype is None and not x.is_floating_point():
        x = x.to(torch.int64)
    return _running((x,), dim, lambda before, now: (before[0] * now[0],))[0]


def logcumsumexp(x: Tensor, dim: int) -> Tensor:
    return _running((x,), dim, lambda before, now: (torch.logaddexp(before[0], now[0]),))[0]


def cummax(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return _extreme(x, dim, torch.ge)


def cummin(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return _extreme(x, dim, torch.le)


def _extreme(
    x: Tensor, dim: int, at_least: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Ties go to the later place, and NaN goes before everything."""

    def combine(before: State, now: State) -> State:
        newer = at_least(now[0], before[0])
        if x.is_floating_point():
            newer = torch.logical_or(newer, torch.isnan(now[0]))
        return tuple(
            torch.where(newer, late, early) for early, late in zip(before, now, strict=True)
        )

    places = torch.arange(x.shape[dim] if x.dim() else 1, device=x.device)
    shape = [-1 if d == dim % max(x.dim(), 1) else 1 for d in range(x.dim())]
    places = places.reshape(shape)
    values, indices = _running((x, places.expand(x.shape)), dim, combine)
    return values, indices


def _running(state: State, dim: int, combine: Callable[[State, State], State]) -> State:
    """Every place combined with all before it. ``combine`` takes what stands at earlier places and
    at later ones, and is associative."""
    if state[0].dim() == 0:
        return tuple(one.clone() for one in state)
    extent = state[0].shape[dim]
    if isinstance(extent, int):
        return _one_by_one(state, dim, combine)
    return _doubling(state, dim, combine, extent)


def _one_by_one(state: State, dim: int, combine: Callable[[State, State], State]) -> State:
    parts = list(zip(*(one.unbind(dim) for one in state), strict=True))
    for index in range(1, len(parts)):
        parts[index] = combine(parts[index - 1], parts[index])
    return tuple(torch.stack(list(one), dim) for one in zip(*parts, strict=True))


def _doubling(
    state: State, dim: int, combine: Callable[[State, State], State], extent: Any
) -> State:
    """Each step combines with what stands 1, 2, 4 … places before, as often as the longest
    dimension needs; the first places have nothing before them and stay."""
    places = torch.arange(extent)
    shape = [-1 if d == dim % state[0].dim() else 1 for d in range(state[0].dim())]
    reach, longest = 1, _upper(extent)
    while reach < longest:
        before = torch.clamp(places - reach, min=0)
        earlier = tuple(torch.index_select(one, dim, before) for one in state)
        reached = (places >= reach).reshape(shape)
        state = tuple(
            torch.where(reached, combined, own)
            for combined, own in zip(combine(earlier, state), state, strict=True)
        )
        reach *= 2
    return state


def _upper(extent: Any) -> int:
    """The largest a dynamic size can be."""
    upper = extent.node.shape_env.bound_sympy(extent.node.expr).upper
    if not upper.is_Integer:
        raise NotImplementedError
    return int(upper)
