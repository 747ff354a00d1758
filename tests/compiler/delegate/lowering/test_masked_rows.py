"""Attention with masks that leave rows empty: one delegate, and eager's answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

import penstock
from penstock.formats.payload_reader import read_payload

HEADS, SIZE = 3, 4
LOWEST = torch.finfo(torch.float32).min
#: Sizes by letter: batch, heads, rows, columns.
EXAMPLE = {"B": 2, "H": HEADS, "L": 5, "K": 7, "1": 1}


class Attention(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return y.transpose(1, 2).flatten(2)


class WithConstant(nn.Module):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)


def mask_of(form: str, sizes: dict[str, int], kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(len(form))
    keep = torch.rand([sizes[letter] for letter in form], generator=generator) > 0.6
    keep[..., 0, :] = False
    if kind == "bool":
        return keep
    mask = torch.randn(keep.shape, generator=generator).masked_fill(~keep, -math.inf)
    if kind == "lowest":
        # Beside minus infinity alone the lowest number takes it all.
        mask[..., 0, -1] = LOWEST
    return mask


def operands(sizes: dict[str, int]) -> list[Tensor]:
    b, rows, columns = (sizes[letter] for letter in "BLK")
    return [torch.randn(b, HEADS, n, SIZE) for n in (rows, columns, columns)]


def check(model: nn.Module, runs: Sequence[Sequence[Tensor]], sizes: Any = None) -> None:
    lowered = penstock.lower(model, tuple(runs[0]), dynamic_shapes=sizes)
    outside = {str(node.target) for node, _ in lowered.delegation.undelegated}
    assert len(lowered.delegation.subgraphs) == 1
    assert "aten.scaled_dot_product_attention.default" not in outside
    program = penstock.load(lowered.to_bytes(), threads=1)
    for inputs in runs:
        (found,) = program(*inputs)
        np.testing.assert_allclose(found, model(*inputs).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["bool", "float", "lowest"])
@pytest.mark.parametrize("form", ["LK", "11LK", "B1LK", "BHLK", "B11K", "B1L1"])
def test_empty_rows_are_zeros(form: str, kind: str) -> None:
    mask = mask_of(form, EXAMPLE, kind)
    check(Attention(), [[*operands(EXAMPLE), mask]])
    check(WithConstant(mask), [operands(EXAMPLE)])


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize(("form", "free"), [("LK", "LK"), ("B1LK", "BLK"), ("B11K", "BK")])
def test_sizes_that_vary(form: str, free: str, kind: str) -> None:
    dims = {letter: Dim(letter.lower(), max=16) for letter in free}

    def run(**other: int) -> list[Tensor]:
        sizes = {**EXAMPLE, **{k: v for k, v in other.items() if k in free}}
        return [*operands(sizes), mask_of(form, sizes, kind)]

    shapes = ["BHLE", "BHKE", "BHKE", form]
    sizes = tuple({i: dims[c] for i, c in enumerate(shape) if c in free} for shape in shapes)
    check(Attention(), [run(), run(B=3, L=9, K=11), run(B=4, L=16, K=3)], sizes)


def test_masks_that_leave_no_row_empty_cost_nothing() -> None:
    class Padded(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
            mask = torch.where(keep, 0.0, LOWEST)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    class Plain(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=torch.where(keep, 0.0, -1.0))

    inputs = [*operands(EXAMPLE), mask_of("B1LK", EXAMPLE, "bool")]
    sizes = []
    for model in (Padded(), Plain()):
        check(model, [inputs])
        sizes.append(len(penstock.lower(model, tuple(inputs), sources=False).to_bytes()))
    assert sizes[0] == sizes[1]


def test_a_softmax_masked_twice() -> None:
    """Rows that are masked as a whole are not a number only in between."""

    class Twice(nn.Module):
        def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
            hidden = scores.masked_fill(mask, -math.inf)
            return hidden.softmax(-1).masked_fill(mask, 0.0)

    mask = torch.tensor([[True, False, True], [True, True, True]])
    check(Twice(), [[torch.randn(2, 3), mask]])


def test_what_the_mask_decides_is_computed_once() -> None:
    class Layers(nn.Module):
        def __init__(self, count: int) -> None:
            super().__init__()
            self.count = count

        def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
            for _ in range(self.count):
                q = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            return q

    inputs = [*operands(EXAMPLE), mask_of("B1LK", EXAMPLE, "float")]
    counts = []
    for layers in (1, 2, 3):
        lowered = penstock.lower(Layers(layers), tuple(inputs))
        program = lowered.program
        (delegate,) = program.method("forward").delegates
        counts.append(len(read_payload(delegate.payload, program.named_data).nodes))
    # A layer is its scale, two products, the mask's sum, the softmax and one factor.
    assert counts[2] - counts[1] == counts[1] - counts[0] == 6
