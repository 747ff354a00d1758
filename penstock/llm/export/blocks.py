"""Weights in blocks of 32 along a row, as GGUF stores them: :class:`Blocks`."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Blocks:
    """Integers of ``bits`` bits [rows, columns], float32 scales and, where there are any, float32
    offsets [rows, columns / size]: ``integers * scale + offset``. Integers are int8, those of 4
    bits in -8 … 7."""

    integers: torch.Tensor
    scales: torch.Tensor
    offsets: torch.Tensor | None
    bits: int

    @property
    def shape(self) -> torch.Size:
        return self.integers.shape

    @property
    def size(self) -> int:
        """Columns of a block."""
        return int(self.integers.shape[1] // self.scales.shape[1])

    def real(self) -> torch.Tensor:
        """The real numbers, float32 [rows, columns]."""
        numbers = self.integers.to(torch.float32)
        numbers *= self.scales.repeat_interleave(self.size, 1)
        if self.offsets is not None:
            numbers += self.offsets.repeat_interleave(self.size, 1)
        return numbers

    def rows(self, order: torch.Tensor) -> Blocks:
        """The rows in another order (int64 [rows])."""
        offsets = None if self.offsets is None else self.offsets[order]
        return Blocks(self.integers[order], self.scales[order], offsets, self.bits)
