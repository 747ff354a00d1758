"""Sums, products and concatenations are int8 where that saves conversions around them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graphs import Model, aten, calls, conv, is_quantized, quantized, run, sqnr_db
from torch import nn

torch.manual_seed(0)
IMAGES = torch.randn(2, 3, 8, 8)


def test_alone_between_float_operators_it_stays_in_float() -> None:
    model = Model(lambda f, x: f(torch.erf(torch.erf(x) + torch.erf(2 * x))), f=nn.Linear(8, 3))
    module, report = quantized(model, (IMAGES,))
    assert not any(map(is_quantized, calls(module, aten.add.Tensor)))
    assert {layer.operator for layer in report.quantized} == {"linear"}
    reasons = {layer.operator: layer.reason for layer in report.floating}
    assert "stands alone" in reasons["add"] or "neighbours" in reasons["add"]


class Residuals(nn.Module):
    """A small row beside large ones, linear layers around which sums go; a norm before each."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Parameter(0.02 * torch.randn(1, 1, 16))
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(4))
        self.linears = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        for linear in self.linears:
            assert isinstance(linear, nn.Linear)
            linear.weight.data *= 0.02
            linear.bias.data *= 0.02

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.small.expand(len(x), -1, -1), self.norms[3](x)], 1)
        for norm, linear in zip(self.norms, self.linears, strict=False):
            x = x + linear(norm(x))
        return self.norms[3](x[:, 0])


def test_sums_between_float_norms_stay_in_float() -> None:
    torch.manual_seed(2)
    model, x = Residuals().eval(), 5 * torch.randn(2, 12, 16)
    module, report = quantized(model, (x,), calibration=[(x,), (5 * torch.randn(2, 12, 16),)])
    assert {layer.operator for layer in report.quantized} == {"linear"}
    reasons = {layer.operator: layer.reason for layer in report.floating}
    assert "as many conversions as in float" in str(reasons["add"])
    assert sqnr_db(model(x), run(module, x)) > 35


def test_sums_that_are_results_stay_in_float_too() -> None:
    """A result needs a conversion as what a norm reads does, whole or in parts."""

    class Headless(Residuals):
        def forward(self, x: torch.Tensor) -> Any:
            x = torch.cat([self.small.expand(len(x), -1, -1), self.linears[2](x)], 1)
            for norm, linear in zip(self.norms[:2], self.linears[:2], strict=True):
                x = x + linear(norm(x))
            return x[:, :1].flatten(1), x[:, 1:], x

    torch.manual_seed(2)
    model, x = Headless().eval(), 5 * torch.randn(2, 12, 16)
    module, report = quantized(model, (x,), calibration=[(x,), (5 * torch.randn(2, 12, 16),)])
    assert {layer.operator for layer in report.quantized} == {"linear"}
    for expected, found in zip(model(x), run(module, x), strict=True):
        assert sqnr_db(expected, found) > 30


def test_concatenations_that_save_no_conversion_are_int8() -> None:
    model = Model(
        lambda a, b, x: torch.erf(torch.cat([torch.erf(torch.cat([a(x), b(x)], 1)), a(x)], 1)),
        a=conv(3, 3), b=conv(3, 3),
    )  # fmt: skip
    _, report = quantized(model, (IMAGES,))
    cats = [layer for layer in report.layers if layer.operator == "cat"]
    assert [layer.quantized for layer in cats] == [True, False]


@pytest.mark.parametrize(
    "function",
    [
        # Residuals around convolutions, a float operator at one end only.
        lambda a, b, c, x: torch.erf(c(b(a(x)) + a(x)) + b(a(x))),
        # A gate from a float operator: one conversion, where the float product needed two.
        lambda a, b, c, x: c(a(x) * torch.erf(b(x))),
        # Read by int8 and by float operators alike.
        lambda a, b, c, x: c(a(x) + b(x)) + torch.erf(a(x) + b(x)).sum(),
    ],
)
def test_joins_with_more_int8_neighbours_are_int8(function: Any) -> None:
    model = Model(function, a=conv(3, 3), b=conv(3, 3), c=conv(3, 3))
    _, report = quantized(model, (IMAGES,))
    joins = [layer for layer in report.layers if layer.operator in ("add", "mul")]
    assert joins[0].quantized
