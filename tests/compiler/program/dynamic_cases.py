"""Models compiled once and run at several sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from emit_harness import Case
from structure_cases import MODES, Function
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

BATCH = Dim("batch", max=8)
LENGTH = Dim("length", min=2, max=16)
HEIGHT, WIDTH = Dim("height", min=4, max=16), Dim("width", min=4, max=16)


class Pooled(nn.Module):
    """Any height and width."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.n, self.l = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.n(self.c(x))), 2)
        return F.softmax(self.l(x.mean((2, 3))), -1)


class Flattened(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c, self.l = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.l(F.relu(self.c(x)).flatten(1))


class Sentences(nn.Module):
    """Ids and a mask in; states and their mean out."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.q = nn.Embedding(30, 16), nn.Linear(16, 48)
        self.o, self.n = nn.Linear(16, 16), nn.LayerNorm(16)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        x = self.e(ids)
        batch, length, width = x.shape
        q, k, v = self.q(x).view(batch, length, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        bias = torch.where(mask[:, None, None, :], 0.0, -1e4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        y = self.o(y.transpose(1, 2).reshape(batch, length, width))
        mean = (y * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return {"states": self.n(x + y), "mean": mean}


def _sentences(*sizes: tuple[int, int]) -> list[Any]:
    calls = []
    for batch, length in sizes:
        generator = torch.Generator().manual_seed(batch * 100 + length)
        mask = torch.ones(batch, length, dtype=torch.bool)
        mask[0, length // 2 + 1 :] = False
        calls.append((torch.randint(0, 30, (batch, length), generator=generator), mask))
    return calls


def _sized(*shapes: tuple[int, ...]) -> list[Any]:
    return [(torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))),)
            for shape in shapes]  # fmt: skip


def _cases(name: str, build: Callable[[], nn.Module], calls: list[Any], shapes: Any) -> list[Case]:
    return [
        Case(name + mode, lambda: (build(), calls), {**lower, "dynamic_shapes": shapes}, 5e-5)
        for mode, lower in MODES
    ]


def _function(name: str, function: Any, calls: list[Any], shapes: Any) -> list[Case]:
    return _cases(name, lambda: Function(function), calls, {"args": shapes})


def _by_size(_: Any, x: torch.Tensor) -> Any:
    """Sizes in arguments, and in arithmetic."""
    rows, columns = x.shape[0], x.shape[1]
    return (
        x.reshape(rows * columns, -1), x[:, 1:], x.view(-1), x.sum() / rows,
        torch.arange(columns) + rows * 2, x.new_zeros(rows, columns * 2 + 1),
        F.pad(x, (0, 0, 0, 20 - columns)), x.expand(3, rows, columns, 3),
    )  # fmt: skip


def _causal(_: Any, x: torch.Tensor) -> torch.Tensor:
    mask = torch.triu(torch.full((x.shape[1], x.shape[1]), -1e9), 1)
    return x @ x.transpose(1, 2) + mask


CASES = [
    *_cases("batch", Pooled, _sized((2, 3, 8, 8), (1, 3, 8, 8), (8, 3, 8, 8)), {"x": {0: BATCH}}),
    *_cases("flattened", Flattened, _sized((2, 3, 4, 4), (1, 3, 4, 4), (8, 3, 4, 4)),
            {"x": {0: BATCH}}),
    *_cases("image_size", Pooled, _sized((1, 3, 8, 8), (1, 3, 12, 10), (1, 3, 16, 16)),
            {"x": {2: HEIGHT, 3: WIDTH}}),
    *_cases("linear_rows", lambda: nn.Linear(4, 3), _sized((2, 3, 4), (5, 7, 4), (1, 2, 4)),
            ({0: BATCH, 1: LENGTH},)),
    *_cases("automatic", lambda: nn.Linear(4, 3), _sized((2, 4), (5, 4)), ({0: Dim.AUTO(max=16)},)),
    *_cases("length", Sentences, _sentences((1, 7), (1, 16), (1, 2)),
            {"ids": {1: LENGTH}, "mask": {1: LENGTH}}),
    *_cases("batch_and_length", Sentences, _sentences((2, 7), (8, 16), (1, 2)),
            {"ids": {0: BATCH, 1: LENGTH}, "mask": {0: BATCH, 1: LENGTH}}),
    *_cases("encoder_layer", lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True),
            _sized((3, 5, 16), (8, 16, 16), (1, 2, 16)), ({0: BATCH, 1: LENGTH},)),
    *_cases("recurrent", lambda: nn.LSTM(4, 5, batch_first=True), _sized((2, 3, 4), (6, 3, 4)),
            ({0: BATCH},)),
    *_function("by_size", _by_size, _sized((2, 4, 3), (8, 6, 3)),
               ({0: BATCH, 1: Dim("columns", min=3, max=16)},)),
    *_function("causal", _causal, _sized((1, 4, 3), (1, 9, 3)), ({1: LENGTH},)),
    *_function("upsampled",
               lambda _, x: (F.interpolate(x, scale_factor=2.0, mode="bilinear"),
                             F.interpolate(x, scale_factor=2)),
               _sized((1, 2, 4, 4), (1, 2, 6, 10)), ({2: HEIGHT, 3: WIDTH},)),
    *_function("pools", lambda _, x: (F.avg_pool2d(x, 3, 2, 1), F.adaptive_avg_pool2d(x, 1)),
               _sized((1, 2, 6, 6), (1, 2, 9, 12)), ({2: HEIGHT, 3: WIDTH},)),
]  # fmt: skip
