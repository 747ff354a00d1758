"""Caches that get rows in place: quantizing runs the model, and must leave them alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import penstock
from penstock.compiler.capture.export import capture
from penstock.compiler.fx.marks import PUT
from penstock.compiler.rewrite import pipelines


class Cached(nn.Module):
    """Attention to the rows of eight calls; the cache is the module's own, or its caller's."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.own = own
        if own:
            self.register_buffer("keys", torch.zeros(1, 2, 8, 8))
            self.register_buffer("values", torch.zeros(1, 2, 8, 8))

    def forward(self, x: Tensor, at: Tensor, *caches: Tensor) -> Tensor:
        q, k, v = (part.view(1, 1, 2, 8).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        keys, values = (self.keys, self.values) if self.own else caches
        keys.index_copy_(2, at, k)
        values.index_copy_(2, at, v)
        mask = torch.arange(8)[None, :] <= at[:, None]
        found = functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return self.out(found.transpose(1, 2).reshape(1, 1, 16))


def calls(own: bool) -> Iterator[tuple[Tensor, ...]]:
    torch.manual_seed(2)
    caches = [] if own else [torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)]
    for position in range(6):
        yield torch.randn(1, 1, 16), torch.tensor([position]), *caches


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    "given",
    [
        {"quantize": "static"},
        {"quantize": "dynamic"},
        {"quantize": "static", "accuracy": penstock.AccuracyBudget(sqnr=10)},
        {
            "quantize": "dynamic",
            "accuracy": penstock.AccuracyBudget(metric=lambda model: 1.0, allowed_drop=1.0),
        },
    ],
    ids=["static", "dynamic", "budget", "metric"],
)
def test_caches_are_left_alone(own: bool, given: dict[str, Any]) -> None:
    model, data = Cached(own).eval(), list(calls(own))
    module = capture(model, data[0]).module
    pipelines.run(module)
    assert [n.target for n in module.graph.nodes].count(PUT) == 2, "nothing is written in place"

    lowered = penstock.lower(model, data[0], calibration=data, held_out=data, **given)
    before = lowered.to_bytes()
    assert lowered.quantization is not None
    lowered.quantization.cost()
    kept = [model.keys, model.values] if own else [one for call in data for one in call[2:]]
    assert kept and not any(bool(one.any()) for one in kept)  # type: ignore[operator,union-attr]
    assert lowered.to_bytes() == before

    program = penstock.load(before)
    for call in data:
        with torch.no_grad():
            expected = model(*[one.clone() for one in call[:2]], *call[2:]).numpy()
        found = program(*call)[-1 if own else 0]
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
