"""What is computed twice stands once; what only looks alike stays."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import penstock
from penstock.compiler.rewrite import common_subexpressions
from tests.compiler.rewrite.rewrites_harness import rewritten


class Layer(nn.Module):
    """Adds the rows of a table that it has a copy of, and a mask of the length."""

    def __init__(self, first: float = 0.0) -> None:
        super().__init__()
        table = torch.arange(24.0).reshape(8, 3)
        table[0, 0] = first
        self.register_buffer("table", table)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.full((x.shape[0], x.shape[0]), -1.0).triu(1)
        return mask @ x.tanh() + self.table[: x.shape[0]]


def test_masks_and_rows_of_tables_of_a_dynamic_length_are_made_once() -> None:
    lengths = ({0: torch.export.Dim("rows", min=2, max=8)},)
    found = []
    for first in (0.0, 1.0):
        model, x = nn.Sequential(Layer(), Layer(first)), torch.randn(5, 3)
        lowered = penstock.lower(model, (x,), dynamic_shapes=(lengths[0],))
        found.append([str(node.target) for node, _ in lowered.delegation.undelegated])
        (got,) = penstock.load(lowered.to_bytes())(x)
        np.testing.assert_allclose(got, model(x).numpy(), rtol=1e-5, atol=1e-5)
    same, different = found
    assert same.count("aten.slice.Tensor") == 1
    assert different.count("aten.slice.Tensor") == 2  # one element of the tables differs
    assert same.count("aten.full.default") == different.count("aten.full.default") == 1


def test_equal_results_leave_as_two_outputs() -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.sin(), x.sin()

    x = torch.randn(4)
    _, targets = rewritten(Twice(), (x,), common_subexpressions.apply)
    assert targets["aten.sin.default"] == 1
    outputs = penstock.load(penstock.lower(Twice(), (x,)).to_bytes())(x)
    for output in outputs:
        np.testing.assert_allclose(output, x.sin().numpy(), rtol=1e-5)


def test_what_differs_in_the_sign_of_zero_type_or_order_stays() -> None:
    class Alike(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("a", torch.ones(3))
            self.register_buffer("b", torch.full((3,), 2.0))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            zeros = torch.full((3,), 0.0) / x, torch.full((3,), -0.0) / x
            ones = x.clamp(1), x.clamp(1.0)
            choices = torch.where(x > 0, self.a, self.b), torch.where(x > 0, self.b, self.a)
            return *zeros, *ones, *choices

    _, targets = rewritten(Alike(), (torch.tensor([1.0, -2.0, 3.0]),), common_subexpressions.apply)
    assert targets["aten.full.default"] == 2
    assert targets["aten.where.self"] == 2
    assert targets["aten.clamp.default"] == 2
    assert targets["aten.gt.Scalar"] == 1


def test_buffers_that_the_model_writes_to_are_no_constants() -> None:
    class Counters(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("one", torch.zeros(1))
            self.register_buffer("two", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.one.add_(1)
            self.two.add_(2)
            return x + self.one.exp() + self.two.exp()

    model, x = Counters(), torch.zeros(2)
    program = penstock.load(penstock.lower(model, (x,)).to_bytes())
    for call in (1, 2):
        (got,) = program(x)
        wanted = np.exp(call) + np.exp(2 * call)
        np.testing.assert_allclose(got, np.full(2, wanted, np.float32), rtol=1e-4)


def test_random_numbers_are_drawn_each_time() -> None:
    class Noise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.rand_like(x) - torch.rand_like(x)

    (got,) = penstock.load(penstock.lower(Noise(), (torch.zeros(8),)).to_bytes())(np.zeros(8, "f"))
    assert np.abs(got).min() > 0
