"""The same model, calibration data and inputs: ours is not worse than the stock flow's q8."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import torch
from graphs import quantized, run, sqnr_db
from torch import nn

STOCK = Path(__file__).with_name("stock_flow.py")


def block(inputs: int, outputs: int, stride: int, activation: type[nn.Module]) -> nn.Sequential:
    wide = inputs * 4
    return nn.Sequential(
        nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), activation(inplace=True),
        nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide),
        activation(inplace=True),
        nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
    )  # fmt: skip


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


class Branches(nn.Module):
    """Convolutions side by side, concatenated, pooled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(channels, channels, k, padding=k // 2) for k in (1, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [torch.relu(part(x)) for part in self.parts]
        return nn.functional.max_pool2d(torch.cat([x, *parts], 1), 2)


def network(activation: type[nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), activation(inplace=True),
        block(16, 24, 2, activation), Residual(block(24, 24, 1, activation)),
        Branches(24),
        block(72, 32, 1, activation), Residual(block(32, 32, 1, activation)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, 100),
    )  # fmt: skip


def pictures(count: int, seed: int) -> torch.Tensor:
    """Smooth noise, standardized like photographs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 8, 8, generator=generator)
    fine = 0.3 * torch.randn(count, 3, 64, 64, generator=generator)
    return nn.functional.interpolate(coarse, (64, 64), mode="bilinear") + fine


def with_statistics(model: nn.Module) -> nn.Module:
    """Batch norms get spread and the statistics of data, so that no layer is dead."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
            module.momentum = None
    model.train()
    with torch.no_grad():
        model(pictures(32, 1))
    return model.eval()


#: (activation, scheme, seeds). One network by itself may come out a decibel better or worse by
#: chance, so the mean over some is what counts.
CASES = (
    (nn.ReLU, "static_per_channel", (0, 1, 2)),
    (nn.ReLU6, "static_per_channel", (0, 1)),
    (nn.ReLU, "static_per_tensor", (0,)),
    (nn.ReLU6, "static_per_tensor", (0,)),
)


def test_sqnr_beside_the_stock_flow(tmp_path: Path) -> None:
    example = pictures(1, 2)
    calibration = list(pictures(8, 3).split(1))
    inputs = list(pictures(16, 4).split(1))
    jobs, references, ours = [], [], []
    for activation, scheme, seeds in CASES:
        for seed in seeds:
            torch.manual_seed(seed)
            model = with_statistics(network(activation))
            path = tmp_path / f"{len(jobs)}.pt2"
            torch.export.save(torch.export.export(model, (example,)), path)
            module, _ = quantized(model, (example,), scheme, calibration)
            with torch.no_grad():
                references.append(torch.cat([model(x) for x in inputs]))
            ours.append(torch.cat([run(module, x) for x in inputs]))
            jobs.append({"model": str(path), "scheme": scheme, "calibration": calibration})
    torch.save([{**job, "inputs": inputs} for job in jobs], tmp_path / "jobs.pt")
    command = [sys.executable, str(STOCK), str(tmp_path / "jobs.pt"), str(tmp_path / "result.pt")]
    subprocess.run(command, check=True, capture_output=True)
    results = iter(zip(references, ours, torch.load(tmp_path / "result.pt"), strict=True))
    worse = []
    for activation, scheme, seeds in CASES:
        pairs = [
            (sqnr_db(reference, our), sqnr_db(reference, stock))
            for reference, our, stock in itertools.islice(results, len(seeds))
        ]
        our_db, stock_db = (sum(column) / len(seeds) for column in zip(*pairs, strict=True))
        print(f"{activation.__name__:6} {scheme}: SQNR {our_db:.2f} dB, stock {stock_db:.2f} dB")
        if our_db < stock_db - 0.5:
            worse.append((activation, scheme))
    assert not worse
