"""Resizing of dynamic sizes: whole factors, other sizes, both ways of aligning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_harness import check_on_stock, check_pictures
from torch.export import Dim
from torch.nn import functional as F

SIZES = [(2, 8, 12), (1, 4, 5), (4, 16, 20), (3, 7, 19), (1, 16, 4), (2, 9, 10)]
DIMS = {0: Dim("b", min=1, max=4), 2: Dim("h", min=4, max=16), 3: Dim("w", min=4, max=20)}
Function = Callable[[torch.Tensor], Any]


def by(factor: Any, mode: str, **options: Any) -> Function:
    return lambda x: F.interpolate(x, scale_factor=factor, mode=mode, **options)


FUNCTIONS: dict[str, Function] = {
    "nearest": by(2.0, "nearest"),
    "nearest 2 x 3": by((2.0, 3.0), "nearest"),
    "nearest along one axis": by((1.0, 4.0), "nearest"),
    "bilinear": by(2.0, "bilinear"),
    "bilinear 3 x 4": by((3.0, 4.0), "bilinear"),
    "bilinear along one axis": by((1.0, 2.0), "bilinear"),
    "bilinear of corners": by(2.0, "bilinear", align_corners=True),
    "bilinear to another size": lambda x: F.interpolate(
        F.avg_pool2d(x, 3, 3, 1), size=x.shape[2:], mode="bilinear", align_corners=False
    ),
    "bilinear from one pixel": lambda x: F.interpolate(
        x.mean((2, 3), keepdim=True), size=x.shape[2:], mode="bilinear"
    ),
    "nearest, half": by(0.5, "nearest"),
    "nearest, half of one axis": by((1.0, 0.5), "nearest"),
    "bilinear, half": by(0.5, "bilinear"),
    "bilinear, one and a half": by(1.5, "bilinear"),
    "of a line": lambda x: F.interpolate(x[:, :, 0], scale_factor=2.0, mode="linear"),
    "nearest of a line": lambda x: F.interpolate(x[:, :, 0], scale_factor=2.0),
    "nearest of many channels": lambda x: F.interpolate(
        torch.cat([x * place for place in range(1, 38)], 1), scale_factor=2.0
    ),
    "repeat_interleave": lambda x: x.repeat_interleave(3, 2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(torch.cat([x, 2 * x, -x, x + 1], 1), 2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_sizes(name: str, folder: Path) -> None:
    check_pictures(FUNCTIONS[name], SIZES, DIMS, tolerance=1e-5, folder=folder, name=name)


def test_on_stock(folder: Path) -> None:
    """Of the programs of the tests above, as far as they ran."""
    test_sizes("nearest", folder)
    check_on_stock(folder)
