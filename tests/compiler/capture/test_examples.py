"""Examples of size 0 or 1 in dynamic dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

import penstock

BATCH, SIDE = Dim("batch", max=8), Dim("side", max=6)


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, y: Any = 0) -> torch.Tensor:
        y = sum(y.values()) if isinstance(y, dict) else y
        return self.linear(x).relu() + y


class Join(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, y]) * 2


class Pairs(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, x.shape[1] // 2, 2).sum(-1)


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


BOUND = Dim.DYNAMIC(max=9)  # type: ignore[attr-defined]
CASES: dict[str, tuple[nn.Module, Any, Any, list[Any]]] = {
    "one": (Sum(), [numbers(1, 4)], {"x": {0: BATCH}},
            [[numbers(1, 4)], [numbers(8, 4)], [numbers(0, 4)]]),
    "none": (Sum(), [numbers(0, 4)], {"x": {0: BATCH}}, [[numbers(3, 4)]]),
    "shared": (Sum(), [numbers(1, 4), numbers(1, 3)], ({0: BATCH}, [BATCH, None]),
               [[numbers(5, 4), numbers(5, 3)]]),
    "nested": (Sum(), [numbers(1, 4), {"a": numbers(1, 3), "b": numbers(1, 3)}],
               {"x": {0: BATCH}, "y": {"a": {0: BATCH}, "b": {0: BATCH}}},
               [[numbers(5, 4), {"a": numbers(5, 3), "b": numbers(5, 3)}]]),
    "hints": (Sum(), [numbers(1, 4), numbers(1, 3)], ({0: BOUND}, {0: BOUND}),
              [[numbers(5, 4), numbers(5, 3)]]),
    "derived": (Pairs(), [numbers(2, 2)], ({1: 2 * SIDE},), [[numbers(2, 8)], [numbers(2, 2)]]),
    "derived of another": (Join(), [numbers(1, 3), numbers(2, 3)], ({0: BATCH}, {0: BATCH + 1}),
                           [[numbers(4, 3), numbers(5, 3)]]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_are_widened(name: str) -> None:
    module, example, shapes, calls = CASES[name]
    lowered = penstock.lower(module.eval(), example, dynamic_shapes=shapes)
    program = penstock.load(lowered.to_bytes())
    for call in calls:
        with torch.no_grad():
            expected = module(*call).numpy()
        np.testing.assert_allclose(program(*call)[0], expected, atol=1e-5)


def test_calibrate_as_they_are() -> None:
    lowered = penstock.lower(
        Sum().eval(), (numbers(1, 4),), dynamic_shapes={"x": {0: BATCH}}, quantize="static"
    )
    assert penstock.load(lowered.to_bytes())(numbers(7, 4))[0].shape == (7, 3)


def test_a_bound_that_allows_no_other_size() -> None:
    with pytest.raises(penstock.InputError, match="dimension 0 of input x .* at most 1 .*max"):
        penstock.lower(Sum(), (numbers(1, 4),), dynamic_shapes={"x": {0: Dim("one", max=1)}})


def test_a_model_that_fixes_the_size_is_told_what_was_done() -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(1, 4)

    with pytest.raises(penstock.ExportError, match=r"widened \(dimension 0 of x to 2\)"):
        penstock.lower(Fixed(), (numbers(1, 4),), dynamic_shapes={"x": {0: BATCH}})
