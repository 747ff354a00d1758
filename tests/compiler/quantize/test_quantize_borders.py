"""Where ranges are taken, and what stays in float beside values in float."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graphs import (
    Model,
    aten,
    calls,
    conv,
    is_quantized,
    parameters_before,
    quantized,
    run,
    sqnr_db,
)
from torch import nn

IMAGES = 5 * torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def float_operators(function: Any, x: torch.Tensor = IMAGES, **parts: nn.Module) -> set[str]:
    _, report = quantized(Model(function, **parts), (x,))
    return {layer.operator for layer in report.floating}


@pytest.mark.parametrize(
    "function",
    [
        lambda c, x: c(nn.functional.max_pool2d(x, 2)),
        lambda c, x: c(x[:, :, :8]),
        lambda c, x: c(x.flip(1).relu()),
    ],
)
def test_a_range_is_that_of_what_is_computed_with(function: Any) -> None:
    x = IMAGES.repeat(2, 1, 1, 1)
    x[:, :, 8:] *= 40 if function(nn.Identity(), x).shape[2] == 8 else -0.9
    module, _ = quantized(Model(function, c=conv()), (x,))
    (layer,) = calls(module, aten.conv2d.default)
    scale, _ = parameters_before(layer)
    kept = function(nn.Identity(), x)
    width = float(kept.max().clamp(min=0) - kept.min().clamp(max=0))
    assert scale <= 1.02 * width / 255


def test_of_few_values_all_that_passed_by_counts() -> None:
    x = torch.linspace(-4, 4, 64).reshape(1, 1, 8, 8)
    module, _ = quantized(Model(lambda c, x: c(x[:, :, 3:5]), c=nn.Conv2d(1, 2, 1)), (x,))
    scale, _ = parameters_before(calls(module, aten.conv2d.default)[0])
    assert scale == pytest.approx(8 / 255, rel=0.01)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda a, b, x: (b(a(x)), nn.functional.hardswish(a(x))), "hardswish"),
        (lambda a, b, x: torch.erf(nn.functional.gelu(b(a(x))).flatten(1)), "gelu"),
        (lambda a, b, x: b(nn.functional.elu(torch.erf(a(x)))), "elu"),
        (lambda a, b, x: b(torch.erf(a(x)).mean((2, 3), True)), "mean"),
        (lambda a, b, x: nn.functional.interpolate(b(a(x)), scale_factor=2.0, mode="bilinear"),
         "upsample_bilinear"),
    ],
)  # fmt: skip
def test_beside_floats_it_stays_in_float(function: Any, name: str) -> None:
    assert name in float_operators(function, a=conv(3, 3), b=conv(3, 3))


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda a, b, x: b(nn.functional.hardswish(a(x))), "hardswish"),
        (lambda a, b, x: b(a(x)).mean((2, 3)), "mean"),
        # The pooling reads what a gate reads in int8.
        (lambda a, b, x: (lambda y: b(y * a(y.mean((2, 3), True))))(torch.erf(x)), "mean"),
        (lambda a, b, x: a(nn.functional.interpolate(torch.erf(b(x)), scale_factor=2.0,
                                                     mode="bilinear")), "upsample_bilinear"),
    ],
)  # fmt: skip
def test_where_that_converts_more_it_is_int8(function: Any, name: str) -> None:
    same = nn.Conv2d(3, 3, 1)
    assert name not in float_operators(function, a=same, b=conv(3, 3))


def test_what_only_moves_an_input_is_a_result_as_it_is() -> None:
    model = Model(lambda c, x: (x[:, :, 1:], c(x[:, :, 1:])), c=conv())
    module, _ = quantized(model, (IMAGES,))
    moved, _ = run(module, IMAGES)
    assert torch.equal(moved, IMAGES[:, :, 1:])


def test_what_takes_nearly_all_of_a_value_from_it_stays_in_float() -> None:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 1)
    first.weight.data /= 12
    model = Model(lambda a, b, x: b((lambda y: y - torch.tanh(y))(a(x))), a=first, b=conv(4, 3))
    module, report = quantized(model, (IMAGES,))
    assert {layer.operator for layer in report.floating} == {"sub", "tanh"}
    assert not any(map(is_quantized, calls(module, aten.tanh.default)))
    (last,) = [n for n in calls(module, aten.conv2d.default) if n.args[0].args[0] is not None][1:]
    assert is_quantized(last)
    assert sqnr_db(model(IMAGES), run(module, IMAGES)) > 30


def test_a_residual_around_an_activation_is_int8() -> None:
    function = lambda a, b, x: b((lambda y: y + nn.functional.hardswish(y))(a(x)))  # noqa: E731
    assert not float_operators(function, a=conv(3, 3), b=conv(3, 3))
