"""Convolutions and pooling with strides over plain dynamic sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_harness import check_on_stock, check_pictures, check_sizes
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

BATCH, HEIGHT, WIDTH = Dim("b", min=1, max=4), Dim("h", min=5, max=40), Dim("w", min=5, max=40)
SIZES = [(2, 16, 12), (1, 5, 5), (4, 40, 40), (3, 7, 31), (1, 40, 6), (2, 17, 18)]


class Tower(nn.Module):
    """Strided convolutions one after the other, beside one large stride: equal sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.ReLU()
        )
        self.leap = nn.Conv2d(3, 8, 1, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.steps(x) + self.leap(x)


FUNCTIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "max_pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max_pool whole": lambda x: F.max_pool2d(x, 2),
    "max_pool dilated": lambda x: F.max_pool2d(x, 2, 2, 0, dilation=2),
    "avg_pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "avg_pool not counted": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "one axis": lambda x: F.avg_pool1d(x[:, 0], 3, 2, 1),
}


@pytest.mark.parametrize("scheme", [None, "static", "dynamic"])
def test_tower(scheme: str | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = [(torch.randn(n, 3, h, w),) for n, h, w in SIZES]
    options: dict[str, Any] = {} if scheme is None else {"quantize": scheme, "least_sqnr": 18}
    check_sizes(Tower(), inputs, ({0: BATCH, 2: HEIGHT, 3: WIDTH},), folder=tmp_path, **options)
    check_on_stock(tmp_path)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_pools(name: str) -> None:
    check_pictures(FUNCTIONS[name], SIZES, {0: BATCH, 2: HEIGHT, 3: WIDTH})


UNFOLDED: dict[str, Callable[[torch.Tensor], Any]] = {
    "rows": lambda x: F.unfold(x[..., :1], (3, 1), padding=(1, 0)),
    "windows": lambda x: x[:, 0].unfold(1, 4, 1),
    "windows apart": lambda x: x[:, 0].unfold(1, 3, 2),
    "dilated": lambda x: F.unfold(x[..., :4], (2, 2), dilation=2),
}


@pytest.mark.parametrize("name", UNFOLDED)
def test_windows_side_by_side(name: str) -> None:
    inputs = [(n, h, 8) for n, h, _ in SIZES]
    check_pictures(UNFOLDED[name], inputs, {0: BATCH, 2: HEIGHT}, tolerance=0)
