"""Writes at masks become choices; what differs from place to place stays a write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import penstock
from penstock.compiler.rewrite import fold_constants, functionalize, mask_writes
from tests.compiler.rewrite.rewrites_harness import Model, rewritten

X = torch.tensor([[-1.0, 0.0, 2.0], [3.0, -4.0, 0.5]])


def _operators(function: Callable[..., Any], *inputs: Tensor) -> Counter[str]:
    steps = (functionalize.apply, fold_constants.apply, mask_writes.apply)
    return rewritten(Model(function), inputs, *steps)[1]


def _number(x: Tensor) -> Tensor:
    y = x + 0
    y[y < 0] = 0.1
    return y


def _of_rows(x: Tensor) -> Tensor:
    y = x + 0
    y[x[:, 0] > 0] = -1
    return y


def _behind(x: Tensor) -> Tensor:
    y = x + 0
    y[:, x[0] > 0] = 7.0
    return y


def _row(x: Tensor) -> Tensor:
    y = x + 0
    y[x[:, 0] > 0] = x[0] * 2
    return y


def _integers(x: Tensor) -> Tensor:
    y = x.to(torch.int64)
    y[y == 0] = 9
    return y


@pytest.mark.parametrize("write", [_number, _of_rows, _behind, _row, _integers])
def test_one_value_for_all_places(write: Callable[[Tensor], Tensor]) -> None:
    assert "aten.index_put.default" not in _operators(write, X)


def _others(x: Tensor) -> Tensor:
    y = x + 0
    y[torch.tensor([0, 1]), torch.tensor([1, 2])] = 5.0
    return y


def _each(x: Tensor) -> Tensor:
    y = x + 0
    y[x > 0] = (x * 3)[x > 0]
    return y


@pytest.mark.parametrize("write", [_others, _each])
def test_others_stay(write: Callable[[Tensor], Tensor]) -> None:
    assert "aten.index_put.default" in _operators(write, X)


class Normalized(nn.Module):
    """A graph's normalization as it is written everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, adjacency: Tensor) -> Any:
        adjacency = torch.relu(adjacency + 0.1)
        degree = adjacency.sum(-1).pow(-0.5)
        degree[torch.isinf(degree)] = 0.0
        return self.layer(degree.unsqueeze(-1) * adjacency * degree.unsqueeze(-2))


def test_infinite_degrees_are_one_piece() -> None:
    model = Normalized().eval()
    x = torch.randn(2, 4, 4)
    x[0, 1] = -5.0
    lowered = penstock.lower(model, (x,))
    assert len(lowered.delegation.subgraphs) == 1 and not lowered.delegation.undelegated
    (found,) = penstock.load(lowered.to_bytes())(x)
    torch.testing.assert_close(torch.from_numpy(found), model(x).detach(), rtol=1e-5, atol=1e-6)
