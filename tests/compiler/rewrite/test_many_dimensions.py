"""Permutations of seven and eight dimensions, between reshapes."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from rewrites_harness import rewritten
from torch import Tensor, nn

import penstock
from penstock.compiler.rewrite import many_dimensions


class Moved(nn.Module):
    def __init__(self, sizes: list[int], order: list[int]) -> None:
        super().__init__()
        self.sizes, self.order = sizes, order

    def forward(self, x: Tensor) -> Tensor:
        return (x * 2).reshape(self.sizes).permute(self.order).flatten(1) + 1


@pytest.mark.parametrize("seed", range(10))
def test_any_order(seed: int) -> None:
    draw = random.Random(seed)
    rank = draw.choice((7, 8))
    order = draw.sample(range(rank), rank)
    sizes = [draw.choice((1, 2, 2, 3)) for _ in order]
    x, model = torch.randn(math.prod(sizes)), Moved(sizes, order)
    lowered = penstock.lower(model, (x,))
    assert not lowered.delegation.undelegated
    (found,) = penstock.load(lowered.to_bytes())(x)
    np.testing.assert_array_equal(found, model(x).numpy())


class Windows(nn.Module):
    """Windows of a video, [batch, frames, height, width, channels]."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, height, width, channels = x.shape
        split = (batch, frames // 2, 2, height // 2, 2, width // 4, 4, channels)
        y = self.before(x).view(split).permute(0, 1, 3, 5, 2, 4, 6, 7)
        y = self.after(y.reshape(-1, 16, channels))
        y = y.view(batch, frames // 2, height // 2, width // 4, 2, 2, 4, channels)
        whole: Tensor = y.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(x.shape)
        return whole


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("quantize", [None, "static"])
def test_windows(dynamic: bool, quantize: str | None) -> None:
    model, x = Windows().eval(), torch.randn(3, 4, 6, 8, 6)
    shapes = ({0: torch.export.Dim("batch", max=5)},) if dynamic else None
    lowered = penstock.lower(model, (x,), dynamic_shapes=shapes, quantize=quantize)
    assert len(lowered.delegation.subgraphs) == 1 and not lowered.delegation.undelegated
    program = penstock.load(lowered.to_bytes())
    tolerance = 1e-5 if quantize is None else 0.1
    for given in [x, *([x[:1], torch.cat([x, x[:2]])] if dynamic else [])]:
        (found,) = program(given)
        torch.testing.assert_close(
            torch.from_numpy(found), model(given), rtol=tolerance, atol=tolerance
        )


class Patches(nn.Module):
    """Patches of a video put together, two dimensions after the other."""

    def forward(self, x: Tensor) -> Tensor:
        y = (x * 2).view(x.shape[0], 2, 3, 2, 1, 2, 2, 3).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return y.flatten(6, 7).flatten(4, 5).flatten(2, 3) + 1


@pytest.mark.parametrize("dynamic", [False, True])
def test_flattened_one_after_the_other(dynamic: bool) -> None:
    x = torch.randn(2, 12, 12)
    shapes = ({0: torch.export.Dim("batch", max=5)},) if dynamic else None
    lowered = penstock.lower(Patches(), (x,), dynamic_shapes=shapes)
    assert len(lowered.delegation.subgraphs) == 1 and not lowered.delegation.undelegated
    (found,) = penstock.load(lowered.to_bytes())(x)
    torch.testing.assert_close(torch.from_numpy(found), Patches()(x))


class Stays(nn.Module):
    """Six dimensions, integers, and a permutation that is an output."""

    def forward(self, x: Tensor, numbers: Tensor) -> tuple[Tensor, ...]:
        wide = x.view(2, 2, 2, 2, 2, 2, 2).permute(6, 5, 4, 3, 2, 1, 0)
        whole = numbers.view(2, 2, 2, 2, 2, 2, 2).permute(6, 5, 4, 3, 2, 1, 0).reshape(8, 16)
        return x.view(2, 4, 2, 2, 2, 2).permute(5, 4, 3, 2, 1, 0).reshape(8, 16), wide, whole


def test_what_stays() -> None:
    module, targets = rewritten(
        Stays(), (torch.randn(128), torch.arange(128)), many_dimensions.apply
    )
    permutations = module.graph.find_nodes(
        op="call_function", target=torch.ops.aten.permute.default
    )
    assert sorted(node.meta["val"].dim() for node in permutations) == [6, 7, 7]
    assert targets["aten.permute.default"] == 3
