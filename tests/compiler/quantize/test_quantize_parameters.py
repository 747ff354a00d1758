"""The parameters of values: which share them, which have fixed ones, which have their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from graphs import (
    Model,
    aten,
    calls,
    conv,
    give_rule,
    parameters_after,
    parameters_before,
    quantized,
    run,
    sqnr_db,
)
from torch import nn
from torch.fx import Node

from penstock.compiler.delegate.operators.registry import FixedOutput

torch.manual_seed(0)
IMAGES = torch.randn(2, 3, 8, 8)


def _dequantizes(node: Node) -> set[Node]:
    return {d for q in node.users for d in q.users}


def test_concatenation_and_movement_share_parameters() -> None:
    model = Model(
        lambda a, b, c, x: c(F.max_pool2d(torch.cat([a(x), b(x), x], 1), 2)).permute(0, 2, 3, 1),
        a=conv(), b=conv(), c=conv(11),
    )  # fmt: skip
    module, _ = quantized(model, (IMAGES,))
    (cat,) = calls(module, aten.cat.default)
    pool = calls(module, aten.max_pool2d.default)[0]
    first = parameters_after(cat)
    assert all(source.args[1:3] == first for source in cat.args[0])
    assert parameters_after(pool) == parameters_before(pool) == first
    (permute,) = calls(module, aten.permute.default)
    assert parameters_after(permute) == parameters_before(permute)
    assert sqnr_db(model(IMAGES), run(module, IMAGES)) > 35


def test_fixed_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    give_rule(monkeypatch, aten.sigmoid.default, "sigmoid", FixedOutput(1 / 256, -128))

    def function(a: nn.Module, b: nn.Module, x: torch.Tensor) -> Any:
        parts = [torch.sigmoid(a(x)).reshape(2, 4, 64, 1), 9 * x.reshape(2, 3, 64, 1)]
        return b(torch.cat(parts, 1))

    model = Model(function, a=conv(), b=conv(7))
    module, _ = quantized(model, (IMAGES,))
    (sigmoid,) = calls(module, aten.sigmoid.default)
    assert parameters_after(sigmoid) == (1 / 256, -128)
    reshape = next(n for n in module.graph.nodes if n.args and n.args[0] in _dequantizes(sigmoid))
    assert parameters_after(reshape)[0] == 1 / 256, "a reshape keeps what it is given"
    (cat,) = calls(module, aten.cat.default)
    shared = parameters_after(cat)
    assert shared[0] > 0.05
    assert [source.args[1:3] for source in cat.args[0]] == [shared, shared]
    assert sqnr_db(model(IMAGES), run(module, IMAGES)) > 30


def test_fixed_parameters_leave_a_narrow_range_its_bits() -> None:
    def function(a: nn.Module, b: nn.Module, x: torch.Tensor) -> Any:
        return b(torch.tanh(a(0.02 * x)))

    model = Model(function, a=conv(), b=conv(4))
    module, _ = quantized(model, (IMAGES,))
    (tanh,) = calls(module, aten.tanh.default)
    assert parameters_after(tanh)[0] < 1 / 256
    assert sqnr_db(model(IMAGES), run(module, IMAGES)) > 30


def test_padding_by_a_number_has_a_range_of_its_own() -> None:
    """The convolution before writes it at once where nobody else reads; another reader of the same
    value keeps that value's own range."""
    model = Model(lambda a, b, x: b(F.pad(a(x), (1, 1), value=9.0)), a=conv(), b=conv(4))
    module, report = quantized(model, (IMAGES,))
    assert not report.floating
    (pad,) = calls(module, aten.pad.default)
    assert parameters_before(pad) == parameters_after(pad)
    assert parameters_after(pad) == parameters_after(calls(module, aten.conv2d.default)[0])
    model = Model(
        lambda a, b, x: (lambda y: (b(F.pad(y, (1, 1), value=9.0)), b(y)))(a(x)),
        a=conv(),
        b=conv(4),
    )
    module, _ = quantized(model, (IMAGES,))
    (pad,) = calls(module, aten.pad.default)
    _, padded, plain = calls(module, aten.conv2d.default)
    assert parameters_before(padded) == parameters_before(pad) == parameters_after(pad)
    assert parameters_before(plain)[0] < parameters_after(pad)[0]


def test_padding_by_zero_shares() -> None:
    model = Model(
        lambda a, b, x: (lambda y: (b(F.pad(y, (1, 1))), b(y)))(a(x)), a=conv(), b=conv(4)
    )
    module, _ = quantized(model, (IMAGES,))
    (pad,) = calls(module, aten.pad.default)
    assert parameters_before(pad) == parameters_before(calls(module, aten.conv2d.default)[2])


def test_a_clamp_of_an_input_reads_it_in_its_own_range() -> None:
    model = Model(lambda c, x: c(F.relu(x)), c=conv())
    images = torch.where(IMAGES > 0, IMAGES, 100 * IMAGES)
    module, report = quantized(model, (images,))
    assert not report.floating
    assert sqnr_db(model(images), run(module, images)) > 35


def test_concatenation_with_a_constant() -> None:
    constant = torch.full((2, 1, 8, 8), 300.0)
    model = Model(
        lambda a, b, c, x: (lambda y: (b(torch.cat([y, constant], 1)), c(y)))(a(x)),
        a=conv(), b=conv(5), c=conv(4),
    )  # fmt: skip
    module, report = quantized(model, (IMAGES,))
    assert not report.floating
    assert sqnr_db(model(IMAGES)[1], run(module, IMAGES)[1]) > 35
