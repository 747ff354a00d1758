"""Networks for pictures of any size: one delegate each, right at ten sizes on both runtimes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_harness import check_on_stock, check_sizes
from picture_networks import DeepLab, Detector, MobileNet, ResNet, UNet, settled
from torch import nn
from torch.export import Dim

BATCH = Dim("b", min=1, max=4)
FREE = {0: BATCH, 2: Dim("h", min=33, max=96), 3: Dim("w", min=33, max=96)}
SIXTEENTHS = {0: BATCH, 2: 16 * Dim("i", min=2, max=6), 3: 16 * Dim("j", min=2, max=6)}
ODD = [
    (2, 48, 64), (1, 33, 34), (4, 96, 96), (3, 37, 61), (1, 95, 33), (2, 64, 48), (4, 35, 90),
    (1, 72, 71), (3, 96, 34), (2, 50, 50),
]  # fmt: skip
EVEN = [
    (2, 48, 64), (1, 32, 32), (4, 96, 96), (3, 48, 80), (1, 96, 32), (2, 64, 48), (4, 32, 96),
    (1, 80, 64), (3, 96, 32), (2, 48, 48),
]  # fmt: skip

NETWORKS: dict[str, tuple[Callable[[], nn.Module], Any, list[tuple[int, int, int]]]] = {
    "MobileNet": (MobileNet, FREE, ODD),
    "ResNet": (ResNet, FREE, ODD),
    "DeepLab": (DeepLab, FREE, ODD),
    "UNet": (UNet, SIXTEENTHS, EVEN),
    "UNet, nearest": (lambda: UNet("nearest"), SIXTEENTHS, EVEN),
    "UNet, corners": (lambda: UNet("corners"), SIXTEENTHS, EVEN),
    "UNet, deconvolution": (lambda: UNet("deconvolution"), SIXTEENTHS, EVEN),
    "Detector": (Detector, SIXTEENTHS, EVEN),
    "Detector, flat": (lambda: Detector(flat=True), SIXTEENTHS, EVEN),
}
#: What stays outside: the numbers of rows and columns, and lists of boxes for a dynamic batch,
#: whose two dynamic sizes no reshape of XNNPACK's makes.
OUTSIDE = {
    "Detector": {"aten.arange.default"},
    "Detector, flat": {"aten.arange.default", "aten.reshape.default", "aten.cat.default"},
}


def check(name: str, scheme: str | None, folder: Path) -> None:
    make, shapes, sizes = NETWORKS[name]
    torch.manual_seed(0)
    network = settled(make())
    inputs = [(torch.randn(n, 3, h, w),) for n, h, w in sizes]
    options: dict[str, Any] = {}
    if scheme is not None:
        options = {"quantize": scheme, "least_sqnr": 18}
    if scheme == "static":
        options["calibration"] = inputs[:3]
    lowered = check_sizes(
        network, inputs, (shapes,), pieces=None, folder=folder, name=f"{name} {scheme}", **options
    )
    outside = {node.target for node, _ in lowered.delegation.undelegated}
    assert outside == OUTSIDE.get(name, set())
    assert len(lowered.delegation.subgraphs) == 1


#: Quantized at run time it is the same nodes for all ways up.
AT_RUN_TIME = ("MobileNet", "ResNet", "DeepLab", "UNet", "Detector")
CASES = [
    *((name, scheme) for name in NETWORKS for scheme in (None, "static")),
    *((name, "dynamic") for name in AT_RUN_TIME),
]


@pytest.mark.parametrize(("name", "scheme"), CASES)
def test_network(name: str, scheme: str | None, folder: Path) -> None:
    check(name, scheme, folder)


def test_on_stock(folder: Path) -> None:
    """Of the programs of the tests above, as far as they ran."""
    check("MobileNet", None, folder)
    check_on_stock(folder, tolerance=1e-5)
