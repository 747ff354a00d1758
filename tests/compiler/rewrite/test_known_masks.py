"""Masks of dynamic size that hide nothing; tensors that are made by size, with eager's answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

import penstock
from penstock.compiler.capture.export import capture
from penstock.compiler.rewrite import pipelines


class Call(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x.exp()) * 2


def everywhere(x: torch.Tensor) -> torch.Tensor:
    """As transformers makes a mask that hides nothing."""
    size = x.shape[-2]
    rows = torch.arange(size)[:, None] >= 0
    return (rows & (torch.arange(1, size + 1) > 0)).expand(x.shape[0], 1, size, size)


def attended(x: torch.Tensor) -> torch.Tensor:
    x = x.unsqueeze(1)
    return F.scaled_dot_product_attention(x, x, x, everywhere(x)).squeeze(1)


def chosen(x: torch.Tensor) -> torch.Tensor:
    scores = (x @ x.transpose(1, 2)).unsqueeze(1)
    return torch.where(everywhere(x), scores, torch.finfo(torch.float32).min)


def filled(x: torch.Tensor) -> torch.Tensor:
    scores = x @ x.transpose(1, 2)
    return scores.masked_fill(~everywhere(x), -1e4)


def lowered(function: Callable[[torch.Tensor], torch.Tensor]) -> penstock.Lowered:
    sizes = ({0: Dim("batch", max=4), 1: Dim("rows", max=9)},)
    model = Call(function)
    result = penstock.lower(model, (torch.randn(2, 5, 4),), dynamic_shapes=(sizes[0],))
    program = penstock.load(result.to_bytes())
    for shape in ((2, 5, 4), (1, 9, 4), (4, 1, 4)):
        x = torch.randn(shape)
        torch.testing.assert_close(torch.from_numpy(program(x)[0].copy()), model(x))
    return result


@pytest.mark.parametrize("function", [attended, chosen, filled])
def test_they_are_gone(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    delegation = lowered(function).delegation
    assert len(delegation.subgraphs) == 1 and not delegation.undelegated


@pytest.mark.parametrize(
    "mask",
    [
        lambda n: torch.arange(n) > 0,
        lambda n: torch.arange(n) - 1 >= 0,
        lambda n: torch.arange(n, 0, -1) >= 2,
        lambda n: (torch.arange(n) >= 0) & (torch.arange(n) != 1),
    ],
)
def test_masks_that_hide_something_stay(mask: Callable[[int], torch.Tensor]) -> None:
    lowered(lambda x: torch.where(mask(x.shape[1])[:, None], x, -1.0))


def test_not_a_number_is_not_at_least_zero() -> None:
    model = Call(lambda x: torch.where(x.abs() >= 0, x, 0.0))
    module = capture(model, (torch.ones(3),)).module
    pipelines.run(module)
    assert any("where" in str(node.target) for node in module.graph.nodes)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + torch.zeros_like(x),
        lambda x: x.tanh() * torch.full_like(x, 3.0),
        lambda x: x + x.new_ones(x.shape[0], 1, 4),
        lambda x: torch.fft.fft(x).real.contiguous(),
    ],
)
def test_what_is_made_by_size_cuts_nothing(
    function: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    assert len(lowered(function).delegation.subgraphs) == 1


def test_what_is_made_by_a_fixed_size_is_a_constant() -> None:
    lowered = penstock.lower(
        Call(lambda x: torch.fft.fft(x).real.contiguous()), (torch.ones(3, 4),)
    )
    assert not lowered.delegation.undelegated
