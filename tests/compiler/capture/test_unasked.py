"""Models with distributions, and with transformers that are given masks."""

from __future__ import annotations

import pytest
import torch
from torch import distributions
from torch.export import Dim

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


@pytest.mark.parametrize("before", [False, True])
def test_afterwards_all_is_as_it_was(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions.Distribution, "_validate_args", before)
    penstock.lower(Mixture(), (torch.randn(5, 4),))
    assert distributions.Distribution._validate_args is before


class Decoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Transformer(16, 2, 1, 1, 32, batch_first=True)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        mask = self.layers.generate_square_subsequent_mask(y.shape[1])
        result: torch.Tensor = self.layers(x, y, tgt_mask=mask, src_mask=mask.new_zeros(5, 5))
        return result


@pytest.mark.parametrize("dynamic", [False, True])
def test_masks_of_transformers(dynamic: bool) -> None:
    model = Decoder().eval()
    length = Dim("length", min=2, max=9)
    shapes = {"x": None, "y": {1: length}} if dynamic else None
    lowered = penstock.lower(
        model, (torch.randn(2, 5, 16), torch.randn(2, 4, 16)), dynamic_shapes=shapes
    )
    program = penstock.load(lowered.to_bytes())
    for size in (4, 2, 9) if dynamic else (4,):
        x, y = torch.randn(2, 5, 16), torch.randn(2, size, 16)
        torch.testing.assert_close(
            torch.from_numpy(program(x, y)[0]), model(x, y), rtol=1e-4, atol=1e-5
        )
