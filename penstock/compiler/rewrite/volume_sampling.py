"""Samples of volumes at computed places, out of gathers."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

BILINEAR, NEAREST = 0, 1
ZEROS, BORDER, REFLECTION = 0, 1, 2


def grid_sampler_3d(
    x: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """The eight elements of ``x`` [N, C, D, H, W] around each place of ``grid`` [N, d, h, w, 3]
    (in the order W, H, D, from -1 to 1), weighted by their nearness, or the nearest one."""
    channels = x.shape[1]
    sizes = list(x.shape[2:])
    places = [
        _place(grid[..., 2 - axis], size, padding_mode, align_corners)
        for axis, size in enumerate(sizes)
    ]
    flat = x.flatten(2)

    def picked(corner: list[Tensor]) -> tuple[Tensor, Tensor]:
        inside = torch.ones_like(corner[0], dtype=torch.bool)
        index = torch.zeros_like(corner[0], dtype=torch.int64)
        for place, size in zip(corner, sizes, strict=True):
            inside = inside & (place >= 0) & (place <= size - 1)
            index = index * size + place.clamp(0, size - 1).to(torch.int64)
        wide = index.flatten(1).unsqueeze(1)
        found = torch.gather(flat, 2, wide.expand(wide.shape[0], channels, wide.shape[2]))
        return found.unflatten(2, index.shape[1:]), inside.unsqueeze(1)

    zero = torch.zeros((), dtype=x.dtype)
    if interpolation_mode == NEAREST:
        values, inside = picked([torch.round(place) for place in places])
        return torch.where(inside, values, zero)
    first = [torch.floor(place) for place in places]
    total: Tensor | None = None
    for steps in itertools.product((0, 1), repeat=3):
        corner = [low + step for low, step in zip(first, steps, strict=True)]
        weight = torch.ones((), dtype=x.dtype)
        for place, low, step in zip(places, first, steps, strict=True):
            weight = weight * ((place - low) if step else (low + 1 - place))
        values, inside = picked(corner)
        share = torch.where(inside, values * weight.unsqueeze(1), zero)
        total = share if total is None else total + share
    assert total is not None
    return total


def _place(coordinate: Tensor, size: int, padding: int, align: bool) -> Tensor:
    """Where a coordinate from -1 to 1 lies along an axis of ``size`` elements."""
    place = (coordinate + 1) * ((size - 1) / 2) if align else ((coordinate + 1) * size - 1) / 2
    if padding == REFLECTION:
        place = _reflected(place, 0.0 if align else -0.5, size - 1.0 if align else float(size))
    return place if padding == ZEROS else place.clamp(0, size - 1)


def _reflected(place: Tensor, low: float, span: float) -> Tensor:
    """Turned back at ``low`` and ``low + span``, as often as it takes."""
    if not span:
        return torch.zeros_like(place)
    distance = (place - low).abs()
    turns = torch.floor(distance / span)
    rest = distance - turns * span
    even = torch.remainder(turns, 2.0) == 0
    return torch.where(even, rest, span - rest) + low
