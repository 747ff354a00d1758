"""Integers and masks between float32 are inside, with eager's answers; others stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import penstock

TABLE = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
#: Ties, and rows of one value alone.
X = torch.tensor([[1.0, 3.0, 3.0, -2.0, 0.0, 1.0], [0.0] * 6, [-1.0, -2.0, -3.0, -3.0, 5.0, 5.0]])


class Model(nn.Module):
    """``function`` between two operators that are inside."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        found = self.function(x * 2.0)
        return tuple(one * 2.0 if one.is_floating_point() else one for one in found)


def _pieces(function: Callable[[Tensor], Any], x: Tensor = X, **options: Any) -> tuple[int, int]:
    """How many delegates, and operators outside; the answers are eager's."""
    model = Model(function).eval()
    lowered = penstock.lower(model, (x,), **options)
    program = penstock.load(lowered.to_bytes())
    for given in (x, x.flip(0), x.flip(1), x - 1.5):
        for found, wanted in zip(program(given), model(given), strict=True):
            torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-6, atol=1e-6)
    return len(lowered.delegation.subgraphs), len(lowered.delegation.undelegated)


def _scattered(x: Tensor) -> Any:
    values, places = x.softmax(-1).topk(2, dim=-1)
    values = values / values.sum(-1, keepdim=True)
    yield torch.zeros_like(x).scatter(-1, places, values).sort(-1).values
    hidden = torch.full_like(x, -torch.inf).scatter_(-1, places, values)
    yield hidden.softmax(-1).sort(-1).values


def _best(x: Tensor) -> Any:
    value, place = x.max(-1, keepdim=True)
    yield value
    yield F.one_hot(x.argmax(-1), 6).float()
    yield F.one_hot(x.argmin(-1), 6).to(x.dtype) @ TABLE
    yield torch.zeros_like(x).scatter_(-1, place, 1.0)
    yield F.embedding(x.argmin(-1), TABLE)
    yield TABLE[x.argmax(-1)]
    yield x.gather(-1, x.argmax(-1, keepdim=True))
    yield x[torch.arange(3), x.argmax(-1)]
    yield (x.argmax(-1) == 2).float() + (place != 1).squeeze(-1).to(x.dtype)
    yield (x.argmax(-1, keepdim=True) == torch.arange(6)).float()


def _other_dimension(x: Tensor) -> Any:
    image = x.reshape(1, 3, 2, 3)
    yield F.one_hot(image.argmax(1), 3).permute(0, 3, 1, 2).float()
    values, places = image.topk(2, 1)
    yield values
    yield torch.zeros_like(image).scatter(1, places, values)


def _ordered(x: Tensor) -> Any:
    values = torch.sort(x, -1, descending=True)[0]
    yield values.cumsum(-1)
    yield torch.topk(x, 6, -1, largest=False)[0]
    support = (torch.arange(1, 7) * values > values.cumsum(-1) - 1).sum(-1, keepdim=True)
    yield values.gather(-1, support - 1) / support.to(x.dtype)


def _counted(x: Tensor) -> Any:
    mask = x > 0
    yield (x * mask).sum(-1) / mask.sum(-1).clamp(min=1)
    yield mask.any(-1).float() + (~mask).all(0).sum() * 2
    yield x * (mask & (x < 2)).float().mean()
    yield torch.where(mask.any(-1, keepdim=True), x, 0.0)
    yield x.masked_fill((mask.sum(-1) > 2).unsqueeze(-1), -1.0)


def _searched(x: Tensor) -> Any:
    edges = torch.tensor([-1.0, 0.0, 1.0, 2.0, 3.0])
    yield F.embedding(torch.bucketize(x, edges), TABLE)
    yield TABLE[torch.searchsorted(edges, x, right=True)]


@pytest.mark.parametrize(
    "function", [_scattered, _best, _other_dimension, _ordered, _counted, _searched]
)
def test_whole(function: Callable[[Tensor], Any]) -> None:
    assert _pieces(lambda x: tuple(function(x))) == (1, 0)


@pytest.mark.parametrize("function", [_scattered, _counted])
def test_any_batch(function: Callable[[Tensor], Any]) -> None:
    dynamic = {"x": {0: torch.export.Dim("batch", min=2, max=16)}}
    model = Model(lambda x: tuple(function(x))).eval()
    lowered = penstock.lower(model, (X,), dynamic_shapes=dynamic)
    program = penstock.load(lowered.to_bytes())
    for batch in (2, 5):
        x = torch.randn(batch, 6)
        for found, wanted in zip(program(x), model(x), strict=True):
            torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-5, atol=1e-6)


def test_results_stay_integers() -> None:
    """What the program gives is found outside, and does not cut what is inside."""

    def coded(x: Tensor) -> Any:
        code = x.argmin(-1)
        return F.embedding(code, TABLE), code

    assert _pieces(coded) == (1, 1)


def test_what_leads_back_from_outside_stays() -> None:
    def shifted(x: Tensor) -> Any:
        place = x.argmax(-1)
        return F.one_hot(place, 6).float(), F.embedding((place * 5) % 6, TABLE)

    assert _pieces(shifted)[0] == 2


def test_many_stay() -> None:
    """To look for a hundred among a thousand takes longer than a kernel."""
    x = torch.randn(2, 1000)
    model = Model(lambda x: (torch.zeros_like(x).scatter(-1, x.topk(100, -1)[1], 1.0),))
    assert len(penstock.lower(model.eval(), (x,)).delegation.undelegated) == 2
