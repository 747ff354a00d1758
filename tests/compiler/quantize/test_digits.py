"""A MobileNet-style network, trained here on scikit-learn's digits, keeps its accuracy in int8."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import sqnr_db
from sklearn.datasets import load_digits
from torch import nn

import penstock


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 4 * inputs
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(True),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide),
            nn.ReLU6(True),
            nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, 1, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6(True),
        InvertedResidual(12, 16, 2), InvertedResidual(16, 16, 1),
        InvertedResidual(16, 24, 2), InvertedResidual(24, 24, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(24, 10),
    )  # fmt: skip


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(pictures, labels) to train with and held out: every third is held out."""
    data = load_digits()
    pictures = torch.from_numpy(data.images).float()[:, None] / 8 - 1
    labels = torch.from_numpy(data.target)
    held_out = torch.arange(len(labels)) % 3 == 0
    return pictures[~held_out], labels[~held_out], pictures[held_out], labels[held_out]


def train(model: nn.Module, pictures: torch.Tensor, labels: torch.Tensor) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    steps = 300
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(steps):
        batch = torch.randint(len(labels), (64,))
        loss = nn.functional.cross_entropy(model(pictures[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


def test_accuracy_on_held_out_digits() -> None:
    torch.manual_seed(0)
    pictures, labels, held_out, truth = digits()
    model = network()
    train(model, pictures, labels)
    with torch.no_grad():
        reference = model(held_out)
    calibration = [(pictures[: len(truth)],)]
    correct = {"eager fp32": float((reference.argmax(1) == truth).float().mean())}
    for name, scheme in (("fp32", None), ("q8", "static"), ("q8 per tensor", "static_per_tensor")):
        data = calibration if scheme else None
        lowered = penstock.lower(model, (held_out,), quantize=scheme, calibration=data)
        assert not lowered.delegation.undelegated
        (logits,) = penstock.load(lowered.to_bytes())(held_out.numpy())
        correct[name] = float((np.argmax(logits, 1) == truth.numpy()).mean())
        ratio = sqnr_db(reference, torch.from_numpy(np.array(logits)))
        print(f"{name}: {correct[name]:.2%} of {len(truth)} digits, SQNR {ratio:.1f} dB")
    assert correct["eager fp32"] > 0.95, "the network has not learned"
    assert correct["fp32"] == pytest.approx(correct["eager fp32"], abs=1e-6)
    assert correct["q8"] >= correct["fp32"] - 0.01
    assert correct["q8 per tensor"] >= correct["fp32"] - 0.02
