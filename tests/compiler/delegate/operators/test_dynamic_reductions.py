"""Scans, deviations, means and pooling whose windows depend on a dynamic size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_harness import check_on_stock, check_pictures
from torch.export import Dim
from torch.nn import functional as F

SIZES = [(2, 9, 12), (1, 5, 5), (4, 24, 40), (3, 7, 31), (1, 24, 6), (2, 17, 18)]
DIMS = {0: Dim("b", min=1, max=4), 2: Dim("h", min=5, max=24), 3: Dim("w", min=5, max=40)}
Function = Callable[[torch.Tensor], Any]

FUNCTIONS: dict[str, Function] = {
    "cumsum": lambda x: x.cumsum(2),
    "cumsum innermost": lambda x: x.cumsum(-1),
    "cumsum of a line": lambda x: x[:, 0, 0].cumsum(-1),
    "cumprod": lambda x: (x / 4 + 1).cumprod(3),
    "cummax": lambda x: x.cummax(2).values,
    "cummin": lambda x: x.cummin(3).values,
    "diff": lambda x: x.diff(dim=2),
    "var": lambda x: x.var(3),
    "var of two": lambda x: x.var((2, 3), keepdim=True),
    "var without correction": lambda x: x.var(2, correction=0),
    "std": lambda x: x.std(2),
    "std_mean": lambda x: torch.std_mean(x, (2, 3)),
    "mean": lambda x: x.mean((2, 3)),
    "mean of one": lambda x: x.mean(2),
    "mean of the batch too": lambda x: x.mean((0, 2, 3)),
    "sum": lambda x: x.sum((2, 3)),
    "instance_norm": lambda x: F.instance_norm(x),
    "group_norm": lambda x: F.group_norm(torch.cat([x, -x], 1), 2),
    "amax": lambda x: x.amax((2, 3)),
    "amin": lambda x: x.amin(2),
    "max of all": lambda x: x.max(),
    "logsumexp": lambda x: x.logsumexp(2),
    "log_softmax": lambda x: x.log_softmax(3),
    "softmax": lambda x: x.softmax(3),
}

#: torch.export wants to know whether a size is even.
ROUNDED_UP: dict[str, Function] = {
    "max_pool up": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max_pool up, padded": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "avg_pool up": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
}
HALVES = {0: DIMS[0], 2: 2 * Dim("i", min=3, max=12) - 1, 3: 2 * Dim("j", min=3, max=20)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_sizes(name: str, folder: Path) -> None:
    check_pictures(FUNCTIONS[name], SIZES, DIMS, tolerance=1e-5, folder=folder, name=name)


@pytest.mark.parametrize("name", ROUNDED_UP)
def test_rounded_up(name: str, folder: Path) -> None:
    sizes = [(2, 9, 12), (1, 5, 6), (4, 23, 40), (3, 7, 30)]
    check_pictures(ROUNDED_UP[name], sizes, HALVES, tolerance=1e-5, folder=folder, name=name)


def test_on_stock(folder: Path) -> None:
    """Of the programs of the tests above, as far as they ran."""
    test_sizes("cumsum", folder)
    check_on_stock(folder)
