"""Numbers as operands of kernels that take tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import penstock


class Divide(torch.nn.Module):
    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.div(x, self.by)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
@pytest.mark.parametrize("by", [-2, 3, 300])
def test_integers_are_divided_by_numbers_beyond_their_type(dtype: torch.dtype, by: int) -> None:
    x = torch.tensor([0, 2, 5, 100], dtype=dtype)
    model = Divide(by)
    (found,) = penstock.load(penstock.lower(model, (x,)).to_bytes())(x.numpy())
    np.testing.assert_allclose(found, model(x).numpy(), rtol=1e-6)
