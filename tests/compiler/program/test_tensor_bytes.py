"""Constants of any layout, as bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import penstock
from penstock.compiler.program.tensor_bytes import tensor_bytes

TENSORS = {
    "transposed": torch.arange(6, dtype=torch.int32).reshape(2, 3).t(),
    "expanded": torch.tensor(3, dtype=torch.int32).expand(2, 2),
    "expanded to one element": torch.tensor(3, dtype=torch.int64).expand(1),
    "half": torch.tensor([1.5, 2.5], dtype=torch.float16)[1:],
    "bool": torch.tensor([True, False]),
    "empty": torch.zeros(0, 3),
}


@pytest.mark.parametrize("name", TENSORS)
def test_elements_in_order(name: str) -> None:
    tensor = TENSORS[name]
    assert bytes(tensor_bytes(tensor)) == tensor.numpy().tobytes()


def test_a_model_with_an_expanded_element() -> None:
    class Offset(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("offset", torch.tensor(3).expand(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.offset

    x = torch.arange(4)
    (found,) = penstock.load(penstock.lower(Offset(), (x,)).to_bytes())(x)
    np.testing.assert_array_equal(found, x.numpy() + 3)
