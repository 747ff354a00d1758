"""Linear layers and embeddings that hold their weights as float32, or as integers."""

from __future__ import annotations

import torch
from torch import nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators
from torch.nn import functional

from penstock.llm.export.blocks import Blocks

quantized = torch.ops.quantized_decomposed

INT8 = (-128, 127)
INT4 = (-8, 7)


def _unfilled(*shape: int) -> nn.Parameter:
    """The place of a weight that is still to be read: no memory."""
    return nn.Parameter(torch.empty(shape, device="meta"), requires_grad=False)


class Linear(nn.Module):
    """``x @ weight.T + bias``. With integers for weights x is rounded to 8 bits for each token, as
    XNNPACK does it; offsets of blocks are multiplied with the sums over the blocks of x."""

    def __init__(self, columns: int, rows: int, *, bias: bool) -> None:
        super().__init__()
        self.weight: nn.Parameter | None = _unfilled(rows, columns)
        self.bias = _unfilled(rows) if bias else None
        self.rows, self.columns = rows, columns
        self.limits = INT8
        for name in ("integers", "scales", "zero_points", "offsets", "offset_scales"):
            self.register_buffer(name, None)

    def take_blocks(self, blocks: Blocks) -> None:
        """Takes 4-bit weights in blocks as they are, 8-bit ones with a scale for each row."""
        if blocks.bits > 4:
            self.take_rows(*per_row(blocks.real()))
            return
        scales, offsets = blocks.scales, blocks.offsets
        if offsets is not None:
            # XNNPACK's scales are bfloat16; what rounding them shifts goes into the offsets.
            rounded = scales.to(torch.bfloat16).to(torch.float32)
            parts = blocks.integers.view(*scales.shape, blocks.size)
            offsets = offsets + (scales - rounded) * parts.to(torch.float32).mean(-1)
            scales = rounded
        self.take_rows(blocks.integers, scales)
        self.limits = INT4
        if offsets is not None:
            # 8 bits are enough: what they lose is a hundredth of a 4-bit step.
            self.offsets, self.offset_scales = per_row(offsets)

    def take_rows(self, integers: torch.Tensor, scales: torch.Tensor) -> None:
        """Takes int8 weights [rows, columns] with float32 scales [rows], or [rows, blocks]."""
        self.weight = None
        self.integers, self.scales = integers, scales
        self.zero_points = torch.zeros(scales.shape, dtype=torch.int64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.weight is not None:
            return functional.linear(x, self.weight, self.bias)
        weight = self._dequantized()
        result = functional.linear(rounded_by_token(x), weight, self.bias)
        if self.offsets is not None:
            blocks = self.offsets.shape[1]
            sums = x.unflatten(-1, (blocks, self.columns // blocks)).sum(-1)
            points = torch.zeros_like(self.offset_scales, dtype=torch.int64)
            offsets = dequantized_rows(self.offsets, self.offset_scales, points)
            result = result + functional.linear(sums, offsets)
        return result

    def _dequantized(self) -> torch.Tensor:
        if self.scales.dim() == 1:
            return dequantized_rows(self.integers, self.scales, self.zero_points)
        size = self.columns // self.scales.shape[1]
        found: torch.Tensor = quantized.dequantize_per_channel_group(
            self.integers, self.scales, self.zero_points, *self.limits, torch.int8, size,
            torch.float32,
        )  # fmt: skip
        return found


class Embedding(nn.Module):
    """Rows of a table by token, float32 or int8 with a scale for each row."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight: nn.Parameter | None = _unfilled(rows, columns)
        for name in ("integers", "scales", "zero_points"):
            self.register_buffer(name, None)

    def quantize(self, largest: torch.Tensor | int = INT8[1]) -> None:
        """Rounds the table to 8 bits; ``largest`` as for :func:`per_row`."""
        assert self.weight is not None
        self.integers, self.scales = per_row(self.weight.detach(), largest)
        self.zero_points = torch.zeros(self.scales.shape, dtype=torch.int64)
        self.weight = None

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.weight is not None:
            return functional.embedding(tokens, self.weight)
        table = dequantized_rows(self.integers, self.scales, self.zero_points)
        return functional.embedding(tokens, table)


def dequantized_rows(
    integers: torch.Tensor, scales: torch.Tensor, zero_points: torch.Tensor
) -> torch.Tensor:
    found: torch.Tensor = quantized.dequantize_per_channel(
        integers, scales, zero_points, 0, *INT8, torch.int8
    )
    return found


def rounded_by_token(x: torch.Tensor) -> torch.Tensor:
    """x as 8 bits with a scale and a zero point for each row, and back."""
    scale, point = quantized.choose_qparams_per_token_asymmetric(x, torch.int8)
    small = quantized.quantize_per_token(x, scale, point, *INT8, torch.int8)
    found: torch.Tensor = quantized.dequantize_per_token(
        small, scale, point, *INT8, torch.int8, torch.float32
    )
    return found


def per_row(
    weight: torch.Tensor, largest: torch.Tensor | int = INT8[1]
) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 [rows, columns] as int8 and float32 scales [rows]; ``largest`` is the largest
    magnitude of integers, of all rows or int64 [rows] of each."""
    scales = weight.abs().amax(1).clamp(min=1e-12) / largest
    integers = torch.empty(weight.shape, dtype=torch.int8)
    step = max(1, (1 << 24) // max(weight.shape[1], 1))
    for begin in range(0, weight.shape[0], step):  # no float copy of a large table
        part = slice(begin, begin + step)
        integers[part] = torch.round(weight[part] / scales[part, None]).to(torch.int8)
    return integers, scales
