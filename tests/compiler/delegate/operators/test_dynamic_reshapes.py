"""Reshapes that split and merge dynamic dimensions beside others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_harness import check_on_stock, check_pictures
from torch.export import Dim
from torch.nn import functional as F

SIZES = [(2, 12, 18), (1, 6, 6), (4, 24, 36), (3, 6, 30), (1, 24, 6), (2, 18, 18)]
DIMS = {0: Dim("b", min=1, max=4), 2: 6 * Dim("i", min=1, max=4), 3: 6 * Dim("j", min=1, max=6)}
Function = Callable[[torch.Tensor], Any]


def windows(x: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] → [windows, 3 * 2, C], as shifted windows have them."""
    n, c, h, w = x.shape
    y = x.permute(0, 2, 3, 1).reshape(n, h // 3, 3, w // 2, 2, c)
    return y.permute(0, 1, 3, 2, 4, 5).reshape(-1, 6, c)


def shuffled(x: torch.Tensor) -> torch.Tensor:
    """``pixel_shuffle`` by hand."""
    n, c, h, w = x.shape
    y = x.view(n, c // 6, 2, 3, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, c // 6, h * 2, w * 3)


FUNCTIONS: dict[str, Function] = {
    "windows": windows,
    "shuffled": lambda x: shuffled(torch.cat([x, x * 2, -x, x + 1], 1)),
    "shuffled, many channels": lambda x: shuffled(
        torch.cat([x * place for place in range(1, 81)], 1)
    ),
    "pixel_shuffle": lambda x: F.pixel_shuffle(torch.cat([x, x * 2, -x, x + 1], 1), 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "rows split": lambda x: x.view(x.shape[0], 3, x.shape[2] // 2, 2, x.shape[3]),
    "columns split": lambda x: x.view(x.shape[0], 3, x.shape[2], x.shape[3] // 3, 3) * 2,
    "columns of a line": lambda x: x[:, 0, 0].view(x.shape[0], x.shape[3] // 2, 2),
    "pairs": lambda x: x.transpose(1, 3).reshape(x.shape[0], x.shape[3], -1, 3).amax(3),
    "channels in front of rows": lambda x: x.reshape(x.shape[0], 3 * x.shape[2], x.shape[3]),
    "a half each": lambda x: x.reshape(x.shape[0], 3, x.shape[2], -1, 2).mean(-1),
    "channel_shuffle": lambda x: F.channel_shuffle(torch.cat([x, -x], 1), 2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_sizes(name: str, folder: Path) -> None:
    check_pictures(FUNCTIONS[name], SIZES, DIMS, tolerance=1e-6, folder=folder, name=name)


def test_on_stock(folder: Path) -> None:
    """Of the programs of the tests above, as far as they ran."""
    test_sizes("windows", folder)
    check_on_stock(folder)
