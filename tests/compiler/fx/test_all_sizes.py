"""No step of the compiler takes a dynamic dimension for the example's: it is for all sizes, or
refused in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F
from torch.utils._sympy.functions import FloorDiv, Max, Mod
from torch.utils._sympy.value_ranges import ValueRanges

import penstock
from penstock.compiler.capture.export import capture
from penstock.compiler.fx.all_sizes import SpecializationError, common_value, for_all_sizes
from penstock.errors import UnsupportedError

n, m = sympy.symbols("n m", integer=True, positive=True)
RANGES = {n: ValueRanges(2, 40), m: ValueRanges(2, 9)}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (FloorDiv(n, 2) * 2 - n > 0, False),
        (sympy.Ge(n - Mod(n, 8), 0), True),
        (-FloorDiv(-n, FloorDiv(n + 1, 2)), 2),
        (sympy.Eq(Max(n, m) * 2, n * 2), None),
        (sympy.Eq(Mod(n, 2), 0), None),
        (FloorDiv(n, 3), None),
        (n * m > 4, None),
        (n * m >= 4, True),
        (FloorDiv(n, n - 2), None),
        (sympy.sqrt(n) > 0, None),
    ],
)
def test_what_is_the_same_for_all_sizes(expression: Any, value: Any) -> None:
    found = common_value(expression, RANGES)
    assert found is None if value is None else found == value


def test_too_many_sizes_are_not_tried() -> None:
    ranges = {n: ValueRanges(2, 1 << 12), m: ValueRanges(2, 1 << 12)}
    assert common_value(sympy.Ge(n * m, 4), ranges) is None
    assert common_value(sympy.Ge(n, 2), {n: ValueRanges(2, sympy.oo)}) is None


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def test_questions_about_dynamic_sizes() -> None:
    sizes = ({0: Dim("rows", min=2, max=30), 1: Dim("columns", min=4, max=30)},)
    module = capture(Double(), (torch.randn(12, 8),), None, sizes).module
    (x,) = (node.meta["val"] for node in module.graph.nodes if node.op == "placeholder")
    rows, columns = x.shape
    environment = x.fake_mode.shape_env
    before = dict(environment.replacements), dict(environment.var_to_range)
    with for_all_sizes(module):
        assert bool(columns > 3) and not bool(rows == 1) and not bool(rows - 2 == 0)
        assert int(rows // 40) == 0
        torch._check(rows > columns)  # an operator's demand, which eager checks too
        for question in (
            lambda: bool(rows % 2 == 0), lambda: int(rows), lambda: bool(rows > columns),
            lambda: range(rows), lambda: bool(rows == 12),
        ):  # fmt: skip
            with pytest.raises(SpecializationError, match=r"x\.shape\[0\].*differs"):
                question()
    assert before == (environment.replacements, environment.var_to_range)
    assert bool(columns > 3)


class Call(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


SIZES = ({2: Dim("h", min=2, max=20), 3: Dim("w", min=2, max=20)},)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: torch.linalg.det(x @ x.mT), "linalg_det"),
        (lambda x: torch.linalg.inv(x @ x.mT), "linalg_inv"),
    ],
)
def test_refusals_in_words(function: Any, message: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"{message}.*test_all_sizes.py") as caught:
        penstock.lower(Call(function), (torch.randn(1, 2, 6, 7),), dynamic_shapes=SIZES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.adaptive_max_pool2d(x, 1),
        lambda x: F.adaptive_max_pool2d(x, (2, 3), return_indices=True),
        lambda x: (x.cummax(2), x.cummin(3)),
        lambda x: (x.cumprod(3), x.logcumsumexp(2)),
        lambda x: torch.tensordot(x, x, dims=([2], [2])),
    ],
    ids=["pool 1", "pool", "extremes", "products", "tensordot"],
)
def test_composed_for_all_sizes(function: Any) -> None:
    lowered = penstock.lower(Call(function), (torch.randn(1, 2, 12, 8),), dynamic_shapes=SIZES)
    program = penstock.load(lowered.to_bytes(), threads=1)
    for height, width in ((12, 8), (2, 2), (20, 20), (7, 3)):
        x = torch.randn(1, 2, height, width)
        expected = torch.utils._pytree.tree_leaves(function(x))
        found = torch.utils._pytree.tree_leaves(program(x))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-4)


def test_extremes_with_ties_and_nan() -> None:
    x = torch.tensor([[1.0, 1.0, 3.0, 3.0, 2.0], [2.0, torch.nan, 5.0, 5.0, torch.nan]])
    lowered = penstock.lower(
        Call(lambda x: (*x.cummax(1), *x.cummin(1))), (x,), delegate=False,
        dynamic_shapes=({1: Dim("w", min=2, max=9)},),
    )  # fmt: skip
    found = penstock.load(lowered.to_bytes())(x)
    for one, other in zip(found, (*x.cummax(1), *x.cummin(1)), strict=True):
        np.testing.assert_array_equal(one, other.numpy())
