"""Questions about dynamic sizes whose answer PyTorch does not see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.export import Dim
from torch.nn import functional as F

import penstock

LENGTH = Dim("length", max=24)


class Call(torch.nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def _largest(x: torch.Tensor) -> torch.Tensor:
    """As sparse attention picks what it looks at: ``min(8, n) <= n`` is asked."""
    return x.topk(min(8, x.shape[1]), 1).values.sum(1)


def _blocks(x: torch.Tensor) -> torch.Tensor:
    """As linear attention goes: in blocks of a length that is filled up; there may be one."""
    filled = F.pad(x, (0, 0, 0, -x.shape[1] % 8))
    return filled.reshape(x.shape[0], -1, 8, 4).sum(2)


@pytest.mark.parametrize("function", [_largest, _blocks])
def test_what_holds_for_all_sizes_is_no_constraint(
    function: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    torch.manual_seed(0)
    lowered = penstock.lower(
        Call(function), (torch.randn(2, 6, 4),), dynamic_shapes={"x": {1: LENGTH}}
    )
    program = penstock.load(lowered.to_bytes())
    for length in (6, 1, 3, 8, 16, 17, 24):
        x = torch.randn(2, length, 4)
        (found,) = program(x)
        torch.testing.assert_close(torch.from_numpy(found), function(x))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum(1) if x.shape[1] > 8 else x.mean(1),
        lambda x: _blocks(x) if -x.shape[1] % 8 > 0 else x,
        lambda x: x.sum(1) if -(-x.shape[1] // 8) == 1 else x,
    ],
    ids=["long or short", "whole blocks", "one block"],
)
def test_what_does_not_is_one(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with pytest.raises(penstock.ExportError, match="Constraints violated"):
        penstock.lower(Call(function), (torch.randn(2, 6, 4),), dynamic_shapes={"x": {1: LENGTH}})


def test_the_line_that_makes_a_size_a_constant_is_named() -> None:
    def rows(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), -1)

    with pytest.raises(penstock.ExportError) as raised:
        penstock.lower(Call(rows), (torch.randn(2, 6, 4),), dynamic_shapes={"x": {0: LENGTH}})
    line = f"{rows.__code__.co_filename}:{rows.__code__.co_firstlineno + 1} (by len or int"
    assert f"a size becomes a constant at {line}" in str(raised.value)
