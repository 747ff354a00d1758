"""Batch and length dynamic at once: one piece all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from emit_harness import Case
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

BATCH = Dim("batch", min=1, max=6)
LENGTH = Dim("length", min=2, max=16)
OTHER = Dim("other", min=2, max=10)
WIDTH = 16


def _tokens(*sizes: tuple[int, ...]) -> list[Any]:
    return [
        (torch.randn(*size, WIDTH, generator=torch.Generator().manual_seed(sum(size))),)
        for size in sizes
    ]


TOKENS = _tokens((3, 5), (1, 16), (6, 2))


def _case(
    name: str, build: Callable[[], nn.Module], shapes: Any = None, calls: Any = None, **lower: Any
) -> Case:
    shapes = ({0: BATCH, 1: LENGTH},) if shapes is None else shapes
    tolerance = 0.05 if lower else 5e-5
    lower = {**lower, "dynamic_shapes": shapes}
    return Case(name, lambda: (build(), calls or TOKENS), lower, tolerance, pieces=1)


class Attention(nn.Module):
    """The packed projection of queries, keys and values, split in one of several ways."""

    def __init__(self, way: str, causal: bool = False) -> None:
        super().__init__()
        self.qkv, self.out, self.norm = nn.Linear(16, 48), nn.Linear(16, 16), nn.LayerNorm(16)
        self.way, self.causal = way, causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        packed = self.qkv(self.norm(x))
        if self.way == "unbind":
            q, k, v = packed.reshape(batch, length, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q, k, v = (
                part.view(batch, length, 4, 4).transpose(1, 2) for part in packed.chunk(3, -1)
            )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return x + self.out(y.transpose(1, 2).reshape(batch, length, width))


class GroupedCausal(nn.Module):
    """Two layers that share a mask; pairs of heads share keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(16, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        for _ in range(2):
            q = self.query(x).view(batch, length, 4, 4).transpose(1, 2)
            k = self.key(x).view(batch, length, 2, 4).transpose(1, 2)
            y = F.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True, scale=0.4)
            x = x + y.transpose(1, 2).flatten(2)
        return x


class FlatRows(nn.Module):
    """Rows of all sentences in one matrix, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, 16)
        rows = self.down(F.gelu(self.up(self.norm(rows)))) * 0.5 + rows
        return torch.softmax(rows, -1).view(x.shape) + x


class Products(nn.Module):
    """Linear layers as GPT-2 writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(16, 48)), nn.Parameter(torch.randn(48))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = torch.addmm(self.bias, x.view(-1, 16), self.weight).view(*x.shape[:2], 48)
        q, k, v = y.split(16, dim=2)
        return (q * k).tanh(), v


class Pooled(nn.Module):
    """Means over a dynamic dimension, one token, a normalized answer."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return F.normalize(x.exp().sum(1), dim=1), x[:, 0].relu(), x.mean(1, keepdim=True)


class Reduced(nn.Module):
    """Reductions over constant dimensions, wherever they stand."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        a, b = x.chunk(2, -1)
        y = torch.stack([a, b, a * b], 2)
        return y.mean(2), y.sum((2, 3)), y.amax(2), y.permute(2, 0, 1, 3).amin(0), y.amax((2, 3))


def _decoder() -> nn.Module:
    return nn.TransformerDecoderLayer(16, 4, 32, batch_first=True, norm_first=True)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = _decoder()

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        answer: torch.Tensor = self.layer(x, memory, tgt_mask=mask, tgt_is_causal=True)
        return answer


class Image(nn.Module):
    """A multiple of a dimension is what an input has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 8, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x.movedim(-1, 1)).relu()
        return y.flatten(2).mean(-1) + torch.arange(y.shape[-1]).sum()


CASES = [
    _case("several_unbind", lambda: Attention("unbind")),
    _case("several_chunk", lambda: Attention("chunk")),
    _case("several_causal", lambda: Attention("chunk", True)),
    _case("several_dynamic_q8", lambda: Attention("unbind"), quantize="dynamic"),
    _case("several_static_q8", lambda: Attention("chunk", True), quantize="static",
          calibration=TOKENS),
    _case("several_pooled_static_q8",
          lambda: nn.Sequential(nn.Linear(16, 16), Pooled()), quantize="static",
          calibration=TOKENS),
    _case("causal_length", lambda: Attention("unbind", True), ({1: LENGTH},),
          _tokens((2, 5), (2, 16))),
    _case("several_grouped", GroupedCausal),
    _case("several_flat_rows", FlatRows),
    _case("several_products", Products),
    _case("several_pooled", Pooled),
    _case("several_reduced", Reduced),
    _case("several_encoder",
          lambda: nn.TransformerEncoderLayer(16, 4, 32, norm_first=True)),
    _case("several_decoder", Decoder, ({0: BATCH, 1: LENGTH}, {0: BATCH, 1: OTHER}),
          [(x, y) for (x,), (y,) in zip(TOKENS, _tokens((3, 4), (1, 10), (6, 3)), strict=True)]),
    _case("several_image", Image, ({1: 4 * Dim("h", max=4), 2: 2 * Dim("w", max=5)},),
          _tokens((2, 8, 6), (2, 16, 2), (2, 4, 10))),
]  # fmt: skip
