"""Choices by masks that come from outside, and extremes whose positions are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rewrites_harness import rewritten

import penstock
from penstock.compiler.rewrite import outside_masks

Function = Callable[..., Any]


class Call(torch.nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def _viterbi(x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
    score, places = x[0] * 2, []
    for row in range(1, x.shape[0]):
        best, place = (score[:, None] + x[row]).max(0)
        score = torch.where(mask[row], best, score)
        places.append(place)
    return score.exp(), torch.stack(places)


INSIDE: dict[str, Function] = {
    "where": lambda x, m: torch.where(m, x.exp(), x * 2) + 1,
    "where with a number": lambda x, m: torch.where(m, x.exp(), -math.inf).softmax(-1),
    "masked_fill": lambda x, m: x.exp().masked_fill(m, 3.0) * 2,
    "of integers": lambda x, m: torch.where(m.long().cumsum(-1) > 1, x.exp(), x * 2) + 1,
    "twice": lambda x, m: torch.where(m, torch.where(m, x.exp(), x * 2) + 1, x * 3) + 1,
    "max": lambda x, m: (lambda r: (r[0].exp(), r[1]))((x * 2).max(1)),
    "min": lambda x, m: (lambda r: (r[0].exp(), r[1]))((x * 2).min(-1, keepdim=True)),
    "viterbi": _viterbi,
}
KEPT: dict[str, Function] = {
    "at the end": lambda x, m: torch.where(m, x.exp(), x * 2),
    "of inputs": lambda x, m: torch.where(m, x, 0.0) + 1,
    "what may be NaN": lambda x, m: torch.where(m, x.log(), x * 2) + 1,
    "extremes at the end": lambda x, m: (x * 2).max(1),
}


def _inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 5, generator=generator)
    return x, torch.rand(5, 5, generator=generator) > 0.4


@pytest.mark.parametrize("name", INSIDE)
def test_one_delegate(name: str) -> None:
    model, inputs = Call(INSIDE[name]), _inputs()
    rewritten(model, inputs, outside_masks.apply)
    lowered = penstock.lower(model, inputs)
    assert len(lowered.delegation.subgraphs) == 1
    program = penstock.load(lowered.to_bytes())
    for given in (inputs, (torch.zeros(5, 5), ~inputs[1])):
        wanted = torch.utils._pytree.tree_leaves(model(*given))
        for one, other in zip(program(*given), wanted, strict=True):
            torch.testing.assert_close(torch.from_numpy(one), other)


@pytest.mark.parametrize("name", KEPT)
def test_what_cuts_nothing_stays(name: str) -> None:
    _, before = rewritten(Call(KEPT[name]), _inputs())
    _, after = rewritten(Call(KEPT[name]), _inputs(), outside_masks.apply)
    assert after == before
