"""Models that convert modules of their own while they run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import penstock
from penstock.errors import ExportError


class Converting(nn.Module):
    def __init__(self, *to: object) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.to_what = to

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inner = self.inner.to(*self.to_what)
        result: torch.Tensor = self.inner(x)
        return result


@pytest.mark.parametrize("to", [(torch.float32,), ("cpu",), ("cpu", torch.float32)])
def test_to_what_it_is(to: tuple[object, ...]) -> None:
    model, x = Converting(*to).eval(), torch.randn(2, 4)
    (found,) = penstock.load(penstock.lower(model, (x,)).to_bytes())(x)
    torch.testing.assert_close(torch.from_numpy(found), model(x))
    assert nn.Module._apply.__module__ == "torch.nn.modules.module"


def test_to_another_type() -> None:
    with pytest.raises(ExportError, match=r"converts a Sequential of its own .* in __init__"):
        penstock.lower(Converting(torch.float64).eval(), (torch.randn(2, 4),))
