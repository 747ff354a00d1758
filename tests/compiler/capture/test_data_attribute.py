"""Models that read ``.data``, with eager's answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import penstock
from penstock.errors import ExportError

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    def __init__(self, function: Callable[[Model, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.function = function
        self.register_buffer("count", torch.zeros(8))
        self.count: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def written(model: Model, x: torch.Tensor) -> torch.Tensor:
    """``y.data`` is ``y``'s own memory."""
    y: torch.Tensor = model.linear(x)
    y.data.mul_(2)
    return y


def counted(model: Model, x: torch.Tensor) -> torch.Tensor:
    model.count.data.add_(x.data.mean(0))
    y: torch.Tensor = model.linear(x)
    return y + model.count


def assigned(model: Model, x: torch.Tensor) -> torch.Tensor:
    model.count.data = model.count.data + x.data.mean(0)
    return model.count


def assigned_to_a_new_tensor(model: Model, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = x.clone()
    y.data = x * 2
    return y + 1


@pytest.mark.parametrize(
    "function",
    [
        lambda model, x: x / x.data.norm(),
        lambda model, x: model.linear(x).data + 1,
        lambda model, x: model.linear.weight.data.sum() + x,
        written,
        counted,
    ],
)
def test_reading(function: Callable[[Model, torch.Tensor], torch.Tensor]) -> None:
    model = Model(function).eval()
    program = penstock.load(penstock.lower(model, (X,)).to_bytes())
    with torch.no_grad():
        for _ in range(2):
            expected = model(X.clone())
            (found,) = program(X)
            torch.testing.assert_close(torch.from_numpy(found.copy()), expected)


def gradient(model: Model, x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        x = x.requires_grad_(True)
        return torch.autograd.grad(model.linear(x).sum(), x)[0]


def gradient_of_a_function(model: Model, x: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = torch.func.grad(lambda y: (y**2).sum())(x)
    return found


@pytest.mark.parametrize("function", [gradient, gradient_of_a_function])
def test_what_autograd_computes_is_named(
    function: Callable[[Model, torch.Tensor], torch.Tensor],
) -> None:
    """``torch.export`` sees no more of that than of ``.data``."""
    with pytest.raises(
        ExportError, match=r"where torch\.export does not see it: by torch\.autograd"
    ):
        penstock.lower(Model(function), (X,))


@pytest.mark.parametrize("function", [assigned, assigned_to_a_new_tensor])
def test_an_assignment_is_refused(
    function: Callable[[Model, torch.Tensor], torch.Tensor],
) -> None:
    with pytest.raises(ExportError, match=r"assigns to a tensor's \.data.*copy_"):
        penstock.lower(Model(function), (X,))
