"""PyTorch's own attention layers with dynamic batches and lengths, and learned queries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_harness import check_on_stock, check_sizes
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

SIZES = ((4, 5), (1, 3), (9, 12), (2, 7))
BATCH, LENGTH = Dim("batch", max=9), Dim("length", max=12)


class Attention(nn.Module):
    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(16, 2, batch_first=True)
        self.weights = weights

    def forward(self, x: torch.Tensor, padding: torch.Tensor | None = None) -> Any:
        found, weights = self.layer(
            x, x, x, key_padding_mask=padding, need_weights=self.weights,
            average_attn_weights=False,
        )  # fmt: skip
        return (found, weights) if self.weights else found


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor, padding: torch.Tensor | None = None) -> torch.Tensor:
        result: torch.Tensor = self.layers(x, src_key_padding_mask=padding)
        return result


MODELS: dict[str, Callable[[], nn.Module]] = {
    "attention": lambda: Attention(False),
    "attention with weights": lambda: Attention(True),
    "encoder": Encoder,
}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_one_delegate(name: str, padded: bool, folder: Path) -> None:
    torch.manual_seed(0)
    inputs = [(torch.randn(*size, 16), torch.rand(*size) > 0.7)[: 1 + padded] for size in SIZES]
    for _, padding in inputs if padded else ():
        padding[:, 0] = False
    shapes = {0: BATCH, 1: LENGTH}
    lowered = check_sizes(
        MODELS[name]().eval(), inputs, (shapes, shapes)[: 1 + padded], pieces=None, folder=folder,
        name=f"{name} {padded}",
    )  # fmt: skip
    assert len(lowered.delegation.subgraphs) == 1
    outside = {node.target for node, _ in lowered.delegation.undelegated}
    assert outside <= {"aten.where.self", "aten.zeros_like.default"}  # of the mask alone


class Queries(nn.Module):
    """What is learned, once for each row of a batch."""

    def __init__(self, function: Callable[[Queries, torch.Tensor], Any]) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 3, 16))
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.cell, self.linear = nn.GRUCell(16, 16), nn.Linear(16, 16)
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


def _rows(m: Queries, x: torch.Tensor) -> torch.Tensor:
    return m.queries.expand(x.shape[0], -1, -1)


QUERIES: dict[str, Callable[[Queries, torch.Tensor], Any]] = {
    "attend": lambda m, x: m.attention(_rows(m, x), x, x)[0],
    "repeated": lambda m, x: m.attention(m.queries.repeat(x.shape[0], 1, 1), x, x)[0],
    "turned": lambda m, x: _rows(m, x).transpose(1, 2) @ x[:, :3],
    "in a line": lambda m, x: m.linear(_rows(m, x).reshape(-1, 16)) + x[:, 0].repeat(3, 1),
    "states": lambda m, x: m.cell(x[:, :3].reshape(-1, 16), _rows(m, x).reshape(-1, 16)),
    "unit matrices": lambda m, x: (
        x[:, :3, :3] + torch.eye(3).view(1, 9).repeat(x.shape[0], 1).view(-1, 3, 3)
    ),
    "parts": lambda m, x: (
        x[:, :2] * _rows(m, x)[:, -2:] + _rows(m, x)[:, [2, 0]] + _rows(m, x).flip(2)[:, 1:]
    ),
    "halves": lambda m, x: _rows(m, x).chunk(2, -1)[1] * F.glu(_rows(m, x)) + x[:, :3, 8:],
    "sums": lambda m, x: x[:, :3] + _rows(m, x).roll(1, 1).cumsum(1),
    "choices": lambda m, x: x[:, :3] + torch.where(m.queries > 0, _rows(m, x), m.queries.sum(1)),
    "statistics": lambda m, x: x - x.mean(0, keepdim=True).repeat(x.shape[0], 1, 1),
}


@pytest.mark.parametrize("name", QUERIES)
def test_queries(name: str, folder: Path) -> None:
    torch.manual_seed(0)
    inputs = [(torch.randn(batch, 5, 16),) for batch in (4, 1, 9, 2)]
    check_sizes(
        Queries(QUERIES[name]).eval(), inputs, ({0: BATCH},), folder=folder, name=f"queries {name}"
    )


def test_on_stock(folder: Path) -> None:
    """Of the programs of the tests above, as far as they ran."""
    test_queries("attend", folder)
    check_on_stock(folder)
