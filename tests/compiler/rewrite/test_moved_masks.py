"""Masks that are computed inside are moved inside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import penstock


class Around(nn.Module):
    """Products before and after what a mask chooses."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.before, self.after, self.function = nn.Linear(4, 4), nn.Linear(4, 4), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.function(self.before(x)))


FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "choice": lambda h: torch.where((h.mean(-1) > 0.1)[..., None], h, -h),
    "product": lambda h: h * (h[..., 0] > 0).unsqueeze(-1),
    "filled": lambda h: h.masked_fill(~(h.sum(-1) > 0)[:, :, None], -1.0),
    "attention": lambda h: (
        (h @ h.mT).masked_fill((h[..., 0] < 0)[:, None, :].expand(-1, 3, -1), -1e9).softmax(-1) @ h
    ),
    "parts": lambda h: torch.where((h > 0)[:, :, 1:2].mT.mT, h, 2.0),
    "moved twice": lambda h: h * (h > 0).transpose(1, 2)[:, :, :1].transpose(1, 2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_is_cut(name: str) -> None:
    torch.manual_seed(0)
    model, x = Around(FUNCTIONS[name]), torch.randn(2, 3, 4)
    lowered = penstock.lower(model, (x,))
    assert not lowered.delegation.undelegated and len(lowered.delegation.subgraphs) == 1
    (found,) = penstock.load(lowered.to_bytes())(x)
    np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_masks_that_leave_and_those_of_integers_stay() -> None:
    class Shown(nn.Module):
        def forward(self, x: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            shown, kept = (x > 0).unsqueeze(0), (ids > 2)[:, None]
            return shown, torch.where(kept, x + 1, 0.0)

    model, inputs = Shown(), (torch.randn(3, 4), torch.tensor([1, 3, 5]))
    found = penstock.load(penstock.lower(model, inputs).to_bytes())(*inputs)
    for one, other in zip(found, model(*inputs), strict=True):
        assert (one == other.numpy()).all()
