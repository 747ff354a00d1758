"""The zoo's networks for pictures, whole, over pictures of ten sizes each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_harness import check_on_stock, check_sizes
from torch import nn
from torch.export import Dim

from penstock.zoo.libraries import require

DIMS = {0: Dim("b", min=1, max=4), 2: Dim("h", min=33, max=160), 3: Dim("w", min=33, max=160)}
SIZES = [
    (2, 96, 128), (1, 33, 34), (4, 160, 160), (3, 37, 61), (1, 159, 33), (2, 64, 96),
    (4, 35, 150), (1, 127, 128), (3, 96, 34), (2, 97, 99),
]  # fmt: skip


class Segmentation(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)["out"]


def network(name: str) -> nn.Module:
    models = require("torchvision.models")
    torch.manual_seed(0)
    if name == "dl3":
        segmentation = models.segmentation
        return Segmentation(
            segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None)
        ).eval()
    model = models.mobilenet_v2() if name == "mv2" else models.resnet18()
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 96, 96))
    return model.eval()


@pytest.mark.sweep
@pytest.mark.parametrize("scheme", [None, "static", "dynamic"])
@pytest.mark.parametrize("name", ["mv2", "resnet18", "dl3"])
def test_network(name: str, scheme: str | None, tmp_path: Path) -> None:
    inputs = [(torch.randn(n, 3, h, w),) for n, h, w in SIZES]
    options: dict[str, Any] = {}
    if scheme is not None:
        options = {"quantize": scheme, "least_sqnr": 15}
    if scheme == "static":
        options["calibration"] = inputs[:5]
    check_sizes(network(name), inputs, (DIMS,), folder=tmp_path, **options)
    check_on_stock(tmp_path, tolerance=1e-4)
