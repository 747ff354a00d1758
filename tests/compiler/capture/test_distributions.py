"""Models that compute with ``torch.distributions``."""

from __future__ import annotations

import pytest
import torch
from torch import distributions

import penstock


class Mixture(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 15)
        self.prior = distributions.Normal(torch.zeros(3), torch.ones(3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, means, deviations = self.layer(x).split((3, 6, 6), -1)
        parts = distributions.Normal(means.reshape(-1, 3, 2), deviations.exp().reshape(-1, 3, 2))
        mixture = distributions.MixtureSameFamily(
            distributions.Categorical(logits=logits), distributions.Independent(parts, 1)
        )
        return mixture.log_prob(x[:, :2]), self.prior.log_prob(x[:, 1:]).sum(-1)


def test_densities() -> None:
    model, x = Mixture(), torch.randn(5, 4)
    lowered = penstock.lower(model, (x,))
    assert lowered.delegation.share == 1
    found = penstock.load(lowered.to_bytes())(x)
    for one, wanted in zip(found, model(x), strict=True):
        torch.testing.assert_close(torch.from_numpy(one), wanted, rtol=1e-4, atol=1e-4)


def test_ranges_are_looked_at_again_afterwards() -> None:
    penstock.lower(Mixture(), (torch.randn(5, 4),))
    with pytest.raises(ValueError, match="scale"):
        distributions.Normal(torch.zeros(1), -torch.ones(1))
