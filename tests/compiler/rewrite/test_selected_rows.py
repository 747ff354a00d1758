"""Rows that a mask selects are computed for all, and chosen; what looks at several rows stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import penstock
from penstock.compiler.rewrite import (
    common_subexpressions,
    fold_constants,
    functionalize,
    remove_no_ops,
    selected_rows,
)
from tests.compiler.rewrite.rewrites_harness import Model, rewritten


class Experts(nn.Module):
    """Mixtures of experts, as models have them."""

    def __init__(self, forward: Callable[[Experts, Tensor], Tensor], width: int = 8) -> None:
        super().__init__()
        self.function = forward
        self.gate = nn.Linear(width, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 12), nn.GELU(), nn.Linear(12, width)) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def _by_mask(m: Experts, x: Tensor) -> Tensor:
    best = m.gate(x).argmax(-1)
    out = torch.zeros_like(x)
    for number, expert in enumerate(m.experts):
        mask = best == number
        out[mask] = expert(x[mask])
    return out


def _added_by_mask(m: Experts, x: Tensor) -> Tensor:
    values, places = m.gate(x).softmax(-1).topk(2)
    out = torch.zeros_like(x)
    for number, expert in enumerate(m.experts):
        mask = (places == number).any(-1)
        weight = torch.where(places == number, values, 0).sum(-1)
        out[mask] += expert(x[mask]) * weight[mask].unsqueeze(-1)
    return out


def _mixtral(m: Experts, x: Tensor) -> Tensor:
    rows = x.view(-1, x.shape[-1])
    values, places = m.gate(rows).softmax(-1).topk(2)
    values = values / values.sum(-1, keepdim=True)
    out = torch.zeros_like(rows)
    masks = F.one_hot(places, 4).permute(2, 1, 0)
    for number, expert in enumerate(m.experts):
        nth, row = torch.where(masks[number])
        found = rows[None, row].reshape(-1, x.shape[-1])
        out.index_add_(0, row, expert(found) * values[row, nth, None])
    return out.view(x.shape)


def _mistral(m: Experts, x: Tensor) -> Tensor:
    rows = x.view(-1, x.shape[-1])
    values, places = m.gate(rows).topk(2)
    values = values.softmax(-1)
    out = torch.zeros_like(rows)
    for number, expert in enumerate(m.experts):
        row, nth = torch.where(places == number)
        out[row] += values[row, nth, None] * expert(rows[row])
    return out.view(x.shape)


def _by_index(m: Experts, x: Tensor) -> Tensor:
    rows = x.view(-1, x.shape[-1])
    values, best = m.gate(rows).softmax(-1).max(-1)
    out = torch.zeros_like(rows)
    for number, expert in enumerate(m.experts):
        row = (best == number).nonzero().squeeze(-1)
        out = out.index_add(0, row, expert(rows.index_select(0, row)) * values[row].unsqueeze(1))
    return out.view(x.shape)


@pytest.mark.parametrize("form", [_by_mask, _added_by_mask, _mixtral, _mistral, _by_index])
def test_experts_are_one_piece(form: Callable[[Experts, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = Experts(form).eval()
    lowered = penstock.lower(model, (torch.randn(2, 5, 8),))
    assert len(lowered.delegation.subgraphs) == 1 and not lowered.delegation.undelegated
    program = penstock.load(lowered.to_bytes())
    for seed in range(3):
        torch.manual_seed(seed)
        x = torch.randn(2, 5, 8)
        (found,) = program(x)
        torch.testing.assert_close(torch.from_numpy(found), model(x).detach(), rtol=1e-4, atol=1e-5)


def test_experts_of_dynamic_batches_are_one_piece() -> None:
    torch.manual_seed(0)
    model = Experts(_by_mask).eval()
    shapes = {"x": {0: torch.export.Dim("n", min=2, max=16)}}
    lowered = penstock.lower(model, (torch.randn(6, 5, 8),), dynamic_shapes=shapes)
    assert len(lowered.delegation.subgraphs) == 1 and not lowered.delegation.undelegated
    program = penstock.load(lowered.to_bytes())
    for count in (2, 11):
        x = torch.randn(count, 5, 8)
        (found,) = program(x)
        torch.testing.assert_close(torch.from_numpy(found), model(x).detach(), rtol=1e-4, atol=1e-5)


def test_large_experts_get_their_rows_alone() -> None:
    model = Experts(_by_mask, width=512).eval()
    model.experts = nn.ModuleList(nn.Linear(512, 512) for _ in range(2))
    lowered = penstock.lower(model, (torch.randn(64, 512),))
    assert any("selects by a mask" in reason for _, reason, _ in lowered.delegation.outside())


def _operators(function: Callable[..., Any], *inputs: Tensor) -> dict[str, int]:
    steps = (functionalize, remove_no_ops, fold_constants, common_subexpressions, selected_rows)
    return rewritten(Model(function), inputs, *(step.apply for step in steps))[1]


X = torch.tensor([[-1.0, 0.0, 2.0], [3.0, -4.0, 0.5], [0.25, 1.0, -2.0]])


def _logarithm(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    mask = x > 0
    y[mask] = torch.log(x[mask]) * 2 + 1
    return y


def _views(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    mask = x[:, 0] > 0
    rows = torch.cat([x[mask], x[mask] * 2], -1).view(-1, 2, 3)
    left, right = rows.chunk(2, 1)
    y[mask] = (left - right).squeeze(1).softmax(-1) - rows.mean(1).sum(1, keepdim=True)
    return y


def _normalized(x: Tensor) -> Tensor:
    mask = (x > 0).any(-1)
    return x.index_put([mask], F.layer_norm(x[mask], (3,)), accumulate=True)


@pytest.mark.parametrize("form", [_logarithm, _views, _normalized])
def test_each_row_alone(form: Callable[[Tensor], Tensor]) -> None:
    operators = _operators(form, X)
    assert "aten.index.Tensor" not in operators and "aten.index_put.default" not in operators


def _mean_of_rows(x: Tensor) -> Tensor:
    y = x + 0
    mask = x[:, 0] > 0
    y[mask] = x[mask] - x[mask].mean(0)
    return y


def _sorted_rows(x: Tensor) -> Tensor:
    y = x + 0
    mask = x[:, 0] > 0
    y[mask] = x[mask].cumsum(0)
    return y


def _two_masks(x: Tensor) -> Tensor:
    y = x + 0
    y[x[:, 0] > 0] = x[x[:, 0] > 0.1]
    return y


def _also_returned(x: Tensor) -> Any:
    y = x + 0
    mask = x[:, 0] > 0
    rows = x[mask]
    y[mask] = rows * 2
    return y, rows


def _last_of_several(x: Tensor) -> Tensor:
    y = x[:, 0] + 0
    row, column = torch.where(x > 0)
    y[row] = x[row, column] * 2
    return y


def _places(x: Tensor) -> Tensor:
    places = torch.nonzero(x > 0)
    return torch.cat([torch.zeros(1, 2, dtype=torch.int64), places, places])


def test_places_alone_stay() -> None:
    assert "aten.nonzero.default" in _operators(_places, X)


@pytest.mark.parametrize(
    "form", [_mean_of_rows, _sorted_rows, _two_masks, _also_returned, _last_of_several]
)
def test_what_needs_the_rows_stays(form: Callable[[Tensor], Any]) -> None:
    assert "aten.index.Tensor" in _operators(form, X)
