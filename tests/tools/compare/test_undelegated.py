"""A quantized file without delegates beside the same with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import penstock
from penstock.formats.sources import Origin
from penstock.tools.compare.compare import compare
from penstock.tools.compare.integers import as_real
from penstock.tools.compare.taps import ProgramSide, Tap


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x))
        return y + torch.relu(self.second(y))


@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_operators_that_one_side_holds_in_one_are_compared(tmp_path: Path, scheme: str) -> None:
    """Without a delegate a ReLU is an operator of its own, or in the conversion behind its
    convolution; with one it is in the convolution."""
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(1, 3, 8, 8)
    sides = []
    for name, delegate in (("kernels", False), ("delegate", True)):
        path = tmp_path / f"{name}.pte"
        penstock.lower(model, (x,), quantize=scheme, delegate=delegate).save(path)
        sides.append(ProgramSide(path, label=name))
    for a, b in (sides, sides[::-1]):
        report = compare(a, b, [[x.numpy()]], inputs="random", threshold_db=20.0)
        assert not report.left_out
        assert len(report.layers) == 3
        assert min(layer.sqnr_db for layer in report.layers) > 100


def test_conversions_stand_for_what_they_round() -> None:
    x = np.array([-1.0, 0.26, 0.74], np.float32)
    codes, real = np.array([0, 1, 3], np.uint8), np.array([0.0, 0.25, 0.75], np.float32)
    origin = Origin("m", "", "aten.conv2d.default")
    to, back = (
        f"quantized_decomposed::{name}_per_tensor.out" for name in ("quantize", "dequantize")
    )
    taps = [
        Tap(origin, "aten::convolution.out", "fp32", x),
        Tap(Origin(), to, "uint8", codes, (0,)),
        Tap(Origin(), back, "fp32", real, (1,)),
        Tap(Origin(), back, "fp32", real, (1,)),
        Tap(Origin(), "aten::add.out", "fp32", 2 * real, (2, 3)),
    ]
    value, total = as_real(taps)
    assert value.origin == origin and value.dtype == "quint8" and value.array is real
    assert total.reads == (0,)
    # what is read in floating point too stays as it is
    value, rounded, _ = as_real([*taps[:4], replace(taps[4], reads=(0, 3))])
    assert value.array is x and rounded.array is real
