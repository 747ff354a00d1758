"""Linear resizing of lines and volumes, by the kernel for pictures.

That knows what PyTorch does where a size stays as it is, which a definition for all sizes cannot
ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

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
