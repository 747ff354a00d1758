"""Programs with dynamic sizes: one file, inputs of several sizes, eager's answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

import penstock

BATCH = Dim("batch", min=1, max=6)
LENGTH = Dim("length", min=2, max=12)


class Tokens(nn.Module):
    """A class token in front of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.places = nn.Parameter(torch.randn(1, 5, 8))
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.token.expand(x.shape[0], -1, -1)
        return self.linear(torch.cat([tokens, x.relu()], 1)) + self.places


class Expanded(nn.Module):
    """Expansions are results, of constants and of what is computed."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        wide = (y * 2).expand(x.shape[0], -1)
        return wide, torch.ones(1, 3).expand(x.shape[0], 3), x.exp()


class Grouped(nn.Module):
    """Keys and values shared by pairs of heads."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(8, 16), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[1]
        query = self.query(x).view(1, length, 4, 4).transpose(1, 2)
        key = self.key(x).view(1, length, 2, 4).transpose(1, 2)
        key = key[:, :, None].expand(1, 2, 2, length, 4).reshape(1, 4, length, 4)
        y = F.scaled_dot_product_attention(query, key, key)
        return y.transpose(1, 2).reshape(1, length, 16)


CASES: list[tuple[nn.Module, Any, Any]] = [
    (Tokens(), lambda n: (torch.randn(n, 4, 8),), ({0: BATCH},)),
    (Expanded(), lambda n: (torch.randn(n, 3), torch.randn(1, 5)), ({0: BATCH}, None)),
    (Grouped(), lambda n: (torch.randn(1, n, 8),), ({1: LENGTH},)),
]


@pytest.mark.parametrize(("model", "inputs", "sizes"), CASES)
def test_one_piece_for_all_sizes(model: nn.Module, inputs: Any, sizes: Any) -> None:
    torch.manual_seed(0)
    lowered = penstock.lower(model.eval(), inputs(3), dynamic_shapes=sizes)
    assert len(lowered.delegation.subgraphs) == 1
    program = penstock.load(lowered.to_bytes(), threads=1)
    for size in (3, 2, 6, 5):
        given = inputs(size)
        with torch.no_grad():
            expected = model(*given)
        expected = expected if isinstance(expected, tuple) else (expected,)
        actual = program(*(tensor.numpy() for tensor in given))
        for one, other in zip(actual, expected, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("error:Raw Sym")
def test_definitions_with_sizes_say_nothing() -> None:
    """What an operator comes to may have sizes among its arguments; torch warns of raw ones."""

    class Products(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.einsum("nij,njk->nik", x, x)

    lowered = penstock.lower(Products(), (torch.randn(2, 3, 3),), dynamic_shapes=({0: BATCH},))
    assert not lowered.delegation.undelegated
    x = torch.randn(5, 3, 3)
    (found,) = penstock.load(lowered.to_bytes())(x)
    np.testing.assert_allclose(found, (x @ x).numpy(), rtol=1e-5, atol=1e-5)
