"""Groups of rows, each times a matrix of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rewrites_harness import rewritten
from torch import nn
from torch.export import Dim

import penstock
from penstock.compiler.rewrite import grouped_products, widen_floats

EXPERTS, INNER, OUTER = 3, 16, 8


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        # Products of small integers are exact in bfloat16 too.
        weight = torch.randint(-3, 4, (EXPERTS, OUTER, INNER), generator=generator)
        self.weight = nn.Parameter(weight.bfloat16())

    def forward(self, x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        rows = x.bfloat16()
        product = nn.functional.grouped_mm(rows, self.weight.transpose(1, 2), offs=ends)
        return product.float()


def ends(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


def test_a_linear_layer_for_each_matrix() -> None:
    x = torch.randint(-3, 4, (6, INNER)).float()
    _, targets = rewritten(
        Experts(), (x, ends(2, 2, 6)), widen_floats.apply, grouped_products.apply
    )
    assert targets["aten.linear.default"] == EXPERTS
    assert "aten._grouped_mm.default" not in targets


@pytest.mark.parametrize("scheme", [None, "dynamic"])
def test_groups_of_all_sizes(scheme: str | None) -> None:
    model, x = Experts(), torch.randn(6, INNER)
    sizes = ({0: Dim("rows", min=2, max=20)}, None)
    lowered = penstock.lower(model, (x, ends(2, 2, 6)), dynamic_shapes=sizes, quantize=scheme)
    assert sum(node.target == "aten.linear.default" for node in lowered.delegation.delegated) == 3
    program = penstock.load(lowered.to_bytes())
    for groups in ends(2, 2, 6), ends(0, 9, 9), ends(1, 2, 20):
        x = torch.randn(int(groups[-1]), INNER)
        (found,) = program(x, groups)
        expected = model(x, groups).detach().numpy()
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert error < 0.02
