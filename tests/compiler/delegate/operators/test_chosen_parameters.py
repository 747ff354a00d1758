"""Scales and zero points that are chosen at run time, read by more than the conversions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import penstock

quantized = torch.ops.quantized_decomposed


class Model(torch.nn.Module):
    def __init__(self, compute: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.compute(torch.relu(x) + 1))


def rounded_by_hand(x: torch.Tensor) -> torch.Tensor:
    """As ``convert_pt2e(..., use_reference_representation=True)`` writes it out."""
    scale, point = quantized.choose_qparams.tensor(x, -128, 127, 1e-7, torch.int8)
    steps = torch.clamp(torch.round(x / scale).to(torch.int32) + point, -128, 127)
    return ((steps - point) * scale).to(torch.float32)


def times_the_scale(x: torch.Tensor) -> torch.Tensor:
    scale, _ = quantized.choose_qparams_per_token_asymmetric.default(x, torch.int8)
    return x * scale.to(torch.float32)


def conversion_of_many_dimensions(x: torch.Tensor) -> torch.Tensor:
    scale, point = quantized.choose_qparams.tensor(x, -128, 127, 1e-7, torch.int8)
    limits = (-128, 127, torch.int8)
    steps = quantized.quantize_per_tensor.tensor(x.view(x.shape + (1,) * 5), scale, point, *limits)
    return quantized.dequantize_per_tensor.tensor(steps, scale, point, *limits).view(x.shape) * 2


@pytest.mark.parametrize(
    "compute", [rounded_by_hand, times_the_scale, conversion_of_many_dimensions]
)
@pytest.mark.parametrize("shape", [(4, 1), (2, 8)])
def test_parameters_that_are_read_outside(
    compute: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...]
) -> None:
    model, x = Model(compute), torch.randn(shape)
    lowered = penstock.lower(model, (x,))
    (found,) = penstock.load(lowered.to_bytes())(x)
    np.testing.assert_allclose(found, model(x).numpy(), rtol=1e-5)
    assert any("choose_qparams" in item.target for item, _ in lowered.delegation.undelegated)
