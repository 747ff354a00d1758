"""Weights of 4 bits in blocks: one scale for each run of a row."""

from __future__ import annotations

from typing import Any

import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators
from torch.fx import GraphModule, Node

from penstock.compiler.fx.attributes import attribute
from penstock.compiler.quantize.pt2e import UniformQuantizationObserverBase
from penstock.compiler.quantize.weight_observers import not_to_be_trained, replace_by_integers

#: The integers of 4 bits.
LOWEST, HIGHEST = -8, 7
#: Scales are tried between the one that holds all of a block and this part of it.
SMALLEST_PART = 0.72
CANDIDATES = 24
#: Each candidate is refined so often: scale for the integers, integers for the scale.
REFINEMENTS = 2
#: The scale of a block of zeros, and the least of others: a normal number of bfloat16.
LEAST_SCALE = 2.0**-100
#: So many numbers are searched at a time.
AT_ONCE = 1 << 22


class BlockObserver(UniformQuantizationObserverBase):  # type: ignore[misc]
    """Finds the scales of a matrix [rows, columns], of which ``block`` divides the columns."""

    def __init__(self, block: int = 32, **options: Any) -> None:
        super().__init__(**options)
        self.block = block
        self.scales = torch.zeros(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.scales = block_scales(x.detach(), self.block)
        return not_to_be_trained(x)

    def calculate_qparams(self, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """(scales, zero points), [rows, columns / block]."""
        return self.scales, torch.zeros_like(self.scales, dtype=torch.int32)

    def integers(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` in units of its scales, int8."""
        return _rounded(_in_blocks(x.detach(), self.block), self.scales).reshape(x.shape)

    def convert(self, module: GraphModule, node: Node) -> None:
        """Puts the integers and their dequantization in the place of ``node``, which observes a
        constant. (torchao's ``convert_pt2e`` calls it too: it knows no blocks itself.)"""
        source = node.args[0]
        assert isinstance(source, Node)
        value = attribute(module, str(source.target)).detach()
        scales, zero_points = self.calculate_qparams()
        replace_by_integers(
            module, node,
            {"int4": self.integers(value), "scale": scales, "zero_point": zero_points},
            torch.ops.quantized_decomposed.dequantize_per_channel_group.default,
            self.quant_min, self.quant_max, self.dtype, self.block, torch.float32,
        )  # fmt: skip


def block_scales(matrix: torch.Tensor, block: int) -> torch.Tensor:
    """For each block of a row the scale, a number that bfloat16 holds (XNNPACK's files keep no
    more), with the least squared error, float32 [rows, columns / block]."""
    blocks = _in_blocks(matrix, block)
    rows = max(1, AT_ONCE // (blocks.shape[1] * block * 4))
    return torch.cat([_searched(part) for part in blocks.split(rows)])


def _in_blocks(matrix: torch.Tensor, block: int) -> torch.Tensor:
    return matrix.to(torch.float32).reshape(matrix.shape[0], -1, block)


def _searched(blocks: torch.Tensor) -> torch.Tensor:
    whole = torch.maximum(blocks.amax(-1) / HIGHEST, blocks.amin(-1) / LOWEST)
    best = _as_stored(whole)
    least = _error(blocks, best)
    for step in range(CANDIDATES):
        part = 1.0 - (1.0 - SMALLEST_PART) * step / (CANDIDATES - 1)
        scale = whole * part
        for _ in range(REFINEMENTS):
            integers = _rounded(blocks, _as_stored(scale)).to(torch.float32)
            norm = integers.square().sum(-1)
            scale = torch.where(norm > 0, (blocks * integers).sum(-1) / norm, scale)
        scale = _as_stored(scale)
        error = _error(blocks, scale)
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best


def _as_stored(scale: torch.Tensor) -> torch.Tensor:
    return scale.clamp(min=LEAST_SCALE).to(torch.bfloat16).to(torch.float32)


def _rounded(blocks: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    integers = torch.round(blocks / scale.unsqueeze(-1)).clamp_(LOWEST, HIGHEST)
    return integers.to(torch.int8)


def _error(blocks: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    real = _rounded(blocks, scale).to(torch.float32) * scale.unsqueeze(-1)
    return (blocks - real).square_().sum(-1)
