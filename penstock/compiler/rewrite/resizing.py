"""Linear resizing of lines and volumes, by the kernel for pictures.

That knows what PyTorch does where a size stays as it is, which a definition for all sizes cannot
ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from penstock.compiler.fx.record import computed

aten = torch.ops.aten


def linear(
    x: Tensor, size: Sequence[Any] | None, align_corners: bool, factors: Sequence[float] | None
) -> Tensor:
    """``upsample_linear1d.vec`` and ``upsample_trilinear3d.vec``. A line is a picture of one row.
    A volume is a batch of pictures first, and then each line of depth a column, beside those of
    the other places."""

    def resize(picture: Tensor, sizes: Any, scales: Any) -> Tensor:
        result: Tensor = aten.upsample_bilinear2d.vec(picture, sizes, align_corners, scales)
        return result

    if x.dim() == 3:
        row = resize(
            x.unsqueeze(2), [1, *size] if size else None, [1.0, *factors] if factors else None
        )
        return row.squeeze(2)
    planes = resize(
        x.flatten(1, 2), size[1:] if size else None, factors[1:] if factors else None
    ).unflatten(1, x.shape[1:3])
    places = planes.flatten(3)
    deep = resize(
        places,
        [size[0], places.shape[3]] if size else None,
        [factors[0], 1.0] if factors else None,
    )
    result: Tensor = deep.unflatten(3, planes.shape[3:])
    return result


def affine_grid(theta: Tensor, size: list[int], align_corners: bool) -> Tensor:
    """The places of an output's pixels, from -1 to 1, and a 1 for the shift, times ``theta``
    [N, axes, axes + 1]; the last axis is the first coordinate."""
    axes = list(size[2:])

    def places() -> Tensor:
        lines = [_places(extent, align_corners) for extent in axes]
        grids = torch.meshgrid(*lines, indexing="ij")
        return torch.stack(
            [grid.reshape(-1) for grid in (*grids[::-1], torch.ones_like(grids[0]))], -1
        )

    base = computed(places) if all(isinstance(extent, int) for extent in axes) else places()
    grid = torch.matmul(base.to(theta.dtype), theta.transpose(1, 2))
    return grid.reshape([size[0], *axes, len(axes)])


def _places(extent: int, align_corners: bool) -> Tensor:
    """The middles of ``extent`` pixels side by side from -1 to 1, or of which the outer ones lie
    on the ends."""
    index = torch.arange(extent, dtype=torch.float32)
    if align_corners:
        return index * (2 / max(extent - 1, 1)) - (1 if extent > 1 else 0)
    return (index * 2 + 1) / extent - 1
