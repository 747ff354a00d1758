"""``torch.cov`` and ``torch.corrcoef``, whose own definitions look at a value."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import penstock
from penstock.compiler.capture.covariances import Covariances


class Called(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


OFTEN, AMPLE = torch.tensor([1, 2, 0, 3, 1, 1]), torch.tensor([0.5, 1, 2, 0.1, 1, 0.3])
CASES: list[Callable[[Tensor], Tensor]] = [
    torch.cov,
    torch.corrcoef,
    lambda x: x.cov(correction=0),
    lambda x: x.corrcoef(),
    lambda x: torch.cov(x, fweights=OFTEN),
    lambda x: torch.cov(x, aweights=AMPLE),
    lambda x: torch.cov(x, fweights=OFTEN, aweights=AMPLE),
    lambda x: torch.cov(x, correction=0, aweights=AMPLE),
    lambda x: torch.cov(x, correction=2, fweights=OFTEN, aweights=AMPLE),
    lambda x: torch.cov(x, correction=9),
    lambda x: torch.cov(x[0]),
    lambda x: torch.corrcoef(x[0]),
    lambda x: torch.cov(x[0, 0]),
    lambda x: torch.cov(x.to(torch.int64)),
    lambda x: torch.cov(torch.complex(x, x.flip(0))),
    lambda x: torch.corrcoef(torch.complex(x, x.flip(0))),
]


@pytest.mark.parametrize("function", CASES)
def test_as_torch_defines_them(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(3)) * 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of too few degrees of freedom
        expected = function(x)
        with Covariances():
            torch.testing.assert_close(function(x), expected, equal_nan=True)


@pytest.mark.parametrize("function", CASES[:6])
def test_they_compile(function: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 6)
    (found,) = penstock.load(penstock.lower(Called(function), (x,)).to_bytes())(x)
    torch.testing.assert_close(torch.as_tensor(found), function(x), rtol=1e-4, atol=1e-5)


def test_of_varying_observations() -> None:
    count = torch.export.Dim("count", min=2, max=9)
    lowered = penstock.lower(
        Called(torch.cov), (torch.randn(4, 6),), dynamic_shapes={"x": {1: count}}
    )
    program = penstock.load(lowered.to_bytes())
    for size in (6, 2, 9):
        x = torch.randn(4, size)
        torch.testing.assert_close(
            torch.as_tensor(program(x)[0]), torch.cov(x), rtol=1e-4, atol=1e-5
        )
