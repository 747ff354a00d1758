"""Padding of minus infinity before maximum pooling, with eager's answers."""

from __future__ import annotations

import math

import pytest
import torch
from rewrites_harness import rewritten
from torch import nn
from torch.nn import functional as F

import penstock
from penstock.compiler.rewrite import padded_pooling


class Pool(nn.Module):
    def __init__(
        self, pad: list[int], value: float = -math.inf, kernel: int = 3, stride: int = 2,
        dilation: int = 1, ceil_mode: bool = False, dims: int = 2,
    ) -> None:  # fmt: skip
        super().__init__()
        self.pad, self.value = pad, value
        kind = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}[dims]
        self.pool = kind(kernel, stride, 0, dilation, ceil_mode=ceil_mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.pool(F.pad(x, self.pad, value=self.value))
        return result


IMAGE = (1, 3, 8, 9)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Pool([0, 1, 0, 1]), (1, 3, 8, 8)),  # TensorFlow's "same"
        (Pool([1, 1, 0, 1]), (1, 3, 8, 9)),
        (Pool([1, 1, 1, 1]), IMAGE),
        (Pool([1, 1]), (1, 3, 3, 9)),
        (Pool([0, 1, 0, 1], ceil_mode=True), (1, 3, 8, 8)),
        (Pool([2, 2, 2, 2], dilation=2, stride=1, kernel=5), (1, 3, 12, 12)),
        (Pool([0, 1], dims=1), (1, 3, 8)),
        (Pool([0, 1, 0, 1, 0, 1], dims=3), (1, 3, 4, 4, 4)),
    ],
)
def test_the_pooling_pads(model: nn.Module, shape: tuple[int, ...]) -> None:
    _, targets = rewritten(model, (torch.randn(shape) - 5,), padded_pooling.apply)
    assert "aten.pad.default" not in targets


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Pool([0, 1, 0, 1], value=0.0), IMAGE),  # another number
        (Pool([2, 2, 2, 2]), IMAGE),  # more than half a window
        (Pool([0, 3, 0, 3], kernel=2), IMAGE),  # windows of nothing else
        (Pool([1, 1, 1, 1, 1, 1]), IMAGE),  # channels, too
        (Pool([-1, 0]), IMAGE),
        (Pool([0, 1, 0, 1], ceil_mode=True), IMAGE),  # one window more
    ],
)
def test_what_pooling_cannot_pad_stays(model: nn.Module, shape: tuple[int, ...]) -> None:
    _, targets = rewritten(model, (torch.randn(shape),), padded_pooling.apply)
    assert targets["aten.pad.default"] == 1


def test_it_can_be_quantized() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Pool([0, 1, 0, 1]), nn.Conv2d(8, 4, 1)).eval()
    images = [(torch.randn(1, 3, 10, 10),) for _ in range(3)]
    lowered = penstock.lower(model, images[0], quantize="static", calibration=images)
    assert not lowered.delegation.undelegated
    assert lowered.quantization is not None and not lowered.quantization.floating
