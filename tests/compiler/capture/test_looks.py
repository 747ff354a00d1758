"""Models that look at values, where that changes no answer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.export import Dim

import penstock
from penstock.errors import ExportError

logger = logging.getLogger(__name__)


class Model(nn.Module):
    ready: torch.Tensor
    count: torch.Tensor

    def __init__(self, function: Callable[[Model, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function
        self.layer = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("ready", torch.tensor(True))
        self.register_buffer("count", torch.tensor(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def asserts(model: Model, x: torch.Tensor) -> torch.Tensor:
    assert not x.isnan().any(), f"{x} is not finite"
    assert (torch.allclose(x, x)
            and x.abs().max().item() < 1e6)  # fmt: skip
    result: torch.Tensor = model.layer(x)
    return result


def raises(model: Model, x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = model.layer(x)
    if result.isnan().any() or result.max() > 1e6:
        logger.error("too large")
        raise ValueError(f"{result.max():.3f} is too large")
    elif x.shape[1] == 4:
        result = result * 2
    return result


def says(model: Model, x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = model.layer(x)
    print(f"{result.mean():.3f}", round(result.std().item(), 2), result.detach().numpy().max())
    if (result > 1e6).any():
        warnings.warn(f"{result.max()} is large", stacklevel=1)
    else:
        logger.debug("%.2f is not", result.max())
    return result


def weights(model: Model, x: torch.Tensor) -> torch.Tensor:
    if model.ready and not model.layer.weight.isnan().any():
        x = x * 2
    if model.scale > 1 and x.shape[0] > 0:
        x = x + 1
    result: torch.Tensor = model.layer(x) * float(model.scale.detach())
    return result[:, : int(model.count)]


def checks_and_weights(model: Model, x: torch.Tensor) -> torch.Tensor:
    if model.ready:
        x = x * 2
    print(f"{x.sum():.1f}")
    return x


@pytest.mark.parametrize("function", [asserts, raises, says, weights, checks_and_weights])
@pytest.mark.parametrize("dynamic", [False, True])
def test_what_changes_no_answer(
    function: Callable[[Model, torch.Tensor], torch.Tensor], dynamic: bool
) -> None:
    model, x = Model(function).eval(), torch.randn(3, 4)
    shapes = {"x": {0: Dim("batch", max=8)}} if dynamic else None
    program = penstock.load(penstock.lower(model, (x,), dynamic_shapes=shapes).to_bytes())
    for size in (1, 5) if dynamic else (3,):
        x = torch.randn(size, 4)
        torch.testing.assert_close(torch.from_numpy(program(x)[0]), model(x).detach())


def branch(model: Model, x: torch.Tensor) -> torch.Tensor:
    return x + 1 if x.mean() > 0 else x


def print_or_branch(model: Model, x: torch.Tensor) -> torch.Tensor:
    if x.mean() > 0:
        print("positive")
    else:
        x = x + 1
    return x


def kept(model: Model, x: torch.Tensor) -> torch.Tensor:
    assert (large := x.max().item()) < 9
    return x * 2 if large > 1 else x


def two_statements(model: Model, x: torch.Tensor) -> torch.Tensor:
    assert x.max() < 9; y = bool(x.max() > 1)  # fmt: skip  # noqa: E702
    return x if y else x + 1


def state(model: Model, x: torch.Tensor) -> torch.Tensor:
    if model.ready:
        x = x + 1
    model.ready.fill_(False)
    return x


def random_numbers(model: Model, x: torch.Tensor) -> torch.Tensor:
    return x + 1 if torch.rand_like(model.scale) > 0.5 else x


@pytest.mark.parametrize(
    "function", [branch, print_or_branch, kept, two_statements, state, random_numbers]
)
def test_what_changes_answers_is_refused(
    function: Callable[[Model, torch.Tensor], torch.Tensor],
) -> None:
    model = Model(function)
    with pytest.raises(ExportError, match=r"data-dependent|Could not guard"):
        penstock.lower(model, (torch.randn(3, 4),))
    assert bool(model.ready) and model.count == 2
