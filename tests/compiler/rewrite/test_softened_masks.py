"""Rows of attention that are masked as a whole: eager PyTorch's answer, in one piece where a mask
chooses behind the softmax what it hid before."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import penstock

INF = math.inf
Masked = Callable[[Tensor, Tensor], Tensor]


def exponentials(x: Tensor) -> Tensor:
    return (x - x.amax(-1, keepdim=True)).exp()


#: Of scores and a mask of what is seen, and whether all products are in one delegate.
CASES: dict[str, tuple[Masked, bool]] = {
    "masked_fill": (lambda s, m: s.masked_fill(~m, -INF).softmax(-1).masked_fill(~m, 0.0), True),
    "compared": (
        lambda s, m: (
            s.masked_fill(m == torch.tensor(False), -INF)
            .softmax(-1)
            .masked_fill(m == torch.tensor(False), 0.0)
        ),
        True,
    ),
    "tensors": (
        lambda s, m: (
            s.masked_fill(~m, torch.tensor(-INF))
            .softmax(-1)
            .masked_fill(m.logical_not(), torch.tensor(0.0))
        ),
        True,
    ),
    "where": (
        lambda s, m: torch.where(m, torch.where(m, s, torch.tensor(-INF)).softmax(-1), 0.0),
        True,
    ),
    "turned": (
        lambda s, m: torch.where(~m, 0.0, torch.where(m, s, -INF).softmax(-1)),
        True,
    ),
    "added": (
        lambda s, m: (s + torch.where(m, 0.0, -INF)).softmax(-1).masked_fill(~m, 0.0),
        False,
    ),
    "rows": (
        lambda s, m: s.masked_fill(~m, -INF).softmax(-1).masked_fill(~m.any(-1, keepdim=True), 0.0),
        False,
    ),
    "not a number": (lambda s, m: s.masked_fill(~m, -INF).softmax(-1).nan_to_num(0.0), False),
    "unchosen": (lambda s, m: s.masked_fill(~m, -INF).softmax(-1) * m, True),
    "logarithms": (
        lambda s, m: s.masked_fill(~m, -INF).log_softmax(-1).masked_fill(~m, 0.0),
        False,
    ),
    "written out": (lambda s, m: exponentials(s.masked_fill(~m, -INF)).masked_fill(~m, 0.0), False),
    "a constant": (
        lambda s, m: (
            s.masked_fill(torch.ones(6, 6).triu(1) == 1, -INF).softmax(-1).masked_fill(~m, 0.0)
        ),
        True,
    ),
}


class Attention(nn.Module):
    def __init__(self, masked: Masked) -> None:
        super().__init__()
        self.masked = masked

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        scores = q @ k.transpose(-1, -2)
        return self.masked(scores, mask.view(2, 1, 6, 6)) @ v


@pytest.mark.parametrize("name", CASES)
def test_rows_that_see_nothing(name: str) -> None:
    masked, whole = CASES[name]
    torch.manual_seed(0)
    mask = torch.rand(2, 6, 6) < 0.6
    mask[0, 2] = False
    inputs = (*(torch.randn(2, 4, 6, 8) for _ in range(3)), mask)
    model = Attention(masked)
    expected = model(*inputs).numpy()
    for delegate in (True, False):
        lowered = penstock.lower(model, inputs, delegate=delegate)
        found = penstock.load(lowered.to_bytes())(*(x.numpy() for x in inputs))[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        if delegate:
            assert (len(lowered.program.methods[0].delegates) == 1) is whole


def test_long_chains_before_a_softmax() -> None:
    class Chain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x
            for _ in range(600):
                y = y * 0.99
            return y.softmax(-1).masked_fill(x > 0, 0.0)

    x = torch.randn(2, 8)
    found = penstock.load(penstock.lower(Chain(), (x,)).to_bytes())(x.numpy())[0]
    np.testing.assert_allclose(found, Chain()(x).numpy(), rtol=1e-5, atol=1e-6)
