"""Models that catch what a submodule raises."""

from __future__ import annotations

import torch
from torch import nn

import penstock


class Tried(nn.Module):
    """Gives lengths to the layers that take them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            try:
                x = layer(x, lengths=None)
            except TypeError:
                x = layer(x)
        return x


def test_a_call_that_failed_is_no_part_of_the_model() -> None:
    model, x = nn.Sequential(Tried(), nn.Linear(2, 3)), torch.randn(2, 4)
    lowered = penstock.lower(model, (x,))
    assert not lowered.delegation.undelegated
    (found,) = penstock.load(lowered.to_bytes())(x)
    torch.testing.assert_close(torch.from_numpy(found), model(x).detach())
    places = [node.module for node in lowered.delegation.delegated]
    assert any(place == "0.layers.1" for place in places)
