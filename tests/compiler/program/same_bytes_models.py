"""Compiles small models of several kinds and prints the SHA-256 of each file; run by the tests in
processes of its own, with other hash seeds and numbers of threads."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import nn

import penstock
from penstock.compiler.quantize.quantization import Quantization


class Picture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.Hardswish(),
            nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.SiLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.heads = nn.ModuleDict({name: nn.Linear(64, 5) for name in ("a", "b", "c")})

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.body(x)
        return {name: head(x).softmax(-1) for name, head in self.heads.items()}


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 64)
        self.layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, norm_first=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(self.embedding(tokens)).cumsum(1)
        return result


class Choice(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.cond(
            x.sum() > 0, lambda x: torch.sin(x) * 2, lambda x: x.cumsum(1), (x,)
        )
        return result


def main() -> None:
    torch.manual_seed(0)
    picture, encoder = Picture().eval(), Encoder().eval()
    pictures = [(torch.randn(1, 3, 64, 64),) for _ in range(3)]
    # Its calibration differs in the last bits where torch has another number of threads.
    wide = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.Hardswish(),
        nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.ReLU(),
        nn.Conv2d(32, 128, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(128, 5),
    ).eval()  # fmt: skip
    tokens = (torch.randint(0, 50, (1, 7)),)
    lengths = ({1: torch.export.Dim("n", min=2, max=16)},)
    dynamic, four = Quantization(scheme="dynamic_per_channel"), Quantization(scheme="dynamic_4bit")
    found = {
        "fp32": penstock.lower(picture, pictures[0]),
        "static": penstock.lower(
            picture, pictures[0], quantize=Quantization(), calibration=pictures
        ),
        "wide": penstock.lower(wide, pictures[0], quantize=Quantization(), calibration=pictures),
        "kernels": penstock.lower(picture, pictures[0], delegate=False),
        "encoder": penstock.lower(encoder, tokens, dynamic_shapes=lengths),
        "dynamic": penstock.lower(encoder, tokens, quantize=dynamic),
        "4bit": penstock.lower(encoder, tokens, quantize=four),
        "choice": penstock.lower(Choice(), (torch.randn(2, 3),)),
    }
    print(json.dumps({k: hashlib.sha256(one.to_bytes()).hexdigest() for k, one in found.items()}))


if __name__ == "__main__":
    main()
